//! Judges the shared corpora of AWS Lambda's event source mappings, each against the functions that are at work in
//! deliveries, and by a case's content alone.
//!
//! `answers.rs`: what an answer says about a batch. `filters.rs`: which messages a filter lets through. `recorded.rs`:
//! whole recordings of AWS. The events of the samples come from `shape/conformance`, which judges their form.

pub mod answers;
pub mod filters;
pub mod recorded;

use std::sync::Arc;

use bellwire_ledger::StoredEvent;
use bellwire_schemas::meta::{SqsMeta, from_map};
use bellwire_schemas::{Address, Event, Lane, Seq, SourceName, Timestamp};
use serde_json::Value;

/// Filters name what a message holds `body`; in our envelope it is `data`.
const BODY: &str = "body";

/// Why a corpus says nothing about other kinds.
fn not_built(kind: &str) -> bellwire_schemas::Verdict {
    bellwire_schemas::Verdict::Skipped { reason: format!("source `{kind}` is not built") }
}

/// An event at a place of its own; the key of a message of SQS is its group.
fn stored(place: u64, event: Event) -> StoredEvent {
    let meta: Option<SqsMeta> = from_map(&event.meta);
    StoredEvent {
        address: Address::new(Lane(0), Seq(place)),
        source: SourceName::new("sample"),
        accepted_at: Timestamp::default(),
        key: meta.and_then(|meta| meta.attributes.get("MessageGroupId").cloned()),
        event: Arc::new(event),
    }
}

/// A sample's message as AWS sends it: the corpora hold bodies that are JSON as JSON, and nulls where AWS wrote nothing.
fn message(sample: &Value) -> Value {
    let mut message = sample.clone();
    if let Some(fields) = message.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        if let Some(body) = fields.get_mut(BODY).filter(|body| !body.is_string()) {
            *body = Value::String(body.to_string());
        }
    }
    message
}

/// The filter of a mapping as a filter of ours.
fn translated(filter: &Value) -> Value {
    let Some(fields) = filter.as_object() else { return filter.clone() };
    let one = |(name, value): (&String, &Value)| match name.as_str() {
        BODY => ("data".to_owned(), value.clone()),
        "$or" => (name.clone(), value.as_array().into_iter().flatten().map(translated).collect()),
        _ => (name.clone(), value.clone()),
    };
    fields.iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests;
