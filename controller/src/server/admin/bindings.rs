//! `/v1/bindings`: what they are and how they stand, pause and resume.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use bellwire_ledger::{BindingRecord, Pause};
use bellwire_schemas::api::{BindingDetail, BindingStatus, List, PauseRequest, PauseView};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{Address, BindingName, Lane, Seq};

use super::status::{collect_bindings, pause_view};
use crate::server::app::{App, Shared};
use crate::server::auth::Caller;
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// `GET /v1/bindings`.
pub async fn list(State(app): State<Shared>) -> Result<Json<List<BindingStatus>>, Problem> {
    Ok(Json(List { items: collect_bindings(&app).await?, next: None }))
}

/// `GET /v1/bindings/{binding}`.
pub async fn show(
    State(app): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<BindingDetail>, Problem> {
    let record = Reads::from(&app).binding(&BindingName::new(name)).await?;
    detail(&app, &record, None).await.map(Json)
}

/// `POST /v1/bindings/{binding}/pause`: nothing more is started; the position is kept. Pausing again changes the
/// reason, not the time.
pub async fn pause(
    State(app): State<Shared>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<PauseRequest>,
) -> Result<Json<BindingDetail>, Problem> {
    let record = active(&app, name).await?;
    let since = record.paused.as_ref().map_or_else(|| app.clock.now(), |pause| pause.since);
    let pause = Pause { since, by: caller.name.clone(), reason: request.reason };
    set_paused(&app, &record, Some(pause), &caller).await?;
    detail(&app, &record, None).await.map(Json)
}

/// `POST /v1/bindings/{binding}/resume`: goes on where it stood; the answer says since when it was paused, and what
/// waits now.
pub async fn resume(
    State(app): State<Shared>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Json(_): Json<PauseRequest>,
) -> Result<Json<BindingDetail>, Problem> {
    let record = active(&app, name).await?;
    let was_paused = record.paused.as_ref().map(pause_view);
    let live = app.dispatcher.binding_live(record.id);
    let is_disabled = live.is_some_and(|live| live.reason == Some("binding-disabled"));
    if is_disabled && was_paused.is_none() {
        let detail = format!("binding `{}` is not paused: the configuration disables it", record.name);
        let problem = Problem::new(StatusCode::CONFLICT, "conflict", detail);
        return Err(problem.hint("change `enabled: false` in its entry of `events:`"));
    }
    // Counted before anything starts again.
    let before = detail(&app, &record, was_paused).await?;
    set_paused(&app, &record, None, &caller).await?;
    let after = detail(&app, &record, None).await?;
    let (waiting, retrying) = (before.status.waiting, before.status.retrying);
    let status = BindingStatus { waiting, retrying, ..after.status };
    Ok(Json(BindingDetail { status, ..before }))
}

async fn active(app: &Shared, name: String) -> Result<BindingRecord, Problem> {
    let record = Reads::from(app).binding(&BindingName::new(&*name)).await?;
    if record.active {
        return Ok(record);
    }
    let detail = format!("binding `{name}` is not in the configuration any more");
    Err(Problem::new(StatusCode::CONFLICT, "conflict", detail))
}

async fn set_paused(
    app: &App,
    record: &BindingRecord,
    pause: Option<Pause>,
    caller: &Caller,
) -> Result<(), Problem> {
    let state = if pause.is_some() { "paused" } else { "resumed" };
    app.ledger().set_paused(record.id, pause.clone()).await?;
    app.dispatcher.set_paused(&record.name, pause.clone());
    let detail = pause.map(|p| p.reason).unwrap_or_default();
    let name = &record.name;
    tracing::info!(target: "audit", verb = state, binding = %name, by = %caller.name, reason = %detail, "binding");
    let (at, subject) = (app.clock.now(), name.to_string());
    let _ = app.live.send(Fact::Condition { at, subject, state: state.into(), detail });
    Ok(())
}

async fn detail(
    app: &App,
    record: &BindingRecord,
    was_paused: Option<PauseView>,
) -> Result<BindingDetail, Problem> {
    let found = collect_bindings(app).await?.into_iter().find(|b| b.name == record.name);
    let status = found.ok_or_else(|| {
        Problem::not_found(format!("no binding is called `{}`", record.name)).hint("bellwire bindings list")
    })?;
    let mut position = Vec::new();
    for lane in (1..=app.ledger().lanes()).map(Lane) {
        position.push(Address::new(lane, app.ledger().checkpoint(lane, record.id).await?.mark));
    }
    Ok(BindingDetail {
        status,
        policy: app.declared().policies.get(&record.name).cloned(),
        effective_from: record
            .since
            .iter()
            .map(|(lane, last)| Address::new(*lane, Seq(last.0 + 1)))
            .collect(),
        position,
        was_paused,
    })
}
