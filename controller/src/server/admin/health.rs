//! `/healthz/live` and `/healthz/ready`: the process answers; and work really moves.

use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bellwire_connectors::pressure::LEDGER_FULL;
use bellwire_schemas::api::{SourceStatus, Status};
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

/// `GET /healthz/ready`: 503 with the reasons while the ledger does not answer, a source does not take events in, a
/// lane has no owner, or something that has work does not advance. `held_back` names what waits for somebody else.
pub async fn ready(State(app): State<Shared>) -> (StatusCode, Json<Value>) {
    let (reasons, held_back) = match timeout(PATIENCE, collect(&app)).await {
        Ok(Ok(status)) => (unready(&status), held_back(&status)),
        Ok(Err(problem)) => (vec![format!("the ledger does not answer: {}", problem.detail())], Vec::new()),
        Err(_) => (vec!["the ledger does not answer in time".into()], Vec::new()),
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons, "held_back": held_back})))
}

/// What waits without being the controller's fault: for memory that is full for a moment, for a target that is away.
/// Codes only: this path is open, and details may quote a function.
fn held_back(status: &Status) -> Vec<String> {
    let code = |reason: &Option<String>| {
        let reason = reason.as_deref().unwrap_or("no reason known");
        reason.split_once(':').map_or(reason, |(code, _)| code).to_owned()
    };
    let told = |reason: &str| reason == "enabled: false" || reason.starts_with(LEDGER_FULL);
    let held = |s: &&SourceStatus| s.state == "paused" && !s.reason.as_deref().is_some_and(told);
    let sources = status.sources.iter().filter(held);
    let sources = sources.map(|s| format!("source {} is held back: {}", s.name, code(&s.reason)));
    let waiting = status.bindings.iter().filter(|b| b.state == "waiting" && b.reason.is_some());
    sources.chain(waiting.map(|b| format!("binding {} waits: {}", b.name, code(&b.reason)))).collect()
}

/// Why a controller is not ready. What an operator or the configuration holds back is meant to stand still, full memory
/// passes in a moment, and a target that is away is not for the controller to mend: neither is a reason.
fn unready(status: &Status) -> Vec<String> {
    let of = |subject: &dyn Display, what: &str, reason: Option<&str>| {
        format!("{subject} {what}: {}", reason.unwrap_or("no reason known"))
    };
    let sources = status.sources.iter().filter_map(|s| {
        let what = match s.state.as_str() {
            "failing" => "fails",
            "stalled" => "does not advance",
            "paused" if s.reason.as_ref().is_some_and(|reason| reason.starts_with(LEDGER_FULL)) => {
                "takes nothing in"
            }
            _ => return None,
        };
        Some(of(&format_args!("source {}", s.name), what, s.reason.as_deref()))
    });
    let lanes = status.lanes.iter().filter(|lane| lane.owner.is_none());
    let lanes = lanes.map(|lane| format!("lane {} has no owner", lane.lane));
    let stalled = status.bindings.iter().filter(|b| b.state == "stalled").map(|b| {
        let reason = b.detail.as_deref().or(b.reason.as_deref());
        of(&format_args!("binding {}", b.name), "does not advance", reason)
    });
    let leases = status.problems.iter().filter(|p| p.code == "ledger-unavailable");
    sources.chain(lanes).chain(stalled).chain(leases.map(|p| p.detail.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_advance_is_a_reason_and_what_is_held_back_is_none() {
        let source = |name: &str, state: &str, reason: &str| {
            json!({
                "name": name, "kind": "kafka", "state": state, "reason": reason, "entrance": "", "accepted": 0,
                "duplicate": 0, "quarantined": 0, "refused": 0, "last_at": null
            })
        };
        let binding = |name: &str, state: &str, reason: &str| {
            json!({
                "name": name, "source": "s", "function": "f", "state": state, "reason": reason, "detail": null,
                "revision": 1, "running": 0, "waiting": 1, "retrying": 0, "delivered": 0, "filtered": 0, "expired": 0,
                "dead": 0, "discarded": 0, "oldest_owed_at": null
            })
        };
        let status: Status = serde_json::from_value(json!({
            "version": "0", "services": [], "started_at": "2026-03-02T11:57:00Z",
            "listen": {"ingress": "", "admin": ""},
            "ledger": {"url": "", "size_bytes": 0, "max_size_bytes": null, "retention_ms": 0},
            "sources": [
                source("a", "ok", ""), source("b", "paused", "memory: too many events wait"),
                source("off", "paused", "enabled: false"), source("c", "failing", "refused"),
                source("d", "stalled", "no record for 60 s"), source("e", "paused", "ledger-full: 1 GB of 1 GB")
            ],
            "bindings": [
                binding("f:a", "paused", "binding-paused"), binding("f:b", "waiting", "breaker-open"),
                binding("f:c", "stalled", "lane 2 has not moved for 60 s")
            ],
            "functions": [], "problems": [],
            "lanes": [{"lane": 3, "tail": 1, "owned": false, "epoch": 1}],
        }))
        .unwrap();
        let expected = [
            "source c fails: refused",
            "source d does not advance: no record for 60 s",
            "source e takes nothing in: ledger-full: 1 GB of 1 GB",
            "lane 3 has no owner",
            "binding f:c does not advance: lane 2 has not moved for 60 s",
        ];
        assert_eq!(unready(&status), expected);
        assert_eq!(held_back(&status), ["source b is held back: memory", "binding f:b waits: breaker-open"]);
    }
}
