//! The watchdog beside the loop, with connectors in memory; time is paused, so two minutes are nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::memory::{MemoryConnector, MemoryUpstream};
use crate::{Batch, Committed, Connector, ConnectorError, Limit, Receipt, Release};

/// Where a connector is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    Nowhere,
    Receiving,
    Confirming,
    Asking,
}

/// The connector in memory, stuck somewhere.
struct Ill(MemoryConnector, Stuck);

#[async_trait]
impl Connector for Ill {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        match self.1 {
            Stuck::Receiving | Stuck::Asking => std::future::pending().await,
            _ => self.0.receive(limit).await,
        }
    }

    async fn confirm(&mut self, receipt: Receipt, committed: &Committed) -> Result<(), ConnectorError> {
        match self.1 {
            Stuck::Confirming => std::future::pending().await,
            _ => self.0.confirm(receipt, committed).await,
        }
    }

    async fn release(&mut self, receipt: Receipt, why: Release) {
        self.0.release(receipt, why).await;
    }

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        match self.1 {
            Stuck::Asking => std::future::pending().await,
            _ => self.0.backlog().await,
        }
    }
}

struct World {
    rig: Rig,
    upstream: MemoryUpstream,
    made: Arc<AtomicUsize>,
    stop: tokio_util::sync::CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    /// A source whose first connectors are stuck as said, and whose later ones are not.
    async fn new(stuck: &'static [Stuck]) -> Self {
        let rig = rig(Limits::default(), vec![topic("t")]).await;
        let (upstream, made) = (MemoryUpstream::default(), Arc::new(AtomicUsize::new(0)));
        let (source, count) = (upstream.clone(), made.clone());
        let connect = move || {
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let stuck = stuck.get(turn).copied().unwrap_or(Stuck::Nowhere);
            Box::new(Ill(source.connect(), stuck)) as Box<dyn Connector>
        };
        let stop = tokio_util::sync::CancellationToken::new();
        let (appender, limits) = (rig.intake.appender.clone(), rig.intake.limits.clone());
        let task = tokio::spawn(crate::pump::keep(connect, "topic.t".into(), appender, limits, stop.clone()));
        Self { rig, upstream, made, stop, task }
    }

    fn push(&self, id: &str) {
        let event = bellwire_schemas::Event { id: id.into(), ..Default::default() };
        let draft = Draft { event, dedup: Some(id.into()), ..Draft::default() };
        self.upstream.push(Parcel { source: Arc::new(topic("t")), content: Content::Event(Box::new(draft)) });
    }

    /// State, reason and restarts after a while.
    async fn after(&self, seconds: u64) -> (&'static str, String, u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let report = self.rig.intake.status().remove(0);
        (report.state, report.reason.unwrap_or_default(), report.restarts)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_brings_nothing_while_messages_wait_is_made_anew() {
    let mut world = World::new(&[Stuck::Receiving, Stuck::Receiving]).await;
    for id in ["a", "b"] {
        world.push(id);
    }
    assert_eq!(world.after(100).await, ("ok", String::new(), 0));
    let (state, reason, restarts) = world.after(45).await;
    assert_eq!((state, restarts), ("stalled", 1));
    assert!(reason.starts_with("2 messages wait upstream, but none came for 12"), "{reason}");
    assert_eq!(world.after(100).await.0, "stalled", "until something comes");
    assert_eq!(world.after(100).await, ("ok", String::new(), 2));
    let mut told = Vec::new();
    while let Ok(fact) = world.rig.live.try_recv() {
        if let Fact::Condition { subject, state, .. } = fact {
            told.push(format!("{subject} {state}"));
        }
    }
    assert_eq!(told, ["topic.t stalled", "topic.t resumed"]);
    assert_eq!(world.rig.stored().await, ["a", "b"]);
    assert!(world.upstream.is_empty() && world.made.load(Ordering::SeqCst) == 3);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_that_never_returns_costs_a_connection_and_no_event() {
    let world = World::new(&[Stuck::Confirming]).await;
    world.push("a");
    assert_eq!(world.after(60).await.2, 0);
    let (state, reason, restarts) = world.after(61).await;
    assert_eq!((state, restarts), ("stalled", 1), "{reason}");
    assert!(reason.contains("confirming a batch has not come to an end"), "{reason}");
    assert_eq!(world.after(30).await, ("ok", String::new(), 1));
    assert_eq!((world.rig.stored().await, world.upstream.len()), (vec!["a".to_owned()], 0));
    let report = world.rig.intake.status().remove(0);
    assert_eq!((report.counts.accepted, report.counts.duplicate), (1, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_nothing_is_connected_anew_at_a_growing_pace() {
    let world = World::new(&[Stuck::Asking; 100]).await;
    let (state, reason, restarts) = world.after(200).await;
    assert_eq!((state, restarts), ("stalled", 1));
    assert!(reason.contains("no answer either: no answer within 10 s"), "{reason}");
    let (state, _, restarts) = world.after(3_600).await;
    assert!(state == "stalled" && (12..20).contains(&restarts), "{restarts} restarts in an hour");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_work_or_for_the_ledger_is_no_stall() {
    let world = World::new(&[]).await;
    assert_eq!(world.after(3_600).await, ("ok", String::new(), 0));
    world.rig.ledger.set_full(true);
    world.push("a");
    let (state, reason, restarts) = world.after(3_600).await;
    assert_eq!((state, restarts), ("paused", 0));
    assert!(reason.starts_with("ledger-full: "), "{reason}");
    world.rig.ledger.set_full(false);
    assert_eq!(world.after(2).await, ("ok", String::new(), 0));
    for _ in 0..600 {
        world.rig.ledger.fail_next_append(Error::Unavailable("down".into()));
    }
    world.push("b");
    let (state, _, restarts) = world.after(500).await;
    assert_eq!((state, restarts), ("failing", 0));
    assert_eq!(world.after(200).await, ("ok", String::new(), 0));
    assert_eq!(world.rig.stored().await, ["a", "b"]);
    world.stop().await;
}
