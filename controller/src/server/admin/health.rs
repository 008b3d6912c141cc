//! `/healthz/live` and `/healthz/ready`: the process answers; and work really moves.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::status::collect;
use crate::server::app::Shared;

/// A ledger that takes longer than this does not answer: probes give up after a few seconds themselves.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /healthz/live`: 200 while the process answers at all.
pub async fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

/// `GET /healthz/ready`: 503 with the reasons while the ledger does not answer, a source does not take events in, or a
/// lane has no owner.
pub async fn ready(State(app): State<Shared>) -> (StatusCode, Json<Value>) {
    let reasons: Vec<String> = match timeout(PATIENCE, collect(&app)).await {
        Ok(Ok(status)) => {
            let sources = status.sources.iter().filter(|s| s.state == "failing").map(|s| {
                format!("source {} fails: {}", s.name, s.reason.as_deref().unwrap_or("no reason known"))
            });
            let lanes = status
                .lanes
                .iter()
                .filter(|lane| lane.owner.is_none())
                .map(|lane| format!("lane {} has no owner", lane.lane));
            let leases = status.problems.iter().filter(|p| p.code == "ledger-unavailable");
            sources.chain(lanes).chain(leases.map(|p| p.detail.clone())).collect()
        }
        Ok(Err(problem)) => vec![format!("the ledger does not answer: {}", problem.detail())],
        Err(_) => vec!["the ledger does not answer in time".into()],
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons})))
}
