//! `/v1/replays`: recorded events delivered again, through a cursor of their own.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bellwire_dispatcher::replay;
use bellwire_ledger::{Ledger, ReplayRecord, ReplayState};
use bellwire_schemas::ReplayId;
use bellwire_schemas::api::{List, ReplayRequest, ReplayView};

use crate::server::app::Shared;
use crate::server::auth::Caller;
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// `GET /v1/replays`.
pub async fn list(State(app): State<Reads>) -> Result<Json<List<ReplayView>>, Problem> {
    let items = app.ledger().replays().await?.into_iter().map(view).collect();
    Ok(Json(List { items, next: None }))
}

/// `GET /v1/replays/{replay}`.
pub async fn show(State(app): State<Reads>, Path(id): Path<String>) -> Result<Json<ReplayView>, Problem> {
    Ok(Json(view(find(&app, &id).await?)))
}

/// How often a number is chosen anew because another controller took it first.
const TRIES: usize = 10;

/// `POST /v1/replays`: counts with `dry_run`, else starts. The same id twice gives the first one again.
pub async fn create(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ReplayRequest>,
) -> Result<Response, Problem> {
    if request.selector.is_empty() && !request.all {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "selector-required", "no event was chosen")
            .pointer("/selector")
            .hint("choose by address, id, time, source or state; `all` takes every event kept"));
    }
    let name = request.to.clone().or_else(|| request.selector.binding.clone());
    let binding = match name {
        Some(name) => Reads::from(&app).binding(&name).await?,
        None => app.only_binding(&request.selector).await?,
    };
    let now = app.clock.now();
    if request.dry_run {
        let plan = replay::plan(app.ledger().as_ref(), &request.selector, &binding, now).await?;
        return Ok(Json(plan).into_response());
    }
    if let Some(id) = &request.id
        && let Some(old) = app.ledger().replay(id).await?
    {
        return Ok(Json(view(old)).into_response());
    }
    let plan = replay::plan(app.ledger().as_ref(), &request.selector, &binding, now).await?;
    let mut until = BTreeMap::new();
    for lane in 1..=app.ledger().lanes() {
        let lane = bellwire_schemas::Lane(lane);
        until.insert(lane, app.ledger().tail(lane).await?);
    }
    let mut record = ReplayRecord {
        id: request.id.clone().unwrap_or_else(|| ReplayId::new("")),
        version: 1,
        selector: request.selector,
        binding: binding.id,
        binding_name: binding.name,
        state: ReplayState::Running,
        total: plan.total,
        enqueued: 0,
        cursor: BTreeMap::new(),
        until,
        by: caller.name,
        created_at: now,
    };
    if let Some(first) = store(app.ledger().as_ref(), &mut record, request.id.is_some()).await? {
        return Ok(Json(view(first)).into_response());
    }
    tracing::info!(target: "audit", verb = "replay", id = %record.id, by = %record.by, total = record.total, "replay");
    app.dispatcher.poke();
    Ok((StatusCode::CREATED, Json(view(record))).into_response())
}

/// Stores a new replay, under the next number when it has no name. Answers with the replay that another controller
/// stored under this name at the same time, if so.
async fn store(
    ledger: &dyn Ledger,
    record: &mut ReplayRecord,
    is_named: bool,
) -> Result<Option<ReplayRecord>, Problem> {
    for _ in 0..TRIES {
        if !is_named {
            record.id = next_id(ledger).await?;
        }
        ledger.save_replay(record, &[]).await?;
        match ledger.replay(&record.id).await?.filter(|stored| !is_same(stored, record)) {
            None => return Ok(None),
            Some(first) if is_named => return Ok(Some(first)),
            Some(_) => {}
        }
    }
    Err(Problem::new(StatusCode::CONFLICT, "conflict", "others start replays at the same time: try again"))
}

/// The number after the last one.
async fn next_id(ledger: &dyn Ledger) -> Result<ReplayId, Problem> {
    let number = |record: &ReplayRecord| record.id.as_str().strip_prefix("r-")?.parse::<u64>().ok();
    let last = ledger.replays().await?.iter().filter_map(number).max().unwrap_or(0);
    Ok(ReplayId::new(format!("r-{}", last.saturating_add(1))))
}

/// Whether the stored record came of this request: its state may have moved on.
fn is_same(stored: &ReplayRecord, asked: &ReplayRecord) -> bool {
    stored.created_at == asked.created_at && stored.by == asked.by && stored.selector == asked.selector
}

/// `POST /v1/replays/{replay}/pause`, `/resume`, `/cancel`.
pub async fn change(
    State(app): State<Shared>,
    Path((id, verb)): Path<(String, String)>,
) -> Result<Json<ReplayView>, Problem> {
    let record = find(&Reads::from(&app), &id).await?;
    let state = match verb.as_str() {
        "pause" => ReplayState::Paused,
        "resume" => ReplayState::Running,
        "cancel" => ReplayState::Cancelled,
        _ => return Err(Problem::not_found(format!("a replay cannot `{verb}`: pause, resume or cancel"))),
    };
    if matches!(record.state, ReplayState::Done | ReplayState::Cancelled) {
        let detail = format!("replay {id} is {} already", word(record.state));
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail));
    }
    let changed = app.dispatcher.change_replay(&record.id, state).await?;
    Ok(Json(view(changed.unwrap_or(record))))
}

async fn find(app: &Reads, id: &str) -> Result<ReplayRecord, Problem> {
    let found = app.ledger().replay(&ReplayId::new(id)).await?;
    found
        .ok_or_else(|| Problem::not_found(format!("no replay is called `{id}`")).hint("bellwire replay list"))
}

fn word(state: ReplayState) -> &'static str {
    match state {
        ReplayState::Running => "running",
        ReplayState::Paused => "paused",
        ReplayState::Cancelled => "cancelled",
        ReplayState::Done => "done",
    }
}

fn view(record: ReplayRecord) -> ReplayView {
    ReplayView {
        id: record.id,
        binding: record.binding_name,
        selector: record.selector,
        state: word(record.state).into(),
        total: record.total,
        enqueued: record.enqueued,
        by: record.by,
        created_at: record.created_at,
    }
}
