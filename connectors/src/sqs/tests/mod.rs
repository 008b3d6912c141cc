//! Against a server that speaks SQS (`BELLWIRE_TEST_AWS`), and through a proxy that injects what such servers rarely do.

mod faults;
mod notifications;
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::{MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry};
use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{EventQuery, Feed, Ledger, StoredEvent};
use bellwire_schemas::brokers::{SqsQueue, SqsSource};
use bellwire_schemas::meta::{self, SqsMeta};
use bellwire_schemas::outlet::{Outgoing, OutletError};
use bellwire_schemas::service::{Decode, SourceKind, SourceSpec};
use bellwire_schemas::{Clock, Event};
use bytes::Bytes;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::config::Queue;
use super::connector::SqsConnector;
use super::feeder::Pace;
use crate::suite::pressure::pushes_back;
use crate::suite::{Rig, START, keeps_the_contract, source};
use crate::{Batch, Committed, Connector, Fate, Intake, Limits};

/// The server's URL.
fn server() -> String {
    std::env::var("BELLWIRE_TEST_AWS")
        .expect("BELLWIRE_TEST_AWS: the URL of a server with SQS and S3; ./test starts one and sets it")
}

/// A client as a user would make it.
fn client() -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version_latest()
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(super::client::test_login())
        .region(aws_config::Region::new("us-east-1"))
        .endpoint_url(server())
        .build();
    aws_sdk_sqs::Client::from_conf(config)
}

/// A queue of its own for a test.
struct TestQueue {
    client: aws_sdk_sqs::Client,
    url: String,
}

impl TestQueue {
    async fn new(fifo: bool) -> Self {
        let client = client();
        let name = format!("q-{}{}", Uuid::new_v4().simple(), if fifo { ".fifo" } else { "" });
        let mut create = client.create_queue().queue_name(name);
        if fifo {
            create = create.attributes(QueueAttributeName::FifoQueue, "true");
        }
        let url = create.send().await.unwrap().queue_url.unwrap();
        // The server may call itself by another name.
        let path = url.splitn(4, '/').nth(3).unwrap().to_owned();
        Self { client, url: format!("{}/{path}", server()) }
    }

    /// The queue as seen through another address.
    fn by_way_of(&self, origin: &str) -> SqsQueue {
        let path = self.url.splitn(4, '/').nth(3).unwrap();
        SqsQueue { queue: format!("{origin}/{path}"), endpoint: None, region: None }
    }

    fn spec(&self) -> SqsQueue {
        self.by_way_of(&server())
    }

    /// Sends bodies, ten at a time; the group, if any, is what precedes a colon.
    async fn send(&self, bodies: &[String]) {
        for chunk in bodies.chunks(10) {
            let entry = |(index, body): (usize, &String)| {
                let mut entry =
                    SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body);
                if self.url.ends_with(".fifo") {
                    entry = entry
                        .message_group_id(body.split(':').next().unwrap())
                        .message_deduplication_id(Uuid::new_v4().to_string());
                }
                entry.build().unwrap()
            };
            let entries = chunk.iter().enumerate().map(entry).collect();
            let call = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
            let answer = call.send().await.unwrap();
            assert!(answer.failed.is_empty());
        }
    }

    /// Messages in the queue: visible and invisible ones.
    async fn left(&self) -> (u32, u32) {
        let call = self.client.get_queue_attributes().queue_url(&self.url);
        let found = call.attribute_names(QueueAttributeName::All).send().await.unwrap().attributes.unwrap();
        let number = |name| found.get(&name).map_or(0, |text| text.parse().unwrap());
        (
            number(QueueAttributeName::ApproximateNumberOfMessages),
            number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        )
    }

    async fn is_empty(&self) {
        until("the queue is empty", async || self.left().await == (0, 0)).await;
    }
}

/// Asks until it is so, for a bounded time: other programs' states can only be asked for.
async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let asked = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn spec_of(queue: SqsQueue) -> SourceSpec {
    source("sqs.q", SourceKind::Sqs(SqsSource { queue }))
}

/// An intake over a ledger in memory.
struct Running {
    intake: Intake,
    ledger: ModelLedger,
}

impl Running {
    async fn new(sources: Vec<SourceSpec>) -> Self {
        Self::over(ModelLedger::new(4), sources).await
    }

    async fn over(ledger: ModelLedger, sources: Vec<SourceSpec>) -> Self {
        Self::within(Limits::default(), ledger, sources).await
    }

    async fn within(limits: Limits, ledger: ModelLedger, sources: Vec<SourceSpec>) -> Self {
        let clock = Clock::system();
        let feed = Arc::new(Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap());
        let (live, _) = broadcast::channel(16);
        let intake = Intake::new(feed, live, clock, limits, "one".into());
        intake.apply(sources).await.unwrap();
        Self { intake, ledger }
    }

    async fn stored(&self) -> Vec<StoredEvent> {
        let query = EventQuery { limit: 10_000, ascending: true, ..EventQuery::default() };
        self.ledger.events(&query).await.unwrap().items
    }

    /// The payloads in the ledger, once there are this many.
    async fn payloads(&self, count: usize) -> Vec<String> {
        until(&format!("{count} events are stored"), async || self.stored().await.len() >= count).await;
        let text =
            |e: StoredEvent| String::from_utf8(e.event.data.clone().unwrap_or_default().to_vec()).unwrap();
        self.stored().await.into_iter().map(text).collect()
    }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:04}")).collect()
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

struct SqsRig {
    queue: TestQueue,
    ledger: ModelLedger,
    made: usize,
}

impl SqsRig {
    async fn new() -> Self {
        Self { queue: TestQueue::new(true).await, ledger: ModelLedger::new(4), made: 0 }
    }
}

impl Rig for SqsRig {
    const IDLE: Duration = Duration::from_millis(500);
    const SOURCE: &str = "sqs.q";

    fn ledger(&self) -> ModelLedger {
        self.ledger.clone()
    }

    async fn produce(&mut self, count: usize) {
        let entry = |n: usize| {
            let attribute = MessageAttributeValue::builder().data_type("String");
            let attribute = attribute.string_value("application/cloudevents+json").build().unwrap();
            SendMessageBatchRequestEntry::builder()
                .id(n.to_string())
                .message_body(format!(r#"{{"specversion":"1.0","id":"{n:03}","source":"s","type":"t"}}"#))
                .message_attributes("content-type", attribute)
                .message_group_id("g")
                .message_deduplication_id(n.to_string())
                .build()
                .unwrap()
        };
        let entries = (self.made..self.made + count).map(entry).collect();
        self.made += count;
        let call = self.queue.client.send_message_batch().queue_url(&self.queue.url);
        call.set_entries(Some(entries)).send().await.unwrap();
    }

    fn connect(&self) -> Box<dyn Connector> {
        let spec = Arc::new(spec_of(self.queue.spec()));
        Box::new(SqsConnector::new(spec, Queue::parse(&self.queue.spec()).unwrap(), Pace::DEFAULT))
    }

    async fn commit(&self, batch: &Batch) -> Committed {
        let fates = batch.parcels.iter().map(|_| Fate::Quarantined("kept".into())).collect();
        Committed { fates, accepted_at: START }
    }
}

#[tokio::test]
async fn the_connector_keeps_the_contract() {
    keeps_the_contract(SqsRig::new().await).await;
}

#[tokio::test]
async fn the_connector_is_pushed_back() {
    pushes_back(SqsRig::new().await).await;
}

#[tokio::test]
async fn every_message_is_stored_once_and_deleted() {
    let queue = TestQueue::new(false).await;
    queue.send(&numbered(500)).await;
    let running = Running::new(vec![spec_of(queue.spec())]).await;
    assert_eq!(sorted(running.payloads(500).await), numbered(500));
    queue.is_empty().await;
    let event = running.stored().await.remove(0);
    let meta: SqsMeta = meta::from_map(&event.event.meta).unwrap();
    assert!(meta.queue_arn.starts_with("arn:aws:sqs:us-east-1:"), "{meta:?}");
    assert_eq!(meta.region, "us-east-1");
    assert_eq!(meta.attributes["ApproximateReceiveCount"], "1");
    assert!(meta.attributes.contains_key("SentTimestamp"), "{meta:?}");
    let report = &running.intake.status()[0];
    assert_eq!((report.state, report.counts.accepted, report.counts.duplicate), ("ok", 500, 0));
}

#[tokio::test]
async fn a_group_keeps_its_order() {
    let queue = TestQueue::new(true).await;
    let bodies: Vec<String> = (0..200).map(|n| format!("{}:{n:04}", n % 7)).collect();
    queue.send(&bodies).await;
    let running = Running::new(vec![spec_of(queue.spec())]).await;
    let stored = running.payloads(200).await;
    assert_eq!(sorted(stored), sorted(bodies));
    for event in running.stored().await {
        let body = String::from_utf8(event.event.data.clone().unwrap().to_vec()).unwrap();
        assert_eq!(event.key.as_deref(), body.split(':').next());
    }
    in_order(&running.stored().await);
    queue.is_empty().await;
}

/// The events of each key lie in its lane in the order of their payloads.
fn in_order(stored: &[StoredEvent]) {
    let mut last = std::collections::HashMap::new();
    let mut stored: Vec<_> = stored.iter().collect();
    stored.sort_by_key(|event| event.address);
    for event in stored {
        let before = last.insert(event.key.clone(), event.event.data.clone());
        assert!(
            before.is_none_or(|before| before < event.event.data),
            "{:?} {:?}",
            event.key,
            event.event.data
        );
    }
}

#[tokio::test]
async fn poison_is_quarantined_and_deleted() {
    let queue = TestQueue::new(false).await;
    let deep = "[".repeat(100_000);
    let large = "x".repeat((1 << 20) - 1);
    queue.send(&["not json".into(), deep.clone(), r#"{"fine":1}"#.into()]).await;
    queue.send(std::slice::from_ref(&large)).await;
    let spec = SourceSpec { decode: Decode::Json, ..spec_of(queue.spec()) };
    let running = Running::new(vec![spec]).await;
    assert_eq!(running.payloads(1).await, [r#"{"fine":1}"#]);
    queue.is_empty().await;
    let kept = running.ledger.quarantined(None, 10).await.unwrap();
    let mut bytes: Vec<_> = kept.iter().map(|kept| kept.bytes.clone()).collect();
    bytes.sort_by_key(Bytes::len);
    assert_eq!(bytes, [Bytes::from("not json"), Bytes::from(deep), Bytes::from(large)]);
}

#[tokio::test]
async fn an_arn_is_enough_where_the_endpoint_is_given() {
    let queue = TestQueue::new(false).await;
    queue.send(&numbered(3)).await;
    let name = queue.url.rsplit('/').next().unwrap();
    let by_arn = SqsQueue {
        queue: format!("arn:aws:sqs:us-east-1:000000000000:{name}"),
        endpoint: Some(server()),
        region: None,
    };
    let running = Running::new(vec![spec_of(by_arn)]).await;
    assert_eq!(sorted(running.payloads(3).await), numbered(3));
}

#[tokio::test]
async fn a_missing_queue_is_said() {
    let missing =
        SqsQueue { queue: format!("{}/000000000000/nowhere", server()), endpoint: None, region: None };
    let running = Running::new(vec![spec_of(missing)]).await;
    until("the source fails", async || running.intake.status()[0].state == "failing").await;
    let reason = running.intake.status()[0].reason.clone().unwrap();
    assert!(reason.contains("queue `nowhere`") && reason.contains("right?"), "{reason}");
}

fn outgoing(data: &[u8]) -> Outgoing {
    let event = Event {
        id: Uuid::new_v4().to_string(),
        source: "price:orders".into(),
        kind: "result".into(),
        time: "2026-01-01T00:00:00Z".into(),
        datacontenttype: Some("application/json".into()),
        data: Some(Bytes::copy_from_slice(data)),
        ..Event::default()
    };
    Outgoing { event: Arc::new(event), key: Some("k".into()) }
}

#[tokio::test]
async fn what_an_outlet_sends_a_source_reads_back() {
    for fifo in [false, true] {
        let queue = TestQueue::new(fifo).await;
        let outlet = super::open_outlet(&queue.spec()).unwrap();
        let sent = [outgoing(br#"{"a":1}"#), outgoing(b"\xff\x00")];
        for message in &sent {
            let place = outlet.send(message).await.unwrap();
            assert!(place.starts_with("q-") && place.contains('/'), "{place}");
        }
        // Sent again, as after an answer that was lost: a FIFO queue takes it once.
        outlet.send(&sent[0]).await.unwrap();
        let count = if fifo { 2 } else { 3 };
        let running = Running::new(vec![spec_of(queue.spec())]).await;
        until("all are stored", async || running.stored().await.len() >= count).await;
        queue.is_empty().await;
        let stored = running.stored().await;
        assert_eq!(stored.len(), count);
        for message in &sent {
            let found = stored.iter().find(|stored| stored.event.id == message.event.id).unwrap();
            assert_eq!((&found.event.data, &found.event.kind), (&message.event.data, &message.event.kind));
            assert_eq!(found.key.as_deref(), fifo.then_some("k"));
        }
    }
}

#[tokio::test]
async fn an_outlet_tells_never_from_not_now() {
    let queue = TestQueue::new(false).await;
    let outlet = super::open_outlet(&queue.spec()).unwrap();
    let large = outlet.send(&outgoing(&vec![b'x'; 1 << 20])).await;
    assert!(matches!(large, Err(OutletError::Refused(_))), "{large:?}");
    let missing = SqsQueue { queue: format!("{}/000000000000/nowhere", server()), ..queue.spec() };
    let nowhere = super::open_outlet(&missing).unwrap().send(&outgoing(b"{}")).await;
    assert!(matches!(nowhere, Err(OutletError::Refused(_))), "{nowhere:?}");
    let closed = super::open_outlet(&queue.by_way_of("http://127.0.0.1:9")).unwrap();
    let closed = closed.send(&outgoing(b"{}")).await;
    assert!(matches!(closed, Err(OutletError::Unavailable(_))), "{closed:?}");
}
