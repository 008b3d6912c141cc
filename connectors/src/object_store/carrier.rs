//! Notifications that a broker carries: records of a carrier's messages become events of the `s3` sources that name
//! it by `via`. Whatever is not claimed stays the carrier's event; nothing is dropped.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use bellwire_schemas::SourceName;
use bellwire_schemas::service::{SourceKind, SourceSpec};

use super::Buckets;
use super::envelope::{Notification, Record, read};
use crate::{
    Batch, Committed, Connector, ConnectorError, Content, Draft, Fate, Limit, Parcel, Receipt, Release,
};

/// Which buckets' notifications come in which source's messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried(HashMap<SourceName, Arc<Buckets>>);

impl Carried {
    /// Sorts the `s3` sources by carrier; those that are not enabled claim nothing. All that is wrong comes at once.
    pub(crate) fn new(sources: &[Arc<SourceSpec>]) -> Result<Self, Vec<String>> {
        let mut found: HashMap<SourceName, Vec<_>> = HashMap::new();
        let mut wrong = Vec::new();
        for spec in sources {
            let SourceKind::S3 { via: Some(carrier), .. } = &spec.kind else { continue };
            match sources.iter().find(|other| other.name == *carrier).map(|other| &other.kind) {
                Some(SourceKind::Kafka(_) | SourceKind::Rabbitmq(_) | SourceKind::Sqs(_)) => {}
                Some(other) => wrong.push(format!(
                    "source `{}`: via names `{carrier}`, a `{}` source: name a kafka, rabbitmq or sqs source",
                    spec.name,
                    other.word()
                )),
                None => {
                    wrong.push(format!(
                        "source `{}`: via names `{carrier}`, but there is no such source",
                        spec.name
                    ));
                }
            }
            if spec.enabled {
                found.entry(carrier.clone()).or_default().push(spec.clone());
            }
        }
        let sorted = found.into_iter().map(|(name, specs)| (name, Arc::new(Buckets::new(&specs)))).collect();
        if wrong.is_empty() { Ok(Self(sorted)) } else { Err(wrong) }
    }
}

/// The same while sources come and go: running connectors look here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carriers(Arc<RwLock<Carried>>);

impl Carriers {
    /// Says what is carried from now on.
    pub(crate) fn set(&self, carried: Carried) {
        *self.0.write().expect("no code panics while it holds this lock") = carried;
    }

    /// A connector whose notifications become events of their buckets' sources.
    pub(crate) fn wrap(&self, name: &SourceName, inner: Box<dyn Connector>) -> Box<dyn Connector> {
        Box::new(Carrier { inner, name: name.clone(), carriers: self.clone(), counts: None })
    }

    fn of(&self, name: &SourceName) -> Option<Arc<Buckets>> {
        self.0.read().expect("no code panics while it holds this lock").0.get(name).cloned()
    }
}

/// A connector around another one. A message is confirmed when all of its records are durable.
struct Carrier {
    inner: Box<dyn Connector>,
    name: SourceName,
    carriers: Carriers,
    /// Of the batch that is out: how many parcels each message became.
    counts: Option<(Receipt, Vec<usize>)>,
}

#[async_trait]
impl Connector for Carrier {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        let mut batch = self.inner.receive(limit).await?;
        self.counts = None;
        if let Some(buckets) = self.carriers.of(&self.name) {
            let mut counts = Vec::with_capacity(batch.parcels.len());
            let mut parcels = Vec::with_capacity(batch.parcels.len());
            for parcel in batch.parcels {
                let before = parcels.len();
                unwrap(parcel, &buckets, &mut parcels);
                counts.push(parcels.len() - before);
            }
            batch.parcels = parcels;
            self.counts = Some((batch.receipt, counts));
        }
        Ok(batch)
    }

    async fn confirm(&mut self, receipt: Receipt, committed: &Committed) -> Result<(), ConnectorError> {
        match &self.counts {
            Some((counted, counts)) if *counted == receipt => {
                let folded = Committed { fates: fold(&committed.fates, counts), ..committed.clone() };
                self.inner.confirm(receipt, &folded).await
            }
            _ => self.inner.confirm(receipt, committed).await,
        }
    }

    async fn release(&mut self, receipt: Receipt, why: Release) {
        self.inner.release(receipt, why).await;
    }

    async fn close(&mut self) {
        self.inner.close().await;
    }

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        self.inner.backlog().await
    }

    fn complaint(&self) -> Option<String> {
        self.inner.complaint()
    }
}

/// One fate per message: that of its first record.
fn fold(fates: &[Fate], counts: &[usize]) -> Vec<Fate> {
    let starts = counts.iter().scan(0, |start, count| {
        let here = *start;
        *start += count;
        Some(here)
    });
    starts.filter_map(|start| fates.get(start).cloned()).collect()
}

/// Adds the records of a message whose buckets are claimed; the message itself too, unless all of them are.
fn unwrap(parcel: Parcel, buckets: &Buckets, into: &mut Vec<Parcel>) {
    let Content::Event(carrier) = &parcel.content else { return into.push(parcel) };
    let Some(Ok(Notification::Records(records))) = carrier.event.data.as_ref().map(read) else {
        return into.push(parcel);
    };
    let mut all = !records.is_empty();
    for record in &records {
        let sources = record.object.as_ref().map_or(&[][..], |object| buckets.of(&object.bucket));
        all &= !sources.is_empty();
        for source in sources {
            into.extend(record_parcel(source, record, carrier));
        }
    }
    if !all {
        into.push(parcel);
    }
}

/// A record as an event of its source; it belongs to the trace of the message that brought it.
fn record_parcel(source: &Arc<SourceSpec>, record: &Record, carrier: &Draft) -> Option<Parcel> {
    let mut draft = record.draft(record.object.as_ref().ok()?);
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = carrier.event.extensions.get(name) {
            draft.event.extensions.insert(name.into(), value.clone());
        }
    }
    Some(Parcel { source: source.clone(), content: Content::Event(Box::new(draft)) })
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::brokers::{SqsQueue, SqsSource};
    use bellwire_schemas::{Address, Event, Lane, Seq};
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::memory::MemoryUpstream;
    use crate::suite::{START, source, topic};

    const LIMIT: Limit = Limit { items: 100, bytes: 1 << 20 };

    fn via(name: &str, bucket: &str, carrier: &str) -> Arc<SourceSpec> {
        let kind = SourceKind::S3 { bucket: bucket.into(), via: Some(carrier.into()) };
        Arc::new(source(name, kind))
    }

    fn queue() -> Arc<SourceSpec> {
        let queue = SqsQueue { queue: "arn:aws:sqs:us-east-1:1:q".into(), endpoint: None, region: None };
        Arc::new(source("uploads", SourceKind::Sqs(SqsSource { queue })))
    }

    fn message(data: impl Into<Bytes>) -> Parcel {
        let mut event = Event { kind: "sqs.message".into(), data: Some(data.into()), ..Event::default() };
        event.extensions.insert("traceparent".into(), "00-1".into());
        let content = Content::Event(Box::new(Draft { event, dedup: Some("m".into()), ..Draft::default() }));
        Parcel { source: queue(), content }
    }

    fn record(bucket: &str, key: &str) -> Value {
        json!({ "eventName": "ObjectCreated:Put", "eventTime": "2026-01-01T00:00:00Z",
            "s3": { "bucket": { "name": bucket }, "object": { "key": key, "sequencer": "1" } } })
    }

    fn records(all: &[Value]) -> String {
        json!({ "Records": all }).to_string()
    }

    fn shown(parcels: &[Parcel]) -> Vec<(&str, Option<&str>)> {
        parcels
            .iter()
            .map(|parcel| match &parcel.content {
                Content::Event(draft) => (parcel.source.name.as_str(), draft.event.subject.as_deref()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn carriers(sources: &[Arc<SourceSpec>]) -> Carriers {
        let carriers = Carriers::default();
        carriers.set(Carried::new(sources).unwrap());
        carriers
    }

    #[tokio::test]
    async fn records_of_claimed_buckets_become_events_and_all_else_stays() {
        let sources = [queue(), via("photos", "photos", "uploads"), via("thumbs", "photos", "uploads")];
        let sns = json!({ "Type": "Notification", "Message": records(&[record("photos", "c")]) }).to_string();
        let bridge = json!({ "detail-type": "Object Created", "source": "aws.s3", "detail":
            { "bucket": { "name": "photos" }, "object": { "key": "d" }, "reason": "PutObject" } });
        let test = json!({ "Event": "s3:TestEvent", "Bucket": "photos" }).to_string();
        let upstream = MemoryUpstream::default();
        for data in [
            records(&[record("photos", "a"), record("photos", "b")]),
            "other".into(),
            records(&[record("photos", "x"), record("unknown", "y")]),
            sns,
            bridge.to_string(),
            test,
            records(&[]),
            "[".repeat(10_000),
        ] {
            upstream.push(message(data));
        }
        let mut connector = carriers(&sources).wrap(&"uploads".into(), Box::new(upstream.connect()));
        let batch = connector.receive(LIMIT).await.unwrap();
        let (photos, thumbs) = (|key| ("photos", Some(key)), |key| ("thumbs", Some(key)));
        let stays = ("uploads", None);
        let expected = [
            vec![photos("a"), thumbs("a"), photos("b"), thumbs("b")],
            vec![stays],
            vec![photos("x"), thumbs("x"), stays],
            vec![photos("c"), thumbs("c")],
            vec![photos("d"), thumbs("d")],
            vec![stays],
            vec![stays],
            vec![stays],
        ];
        assert_eq!(shown(&batch.parcels), expected.concat());
        let Content::Event(draft) = &batch.parcels[0].content else { panic!() };
        assert_eq!((draft.key.as_deref(), draft.event.traceparent()), (Some("a"), Some("00-1")));
        assert_ne!(draft.dedup.as_deref(), Some("m"), "a record's identity is its own");

        let fate = |n: usize| Fate::Accepted(Address::new(Lane(1), Seq(n as u64 + 1)));
        let fates: Vec<Fate> = (0..batch.parcels.len()).map(fate).collect();
        let counts: Vec<usize> = expected.iter().map(Vec::len).collect();
        assert_eq!(fold(&fates, &counts)[..4], [fate(0), fate(4), fate(5), fate(8)]);
        assert_eq!(fold(&fates, &counts).len(), 8);
        connector.confirm(batch.receipt, &Committed { fates, accepted_at: START }).await.unwrap();
        assert!(upstream.is_empty());
    }

    #[tokio::test]
    async fn sources_that_are_off_or_gone_claim_nothing() {
        let upstream = MemoryUpstream::default();
        upstream.push(message(records(&[record("photos", "a")])));
        let off = SourceSpec { enabled: false, ..(*via("photos", "photos", "uploads")).clone() };
        let carriers = carriers(&[queue(), Arc::new(off)]);
        let mut connector = carriers.wrap(&"uploads".into(), Box::new(upstream.connect()));
        assert_eq!(shown(&connector.receive(LIMIT).await.unwrap().parcels), [("uploads", None)]);
        carriers.set(Carried::new(&[queue(), via("photos", "photos", "uploads")]).unwrap());
        assert_eq!(shown(&connector.receive(LIMIT).await.unwrap().parcels), [("photos", Some("a"))]);
    }

    #[test]
    fn carriers_are_brokers_that_exist() {
        let wrong = [
            queue(),
            Arc::new(topic("t")),
            via("a", "b", "nowhere"),
            via("b", "b", "topic.t"),
            via("c", "b", "a"),
            via("d", "b", "uploads"),
        ];
        let wrong = Carried::new(&wrong).unwrap_err();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].contains("no such source") && wrong[1].contains("`topic` source"), "{wrong:?}");
    }
}
