//! The contract suite: every pull connector and every door passes it.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{Append, Ledger, NewEvent};
use bellwire_schemas::service::{
    Decode, DedupRule, KeyRule, Missed, ScheduleSpec, Secret, SourceKind, SourceSpec, Verify, WebhookSpec,
};
use bellwire_schemas::{Clock, Event, Lane, Timestamp};
use bytes::Bytes;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use uuid::Uuid;

use crate::contract::{Batch, Committed, Connector, Content, Draft, Fate, Limit, Parcel, Release};
use crate::memory::MemoryUpstream;
use crate::registry::Table;
use crate::timer::{Timer, TimerConnector};
use crate::{Admitted, DoorRequest};

pub(crate) mod pressure;

/// A moment at which nothing else happens: 2026-01-01T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A source with default rules.
pub(crate) fn source(name: &str, kind: SourceKind) -> SourceSpec {
    SourceSpec {
        name: name.into(),
        kind,
        key: KeyRule::Default,
        dedup: DedupRule::Default,
        decode: Decode::Auto,
        enabled: true,
    }
}

pub(crate) fn topic(name: &str) -> SourceSpec {
    source(&format!("topic.{name}"), SourceKind::Topic { topic: name.into() })
}

pub(crate) fn bucket(name: &str) -> SourceSpec {
    source(&format!("s3.{name}"), SourceKind::S3 { bucket: name.into(), via: None })
}

pub(crate) fn webhook(path: &str, verify: Verify, secrets: &[&str]) -> SourceSpec {
    let secrets = secrets.iter().map(|s| Secret::new(*s)).collect();
    let spec = WebhookSpec { path: path.into(), verify, secrets, tolerance: Duration::from_secs(300) };
    source(&format!("webhook{}", path.replace('/', ".")), SourceKind::Webhook(spec))
}

pub(crate) fn schedule(expression: &str, missed: Missed) -> ScheduleSpec {
    ScheduleSpec {
        expressions: vec![expression.into()],
        timezone: "UTC".into(),
        missed,
        jitter: Duration::ZERO,
        start: None,
        end: None,
    }
}

pub(crate) fn post(path: &str, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> DoorRequest {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q.to_owned())));
    DoorRequest {
        method: Method::POST,
        path: path.into(),
        query,
        headers: map,
        body: body.into(),
        peer: Some("203.0.113.9:4711".parse().unwrap()),
    }
}

/// What the suite needs of a pull connector: messages on demand, numbered in order by their ids, and a fresh
/// connection to the same upstream.
pub(crate) trait Rig {
    /// How long nothing must come before it counts as nothing; short where time is not paused.
    const IDLE: Duration = Duration::from_secs(5);
    /// The name of the source whose messages come.
    const SOURCE: &str;

    /// Where positions are kept, and events once they are stored; the same one every time.
    fn ledger(&self) -> ModelLedger;
    async fn produce(&mut self, count: usize);
    fn connect(&self) -> Box<dyn Connector>;
    /// Commits a batch as the intake does, and returns what it would confirm.
    async fn commit(&self, batch: &Batch) -> Committed;
}

struct MemoryRig {
    upstream: MemoryUpstream,
    ledger: ModelLedger,
    made: usize,
}

impl Default for MemoryRig {
    fn default() -> Self {
        Self { upstream: MemoryUpstream::default(), ledger: ModelLedger::new(1), made: 0 }
    }
}

impl Rig for MemoryRig {
    const SOURCE: &str = "topic.t";

    fn ledger(&self) -> ModelLedger {
        self.ledger.clone()
    }

    async fn produce(&mut self, count: usize) {
        for _ in 0..count {
            self.made += 1;
            let event = Event { id: format!("{:03}", self.made), ..Event::default() };
            let content = Content::Event(Box::new(Draft { event, ..Draft::default() }));
            self.upstream.push(Parcel { source: Arc::new(topic("t")), content });
        }
    }

    fn connect(&self) -> Box<dyn Connector> {
        Box::new(self.upstream.connect())
    }

    async fn commit(&self, batch: &Batch) -> Committed {
        let fates = batch.parcels.iter().map(|_| Fate::Quarantined("kept".into())).collect();
        Committed { fates, accepted_at: START }
    }
}

struct TimerRig {
    timer: Arc<Timer>,
    ledger: ModelLedger,
    clock: Clock,
}

impl TimerRig {
    async fn new() -> Self {
        let spec = schedule("* * * * *", Missed::All);
        let source = Arc::new(source("schedule.t", SourceKind::Schedule(spec.clone())));
        let timer = Arc::new(Timer::new(source, &spec).unwrap());
        let rig = Self { timer, ledger: ModelLedger::new(1), clock: Clock::manual(START) };
        let mut first = rig.connect();
        let batch = first.receive(Limit { items: 10, bytes: 1 << 20 }).await.unwrap();
        assert!(batch.parcels.is_empty(), "a new schedule makes no tick for the past");
        rig.commit(&batch).await;
        rig
    }
}

impl Rig for TimerRig {
    const SOURCE: &str = "schedule.t";

    fn ledger(&self) -> ModelLedger {
        self.ledger.clone()
    }

    async fn produce(&mut self, count: usize) {
        self.clock.advance(Duration::from_secs(60 * count as u64));
    }

    fn connect(&self) -> Box<dyn Connector> {
        Box::new(TimerConnector::new(self.timer.clone(), Arc::new(self.ledger.clone()), self.clock.clone()))
    }

    async fn commit(&self, batch: &Batch) -> Committed {
        let event = |draft: &Draft| NewEvent {
            source: self.timer.source.name.clone(),
            lane: Lane(1),
            key: None,
            dedup: None,
            event: Arc::new(draft.event.clone()),
        };
        let append = Append {
            append_id: Uuid::now_v7(),
            events: batch.parcels.iter().map(|p| event(draft_of(p))).collect(),
            positions: batch.positions.clone(),
            quarantined: Vec::new(),
        };
        let appended = self.ledger.append(append, self.clock.now()).await.unwrap();
        let fates = appended.items.iter().map(|_| Fate::Quarantined("kept".into())).collect();
        Committed { fates, accepted_at: appended.accepted_at }
    }
}

fn draft_of(parcel: &Parcel) -> &Draft {
    match &parcel.content {
        Content::Event(draft) => draft,
        other => panic!("{other:?}"),
    }
}

fn ids(batch: &Batch) -> Vec<String> {
    batch.parcels.iter().map(|p| draft_of(p).event.id.clone()).collect()
}

const LIMIT: Limit = Limit { items: 3, bytes: 1 << 20 };

/// Everything the trait promises, on any connector. A batch is what is there, so one from a broker may be smaller than
/// the limit, and may have grown when it comes again.
pub(crate) async fn keeps_the_contract<R: Rig>(mut rig: R) {
    let mut connector = rig.connect();
    let idle = tokio::time::timeout(R::IDLE, connector.receive(LIMIT)).await;
    assert!(idle.is_err(), "nothing to receive, yet something came; and a receive was dropped");

    rig.produce(5).await;
    let first = connector.receive(LIMIT).await.unwrap();
    assert!((1..=3).contains(&first.parcels.len()), "the limit holds");
    let again = connector.receive(LIMIT).await.unwrap();
    assert!(ids(&again).starts_with(&ids(&first)), "what was not confirmed comes again");
    connector.release(again.receipt, Release::Failed("test".into())).await;
    let released = connector.receive(LIMIT).await.unwrap();
    assert!(ids(&released).starts_with(&ids(&again)), "what was released comes again");
    drop(connector);

    let mut connector = rig.connect();
    let fresh = connector.receive(LIMIT).await.unwrap();
    assert_eq!(ids(&fresh)[0], ids(&first)[0], "a new connection gets what nobody confirmed");
    let committed = rig.commit(&fresh).await;
    connector.confirm(fresh.receipt, &committed).await.unwrap();
    let rest = connector.receive(LIMIT).await.unwrap();
    connector.confirm(fresh.receipt, &committed).await.unwrap();
    let same = connector.receive(LIMIT).await.unwrap();
    assert!(ids(&same).starts_with(&ids(&rest)), "confirming twice confirms nothing else");
    let mut order = ids(&fresh);
    order.extend(ids(&same));
    let committed = rig.commit(&same).await;
    connector.confirm(same.receipt, &committed).await.unwrap();
    while order.len() < 5 {
        let more = connector.receive(LIMIT).await.unwrap();
        order.extend(ids(&more));
        let committed = rig.commit(&more).await;
        connector.confirm(more.receipt, &committed).await.unwrap();
    }
    assert_eq!(order.len(), 5);
    assert!(order.is_sorted(), "order holds: {order:?}");

    let idle = tokio::time::timeout(R::IDLE, connector.receive(LIMIT)).await;
    assert!(idle.is_err(), "everything is confirmed");
    assert!(matches!(connector.backlog().await, Ok(None | Some(0))), "and nothing waits");
}

#[tokio::test(start_paused = true)]
async fn the_connector_in_memory_keeps_the_contract() {
    keeps_the_contract(MemoryRig::default()).await;
}

#[tokio::test(start_paused = true)]
async fn the_timer_keeps_the_contract() {
    keeps_the_contract(TimerRig::new().await).await;
}

/// All doors of one table.
fn doors() -> Table {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    Table::open(vec![
        topic("t"),
        bucket("photos"),
        webhook("/open", Verify::None, &[]),
        webhook("/github", Verify::Github, &["s"]),
        webhook("/stripe", Verify::Stripe, &["s"]),
        webhook("/slack", Verify::Slack, &["s"]),
        webhook("/standard", Verify::StandardWebhooks, &[secret]),
    ])
    .unwrap()
}

/// Parcels as text, ids that were made up left out.
fn shown(admitted: Result<Admitted, crate::Refused>) -> String {
    format!("{admitted:?}")
}

#[test]
fn doors_are_pure_and_refuse_other_methods() {
    let table = doors();
    for (path, entrance) in &table.entrances {
        let request = post(path, &[("content-type", "application/json")], "{\"Records\":[]}");
        assert_eq!(
            shown(entrance.door.admit(&request, START)),
            shown(entrance.door.admit(&request, START)),
            "{path}"
        );
        let get = DoorRequest { method: Method::GET, ..request };
        assert_eq!(entrance.door.admit(&get, START).unwrap_err().code, "method-not-allowed", "{path}");
    }
}

proptest! {
    #[test]
    fn no_request_makes_a_door_panic(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "\\{\"(Records|Event|Type|Message|type|id|specversion)\":[\\[{\"0-9,}\\]n]{0,9}\\}?".prop_map(String::into_bytes),
        ],
        kind in "(application/(json|cloudevents\\+json|cloudevents-batch\\+json))?",
        header in "[ -~]{0,30}",
    ) {
        let table = doors();
        for (path, entrance) in &table.entrances {
            let headers = [
                ("content-type", kind.as_str()), ("ce-specversion", "1.0"), ("ce-id", &header),
                ("x-hub-signature-256", &header), ("stripe-signature", &header), ("webhook-id", &header),
                ("webhook-timestamp", &header), ("webhook-signature", &header),
                ("x-slack-signature", &header), ("x-slack-request-timestamp", &header),
            ];
            let request = post(path, &headers, body.clone());
            if let Ok(Admitted::Parcels(parcels)) = entrance.door.admit(&request, START) {
                for parcel in parcels {
                    let _ = crate::rules::rule(parcel, 1 << 20, START);
                }
            }
        }
    }
}
