//! What AWS Lambda would have received: S3 notifications and scheduled events here, messages in `brokers.rs`. All take
//! a list of events of one source, as a batch has.
//!
//! Sources: the samples of the official runtime clients (`aws-lambda-go` events/testdata, `aws-lambda-rust-runtime`
//! lambda-events fixtures), and the S3 and EventBridge event references.

use bellwire_schemas::{Event, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::brokers;

/// The account and region that stand in events which AWS would have stamped with its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Twelve digits.
    pub id: String,
    /// A region's name; a real one, because clients look it up.
    pub region: String,
    /// Name and id of the Amazon MQ broker that a RabbitMQ server stands for.
    pub broker: String,
}

impl Default for Account {
    /// All zeros, as local stand-ins for AWS use, in the region that the SDKs treat as the first one.
    fn default() -> Self {
        Self {
            id: "000000000000".into(),
            region: "us-east-1".into(),
            broker: "rabbitmq:b-00000000-0000-0000-0000-000000000000".into(),
        }
    }
}

/// The exact JSON of AWS for events of a source of this kind, where AWS has one.
pub(super) fn aws_event(events: &[&Event], kind: Option<&str>, account: &Account) -> Option<Bytes> {
    let shape = match kind? {
        "s3" => return s3(events),
        "schedule" => match events {
            [event] => Some(schedule(event, account)),
            _ => None,
        },
        "kafka" => brokers::kafka(events),
        "rabbitmq" => brokers::rabbitmq(events, account),
        "sqs" => brokers::sqs(events),
        _ => None,
    };
    shape.map(|shape| Bytes::from(shape.to_string()))
}

/// `{"Records":[…]}` around the records as the store sent them, byte for byte; one event is one record.
fn s3(events: &[&Event]) -> Option<Bytes> {
    let mut out = BytesMut::from(b"{\"Records\":[".as_slice());
    for (i, event) in events.iter().enumerate() {
        let record =
            event.data.as_ref().filter(|_| event.data_json().is_some_and(|json| json.is_object()))?;
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(record);
    }
    out.put_slice(b"]}");
    Some(out.freeze())
}

/// The event of an EventBridge rule with a schedule. Its time is the tick, in whole seconds, as AWS writes it.
fn schedule(event: &Event, account: &Account) -> Value {
    let tick = event.subject.as_deref().and_then(|s| Timestamp::parse(s).ok());
    let tick = tick.or_else(|| Timestamp::parse(&event.time).ok());
    let time = tick.map_or_else(|| event.time.clone(), |at| format!("{:.0}", at.to_jiff()));
    let rule = event.source.strip_prefix("schedule:").unwrap_or(&event.source);
    let Account { id, region, .. } = account;
    json!({
        "version": "0",
        "id": event.id,
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": id,
        "time": time,
        "region": region,
        "resources": [format!("arn:aws:events:{region}:{id}:rule/{rule}")],
        "detail": {},
    })
}
