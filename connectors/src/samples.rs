//! Realistic requests per kind, for `bellwire send … --sample` and for functions called by hand; signed by the
//! source's own secret. Pure, but for ids that are made up.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::StoredEvent;
use bellwire_schemas::api::SendRequest;
use bellwire_schemas::meta::{self, KafkaMeta, RabbitmqMeta, SqsMeta};
use bellwire_schemas::service::{Secret, SourceKind, SourceSpec, Verify, WebhookSpec};
use bellwire_schemas::{Address, Lane, Seq, SourceName, Timestamp};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::registry::{HOOKS, S3, TOPICS};
use crate::webhook::{self, WebhookConfig};
use crate::{DoorRequest, Draft, object_store, timer, topic};

const JSON: &str = "application/json";

/// The request that sends one event to a source: the given data, else the kind's sample with the given number.
/// `None` for kinds without a door.
pub fn request_for(source: &Arc<SourceSpec>, send: &SendRequest, now: Timestamp) -> Option<DoorRequest> {
    let number = send.sample.unwrap_or(0);
    let sample = sample_body(&source.kind, number, now)?;
    let body = send.data.clone().map_or_else(|| Bytes::from(sample.to_string()), Bytes::from);
    let mut request = DoorRequest {
        method: Method::POST,
        path: path(&source.kind)?,
        query: None,
        headers: HeaderMap::new(),
        body,
        peer: None,
    };
    set(&mut request, CONTENT_TYPE.as_str(), send.content_type.as_deref().unwrap_or(JSON));
    if let SourceKind::Webhook(spec) = &source.kind {
        if spec.verify == Verify::Github {
            set(&mut request, "x-github-event", "push");
            set(&mut request, "x-github-delivery", &Uuid::now_v7().to_string());
        }
        sign(&mut request, source, spec, now);
    }
    Some(request)
}

/// Signs a request as the webhook's provider would, with the first of its secrets.
pub fn sign(request: &mut DoorRequest, source: &Arc<SourceSpec>, spec: &WebhookSpec, now: Timestamp) {
    if let Ok(config) = WebhookConfig::new(source.clone(), spec) {
        webhook::sign(&config, request, now);
    }
}

/// The body of a kind's sample; the number makes samples differ.
pub fn sample_body(kind: &SourceKind, number: u32, now: Timestamp) -> Option<Value> {
    match kind {
        SourceKind::S3 { bucket, .. } => Some(s3(bucket, number, now)),
        SourceKind::Topic { topic } => {
            Some(json!({ "message": format!("sample {number} for {topic}"), "number": number }))
        }
        SourceKind::Webhook(spec) => Some(match spec.verify {
            Verify::Github => github(number),
            Verify::Stripe => stripe(number, now),
            Verify::Slack => slack(number, now),
            _ => json!({ "type": "sample", "number": number, "at": now }),
        }),
        SourceKind::Schedule(_)
        | SourceKind::Kafka(_)
        | SourceKind::Rabbitmq(_)
        | SourceKind::Sqs(_)
        | SourceKind::Outbox => None,
    }
}

/// A stored event as the first sample of a kind (`kafka`, `rabbitmq`, `sqs`, `s3`, `schedule`, `webhook`, `topic`) would
/// be.
pub fn sample_event(kind: &str, now: Timestamp) -> Option<StoredEvent> {
    let source = SourceName::new(format!("{kind}.sample"));
    let mut draft = match kind {
        "s3" => {
            let record = &s3("sample-bucket", 0, now)["Records"][0];
            let record = object_store::envelope::record(Bytes::from(record.to_string()));
            record.object.as_ref().ok().map(|object| record.draft(object))
        }
        "schedule" => Some(timer::envelope::draft(&source, now)),
        "topic" => {
            let body = sample_body(&SourceKind::Topic { topic: "sample".into() }, 0, now)?;
            plain("topic:sample", topic::envelope::PLAIN_TYPE, &body)
        }
        "webhook" => {
            let spec = WebhookSpec {
                path: "/sample".into(),
                verify: Verify::None,
                secrets: Vec::<Secret>::new(),
                tolerance: Duration::ZERO,
            };
            let body = sample_body(&SourceKind::Webhook(spec), 0, now)?;
            plain("webhook:/sample", webhook::envelope::PLAIN_TYPE, &body)
        }
        "kafka" | "rabbitmq" | "sqs" => message(kind, now),
        _ => None,
    }?;
    if draft.event.id.is_empty() {
        draft.event.id = Uuid::now_v7().to_string();
    }
    if draft.event.time.is_empty() {
        draft.event.time = now.to_string();
    }
    Some(StoredEvent {
        address: Address::new(Lane(1), Seq(1)),
        source,
        accepted_at: now,
        key: draft.key,
        event: Arc::new(draft.event),
    })
}

fn plain(source: &str, kind: &str, body: &Value) -> Option<Draft> {
    let event = bellwire_schemas::Event {
        source: source.into(),
        kind: kind.into(),
        datacontenttype: Some(JSON.into()),
        data: Some(Bytes::from(body.to_string())),
        ..bellwire_schemas::Event::default()
    };
    Some(Draft { event, ..Draft::default() })
}

/// A message of a broker: an order, with the metadata that the connector would keep.
fn message(kind: &str, now: Timestamp) -> Option<Draft> {
    let body = json!({ "order_id": "o-1", "status": "NEW", "total": 12.5 });
    let mut draft = match kind {
        "kafka" => plain("kafka:sample", "kafka.record", &body),
        "rabbitmq" => plain("rabbitmq:sample", "rabbitmq.message", &body),
        _ => plain("sqs:sample", "sqs.message", &body),
    }?;
    let millis = now.millis();
    draft.event.meta = match kind {
        "kafka" => {
            draft.event.id = "sample/0/0".into();
            draft.event.subject = Some("o-1".into());
            draft.key = Some("o-1".into());
            meta::to_map(&KafkaMeta {
                topic: "sample".into(),
                timestamp: Some(millis),
                timestamp_type: Some("CREATE_TIME".into()),
                bootstrap_servers: "localhost:9092".into(),
                ..KafkaMeta::default()
            })
        }
        "rabbitmq" => {
            draft.event.subject = Some("order.created".into());
            let properties = json!({
                "contentType": JSON, "deliveryMode": 2, "messageId": Uuid::now_v7().to_string(), "timestamp": millis / 1000,
            });
            meta::to_map(&RabbitmqMeta {
                queue: "sample".into(),
                vhost: "/".into(),
                routing_key: "order.created".into(),
                properties: properties.as_object().cloned().unwrap_or_default(),
                ..RabbitmqMeta::default()
            })
        }
        _ => {
            draft.event.id = Uuid::now_v7().to_string();
            let attributes = [
                ("ApproximateReceiveCount", "1".to_owned()),
                ("ApproximateFirstReceiveTimestamp", millis.to_string()),
                ("SentTimestamp", millis.to_string()),
                ("SenderId", "sample".to_owned()),
            ];
            meta::to_map(&SqsMeta {
                message_id: draft.event.id.clone(),
                receipt_handle: "sample".into(),
                attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                queue_arn: "arn:aws:sqs:us-east-1:000000000000:sample".into(),
                region: "us-east-1".into(),
                ..SqsMeta::default()
            })
        }
    };
    Some(draft)
}

fn path(kind: &SourceKind) -> Option<String> {
    match kind {
        SourceKind::S3 { via: None, .. } => Some(S3.into()),
        SourceKind::Topic { topic } => Some(format!("{TOPICS}/{topic}")),
        SourceKind::Webhook(spec) => Some(format!("{HOOKS}{}", spec.path)),
        SourceKind::S3 { via: Some(_), .. }
        | SourceKind::Schedule(_)
        | SourceKind::Kafka(_)
        | SourceKind::Rabbitmq(_)
        | SourceKind::Sqs(_)
        | SourceKind::Outbox => None,
    }
}

/// A Put as Amazon S3 sends it (event version 2.1).
fn s3(bucket: &str, number: u32, now: Timestamp) -> Value {
    let unique = Uuid::new_v4().simple().to_string().to_uppercase();
    json!({ "Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": now,
        "eventName": "ObjectCreated:Put",
        "userIdentity": { "principalId": "AWS:EXAMPLE" },
        "requestParameters": { "sourceIPAddress": "127.0.0.1" },
        "responseElements": { "x-amz-request-id": &unique[..16], "x-amz-id-2": unique },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "sample",
            "bucket": {
                "name": bucket,
                "ownerIdentity": { "principalId": "EXAMPLE" },
                "arn": format!("arn:aws:s3:::{bucket}"),
            },
            "object": {
                "key": format!("sample-{number}.jpg"),
                "size": 1024,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "sequencer": format!("{:016X}{number:04X}", now.micros()),
            },
        },
    }] })
}

fn github(number: u32) -> Value {
    let commit = format!("{number:040x}");
    json!({
        "ref": "refs/heads/main",
        "before": "0".repeat(40),
        "after": commit,
        "repository": { "id": 1, "name": "sample", "full_name": "octocat/sample", "private": false },
        "pusher": { "name": "octocat", "email": "octocat@example.com" },
        "commits": [{ "id": commit, "message": format!("sample commit {number}"), "added": ["README.md"] }],
        "head_commit": { "id": commit, "message": format!("sample commit {number}") },
    })
}

fn stripe(number: u32, now: Timestamp) -> Value {
    json!({
        "id": format!("evt_{}", Uuid::now_v7().simple()),
        "object": "event",
        "type": "invoice.paid",
        "created": now.millis() / 1_000,
        "livemode": false,
        "data": { "object": { "id": format!("in_sample{number}"), "object": "invoice", "amount_paid": 1_000 + number } },
    })
}

fn slack(number: u32, now: Timestamp) -> Value {
    let seconds = now.millis() / 1_000;
    json!({
        "type": "event_callback",
        "event_id": format!("Ev{}", Uuid::now_v7().simple()),
        "event_time": seconds,
        "team_id": "T0SAMPLE",
        "event": {
            "type": "message", "channel": "C0SAMPLE", "user": "U0SAMPLE",
            "text": format!("sample {number}"), "ts": format!("{seconds}.000100"),
        },
    })
}

fn set(request: &mut DoorRequest, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        request.headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_but_the_outbox_has_a_sample_event() {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        for kind in ["kafka", "rabbitmq", "sqs", "s3", "schedule", "webhook", "topic"] {
            let event = sample_event(kind, now).unwrap_or_else(|| panic!("{kind} has no sample")).event;
            assert!(event.data_json().is_some() && !event.id.is_empty(), "{kind}: {event:?}");
        }
        let meta = |kind: &str| sample_event(kind, now).unwrap().event.meta.clone();
        let kafka: KafkaMeta = meta::from_map(&meta("kafka")).unwrap();
        assert_eq!(kafka.timestamp, Some(1_800_000_000_000));
        assert!(meta::from_map::<RabbitmqMeta>(&meta("rabbitmq")).is_some());
        assert!(meta::from_map::<SqsMeta>(&meta("sqs")).is_some());
        assert!(sample_event("outbox", now).is_none());
    }
}
