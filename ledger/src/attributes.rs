//! The attributes of an event that have no column of their own, as one JSON text beside it.

use std::collections::BTreeMap;

use bellwire_schemas::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Written from borrowed text, read into owned.
#[derive(Serialize, Deserialize)]
pub(crate) struct Attributes<T, X> {
    pub source: T,
    pub time: T,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub subject: Option<T>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<T>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub dataschema: Option<T>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub extensions: Option<X>,
}

/// What is read back.
pub(crate) type StoredAttributes = Attributes<String, BTreeMap<String, Value>>;

fn none<T>() -> Option<T> {
    None
}

/// The attributes of an event, ready to be written.
pub(crate) fn attributes(event: &Event) -> Attributes<&str, &BTreeMap<String, Value>> {
    Attributes {
        source: event.source.as_str(),
        time: event.time.as_str(),
        subject: event.subject.as_deref(),
        datacontenttype: event.datacontenttype.as_deref(),
        dataschema: event.dataschema.as_deref(),
        extensions: Some(&event.extensions).filter(|e| !e.is_empty()),
    }
}
