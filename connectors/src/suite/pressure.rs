//! What holds intake back: nothing is confirmed, nothing is lost, the state says why, and it goes on by itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bellwire_ledger::{EventQuery, Feed};
use bellwire_schemas::SourceName;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::appender::Appender;
use crate::meter::{Kind, Meter, Trouble};
use crate::pressure::{LEDGER_FULL, Pressure};
use crate::{ConnectorError, Limits, Receipt, pump};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connector that counts what it is told.
struct Spy {
    inner: Box<dyn Connector>,
    confirms: Arc<AtomicUsize>,
}

#[async_trait]
impl Connector for Spy {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        self.inner.receive(limit).await
    }

    async fn confirm(&mut self, receipt: Receipt, committed: &Committed) -> Result<(), ConnectorError> {
        self.confirms.fetch_add(1, Ordering::SeqCst);
        self.inner.confirm(receipt, committed).await
    }

    async fn release(&mut self, receipt: Receipt, why: Release) {
        self.inner.release(receipt, why).await;
    }

    async fn close(&mut self) {
        self.inner.close().await;
    }
}

async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let asked = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The ids of all stored events, sorted.
async fn stored(ledger: &ModelLedger) -> Vec<String> {
    let query = EventQuery { limit: 1_000, ascending: true, ..EventQuery::default() };
    let mut ids: Vec<_> =
        ledger.events(&query).await.unwrap().items.iter().map(|e| e.event.id.clone()).collect();
    ids.sort_unstable();
    ids
}

/// A full ledger and a hold push back to a connector's upstream.
pub(crate) async fn pushes_back<R: Rig>(mut rig: R) {
    let ledger = rig.ledger();
    let (clock, live) = (Clock::manual(START), broadcast::channel(10).0);
    let feed = Arc::new(Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap());
    let (meter, pressure, turn) = (Arc::new(Meter::default()), Pressure::default(), AtomicU64::new(0));
    let appender = Arc::new(Appender { feed, clock, live, meter, pressure, turn });
    let trouble = || -> Option<Trouble> { appender.meter.read(&SourceName::new(R::SOURCE), START).trouble };
    let waits =
        async || trouble().is_some_and(|t| t.kind == Kind::Paused && t.reason.starts_with(LEDGER_FULL));

    ledger.set_full(true);
    rig.produce(5).await;
    let confirms = Arc::new(AtomicUsize::new(0));
    let only = Mutex::new(Some(Spy { inner: rig.connect(), confirms: confirms.clone() }));
    let connect = move || {
        Box::new(only.lock().unwrap().take().expect("who waits for the ledger is not connected anew"))
            as Box<dyn Connector>
    };
    let stop = CancellationToken::new();
    let limits = Limits::default();
    let pumping = tokio::spawn(pump::keep(connect, R::SOURCE.into(), appender.clone(), limits, stop.clone()));
    until("the source waits", waits).await;
    rig.produce(2).await;
    tokio::time::sleep(R::IDLE).await;
    assert!(waits().await, "{:?}", trouble());
    assert_eq!((confirms.load(Ordering::SeqCst), stored(&ledger).await.len()), (0, 0));

    ledger.set_full(false);
    until("it goes on", async || stored(&ledger).await.len() == 7 && trouble().is_none()).await;
    assert!(confirms.load(Ordering::SeqCst) > 0);

    appender.pressure.set(Some("little is free on the disk".into()), START);
    rig.produce(1).await;
    until("the source is held", waits).await;
    assert!(trouble().is_some_and(|t| t.reason.ends_with("little is free on the disk")));
    assert_eq!(stored(&ledger).await.len(), 7);
    appender.pressure.set(None, START);
    until("it goes on", async || stored(&ledger).await.len() == 8 && trouble().is_none()).await;
    stop.cancel();
    pumping.await.unwrap();
    let mut ids = stored(&ledger).await;
    ids.dedup();
    assert_eq!(ids.len(), 8, "each once: {ids:?}");
}

#[tokio::test(start_paused = true)]
async fn the_connector_in_memory_is_pushed_back() {
    pushes_back(MemoryRig::default()).await;
}

#[tokio::test(start_paused = true)]
async fn the_timer_is_pushed_back() {
    pushes_back(TimerRig::new().await).await;
}
