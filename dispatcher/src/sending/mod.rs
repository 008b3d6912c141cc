//! What a binding sends when a delivery ended, and what its function sent on the way: events that the flush appends
//! together with the outcome.
//!
//! This room makes the events and nothing else: one is sent if and only if its outcome commits, and delivered from the ledger
//! like any other. `record.rs` writes what it carries. See `docs/decisions/0010-outbox.md`.

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwire_ledger::append::lane_of;
use bellwire_ledger::{NewEvent, StoredEvent};
use bellwire_schemas::brokers::{Sending, SendingPayload};
use bellwire_schemas::service::BindingSpec;
use bellwire_schemas::{ErrorInfo, Event, ReplayId, SourceName, Timestamp};
use bellwire_workers::{Answer, Emission};
use serde_json::Value;
use uuid::Uuid;

use crate::shape::Account;

/// The type of what is sent when a delivery succeeded.
pub const SUCCEEDED: &str = "bellwire.delivery.succeeded";
/// The type of what is sent when a delivery was given up.
pub const FAILED: &str = "bellwire.delivery.failed";
/// Attributes of the event that are passed on: they belong to all that it brings about.
const PASSED_ON: [&str; 3] = ["traceparent", "tracestate", "correlationid"];

/// How a delivery ended, as far as it is told.
#[derive(Clone, Debug)]
pub(crate) enum End<'a> {
    /// The function answered.
    Delivered(&'a Answer),
    /// It was given up after this failure.
    Dead(&'a ErrorInfo),
    /// It grew too old, after this failure or before any attempt.
    Expired(Option<&'a ErrorInfo>),
}

/// The end of one delivery.
#[derive(Clone, Debug)]
pub(crate) struct Report<'a> {
    pub(crate) end: End<'a>,
    pub(crate) at: Timestamp,
    /// Attempts made.
    pub(crate) attempts: u32,
    /// Which invocation was the last.
    pub(crate) request_id: &'a str,
    pub(crate) function: &'a str,
    /// The function's version that ran, empty when none did.
    pub(crate) version: &'a str,
    /// Since when the delivery was owed: a redrive begins anew.
    pub(crate) since: Timestamp,
    pub(crate) replay: Option<&'a ReplayId>,
    pub(crate) account: Account,
}

/// Limits of what is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Lanes of the ledger.
    pub(crate) lanes: u16,
    /// Largest event.
    pub(crate) event_bytes: usize,
}

/// What a binding sends after this end, if anything.
pub(crate) fn wanted<'a>(spec: &'a BindingSpec, end: &End<'_>) -> Option<&'a Sending> {
    match end {
        End::Delivered(_) => spec.on_success.as_ref(),
        End::Dead(_) | End::Expired(_) => spec.on_failure.as_ref(),
    }
}

/// The event that goes out. `request` is what the function received.
///
/// Its id is the same whenever the same attempt of the same delivery ends the same way, so that receivers know a repeat.
/// It keeps the key, and with it the order, of the event that caused it; without one it goes to the same lane.
pub(crate) fn event(
    binding: &str,
    sending: &Sending,
    stored: &StoredEvent,
    report: &Report<'_>,
    request: &bytes::Bytes,
    bounds: Bounds,
) -> NewEvent {
    let (data, datacontenttype) = match sending.payload {
        SendingPayload::Record => {
            (record::record(report, request, bounds.event_bytes), Some(record::JSON.to_owned()))
        }
        SendingPayload::Result => record::result(report, bounds.event_bytes),
    };
    let mut extensions = BTreeMap::new();
    descend(&mut extensions, stored);
    if let Some(key) = &stored.key {
        extensions.insert("partitionkey".into(), key.clone().into());
    }
    let event = Event {
        id: id(binding, stored, report),
        source: format!("bellwire:{binding}"),
        kind: if matches!(report.end, End::Delivered(_)) { SUCCEEDED } else { FAILED }.to_owned(),
        subject: Some(stored.address.to_string()),
        time: report.at.to_string(),
        datacontenttype,
        extensions,
        data: (!data.is_empty()).then_some(data),
        ..Event::default()
    };
    new_event(sending.to.clone(), stored.key.clone(), event, stored, bounds.lanes)
}

/// An event that the function sent while it ran, as the `number`th of its attempt. `delivery` names the delivery.
///
/// What the function left out is filled in: an id that is the same in every attempt of the delivery, the binding as
/// source, the time of the answer, and the key of the event that the function worked on.
pub(crate) fn emitted(
    binding: &str,
    emission: Emission,
    number: usize,
    delivery: &str,
    stored: &StoredEvent,
    at: Timestamp,
    lanes: u16,
) -> NewEvent {
    let Emission { to, mut event } = emission;
    if event.id.is_empty() {
        let parts = format!("{delivery}\n{number}");
        event.id = Uuid::new_v5(&Uuid::NAMESPACE_URL, parts.as_bytes()).to_string();
    }
    if event.source.is_empty() {
        event.source = format!("bellwire:{binding}");
    }
    if event.time.is_empty() {
        event.time = at.to_string();
    }
    // An empty key, which CloudEvents does not allow, is how a function says that there is none.
    let named = event.extensions.remove("partitionkey").and_then(|key| key.as_str().map(str::to_owned));
    let key = named.or_else(|| stored.key.clone()).filter(|key| !key.is_empty());
    if let Some(key) = &key {
        event.extensions.insert("partitionkey".into(), key.clone().into());
    }
    descend(&mut event.extensions, stored);
    new_event(to, key, event, stored, lanes)
}

/// Says which event this one comes from, and passes on what belongs to all that it brings about.
fn descend(extensions: &mut BTreeMap<String, Value>, cause: &StoredEvent) {
    for name in PASSED_ON {
        if let Some(value) = cause.event.extensions.get(name) {
            extensions.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
    // The Correlation extension of CloudEvents: the id of the event that directly caused this one.
    extensions.insert("causationid".into(), cause.event.id.clone().into());
    extensions.insert("parentaddress".into(), cause.address.to_string().into());
}

fn new_event(to: SourceName, key: Option<String>, event: Event, cause: &StoredEvent, lanes: u16) -> NewEvent {
    let own_lane = u64::from(cause.address.lane.0.saturating_sub(1));
    let lane = lane_of(key.as_deref(), own_lane, lanes);
    NewEvent { source: to, lane, key, dedup: None, event: Arc::new(event) }
}

fn id(binding: &str, stored: &StoredEvent, report: &Report<'_>) -> String {
    let parts = [
        binding,
        &stored.address.to_string(),
        &report.since.micros().to_string(),
        report.replay.map_or("", ReplayId::as_str),
        &report.attempts.to_string(),
        record::condition(&report.end),
    ];
    Uuid::new_v5(&Uuid::NAMESPACE_URL, parts.join("\n").as_bytes()).to_string()
}

#[cfg(test)]
mod tests;
