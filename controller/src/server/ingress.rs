//! The ingress door: `/hooks`, `/s3`, `/topics`. Checked per source; the body is bounded before it is read.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bellwire_connectors::{DoorRequest, DoorResponse, Route};
use bellwire_schemas::service::Role;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::app::Shared;
use super::problem::Problem;

/// A sender must have delivered its body after this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body beyond the limit is read and thrown away before the answer.
const LINGER_BYTES: u64 = 32 << 20;
/// A batch may hold several events: the body limit is this many times the event limit, and never above 64 MiB.
const EVENTS_PER_BODY: u64 = 16;

/// All paths of the ingress door; which exist is known to the intake, not to the router.
pub fn router(app: Shared) -> Router {
    Router::new().fallback(enter).with_state(app)
}

async fn enter(State(app): State<Shared>, request: Request) -> Response {
    match admit(&app, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn admit(app: &Shared, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    let path = parts.uri.path();
    let Some(route) = app.intake.route(path) else {
        return Err(Problem::not_found(format!("nothing takes events in at {path}"))
            .hint("`bellwire status` lists the sources and their doors"));
    };
    // Stores probe with `HEAD` before they are given a token: it tells nothing and stores nothing.
    if route == Route::Token && parts.method != Method::HEAD {
        let caller = app.tokens.caller(&parts.headers).and_then(|caller| caller.may(Role::Publish));
        if let Err(problem) = caller {
            app.intake.refuse(path, "unauthorized", peer).await;
            return Err(problem);
        }
    }
    let limit = app.body_limit();
    let body = match read(body, limit).await {
        Ok(body) => body,
        Err(problem) => {
            app.intake.refuse(path, "body-too-large", peer).await;
            return Err(problem);
        }
    };
    let request = DoorRequest {
        method: parts.method,
        path: path.to_string(),
        query: parts.uri.query().map(String::from),
        headers: parts.headers,
        body,
        peer,
    };
    Ok(respond(app.intake.handle(request).await))
}

/// Reads a body up to the limit. What is larger is still taken off the wire for a while, unkept: a connection that is
/// closed on a sender in mid-sentence is reset, and the sender never sees why.
async fn read(mut body: Body, limit: u64) -> Result<Bytes, Problem> {
    let reading = async {
        let (mut kept, mut seen) = (BytesMut::new(), 0_u64);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            seen += data.len() as u64;
            if seen <= limit {
                kept.extend_from_slice(&data);
            } else {
                kept = BytesMut::new();
            }
            if seen > limit + LINGER_BYTES {
                break;
            }
        }
        Ok::<_, axum::Error>((kept, seen))
    };
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok((kept, seen))) if seen <= limit => Ok(kept.freeze()),
        Ok(Ok(_)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            format!("the body is larger than {limit} bytes"),
        )
        .hint("`limits.event_size` sets the largest event")),
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body broke off: {error}"))),
        Err(_) => {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "bad-request", "the body did not come in time"))
        }
    }
}

fn respond(answer: DoorResponse) -> Response {
    let mut response = match answer.body {
        Some(body) => (answer.status, axum::Json(body)).into_response(),
        None => answer.status.into_response(),
    };
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value);
    }
    if answer.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

/// The largest body for a given event limit, in bytes.
pub fn body_limit(event_size: u64) -> u64 {
    (event_size * EVENTS_PER_BODY).min(64 << 20)
}
