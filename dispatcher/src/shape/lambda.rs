//! What AWS Lambda would have received: S3 notifications and scheduled events.
//!
//! Sources: the samples of the official runtime clients (`aws-lambda-go` events/testdata, `aws-lambda-rust-runtime`
//! lambda-events fixtures), and the S3 and EventBridge event references.

use bellwire_schemas::{Event, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

/// The account and region that stand in events which AWS would have stamped with its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Twelve digits.
    pub id: String,
    /// A region's name; a real one, because clients look it up.
    pub region: String,
}

impl Default for Account {
    /// All zeros, as local stand-ins for AWS use, in the region that the SDKs treat as the first one.
    fn default() -> Self {
        Self { id: "000000000000".into(), region: "us-east-1".into() }
    }
}

/// The exact JSON of AWS for a source's kind, where AWS has one.
pub(super) fn aws_event(event: &Event, kind: Option<&str>, account: &Account) -> Option<Bytes> {
    match kind? {
        "s3" => s3(event),
        "schedule" => Some(schedule(event, account)),
        _ => None,
    }
}

/// `{"Records":[…]}` around the record as the store sent it, byte for byte; one event is one record.
fn s3(event: &Event) -> Option<Bytes> {
    const OPEN: &[u8] = b"{\"Records\":[";
    let record = event.data.as_ref()?;
    event.data_json()?.is_object().then(|| {
        let mut out = BytesMut::with_capacity(OPEN.len() + record.len() + 2);
        out.put_slice(OPEN);
        out.put_slice(record);
        out.put_slice(b"]}");
        out.freeze()
    })
}

/// The event of an EventBridge rule with a schedule. Its time is the tick, in whole seconds, as AWS writes it.
fn schedule(event: &Event, account: &Account) -> Bytes {
    let tick = event.subject.as_deref().and_then(|s| Timestamp::parse(s).ok());
    let tick = tick.or_else(|| Timestamp::parse(&event.time).ok());
    let time = tick.map_or_else(|| event.time.clone(), |at| format!("{:.0}", at.to_jiff()));
    let rule = event.source.strip_prefix("schedule:").unwrap_or(&event.source);
    let Account { id, region } = account;
    let shape = json!({
        "version": "0",
        "id": event.id,
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": id,
        "time": time,
        "region": region,
        "resources": [format!("arn:aws:events:{region}:{id}:rule/{rule}")],
        "detail": {},
    });
    Bytes::from(shape.to_string())
}
