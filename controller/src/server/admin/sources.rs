//! `/v1/sources`: what they are, and events by hand.

use axum::Json;
use axum::extract::{Path, State};
use bellwire_schemas::SourceName;
use bellwire_schemas::api::{List, SendItem, SendRequest, SendResult, SourceStatus};

use super::status::collect;
use crate::server::app::Shared;
use crate::server::problem::Problem;

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

fn unknown_source(app: &Shared, name: &str) -> Problem {
    let known: Vec<_> = app.intake.status().into_iter().map(|s| s.name.to_string()).collect();
    Problem::not_found(format!("no source is called `{name}`")).hint(format!("known: {}", known.join(", ")))
}
