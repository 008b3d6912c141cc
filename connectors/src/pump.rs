//! The shared loop of pull connectors: receive, append, confirm.

use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::{SourceName, crash_point};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::appender::{Appender, CommitError, Item, Lot, Patience};
use crate::contract::{Batch, Connector, Limit, Parcel, Release};
use crate::intake::Limits;
use crate::rules::{Ruled, quarantine, rule};

/// Pauses after a failure of the upstream or the ledger: doubling between these bounds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a connector may take to give back what it holds.
const FAREWELL: Duration = Duration::from_secs(5);
/// While nothing comes, the connector is asked this often whether something is wrong.
const LOOK: Duration = Duration::from_secs(5);

/// Runs a pull source until told to stop. A connector that breaks down is noted and made anew after a pause; what it
/// had not confirmed comes again.
pub(crate) async fn keep(
    connect: impl Fn() -> Box<dyn Connector> + Send,
    source: SourceName,
    appender: Arc<Appender>,
    limits: Limits,
    stop: CancellationToken,
) {
    loop {
        // A set ends its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(run(connect(), source.clone(), appender.clone(), limits.clone(), stop.clone()));
        let Some(Err(error)) = task.join_next().await else { return };
        tracing::error!(%source, %error, "the connector broke down");
        appender.meter.failing(&source, format!("the connector broke down: {error}"), appender.clock.now());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LONGEST_PAUSE) => {}
        }
    }
}

/// Runs a connector until told to stop; a batch in flight is finished or released first.
async fn run(
    mut connector: Box<dyn Connector>,
    source: SourceName,
    appender: Arc<Appender>,
    limits: Limits,
    stop: CancellationToken,
) {
    let limit = Limit { items: limits.batch_events, bytes: limits.batch_bytes };
    let mut pause = FIRST_PAUSE;
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            received = tokio::time::timeout(LOOK, connector.receive(limit)) => received,
        };
        let Ok(received) = received else {
            if let Some(complaint) = connector.complaint() {
                appender.meter.failing(&source, complaint, appender.clock.now());
            }
            continue;
        };
        let error = match received {
            Ok(batch) => step(connector.as_mut(), batch, &source, &appender, &limits, &stop).await,
            Err(error) => Err(error.to_string()),
        };
        let Err(error) = error else {
            pause = FIRST_PAUSE;
            continue;
        };
        tracing::warn!(%source, %error, "intake pauses");
        appender.meter.failing(&source, error, appender.clock.now());
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    // What is not given back in time comes again by itself.
    let _ = tokio::time::timeout(FAREWELL, connector.close()).await;
}

async fn step(
    connector: &mut dyn Connector,
    batch: Batch,
    source: &SourceName,
    appender: &Appender,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<(), String> {
    crash_point("source.recv");
    let Batch { receipt, parcels, positions } = batch;
    let now = appender.clock.now();
    let items = parcels.into_iter().map(|parcel| durable(parcel, limits.event_bytes, now)).collect();
    let lot = Lot { items, positions };
    match appender.commit(&lot, &Patience::Stopped(stop.clone())).await.whole() {
        Ok(committed) => {
            crash_point("source.ack");
            connector.confirm(receipt, &committed).await.map_err(|e| e.to_string())?;
            match connector.complaint() {
                Some(complaint) => appender.meter.failing(source, complaint, appender.clock.now()),
                None => appender.meter.healthy(source),
            }
            Ok(())
        }
        Err(CommitError::Conflict(why)) => {
            tracing::debug!(%source, %why, "another intake got ahead");
            connector.release(receipt, Release::Conflict).await;
            Ok(())
        }
        Err(CommitError::Stopped) => {
            connector.release(receipt, Release::Stopping).await;
            Ok(())
        }
        Err(error) => {
            connector.release(receipt, Release::Failed(error.to_string())).await;
            Err(error.to_string())
        }
    }
}

/// Nobody waits for an answer here, so what a door would refuse is kept in quarantine.
fn durable(mut parcel: Parcel, event_bytes: usize, now: bellwire_schemas::Timestamp) -> Item {
    if let crate::Content::Event(draft) = &mut parcel.content {
        draft.keep_bad = true;
    }
    match rule(parcel, event_bytes, now) {
        Ruled::Event(ready) => Item::Event(ready),
        Ruled::Quarantine(kept) => Item::Quarantine(kept),
        Ruled::Refused { source, code, detail, .. } => Item::Quarantine(quarantine(
            &source,
            format!("{code}: {detail}"),
            bytes::Bytes::new(),
            "{}".into(),
        )),
    }
}
