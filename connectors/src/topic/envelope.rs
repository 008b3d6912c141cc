//! A request to a topic, as events. Pure.

use crate::message::{self, Message};
use crate::{Content, DoorRequest, Draft, Refused};

/// `type` of an event that came as no CloudEvent.
pub const PLAIN_TYPE: &str = "topic.event";
/// Names a plain event: its id, and the key under which it is stored once.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The events of a request: CloudEvents as sent, any other body as one event of type [`PLAIN_TYPE`].
///
/// # Errors
/// When the request as a whole cannot be read.
pub fn contents(request: &DoorRequest, topic: &str) -> Result<Vec<Content>, Refused> {
    if let Message::CloudEvents(events) = message::read(request)? {
        return Ok(events.into_iter().map(|item| message::cloud_event(item, &request.headers)).collect());
    }
    let mut event = message::plain(request, format!("topic:{topic}"), PLAIN_TYPE.into());
    let named = request.header(IDEMPOTENCY_KEY).filter(|key| !key.is_empty());
    event.id = named.unwrap_or_default().to_owned();
    let dedup = named.map(|_| message::identity(&event));
    Ok(vec![Content::Event(Box::new(Draft { event, key: None, dedup, keep_bad: false }))])
}
