//! The source's rules, applied in one place for all kinds: ids and times filled in, decoding, keys, limits.
//!
//! Pure. What breaks a rule is refused where its sender can mend it, else quarantined with its bytes.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{DedupKey, Quarantine};
use bellwire_schemas::event::{is_json, is_key};
use bellwire_schemas::service::{Decode, DedupRule, KeyRule, SourceSpec};
use bellwire_schemas::{Event, SourceName, Timestamp};
use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::{Content, Draft, Parcel};

/// How long a kind's own dedup key is remembered (surface 1.3: `window: 24h`).
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest part of a bad message that is kept (the ledger cuts quarantined bytes at 1 MiB).
pub const MAX_QUARANTINE_BYTES: usize = 1 << 20;

/// A message after the rules.
#[derive(Clone, Debug)]
pub enum Ruled {
    /// Ready for the ledger.
    Event(Ready),
    /// Kept as no event.
    Quarantine(Quarantine),
    /// Told to its sender.
    Refused {
        /// The source.
        source: SourceName,
        /// The event's id, if it got that far.
        id: Option<String>,
        /// Stable word.
        code: &'static str,
        /// The same for people.
        detail: String,
    },
}

/// An event that only lacks its lane.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The source.
    pub source: SourceName,
    /// The ordering key.
    pub key: Option<String>,
    /// The dedup key.
    pub dedup: Option<DedupKey>,
    /// The event.
    pub event: Arc<Event>,
}

/// Applies the rules of its source to a message.
pub fn rule(parcel: Parcel, event_bytes: usize, now: Timestamp) -> Ruled {
    let spec = parcel.source;
    match parcel.content {
        Content::Event(draft) => rule_event(&spec, *draft, event_bytes, now),
        Content::Quarantine { reason, bytes, meta } => {
            Ruled::Quarantine(quarantine(&spec.name, reason, bytes, meta))
        }
        Content::Refused { code, detail } => {
            Ruled::Refused { source: spec.name.clone(), id: None, code, detail }
        }
    }
}

fn rule_event(spec: &SourceSpec, draft: Draft, event_bytes: usize, now: Timestamp) -> Ruled {
    let Draft { mut event, key, dedup, keep_bad } = draft;
    if event.id.is_empty() {
        event.id = Uuid::now_v7().to_string();
    }
    if event.time.is_empty() {
        event.time = now.to_string();
    }
    let broken = |event: Event, code, detail| {
        if keep_bad {
            return set_aside(&spec.name, detail, &event);
        }
        Ruled::Refused { source: spec.name.clone(), id: Some(event.id), code, detail }
    };
    if !spec.enabled {
        let detail = format!("source `{}` is disabled (enabled: false)", spec.name);
        return Ruled::Refused {
            source: spec.name.clone(),
            id: Some(event.id),
            code: "source-disabled",
            detail,
        };
    }
    let size = event.size_bytes();
    if size > event_bytes {
        let detail = format!("event has {size} bytes, the limit is {event_bytes} (limits.event_size)");
        return broken(event, "event-too-large", detail);
    }
    if let Some(name) = event.nul_attribute() {
        let detail = format!("attribute `{name}` holds a NUL character");
        return broken(event, "bad-attribute", detail);
    }
    if let Err(detail) = event.deliver_at(now) {
        return broken(event, "bad-attribute", detail);
    }
    match spec.decode {
        Decode::Auto => {}
        Decode::Json => {
            let parses = event.data.as_deref().is_some_and(|d| serde_json::from_slice::<Value>(d).is_ok());
            if !parses {
                let reason = "payload is not JSON, and the source says decode: json".to_owned();
                return set_aside(&spec.name, reason, &event);
            }
            if event.datacontenttype.as_deref().is_some_and(|t| !is_json(t)) {
                event.datacontenttype = Some("application/json".into());
            }
        }
        Decode::Bytes => {
            if event.datacontenttype.as_deref().is_none_or(is_json) {
                event.datacontenttype = Some("application/octet-stream".into());
            }
        }
    }
    let (key, dedup) = keys(spec, &event, key, dedup);
    Ruled::Event(Ready { source: spec.name.clone(), key, dedup, event: Arc::new(event) })
}

fn keys(
    spec: &SourceSpec,
    event: &Event,
    key: Option<String>,
    dedup: Option<String>,
) -> (Option<String>, Option<DedupKey>) {
    let by_path = matches!(spec.key, KeyRule::Path(_)) || matches!(spec.dedup, DedupRule::Path { .. });
    let envelope = if by_path { event.envelope() } else { Value::Null };
    let key = match &spec.key {
        // Which partition it is, only the connector knows.
        KeyRule::Default | KeyRule::Partition => key,
        KeyRule::None => None,
        KeyRule::Path(path) => at_path(&envelope, path),
    };
    let dedup = match &spec.dedup {
        DedupRule::Default => dedup.map(|value| DedupKey { value, window: DEFAULT_WINDOW }),
        DedupRule::Off => None,
        DedupRule::Path { path, window } => {
            at_path(&envelope, path).map(|value| DedupKey { value, window: *window })
        }
    };
    (key.filter(|key| is_key(key)), dedup)
}

/// The text at a dotted path: strings as they are, numbers and booleans as JSON writes them; anything else, or
/// nothing there, is no key. A number in the path indexes an array.
pub fn at_path(envelope: &Value, path: &str) -> Option<String> {
    let found = path.split('.').try_fold(envelope, |value, part| match value {
        Value::Array(items) => part.parse::<usize>().ok().and_then(|n| items.get(n)),
        value => value.get(part),
    })?;
    match found {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(found.to_string()),
        _ => None,
    }
}

/// A quarantined message, cut to what the ledger keeps.
pub fn quarantine(source: &SourceName, reason: String, bytes: Bytes, meta: String) -> Quarantine {
    let bytes = bytes.slice(..bytes.len().min(MAX_QUARANTINE_BYTES));
    Quarantine { source: source.clone(), reason: reason.replace('\0', "\\0"), bytes, meta }
}

/// An event turned into a quarantined message: its payload, and its attributes as meta.
pub(crate) fn set_aside_event(source: &SourceName, reason: String, event: &Event) -> Quarantine {
    let mut meta = event.attributes();
    if !event.meta.is_empty() {
        meta.insert("meta".into(), Value::Object(event.meta.clone()));
    }
    quarantine(source, reason, event.data.clone().unwrap_or_default(), Value::Object(meta).to_string())
}

fn set_aside(source: &SourceName, reason: String, event: &Event) -> Ruled {
    Ruled::Quarantine(set_aside_event(source, reason, event))
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::service::SourceKind;
    use serde_json::json;

    use super::*;

    fn spec() -> SourceSpec {
        SourceSpec {
            name: "orders".into(),
            kind: SourceKind::Topic { topic: "orders".into() },
            key: KeyRule::Default,
            dedup: DedupRule::Default,
            decode: Decode::Auto,
            enabled: true,
        }
    }

    fn draft(data: &'static str) -> Draft {
        let event = Event {
            id: "1".into(),
            source: "s".into(),
            kind: "t".into(),
            data: Some(Bytes::from_static(data.as_bytes())),
            ..Event::default()
        };
        Draft { event, key: Some("k".into()), dedup: Some("d".into()), keep_bad: false }
    }

    fn apply(spec: SourceSpec, draft: Draft) -> Ruled {
        let parcel = Parcel { source: Arc::new(spec), content: Content::Event(Box::new(draft)) };
        rule(parcel, 1_000, Timestamp::from_millis(0))
    }

    fn ready(ruled: Ruled) -> Ready {
        match ruled {
            Ruled::Event(ready) => ready,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_kinds_own_keys_stand_unless_the_source_says_otherwise() {
        let own = ready(apply(spec(), draft("{}")));
        assert_eq!(own.key.as_deref(), Some("k"));
        assert_eq!(own.dedup, Some(DedupKey { value: "d".into(), window: DEFAULT_WINDOW }));
        assert_eq!(own.event.time, "1970-01-01T00:00:00.000Z");

        let window = Duration::from_secs(5);
        let by_path = SourceSpec {
            key: KeyRule::Path("data.o.0.id".into()),
            dedup: DedupRule::Path { path: "subject".into(), window },
            ..spec()
        };
        let found = ready(apply(by_path, draft(r#"{"o":[{"id":7}]}"#)));
        assert_eq!(found.key.as_deref(), Some("7"));
        assert_eq!(found.dedup, None);

        let none =
            ready(apply(SourceSpec { key: KeyRule::None, dedup: DedupRule::Off, ..spec() }, draft("{}")));
        assert_eq!((none.key, none.dedup), (None, None));
    }

    #[test]
    fn paths_end_at_scalars() {
        let envelope = json!({"data": {"a": {"b": "x"}, "n": 1.5, "t": true, "z": null, "e": ""}});
        for (path, expected) in [
            ("data.a.b", Some("x")),
            ("data.n", Some("1.5")),
            ("data.t", Some("true")),
            ("data.z", None),
            ("data.e", None),
            ("data.a", None),
            ("data.x.y", None),
            ("", None),
        ] {
            assert_eq!(at_path(&envelope, path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn decode_json_quarantines_what_does_not_parse() {
        let json = SourceSpec { decode: Decode::Json, ..spec() };
        let Ruled::Quarantine(kept) = apply(json.clone(), draft("nope")) else { panic!() };
        assert_eq!(kept.bytes, "nope");
        assert!(kept.meta.contains(r#""id":"1""#));
        ready(apply(json.clone(), draft("[1]")));
        let mut deep = draft("");
        deep.event.data = Some(Bytes::from("[".repeat(500)));
        assert!(matches!(apply(json, deep), Ruled::Quarantine(_)));
        let bytes = ready(apply(SourceSpec { decode: Decode::Bytes, ..spec() }, draft("[1]")));
        assert_eq!(bytes.event.data_json(), None);
    }

    #[test]
    fn limits_refuse_or_quarantine() {
        let mut large = draft("");
        large.event.data = Some(Bytes::from(vec![b'x'; 2_000]));
        assert!(matches!(apply(spec(), large.clone()), Ruled::Refused { code: "event-too-large", .. }));
        large.keep_bad = true;
        assert!(matches!(apply(spec(), large), Ruled::Quarantine(_)));
        let mut nul = draft("{}");
        nul.event.extensions.insert("x".into(), "a\0".into());
        assert!(matches!(apply(spec(), nul), Ruled::Refused { code: "bad-attribute", .. }));
        let mut late = draft("{}");
        late.event.extensions.insert("deliverat".into(), "tomorrow".into());
        let Ruled::Refused { code: "bad-attribute", detail, .. } = apply(spec(), late.clone()) else {
            panic!()
        };
        assert!(detail.contains("`deliverat` is `tomorrow`"), "{detail}");
        late.keep_bad = true;
        let Ruled::Quarantine(kept) = apply(spec(), late) else { panic!() };
        assert_eq!(kept.reason, detail);
        let off = SourceSpec { enabled: false, ..spec() };
        assert!(matches!(apply(off, draft("{}")), Ruled::Refused { code: "source-disabled", .. }));
    }
}
