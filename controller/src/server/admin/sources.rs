//! `/v1/sources` and `/v1/bindings`: what they are, events by hand, pause and resume.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use bellwire_ledger::Pause;
use bellwire_schemas::SourceName;
use bellwire_schemas::api::{
    BindingStatus, List, PauseRequest, SendItem, SendRequest, SendResult, SourceStatus,
};
use bellwire_schemas::live::Fact;

use super::status::collect;
use crate::server::app::Shared;
use crate::server::auth::Caller;
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// The most events of one send.
const MAX_SENDS: u32 = 1_000;

/// `GET /v1/sources`.
pub async fn list(State(app): State<Shared>) -> Result<Json<List<SourceStatus>>, Problem> {
    Ok(Json(List { items: collect(&app).await?.sources, next: None }))
}

/// `GET /v1/sources/{source}`.
pub async fn show(
    State(app): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<SourceStatus>, Problem> {
    let found = collect(&app).await?.sources.into_iter().find(|s| s.name.as_str() == name);
    found.map(Json).ok_or_else(|| unknown_source(&app, &name))
}

/// `POST /v1/sources/{source}/sends`: through the source's own door, so that everything behind it is as real.
pub async fn send(
    State(app): State<Shared>,
    Path(name): Path<String>,
    Json(request): Json<SendRequest>,
) -> Result<Json<SendResult>, Problem> {
    let count = request.count.unwrap_or(1);
    if !(1..=MAX_SENDS).contains(&count) {
        return Err(Problem::bad_request(format!("count must be 1 to {MAX_SENDS}")).pointer("/count"));
    }
    send_all(&app, &name, &request, count).await.map(Json)
}

/// Sends through a source's own door, for the API and for `dev --samples`.
///
/// # Errors
/// 404 for an unknown source; what the door answers otherwise is in the items.
pub async fn send_all(
    app: &Shared,
    name: &str,
    request: &SendRequest,
    count: u32,
) -> Result<SendResult, Problem> {
    let mut result = SendResult { accepted: 0, items: Vec::new() };
    for turn in 0..count {
        let mut one = request.clone();
        if request.data.is_none() {
            one.sample = Some(request.sample.unwrap_or(0) + turn);
        }
        let items = app
            .intake
            .send(&SourceName::new(name), &one)
            .await
            .map_err(|refused| Problem::new(refused.status, refused.code, refused.detail))?
            .ok_or_else(|| unknown_source(app, name))?;
        result.items.extend(items);
    }
    result.accepted = result.items.iter().filter(|item: &&SendItem| item.status == "accepted").count() as u64;
    Ok(result)
}

/// `GET /v1/bindings`.
pub async fn bindings(State(app): State<Shared>) -> Result<Json<List<BindingStatus>>, Problem> {
    Ok(Json(List { items: collect(&app).await?.bindings, next: None }))
}

/// `GET /v1/bindings/{binding}`.
pub async fn binding(
    State(app): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<BindingStatus>, Problem> {
    let found = collect(&app).await?.bindings.into_iter().find(|b| b.name.as_str() == name);
    found.map(Json).ok_or_else(|| {
        Problem::not_found(format!("no binding is called `{name}`")).hint("bellwire bindings list")
    })
}

/// `POST /v1/bindings/{binding}/pause`: nothing more is started; the position is kept.
pub async fn pause(
    State(app): State<Shared>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<PauseRequest>,
) -> Result<Json<BindingStatus>, Problem> {
    let pause = Pause { since: app.clock.now(), by: caller.name.clone(), reason: request.reason };
    set_paused(app, name, Some(pause), &caller).await
}

/// `POST /v1/bindings/{binding}/resume`: goes on where it stood.
pub async fn resume(
    State(app): State<Shared>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Json(_): Json<PauseRequest>,
) -> Result<Json<BindingStatus>, Problem> {
    set_paused(app, name, None, &caller).await
}

async fn set_paused(
    app: Shared,
    name: String,
    pause: Option<Pause>,
    caller: &Caller,
) -> Result<Json<BindingStatus>, Problem> {
    let record = Reads::from(&app).binding(&name.as_str().into()).await?;
    if !record.active {
        let detail = format!("binding `{name}` is not in the configuration any more");
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail));
    }
    let state = if pause.is_some() { "paused" } else { "resumed" };
    app.ledger().set_paused(record.id, pause.clone()).await?;
    app.dispatcher.set_paused(&record.name, pause.clone());
    let detail = pause.map(|p| p.reason).unwrap_or_default();
    tracing::info!(target: "audit", verb = state, binding = %name, by = %caller.name, reason = %detail, "binding");
    let _ = app.live.send(Fact::Condition {
        at: app.clock.now(),
        subject: name.clone(),
        state: state.into(),
        detail,
    });
    binding(State(app), Path(name)).await
}

fn unknown_source(app: &Shared, name: &str) -> Problem {
    let known: Vec<_> = app.intake.status().into_iter().map(|s| s.name.to_string()).collect();
    Problem::not_found(format!("no source is called `{name}`")).hint(format!("known: {}", known.join(", ")))
}
