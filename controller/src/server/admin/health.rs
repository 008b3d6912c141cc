//! `/healthz/live` and `/healthz/ready`: the process answers; and work really moves.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::status::collect;
use crate::server::app::Shared;

/// `GET /healthz/live`: 200 while the process answers at all.
pub async fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

/// `GET /healthz/ready`: 503 with the reasons while a source does not take events in or a lane is not owned.
pub async fn ready(State(app): State<Shared>) -> (StatusCode, Json<Value>) {
    let reasons: Vec<String> = match collect(&app).await {
        Ok(status) => {
            let sources = status.sources.iter().filter(|s| s.state == "failing").map(|s| {
                format!("source {} fails: {}", s.name, s.reason.as_deref().unwrap_or("no reason known"))
            });
            let lanes = status
                .lanes
                .iter()
                .filter(|l| !l.owned)
                .map(|l| format!("lane {} has no owner here", l.lane));
            sources.chain(lanes).collect()
        }
        Err(_) => vec!["the ledger does not answer".into()],
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons})))
}
