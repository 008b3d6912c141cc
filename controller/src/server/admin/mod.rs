//! The admin door: `/v1`, health, metrics. A token always; the open paths are an exact list.
//!
//! Handlers translate between HTTP and the rooms behind; they decide nothing. Read `mod.rs` for the routes, then the
//! file named like the resource.

mod bindings;
mod cluster;
mod dead_letters;
mod deliveries;
mod events;
mod functions;
mod health;
mod live;
mod metrics;
mod owed;
mod pressure;
mod query;
mod replays;
mod sources;
mod status;
#[cfg(test)]
mod testing;
mod verify;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRef, Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, response::Redirect};
use bellwire_schemas::service::Role;

pub use sources::send_all;
pub use status::collect as collect_status;
pub use verify::sums;

use super::app::Shared;
use super::auth::{Tokens, check_host};
use super::problem::{CODES, Problem};
use super::reads::Reads;

/// Bodies of management requests are small; events to `invoke` and `send` may be as large as an event.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Paths that answer without a token. Nothing else does, whatever it ends in.
const OPEN: &[&str] = &["/healthz/live", "/healthz/ready"];

/// All routes of the admin door.
pub fn router(app: Shared) -> Router {
    let v1 = Router::new()
        .route("/status", get(status::status))
        .route("/lanes", get(cluster::lane_list))
        .route("/controllers", get(cluster::controller_list))
        .route("/sources", get(sources::list))
        .route("/sources/{source}", get(sources::show))
        .route("/sources/{source}/sends", post(sources::send))
        .route("/bindings", get(bindings::list))
        .route("/bindings/{binding}", get(bindings::show))
        .route("/bindings/{binding}/pause", post(bindings::pause))
        .route("/bindings/{binding}/resume", post(bindings::resume))
        .route("/functions", get(functions::list))
        .route("/functions/{function}", get(functions::show))
        .route("/functions/{function}/invocations", post(functions::invoke))
        .route("/deliveries/cancel", post(deliveries::cancel))
        .route("/dead-letters/redrive", post(dead_letters::redrive))
        .route("/dead-letters/discard", post(dead_letters::discard))
        .route("/replays", post(replays::create))
        .route("/replays/{replay}/{verb}", post(replays::change))
        .merge(reading())
        .route("/live", get(live::live));
    let gate = Gate { tokens: Arc::clone(&app.tokens), own: app.settings.admin.clone() };
    let routes = Router::new()
        .nest("/v1", v1)
        .route("/healthz/live", get(health::live))
        .route("/healthz/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/e/{code}", get(error_page))
        .route("/", get(|| async { Redirect::temporary("/v1/status") }));
    guarded(routes, gate, "no such path; `/v1` holds the management api").with_state(app)
}

/// The reading part over a ledger without a controller.
pub fn reading_router(reads: Reads, tokens: Arc<Tokens>) -> Router {
    let routes = Router::new().nest("/v1", reading());
    let gate = Gate { tokens, own: String::new() };
    guarded(routes, gate, "this needs a running controller: with --ledger only what is stored can be read")
        .with_state(reads)
}

/// What can be answered from the ledger alone.
fn reading<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Reads: FromRef<S>,
{
    Router::new()
        .route("/events", get(events::list))
        .route("/events/{which}", get(events::show))
        .route("/events/{which}/explanation", get(events::explanation))
        .route("/absences", get(events::absence))
        .route("/quarantined", get(events::quarantined))
        .route("/deliveries", get(deliveries::list))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/groups", get(dead_letters::groups))
        .route("/dead-letters/{which}", get(dead_letters::show))
        .route("/replays", get(replays::list))
        .route("/replays/{replay}", get(replays::show))
        .route("/verifications", post(verify::verify))
}

/// Who guards a door.
#[derive(Clone)]
struct Gate {
    tokens: Arc<Tokens>,
    /// The door's own address, which `Host` may name.
    own: String,
}

fn guarded<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    gate: Gate,
    absent: &'static str,
) -> Router<S> {
    routes
        .fallback(move || async move { Problem::not_found(absent) })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "bad-request", "this path does not take that method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(gate, guard))
}

/// Lets a request through: host first, then the token, then its role. Reading needs `read`, writing `operate`.
async fn guard(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    if let Err(problem) = check_host(request.headers(), &gate.own) {
        return problem.into_response();
    }
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let needed = if reads { Role::Read } else { Role::Operate };
    let caller = gate.tokens.caller(request.headers()).and_then(|caller| caller.may(needed).map(|()| caller));
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            as_problem(next.run(request).await).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Extractor rejections arrive as plain text: they leave as problems like every other error.
async fn as_problem(response: Response) -> Response {
    let plain =
        response.headers().get(header::CONTENT_TYPE).is_none_or(|t| t.as_bytes().starts_with(b"text/plain"));
    if !response.status().is_client_error() || !plain {
        return response;
    }
    let status = response.status();
    let text = axum::body::to_bytes(response.into_body(), 64 << 10).await.unwrap_or_default();
    let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "body-too-large" } else { "bad-request" };
    Problem::new(status, code, String::from_utf8_lossy(&text)).into_response()
}

/// `GET /e/{code}`: the page of an error code.
async fn error_page(Path(code): Path<String>) -> Result<Html<String>, Problem> {
    let (code, title, text) = CODES
        .iter()
        .find(|(known, _, _)| *known == code)
        .ok_or_else(|| Problem::not_found(format!("no error has the code `{code}`")))?;
    Ok(Html(format!(
        "<!doctype html><meta charset=utf-8><title>{code}</title><h1>{title}</h1><p><code>{code}</code><p>{text}"
    )))
}
