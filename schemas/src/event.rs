//! The event: a CloudEvents 1.0 envelope with the source's own bytes and metadata beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Timestamp;

/// Longest ordering key, in bytes; longer ones would only bloat indexes.
pub const MAX_KEY_BYTES: usize = 4_096;
/// The CloudEvents extension that asks for a later delivery: a time in RFC 3339.
pub const DELIVER_AT: &str = "deliverat";
/// Longest delay that an event may ask for: a year, also one with a leap day.
pub const MAX_DELAY: Duration = Duration::from_secs(366 * 86_400);
/// Most characters of a bad value that a message shows.
const SHOWN: usize = 100;

/// An immutable CloudEvents 1.0 event as a connector made it.
///
/// `data` holds the bytes exactly as they arrived; nothing re-serialises them. `meta` is what the source knew
/// besides (headers, message attributes, offsets), enough to rebuild the shape AWS Lambda would have sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// CloudEvents `id`: unique within `source`.
    pub id: String,
    /// CloudEvents `source`, such as `aws:s3.eu-central-1.photos`.
    pub source: String,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// CloudEvents `subject`: the object key, record key, routing key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// CloudEvents `time`, RFC 3339 as the sender wrote it; the time of intake where it wrote none.
    pub time: String,
    /// CloudEvents `datacontenttype`; absent means JSON when the data parses as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// CloudEvents `dataschema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataschema: Option<String>,
    /// CloudEvents extension attributes: strings, booleans and integers only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, Value>,
    /// The payload, byte for byte; absent when the event carries none.
    #[serde(skip)]
    pub data: Option<Bytes>,
    /// What the source said besides: `{"headers": {…}}` and the like.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

impl Event {
    /// The payload parsed as JSON, when it is JSON: by its content type, or, where none is given, by trying.
    /// Nesting beyond serde_json's limit of 128 levels counts as "not JSON".
    pub fn data_json(&self) -> Option<Value> {
        if self.datacontenttype.as_deref().is_some_and(|t| !is_json(t)) {
            return None;
        }
        serde_json::from_slice(self.data.as_deref()?).ok()
    }

    /// The attributes as one JSON object, without the payload: what `events show` prints and `meta` joins.
    pub fn attributes(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("specversion".into(), "1.0".into());
        map.insert("id".into(), self.id.clone().into());
        map.insert("source".into(), self.source.clone().into());
        map.insert("type".into(), self.kind.clone().into());
        map.insert("time".into(), self.time.clone().into());
        for (name, value) in [
            ("subject", &self.subject),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ] {
            if let Some(value) = value {
                map.insert(name.into(), value.clone().into());
            }
        }
        for (name, value) in &self.extensions {
            map.insert(name.clone(), value.clone());
        }
        map
    }

    /// The envelope a filter sees: the attributes, `data` (parsed JSON, else text, else absent) and `meta`.
    pub fn envelope(&self) -> Value {
        let mut map = self.attributes();
        if let Some(json) = self.data_json() {
            map.insert("data".into(), json);
        } else if let Some(text) = self.data.as_deref().and_then(|d| std::str::from_utf8(d).ok()) {
            map.insert("data".into(), text.into());
        }
        if !self.meta.is_empty() {
            map.insert("meta".into(), Value::Object(self.meta.clone()));
        }
        Value::Object(map)
    }

    /// The `traceparent` extension (W3C trace context), when the sender set one.
    pub fn traceparent(&self) -> Option<&str> {
        self.extensions.get("traceparent").and_then(Value::as_str)
    }

    /// When it asks to be delivered: the extension [`DELIVER_AT`], `None` when it has none. A time in the past means at
    /// once.
    ///
    /// # Errors
    /// What is wrong with the extension: it is no RFC 3339 time, or one more than [`MAX_DELAY`] after `accepted_at`.
    pub fn deliver_at(&self, accepted_at: Timestamp) -> Result<Option<Timestamp>, String> {
        let Some(asked) = self.extensions.get(DELIVER_AT) else { return Ok(None) };
        let days = MAX_DELAY.as_secs() / 86_400;
        let wrong = |why: &str| {
            let shown: String = asked.as_str().map_or_else(|| asked.to_string(), str::to_owned);
            let shown: String = shown.chars().take(SHOWN).collect();
            Err(format!(
                "attribute `{DELIVER_AT}` is `{shown}`, {why}: write a time in RFC 3339 such as \
                 `2026-03-01T12:00:00Z`, at most {days} days ahead"
            ))
        };
        match asked.as_str().map(Timestamp::parse) {
            Some(Ok(at)) if at.since(accepted_at) > MAX_DELAY => {
                wrong(&format!("more than {days} days ahead"))
            }
            Some(Ok(at)) => Ok(Some(at)),
            Some(Err(_)) => wrong("which is no RFC 3339 time"),
            None => wrong("which is no text"),
        }
    }

    /// The first attribute or extension that holds a NUL character, which Postgres cannot keep in a text.
    pub fn nul_attribute(&self) -> Option<&str> {
        let own = [
            ("id", Some(&self.id)),
            ("source", Some(&self.source)),
            ("type", Some(&self.kind)),
            ("subject", self.subject.as_ref()),
            ("time", Some(&self.time)),
            ("datacontenttype", self.datacontenttype.as_ref()),
            ("dataschema", self.dataschema.as_ref()),
        ];
        let nul = |text: &str| text.contains('\0');
        let own = own.into_iter().find(|(_, text)| text.is_some_and(|text| nul(text))).map(|(name, _)| name);
        own.or_else(|| {
            let extension = |(_, value): &(&String, &Value)| value.as_str().is_some_and(nul);
            self.extensions.iter().find(extension).map(|(name, _)| name.as_str())
        })
    }

    /// The size the limits count: payload plus attributes plus metadata, in bytes, roughly.
    pub fn size_bytes(&self) -> usize {
        let text = self.id.len()
            + self.source.len()
            + self.kind.len()
            + self.subject.as_ref().map_or(0, String::len);
        let meta: usize = self.meta.iter().map(|(name, value)| name.len() + 4 + value_bytes(value)).sum();
        self.data.as_ref().map_or(0, Bytes::len) + text + meta + 64
    }
}

/// Whether a text can be an ordering key: not empty, not longer than [`MAX_KEY_BYTES`], without a NUL character.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_KEY_BYTES && !text.contains('\0')
}

/// Whether a media type says JSON: `application/json`, `text/json` or any `+json`, parameters ignored.
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// About what a value takes as JSON text, counted without writing it: this is asked several times an event.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 2 + items.iter().map(value_bytes).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(name, v)| name.len() + 4 + value_bytes(v)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &'static str, media_type: Option<&str>) -> Event {
        Event {
            id: "1".into(),
            source: "s".into(),
            kind: "t".into(),
            time: "2026-01-01T00:00:00Z".into(),
            datacontenttype: media_type.map(Into::into),
            data: Some(Bytes::from_static(data.as_bytes())),
            ..Event::default()
        }
    }

    #[test]
    fn data_is_json_text_or_absent_in_the_envelope() {
        assert_eq!(event(r#"{"a":1}"#, None).envelope()["data"]["a"], 1);
        assert_eq!(event("plain", None).envelope()["data"], "plain");
        assert_eq!(event("17", Some("text/plain")).envelope()["data"], "17");
        assert_eq!(event("17", Some("application/vnd.x+json; charset=utf-8")).envelope()["data"], 17);
        let bytes = Event { data: Some(Bytes::from_static(&[0xff])), ..event("", None) };
        assert_eq!(bytes.envelope().get("data"), None);
    }

    #[test]
    fn what_postgres_cannot_keep_is_found() {
        assert_eq!(event("{}", None).nul_attribute(), None);
        let subject = Event { subject: Some("a\0b".into()), ..event("{}", None) };
        assert_eq!(subject.nul_attribute(), Some("subject"));
        let mut extension = event("\0", None);
        extension.extensions = [("a".to_owned(), 1.into()), ("b".to_owned(), "\0".into())].into();
        assert_eq!(extension.nul_attribute(), Some("b"));
        for (key, fine) in [("k", true), ("", false), ("\0", false), (&"k".repeat(4_096), true)] {
            assert_eq!(is_key(key), fine, "{key:?}");
        }
        assert!(!is_key(&"k".repeat(4_097)));
    }

    #[test]
    fn a_later_time_is_one_of_rfc_3339_within_a_year() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let asked = |value: Value| {
            let mut event = event("{}", None);
            event.extensions.insert(DELIVER_AT.into(), value);
            event.deliver_at(now)
        };
        assert_eq!(event("{}", None).deliver_at(now), Ok(None));
        for fine in ["2026-01-01T01:00:00+01:00", "2025-12-31T00:00:00Z", "2027-01-02T00:00:00Z"] {
            assert_eq!(asked(fine.into()), Ok(Some(Timestamp::parse(fine).unwrap())));
        }
        for (bad, why) in [
            ("tomorrow".into(), "`tomorrow`, which is no RFC 3339 time"),
            ("1767225600".into(), "no RFC 3339 time"),
            ("".into(), "``, which is no RFC 3339 time"),
            ("2026-01-01T01:00:00".into(), "no RFC 3339 time"),
            (1_767_225_600.into(), "`1767225600`, which is no text"),
            ("2027-01-02T00:00:01Z".into(), "more than 366 days ahead"),
        ] {
            let error = asked(bad).unwrap_err();
            assert!(error.starts_with("attribute `deliverat` is") && error.contains(why), "{error}");
        }
        assert!(asked("x".repeat(10_000).into()).unwrap_err().len() < 400);
    }

    #[test]
    fn deep_json_is_not_parsed_and_not_fatal() {
        let deep = Event { data: Some(Bytes::from("[".repeat(10_000))), ..event("", None) };
        assert_eq!(deep.data_json(), None);
    }
}
