//! The main case for minutes, with the server's checkpoints and vacuum at work, and retention as a controller runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwire_ledger::Ledger;
use bellwire_schemas::Clock;

use super::ours::{MAIN, Ours};
use super::raw::Raw;
use super::rounds::Whistle;
use super::server::Server;
use crate::table::{Report, Row};

/// The rate is taken over spans of this length.
const SPAN: Duration = Duration::from_secs(10);
/// Events older than this are let go of, so that the disk need not hold the whole run.
const KEPT: Duration = Duration::from_secs(60);

/// Runs the bare insert for a fifth of the time and the ledger for all of it.
pub async fn measure(server: &Server, length: Duration, report: &mut Report) -> anyhow::Result<()> {
    let ours = Ours::new(server).await?;
    for nth in 0..8 {
        ours.ledger.append(ours.rings[0].append(nth, MAIN.batch, false), Clock::system().now()).await?;
    }
    let raw = Raw::new(server, MAIN).await?;
    let raw_round = raw.round(server, MAIN, (length / 5).max(SPAN)).await?;
    server.control().batch_execute("drop table bench_raw").await?;
    let counted = Arc::new(AtomicU64::new(0));
    let whistle = Whistle::after(length);
    let keeping = tokio::spawn(keep(Arc::clone(&ours.ledger), whistle.clone()));
    let callers: Vec<_> = (0..usize::from(MAIN.lanes))
        .map(|lane| tokio::spawn(append_on(&ours, lane, Arc::clone(&counted), whistle.clone())))
        .collect();
    let spans = watch(&counted, &whistle).await;
    for caller in callers {
        caller.await??;
    }
    let (removed, slowest) = keeping.await??;
    ours.ledger.close().await;
    server.clean().await?;
    let mean = spans.iter().sum::<f64>() / spans.len().max(1) as f64;
    let least = spans.iter().copied().fold(f64::INFINITY, f64::min);
    report.figure("sustained_append_per_s", mean);
    report.figure("sustained_min_append_per_s", least);
    report.figure("sustained_ratio", mean / raw_round.per_s);
    report.table(
        "sustained",
        "sustained, batch 500 x 2 lanes",
        vec![Row::new(
            format!("{} s", length.as_secs()),
            vec![
                ("raw_append_per_s", raw_round.per_s),
                ("append_per_s", mean),
                ("min_append_per_s", least),
                ("removed", removed as f64),
                ("slowest_retain_ms", slowest.as_secs_f64() * 1_000.0),
            ],
        )],
    );
    let rows = spans.iter().enumerate().map(|(nth, per_s)| {
        Row::new(format!("after {} s", (nth as u64 + 1) * SPAN.as_secs()), vec![("append_per_s", *per_s)])
    });
    report.table("sustained_spans", "rate over 10 s", rows.collect());
    Ok(())
}

/// Appends until the whistle. The events come from a ring: minutes of them could not be prepared, so putting a batch
/// together is part of what is measured here.
fn append_on(
    ours: &Ours,
    lane: usize,
    counted: Arc<AtomicU64>,
    whistle: Whistle,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let (ledger, ring) = (Arc::clone(&ours.ledger), Arc::clone(&ours.rings[lane]));
    async move {
        let clock = Clock::system();
        for nth in 0.. {
            if whistle.blown() {
                break;
            }
            ledger.append(ring.append(nth, MAIN.batch, false), clock.now()).await?;
            counted.fetch_add(MAIN.batch as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The rate of each whole span.
async fn watch(counted: &AtomicU64, whistle: &Whistle) -> Vec<f64> {
    let mut spans = Vec::new();
    let (mut since, mut before) = (Instant::now(), 0);
    while !whistle.blown() {
        tokio::time::sleep(SPAN.min(whistle.left())).await;
        let (now, seconds) = (counted.load(Ordering::Relaxed), since.elapsed().as_secs_f64());
        if seconds > SPAN.as_secs_f64() / 2.0 {
            spans.push((now - before) as f64 / seconds);
        }
        (since, before) = (Instant::now(), now);
    }
    spans
}

/// Retention every few seconds: how many events it removed, and its slowest pass.
async fn keep(ledger: Arc<dyn Ledger>, whistle: Whistle) -> anyhow::Result<(u64, Duration)> {
    let (clock, mut removed, mut slowest) = (Clock::system(), 0, Duration::ZERO);
    while !whistle.blown() {
        tokio::time::sleep(Duration::from_secs(5).min(whistle.left())).await;
        let (now, started) = (clock.now(), Instant::now());
        removed += ledger.retain(now.minus(KEPT), now).await?.events;
        slowest = slowest.max(started.elapsed());
    }
    Ok((removed, slowest))
}
