//! From parcels to an answer: what is durable, what is not, and what the sender is told.

use std::net::SocketAddr;
use std::time::Duration;

use bellwire_schemas::api::{SendItem, SendResult};
use bellwire_schemas::{SourceName, crash_point};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Intake, member};
use crate::appender::{CommitError, Item};
use crate::contract::Fate;
use crate::meter::Kind;
use crate::pressure::MEMORY;
use crate::rules::{Ruled, rule};
use crate::{DoorResponse, Parcel, Refused};

/// When a sender should come again: soon, the queue moves within a commit.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// When a sender should come again to a full ledger or a disabled source: an operator must act.
const RETRY_LATER: Duration = Duration::from_secs(30);

/// Why a sender is pushed back whose request finds no room.
const TOO_MANY: &str = "too many events wait for the ledger: `limits.memory` bounds them";

impl Intake {
    /// Says of a source that its senders are pushed back for want of memory.
    pub(super) fn note_busy(&self, source: &SourceName) {
        let reason = format!("{MEMORY}: {TOO_MANY}");
        self.appender.trouble(source, Kind::Paused, reason);
    }

    /// Stores parcels and answers with one item each, in order.
    pub(super) async fn store(&self, parcels: Vec<Parcel>, peer: Option<SocketAddr>) -> DoorResponse {
        crash_point("source.recv");
        let now = self.appender.clock.now();
        let mut answers = Vec::with_capacity(parcels.len());
        let mut items = Vec::new();
        for parcel in parcels {
            match rule(parcel, self.limits.event_bytes, now) {
                Ruled::Event(ready) => {
                    answers.push(Slot::Waits(Some(ready.event.id.clone())));
                    items.push(Item::Event(ready));
                }
                Ruled::Quarantine(kept) => {
                    answers.push(Slot::Waits(None));
                    items.push(Item::Quarantine(kept));
                }
                Ruled::Refused { source, id, code, detail } => {
                    self.note_refused(source.as_str(), code, &detail, peer);
                    answers.push(Slot::Done(refused_item(id, code, detail)));
                }
            }
        }
        let fates = if items.is_empty() { Ok(Vec::new()) } else { self.commit(items).await };
        let response = match fates {
            Ok(fates) => answer(answers, fates),
            Err(refused) => refused.response(),
        };
        crash_point("source.ack");
        response
    }

    /// Waits for the commit of all items; an error says that the sender must come again.
    async fn commit(&self, items: Vec<Item>) -> Result<Vec<Fate>, Refused> {
        let stopping = || {
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "shutting-down", "the controller is stopping")
                .retry_after(RETRY_SOON)
        };
        let until = Instant::now() + self.limits.answer_within;
        let inbox = self.inbox().ok_or_else(stopping)?;
        let submitted = inbox.submit(items, until).map_err(|items| {
            self.appender.sources(&items, |source| self.note_busy(source));
            busy()
        });
        drop(inbox);
        let answer = submitted?;
        match tokio::time::timeout_at(until, answer).await {
            Ok(Ok((fates, None))) => Ok(fates.into_iter().flatten().collect()),
            Ok(Ok((_, Some(error)))) => Err(refusal_of(&error)),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(refusal_of(&CommitError::Unavailable("the ledger did not answer in time".into()))),
        }
    }
}

/// What a sender is told who would fill the memory.
pub(super) fn busy() -> Refused {
    Refused::new(StatusCode::TOO_MANY_REQUESTS, "busy", TOO_MANY).retry_after(RETRY_SOON)
}

enum Slot {
    /// For its fate; the event's id, if it is one.
    Waits(Option<String>),
    /// Refused before it came to the ledger.
    Done(SendItem),
}

/// 202 as soon as one item is durable; else the first refusal decides (surface 3.1).
fn answer(slots: Vec<Slot>, fates: Vec<Fate>) -> DoorResponse {
    let mut fates = fates.into_iter();
    let mut accepted = 0;
    let mut durable = slots.is_empty();
    let mut items = Vec::with_capacity(slots.len());
    for slot in slots {
        let id = match slot {
            Slot::Done(item) => {
                items.push(item);
                continue;
            }
            Slot::Waits(id) => id,
        };
        let Some(fate) = fates.next() else { continue };
        durable = true;
        accepted += u64::from(!matches!(fate, Fate::Quarantined(_)));
        items.push(durable_item(id, fate));
    }
    let first = items.iter().find_map(|item| Some((item.code.clone()?, item.detail.clone()?)));
    let body = json!(SendResult { accepted, items });
    match first {
        Some((code, detail)) if !durable => nothing_durable(&code, detail, body),
        _ => DoorResponse::json(StatusCode::ACCEPTED, body),
    }
}

fn durable_item(id: Option<String>, fate: Fate) -> SendItem {
    let (status, address, code, detail) = match fate {
        Fate::Accepted(address) => ("accepted", Some(address), None, None),
        Fate::Duplicate(address) => ("duplicate", Some(address), None, None),
        Fate::Quarantined(reason) => ("quarantined", None, Some("quarantined".to_owned()), Some(reason)),
    };
    SendItem { status: status.into(), id, address, code, detail }
}

fn refused_item(id: Option<String>, code: &'static str, detail: String) -> SendItem {
    SendItem { status: "refused".into(), id, address: None, code: Some(code.into()), detail: Some(detail) }
}

fn nothing_durable(code: &str, detail: String, body: Value) -> DoorResponse {
    let refused = match code {
        "event-too-large" => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "event-too-large", detail),
        "source-disabled" => {
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "source-disabled", detail).retry_after(RETRY_LATER)
        }
        "bad-cloudevent" => Refused::new(StatusCode::BAD_REQUEST, "bad-cloudevent", detail),
        "bad-attribute" => Refused::new(StatusCode::BAD_REQUEST, "bad-attribute", detail),
        _ => Refused::bad_request(detail),
    };
    let [accepted, items] = [body["accepted"].clone(), body["items"].clone()];
    refused.response_with([("accepted", accepted), ("items", items)])
}

fn refusal_of(error: &CommitError) -> Refused {
    let (status, code, after) = match error {
        CommitError::Full(_) => (StatusCode::TOO_MANY_REQUESTS, "ledger-full", RETRY_LATER),
        CommitError::Broken(_) => (StatusCode::SERVICE_UNAVAILABLE, "ledger-unavailable", RETRY_LATER),
        CommitError::Unavailable(_) | CommitError::Conflict(_) | CommitError::Stopped => {
            (StatusCode::SERVICE_UNAVAILABLE, "ledger-unavailable", RETRY_SOON)
        }
    };
    Refused::new(status, code, error.to_string()).retry_after(after)
}

/// The items of an answer, or the refusal of the whole request.
pub(super) fn items_of(response: DoorResponse) -> Result<Vec<SendItem>, Refused> {
    if let Some(items) = member(&response.body, "items")
        && let Ok(items) = serde_json::from_value(items.clone())
    {
        return Ok(items);
    }
    if response.status.is_success() {
        return Ok(Vec::new());
    }
    let text = |name| member(&response.body, name).and_then(Value::as_str).unwrap_or_default();
    let code = KNOWN_CODES.into_iter().find(|code| *code == text("code")).unwrap_or("bad-request");
    Err(Refused::new(response.status, code, text("detail")))
}

/// Stable words of whole refusals.
const KNOWN_CODES: [&str; 12] = [
    "bad-request",
    "bad-cloudevent",
    "bad-signature",
    "unauthorized",
    "unsupported-encoding",
    "unsupported-media-type",
    "method-not-allowed",
    "not-found",
    "busy",
    "ledger-full",
    "ledger-unavailable",
    "shutting-down",
];
