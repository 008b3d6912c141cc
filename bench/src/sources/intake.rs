//! The way of every source into a ledger, as in a controller: connector, append, confirm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_connectors::{Intake, Limits};
use bellwire_ledger::append::lane_of;
use bellwire_ledger::{Append, Feed, Ledger, NewEvent};
use bellwire_schemas::Clock;
use bellwire_schemas::service::SourceSpec;

use super::{KEYS, Ledgers, Pace, payload};
use crate::embedded::event_of;

/// How often the count is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Reads so many messages from a source into a ledger: messages per second.
pub async fn rate(ledger: Arc<dyn Ledger>, source: SourceSpec, messages: usize) -> anyhow::Result<f64> {
    let clock = Clock::system();
    let feed = Arc::new(Feed::new(ledger.clone(), clock.clone()).await?);
    let (live, _) = tokio::sync::broadcast::channel(16);
    let intake = Intake::new(feed, live, clock, Limits::default(), "bench".into());
    intake.apply(vec![source]).await?;
    let mut pace = Pace::new();
    let rate = loop {
        let report = intake.status().remove(0);
        let seen = usize::try_from(report.counts.accepted)?;
        match pace.seen(seen, messages) {
            Ok(Some(rate)) => break rate,
            Ok(None) => tokio::time::sleep(LOOK).await,
            Err(error) => anyhow::bail!("{error:#}: {}", report.reason.unwrap_or_default()),
        }
    };
    intake.shutdown(Duration::from_secs(5)).await;
    ledger.close().await;
    Ok(rate)
}

/// Events per second that ledgers take from one caller, in batches as large as a source's, with no broker at all.
pub struct Limit {
    pub postgres: f64,
    pub sqlite: f64,
}

/// Measures it.
pub async fn limit(ledgers: &Ledgers, events: usize) -> anyhow::Result<Limit> {
    Ok(Limit {
        postgres: appended(ledgers.postgres().await?, events).await?,
        sqlite: appended(ledgers.sqlite()?, events).await?,
    })
}

async fn appended(ledger: Arc<dyn Ledger>, events: usize) -> anyhow::Result<f64> {
    let (clock, size, lanes) = (Clock::system(), Limits::default().batch_events, ledger.lanes());
    let mut taken = Duration::ZERO;
    for first in (0..events).step_by(size) {
        let events = (first..events.min(first + size)).map(|number| event(number, lanes)).collect();
        let (positions, quarantined) = (Vec::new(), Vec::new());
        let append = Append { append_id: uuid::Uuid::now_v7(), events, positions, quarantined };
        let begun = Instant::now();
        ledger.append(append, clock.now()).await?;
        taken += begun.elapsed();
    }
    let rate = events as f64 / taken.as_secs_f64();
    ledger.close().await;
    Ok(rate)
}

fn event(number: usize, lanes: u16) -> NewEvent {
    let key = format!("k{}", number % KEYS);
    event_of(number as u64, lane_of(Some(&key), 0, lanes), Some(key), payload(number))
}
