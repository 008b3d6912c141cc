//! The ingress door: `/hooks`, `/s3`, `/topics`. Checked per source; the body is bounded before it is read.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bellwire_connectors::{BodyRoom, DoorRequest, DoorResponse, Refused, Route};
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
    let mut room = app.intake.room(path);
    let body = match read(body, limit, &mut room).await {
        Ok(Ok(body)) => body,
        Ok(Err(refused)) => return Ok(respond(refused.response())),
        Err(problem) => {
            app.intake.refuse(path, "body-too-large", peer).await;
            return Err(problem);
        }
    };
    drop(room);
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

/// Reads a body up to the limit, while there is room for it. What is larger, or finds no room, is still taken off the
/// wire for a while, unkept: a connection that is closed on a sender in mid-sentence is reset, and the sender never
/// sees why.
async fn read(
    mut body: Body,
    limit: u64,
    room: &mut BodyRoom<'_>,
) -> Result<Result<Bytes, Refused>, Problem> {
    let reading = async {
        let (mut kept, mut seen, mut refused) = (BytesMut::new(), 0_u64, None);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            seen += data.len() as u64;
            if seen <= limit && refused.is_none() {
                refused = room.grow(data.len()).err();
            }
            if seen <= limit && refused.is_none() {
                kept.extend_from_slice(&data);
            } else {
                kept = BytesMut::new();
            }
            if seen > limit + LINGER_BYTES {
                break;
            }
        }
        Ok::<_, axum::Error>((kept, seen, refused))
    };
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok((kept, seen, refused))) if seen <= limit => Ok(refused.map_or_else(|| Ok(kept.freeze()), Err)),
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
