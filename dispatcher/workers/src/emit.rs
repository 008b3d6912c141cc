//! Events that a function sends while it runs: `POST /bellwire/v1/invocation/<request id>/emit/<source>` beside the
//! Runtime API. They are kept with the attempt, go out if and only if it succeeds, and then in the commit of its outcome.
//!
//! This room reads and bounds them, by the rules that the intake has for events from outside: what breaks one could not be
//! stored, and would hold up the commit of the outcome. What they become is the dispatcher's.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use bellwire_schemas::cloudevents::{Binding, Mode, decode_binary, decode_structured, mode};
use bellwire_schemas::event::{MAX_KEY_BYTES, is_key};
use bellwire_schemas::{Clock, Event, SourceName, Timestamp};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// Path prefix of our own calls; the Runtime API's paths begin with its date.
pub const PREFIX: &str = "/bellwire/v1/";
/// Most events of one attempt.
pub const MAX_EVENTS: usize = 100;
/// The type of an event for which the function named none.
pub const TYPE: &str = "bellwire.emitted";
/// Stands where CloudEvents requires a text and the function gave none; taken out again.
const MISSING: &str = "-";

/// One event that a function sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// The source under which it is stored.
    pub to: SourceName,
    /// Its attributes and data. `id` and `source` are empty where the function gave none.
    pub event: Event,
}

/// Where functions may send to, and how much; shared with all workers.
#[derive(Clone, Debug)]
pub struct Outbox {
    rules: Arc<RwLock<Rules>>,
    clock: Clock,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    sources: Arc<BTreeSet<SourceName>>,
    bytes: usize,
}

impl Outbox {
    /// An outbox to nowhere, of events that together have at most so many bytes per attempt.
    pub fn new(bytes: usize, clock: Clock) -> Self {
        Self { rules: Arc::new(RwLock::new(Rules { sources: Arc::default(), bytes })), clock }
    }

    /// The time that an event's `deliverat` is measured from.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes these the sources that may be sent to.
    pub fn set(&self, sources: BTreeSet<SourceName>) {
        self.rules.write().unwrap_or_else(PoisonError::into_inner).sources = Arc::new(sources);
    }

    /// Most bytes of all events of one attempt.
    pub fn bytes(&self) -> usize {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Whether anything of this name takes events.
    pub fn knows(&self, source: &str) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.sources.contains(&SourceName::new(source))
    }
}

/// Reads a CloudEvent in structured or binary mode; in binary mode every attribute may be left out.
///
/// # Errors
/// What is wrong with it, for the author of the function.
pub fn read(to: &str, headers: &HeaderMap, body: &Bytes, now: Timestamp) -> Result<Emission, String> {
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
    let event = match mode(Binding::Http, content_type, std::iter::empty()) {
        Some(Mode::Batch) => return Err("one event per call: a batch cannot be sent".into()),
        Some(_) => decode_structured(body).map_err(|error| error.to_string())?,
        None => {
            let mut all: Vec<(&str, &[u8])> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            for (name, value) in
                [("ce-specversion", "1.0"), ("ce-id", MISSING), ("ce-source", MISSING), ("ce-type", TYPE)]
            {
                if !headers.contains_key(name) {
                    all.push((name, value.as_bytes()));
                }
            }
            let mut event = decode_binary(Binding::Http, &all, body).map_err(|error| error.to_string())?;
            for (name, text) in [("ce-id", &mut event.id), ("ce-source", &mut event.source)] {
                if !headers.contains_key(name) {
                    text.clear();
                }
            }
            event
        }
    };
    check(&event, now)?;
    Ok(Emission { to: SourceName::new(to), event })
}

/// Refuses what the ledger could not keep. An empty `partitionkey` says that there is no key.
fn check(event: &Event, now: Timestamp) -> Result<(), String> {
    if let Some(name) = event.nul_attribute() {
        return Err(format!("attribute `{name}` holds a NUL character"));
    }
    event.deliver_at(now)?;
    match event.extensions.get("partitionkey") {
        None => Ok(()),
        Some(Value::String(key)) if key.is_empty() || is_key(key) => Ok(()),
        Some(Value::String(key)) => {
            Err(format!("`partitionkey` has {} bytes, the limit is {MAX_KEY_BYTES}", key.len()))
        }
        Some(_) => Err("`partitionkey` must be a text".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(to: &str, headers: &HeaderMap, body: &Bytes) -> Result<Emission, String> {
        super::read(to, headers, body, Timestamp::from_millis(1_800_000_000_000))
    }

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_bare_body_is_an_event_without_a_name() {
        let body = Bytes::from_static(b"{\"a\":1}");
        let sent = read("topic.done", &headers(&[("content-type", "application/json")]), &body).unwrap();
        assert_eq!((sent.to.as_str(), sent.event.kind.as_str()), ("topic.done", TYPE));
        assert_eq!((sent.event.id.as_str(), sent.event.source.as_str()), ("", ""));
        assert_eq!(sent.event.datacontenttype.as_deref(), Some("application/json"));
        assert_eq!(sent.event.data, Some(body));
    }

    #[test]
    fn attributes_are_kept() {
        let all = headers(&[
            ("ce-id", "7"),
            ("ce-type", "order.priced"),
            ("ce-partitionkey", "k%20"),
            ("accept", "*/*"),
        ]);
        let sent = read("topic.done", &all, &Bytes::new()).unwrap().event;
        assert_eq!((sent.id.as_str(), sent.kind.as_str(), sent.source.as_str()), ("7", "order.priced", ""));
        assert_eq!(sent.extensions["partitionkey"], "k ");
        let structured = headers(&[("content-type", "application/cloudevents+json")]);
        let body =
            Bytes::from_static(br#"{"specversion":"1.0","id":"8","source":"/me","type":"t","data":1}"#);
        assert_eq!(read("topic.done", &structured, &body).unwrap().event.id, "8");
    }

    #[test]
    fn what_is_no_event_is_told() {
        let batch = headers(&[("content-type", "application/cloudevents-batch+json")]);
        for (headers, body) in [
            (batch, "[]"),
            (headers(&[("content-type", "application/cloudevents+json")]), "{}"),
            (headers(&[("ce-specversion", "0.3")]), ""),
            (headers(&[("ce-id", "")]), ""),
        ] {
            let error = read("topic.done", &headers, &Bytes::from_static(body.as_bytes())).unwrap_err();
            assert!(!error.is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn what_the_ledger_could_not_keep_is_told() {
        let refused = |headers: &HeaderMap, body: &str, words: &str| {
            let error = read("topic.done", headers, &Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        for (name, words) in [
            ("ce-subject", "`subject` holds a NUL"),
            ("ce-type", "`type` holds a NUL"),
            ("ce-note", "`note` holds a NUL"),
            ("ce-partitionkey", "`partitionkey` holds a NUL"),
        ] {
            refused(&headers(&[(name, "a%00b")]), "", words);
        }
        let structured = headers(&[("content-type", "application/cloudevents+json")]);
        let with = |attribute: &str| {
            format!("{{\"specversion\":\"1.0\",\"id\":\"8\",\"source\":\"/me\",\"type\":\"t\",{attribute}}}")
        };
        refused(&structured, &with("\"subject\":\"\\u0000\""), "`subject` holds a NUL");
        refused(&structured, &with("\"partitionkey\":7"), "`partitionkey` must be a text");
        refused(
            &structured,
            &with("\"deliverat\":1800000000"),
            "`deliverat` is `1800000000`, which is no text",
        );
        refused(&headers(&[("ce-deliverat", "2030-01-01T00:00:00Z")]), "", "more than 366 days ahead");
        let long = format!("\"partitionkey\":\"{}\"", "k".repeat(MAX_KEY_BYTES + 1));
        refused(&structured, &with(&long), "4097 bytes, the limit is 4096");
        let longest = format!("\"partitionkey\":\"{}\"", "k".repeat(MAX_KEY_BYTES));
        read("topic.done", &structured, &Bytes::from(with(&longest))).unwrap();
        // The data may hold anything.
        read("topic.done", &headers(&[]), &Bytes::from_static(b"\0")).unwrap();
    }

    #[test]
    fn only_declared_sources_are_known() {
        let outbox = Outbox::new(10, Clock::system());
        assert!(!outbox.knows("topic.done"));
        outbox.set([SourceName::new("topic.done")].into());
        assert!(outbox.knows("topic.done") && !outbox.knows("done"));
    }
}
