//! A verified request, as events. Pure.

use std::borrow::Cow;

use bellwire_schemas::service::Verify;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::verify::signature_headers;
use super::{Verified, WebhookConfig};
use crate::message::{self, Message};
use crate::{Content, DoorRequest, Draft, Refused};

/// `type` of an event whose sender says no better.
pub const PLAIN_TYPE: &str = "webhook.request";

/// The events of a verified request: CloudEvents as sent, any other body as one event.
///
/// # Errors
/// When the request as a whole cannot be read.
pub fn contents(
    config: &WebhookConfig,
    request: &DoorRequest,
    verified: Verified,
) -> Result<Vec<Content>, Refused> {
    let meta = |draft: &mut Draft| {
        let headers = message::meta_headers(&request.headers, &signature_headers(&config.spec.verify));
        draft.event.meta.insert("headers".into(), Value::Object(headers));
        if let Some(query) = request.query.as_deref().filter(|q| !q.is_empty()) {
            draft.event.meta.insert("query".into(), Value::Object(message::meta_query(query)));
        }
    };
    let delivery = delivery(&config.spec.verify, request, verified);
    if let Message::CloudEvents(events) = message::read(request)? {
        let single = events.len() == 1;
        let contents = events.into_iter().map(|item| {
            let mut content = message::cloud_event(item, &request.headers);
            if let Content::Event(draft) = &mut content {
                meta(draft);
                // A batch shares its delivery id, so there the events' own identities count.
                if let Some(id) = delivery.id.as_ref().filter(|_| single) {
                    draft.dedup = Some(id.clone());
                }
            }
            content
        });
        return Ok(contents.collect());
    }
    let kind = delivery.kind.unwrap_or_else(|| PLAIN_TYPE.into());
    let mut event = message::plain(request, format!("webhook:{}", config.spec.path), kind);
    event.id = delivery.id.clone().unwrap_or_default();
    let mut draft = Draft { event, key: None, dedup: delivery.id, keep_bad: false };
    meta(&mut draft);
    Ok(vec![Content::Event(Box::new(draft))])
}

/// The text that Slack wants to see again when a URL is set up.
pub fn slack_challenge(body: &[u8]) -> Option<String> {
    let head: Head<'_> = serde_json::from_slice(body).ok()?;
    (text(head.kind)? == "url_verification").then(|| text(head.challenge)).flatten()
}

/// What a provider calls a delivery.
struct Delivery {
    id: Option<String>,
    kind: Option<String>,
}

/// The members of a body that providers name deliveries by; nothing else of it is parsed.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default, borrow)]
    id: Option<&'a serde_json::value::RawValue>,
    #[serde(default, borrow)]
    event_id: Option<&'a serde_json::value::RawValue>,
    #[serde(default, borrow, rename = "type")]
    kind: Option<&'a serde_json::value::RawValue>,
    #[serde(default, borrow)]
    challenge: Option<&'a serde_json::value::RawValue>,
}

fn delivery(verify: &Verify, request: &DoorRequest, verified: Verified) -> Delivery {
    let head = || serde_json::from_slice::<Head<'_>>(&request.body).ok();
    match verify {
        Verify::Github => {
            let kind = header(&request.headers, "x-github-event").map(|event| format!("github.{event}"));
            Delivery { id: header(&request.headers, "x-github-delivery"), kind }
        }
        Verify::Stripe => {
            let (id, kind) = head().map_or((None, None), |head| (text(head.id), text(head.kind)));
            Delivery { id, kind: kind.map(|kind| format!("stripe.{kind}")) }
        }
        Verify::Slack => Delivery { id: head().and_then(|head| text(head.event_id)), kind: None },
        Verify::StandardWebhooks => Delivery { id: verified.id, kind: None },
        Verify::Hmac(_) | Verify::Token | Verify::None => Delivery { id: None, kind: None },
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn text(raw: Option<&serde_json::value::RawValue>) -> Option<String> {
    let text: Cow<'_, str> = serde_json::from_str(raw?.get()).ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}
