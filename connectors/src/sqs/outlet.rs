//! Results sent to a queue.

use std::collections::BTreeMap;
use std::fmt::Write;

use async_trait::async_trait;
use bellwire_schemas::Event;
use bellwire_schemas::cloudevents::{STRUCTURED, encode_structured, is_attribute_name};
use bellwire_schemas::outlet::{Outgoing, Outlet, OutletError};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::client::{Failure, Letter, Sqs};
use super::config::Queue;

/// Attributes of a message, and bytes of body and attributes (Amazon SQS developer guide, "Message quotas").
const MAX_ATTRIBUTES: usize = 10;
const MAX_BYTES: usize = 1 << 20;
/// Characters of a group's or deduplication id.
const MAX_ID: usize = 128;

/// A way to one queue.
pub(super) struct SqsOutlet {
    queue: Queue,
    sqs: OnceCell<Sqs>,
}

impl SqsOutlet {
    /// Reaches nothing yet.
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, sqs: OnceCell::new() }
    }
}

#[async_trait]
impl Outlet for SqsOutlet {
    async fn send(&self, message: &Outgoing) -> Result<String, OutletError> {
        let letter = letter(message, self.queue.is_fifo());
        let size =
            letter.body.len() + letter.attributes.iter().map(|(n, v)| n.len() + v.len() + 6).sum::<usize>();
        if size > MAX_BYTES {
            let name = &self.queue.name;
            let text =
                format!("message has {size} bytes, a queue such as `{name}` takes at most {MAX_BYTES}");
            return Err(OutletError::Refused(text));
        }
        let sqs = self.sqs.get_or_try_init(|| Sqs::connect(&self.queue)).await.map_err(judge)?;
        let id = sqs.send(letter).await.map_err(judge)?;
        Ok(format!("{}/{id}", self.queue.name))
    }
}

/// The message: the event's data as body and its attributes beside it, or, where the data cannot be a body of SQS, the
/// whole event as a structured CloudEvent.
fn letter(message: &Outgoing, fifo: bool) -> Letter {
    let event = &message.event;
    let text =
        event.data.as_deref().and_then(|data| std::str::from_utf8(data).ok()).filter(|text| fits(text));
    let mut attributes = attributes(event);
    let body = match text {
        Some(text) => text.to_owned(),
        None => {
            attributes = BTreeMap::from([("content-type".to_owned(), STRUCTURED.to_owned())]);
            // The JSON writer has escaped every character that SQS does not take.
            String::from_utf8_lossy(&encode_structured(event)).into_owned()
        }
    };
    let group =
        fifo.then(|| id(message.key.as_deref().filter(|key| !key.is_empty()).unwrap_or(&event.source)));
    let dedup = fifo.then(|| id(&event.id));
    Letter { body, attributes, group, dedup }
}

/// Whether SQS takes a text: one character at least, and only those that XML 1.0 has (SendMessage, "MessageBody").
fn fits(text: &str) -> bool {
    let taken = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    !text.is_empty() && text.chars().all(taken)
}

/// CloudEvents attributes as Kafka's binding spells them, as many as SQS takes: required ones, then those that most
/// receivers look at, then extensions by name.
fn attributes(event: &Event) -> BTreeMap<String, String> {
    const FIRST: [&str; 8] =
        ["specversion", "id", "source", "type", "time", "subject", "traceparent", "dataschema"];
    let mut all = event.attributes();
    let media_type = all.remove("datacontenttype");
    let media_type = media_type.and_then(|value| value.as_str().map(str::to_owned));
    let media_type = media_type.or_else(|| event.data_json().map(|_| "application/json".to_owned()));
    let mut found = BTreeMap::from_iter(
        media_type.filter(|text| fits(text)).map(|text| ("content-type".to_owned(), text)),
    );
    let others: Vec<String> = all.keys().filter(|name| !FIRST.contains(&name.as_str())).cloned().collect();
    for name in FIRST.into_iter().chain(others.iter().map(String::as_str)) {
        let Some(value) = all.get(name) else { continue };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if found.len() < MAX_ATTRIBUTES && is_attribute_name(name) && fits(&text) {
            found.insert(format!("ce_{name}"), text);
        }
    }
    found
}

/// A text as an id of SQS: up to 128 letters, digits and punctuation marks; another text's SHA-256 stands for it.
fn id(text: &str) -> String {
    if !text.is_empty() && text.len() <= MAX_ID && text.bytes().all(|b| b.is_ascii_graphic()) {
        return text.to_owned();
    }
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

/// Words of SQS for what it never takes; anything else may pass: throttling, expired credentials, no answer.
fn judge(failure: Failure) -> OutletError {
    const NEVER: [&str; 10] = [
        "QueueDoesNotExist",
        "AWS.SimpleQueueService.NonExistentQueue",
        "AccessDenied",
        "AccessDeniedException",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "InvalidAttributeValue",
        "MissingParameter",
        "UnsupportedOperation",
        "AWS.SimpleQueueService.UnsupportedOperation",
    ];
    let code = failure.code.rsplit('#').next().unwrap_or_default();
    if NEVER.contains(&code) {
        OutletError::Refused(failure.text)
    } else {
        OutletError::Unavailable(failure.text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn outgoing(data: &'static [u8], key: Option<&str>) -> Outgoing {
        let event = Event {
            id: "e-1".into(),
            source: "price:orders".into(),
            kind: "t".into(),
            time: "2026-01-01T00:00:00Z".into(),
            data: Some(Bytes::from_static(data)),
            ..Event::default()
        };
        Outgoing { event: Arc::new(event), key: key.map(Into::into) }
    }

    #[test]
    fn the_data_is_the_body_and_attributes_go_beside_it() {
        let plain = letter(&outgoing(br#"{"a":  1}"#, None), false);
        assert_eq!(plain.body, r#"{"a":  1}"#);
        assert_eq!(plain.attributes["ce_id"], "e-1");
        assert_eq!(plain.attributes["content-type"], "application/json");
        assert_eq!((plain.group, plain.dedup), (None, None));
        let fifo = letter(&outgoing(b"x", Some("k")), true);
        assert_eq!((fifo.group.as_deref(), fifo.dedup.as_deref()), (Some("k"), Some("e-1")));
        assert_eq!(letter(&outgoing(b"x", None), true).group.as_deref(), Some("price:orders"));
        let odd = letter(&outgoing(b"x", Some("a key\u{fc}")), true).group.unwrap();
        assert_eq!(odd.len(), 64);
    }

    #[test]
    fn what_sqs_cannot_carry_goes_as_a_structured_event() {
        for data in [&b"\xff\x00"[..], b"a\x01", b""] {
            let letter = letter(&outgoing(data, None), false);
            assert_eq!(letter.attributes["content-type"], STRUCTURED);
            assert!(fits(&letter.body) && letter.body.contains(r#""id":"e-1""#), "{}", letter.body);
        }
    }

    #[test]
    fn no_more_attributes_than_sqs_takes() {
        let mut message = outgoing(b"{}", None);
        let event = Arc::make_mut(&mut message.event);
        for n in 0..20 {
            event.extensions.insert(format!("x{n:02}"), n.into());
        }
        event.extensions.insert("traceparent".into(), "00-1".into());
        let attributes = attributes(&message.event);
        assert_eq!(attributes.len(), MAX_ATTRIBUTES);
        assert_eq!(attributes["ce_traceparent"], "00-1");
        assert_eq!(attributes["ce_x00"], "0");
    }
}
