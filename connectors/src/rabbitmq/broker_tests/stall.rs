//! A reader that is connected and deaf.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bellwire_test_servers::proxy::Mode;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::appender::Appender;
use crate::contract::{Limit, Receipt, Release};
use crate::meter::{Kind, Meter};
use crate::pressure::Pressure;
use crate::{ConnectorError, pump};

/// A connector that hears nothing any more once it holds one message; what it says of the queue is true.
struct Deaf(RabbitmqConnector, AtomicBool);

#[async_trait]
impl Connector for Deaf {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        if !self.1.load(Ordering::SeqCst) {
            self.0.receive(limit).await?;
            self.1.store(true, Ordering::SeqCst);
        }
        std::future::pending().await
    }

    async fn confirm(&mut self, receipt: Receipt, committed: &Committed) -> Result<(), ConnectorError> {
        self.0.confirm(receipt, committed).await
    }

    async fn release(&mut self, receipt: Receipt, why: Release) {
        self.0.release(receipt, why).await;
    }

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        self.0.backlog().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_hears_nothing_while_messages_wait_is_connected_anew() {
    let mut rig = BrokerRig::new("quorum", Some(1)).await;
    rig.produce(5).await;
    let ledger = rig.ledger();
    let (clock, live) = (Clock::system(), broadcast::channel(10).0);
    let feed = Arc::new(Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap());
    let (meter, pressure, turn) = (Arc::new(Meter::default()), Pressure::default(), AtomicU64::new(0));
    let appender =
        Arc::new(Appender { feed, clock: clock.clone(), live, meter: meter.clone(), pressure, turn });
    let mut settings = settings(&url(), &rig.queue);
    settings.prefetch = Some(1);
    let plan = Arc::new(plan(&settings).unwrap());
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let connect = move || -> Box<dyn Connector> {
        let connector = RabbitmqConnector::new(plan.clone(), "test");
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Box::new(Deaf(connector, AtomicBool::new(false))),
            _ => Box::new(connector),
        }
    };
    let limits = Limits { stall_after: Duration::from_secs(2), ..Limits::default() };
    let stop = CancellationToken::new();
    let pumping = tokio::spawn(pump::keep(connect, BrokerRig::SOURCE.into(), appender, limits, stop.clone()));
    let gauge = || meter.read(&BrokerRig::SOURCE.into(), clock.now());
    until("a stall", || gauge().trouble.is_some_and(|trouble| trouble.kind == Kind::Stalled)).await;
    let reason = gauge().trouble.map(|trouble| trouble.reason).unwrap_or_default();
    assert!(reason.starts_with("4 messages wait upstream, but none came for 2 s"), "{reason}");
    until("it goes on", || gauge().counts.accepted == 5).await;
    until("all is well", || gauge().trouble.is_none()).await;
    assert_eq!((gauge().restarts, gauge().counts.duplicate, made.load(Ordering::SeqCst)), (1, 0, 2));
    stop.cancel();
    pumping.await.unwrap();
}

/// The handshake never ends: each attempt is given up and said, though nobody waits that long for it at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_never_answers_is_complained_of() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("classic").await;
    let proxy = faults::proxy().await;
    proxy.set(Mode::BlackHole).await;
    let world = World::new(settings(&proxy.url(&url()), &queue)).await;
    world.complaint("rabbitmq at").await;
    assert_eq!(world.report().state, "failing");
    proxy.set(Mode::Pass).await;
    publisher.send(&queue, "00000", b"1").await;
    until("it goes on", || world.stored() == 1 && world.report().state == "ok").await;
}
