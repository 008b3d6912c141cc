//! Measures the SQLite ledger: appends per batch size and number of callers, flushes, reads.
//!
//! `cargo run --release -p bellwire-ledger --example rates [folder]`. The folder decides which disk is measured; the
//! default is the system's folder for temporary files, which may be no disk at all.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_ledger::{
    Append, BindingFlush, BindingRecord, DedupKey, Flush, Ledger, LogEntry, LogOutcome, NewEvent,
    SqliteLedger, SqliteOptions,
};
use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, Clock, ControllerId, Event, FinalState, Lane, Seq, SeqRanges};
use bytes::Bytes;
use uuid::Uuid;

/// How long each row is measured.
const RUN: Duration = Duration::from_secs(3);
/// Bytes of payload per event.
const PAYLOAD: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = folder.join(format!("bellwire-rates-{}", std::process::id()));
    let measured = runtime.block_on(measure(&folder));
    std::fs::remove_dir_all(&folder)?;
    Ok(measured?)
}

async fn measure(folder: &Path) -> Result<(), bellwire_ledger::Error> {
    println!("{:<40}{:>12}{:>12}{:>12}{:>12}", "", "events/s", "p50 ms", "p99 ms", "cpu us/event");
    for (batch, callers, dedup) in [
        (1, 1, false),
        (1, 64, false),
        (10, 1, false),
        (10, 8, false),
        (100, 1, false),
        (500, 1, false),
        (500, 2, false),
        (1_000, 1, false),
        (500, 1, true),
        (1, 64, true),
    ] {
        let path = folder.join(format!("{batch}-{callers}-{dedup}.db"));
        let ledger = Arc::new(SqliteLedger::open(&path, SqliteOptions::default())?);
        let before = cpu();
        let (events, waits) = appends(&ledger, batch, callers, dedup).await?;
        let name = format!("append {batch} x {callers} callers{}", if dedup { ", dedup" } else { "" });
        row(&name, events, RUN, waits, before);
        ledger.close().await;
    }
    let ledger = SqliteLedger::open(&folder.join("500-1-false.db"), SqliteOptions::default())?;
    flushes(&ledger).await?;
    reads(&ledger).await?;
    println!("{:<40}{:>12.0}", "bytes per event", {
        ledger.size_bytes().await? as f64 / ledger.tail(Lane(1)).await?.0 as f64
    });
    ledger.close().await;
    Ok(())
}

/// Processor time of this process in seconds, where the system tells (Linux: ticks of 10 ms).
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn row(name: &str, events: u64, took: Duration, mut waits: Vec<Duration>, cpu_before: f64) {
    let cost = (cpu() - cpu_before) / events.max(1) as f64 * 1e6;
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let rate = events as f64 / took.as_secs_f64();
    println!("{name:<40}{rate:>12.0}{:>12.2}{:>12.2}{cost:>12.1}", at(0.5), at(0.99));
}

async fn appends(
    ledger: &Arc<SqliteLedger>,
    batch: usize,
    callers: usize,
    dedup: bool,
) -> Result<(u64, Vec<Duration>), bellwire_ledger::Error> {
    let clock = Clock::system();
    let end = Instant::now() + RUN;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (ledger, clock) = (ledger.clone(), clock.clone());
        tasks.spawn(async move {
            let (mut events, mut waits) = (0, Vec::new());
            while Instant::now() < end {
                let append = Append {
                    append_id: Uuid::now_v7(),
                    events: (0..batch).map(|_| event(dedup)).collect(),
                    positions: Vec::new(),
                    quarantined: Vec::new(),
                };
                let start = Instant::now();
                ledger.append(append, clock.now()).await?;
                waits.push(start.elapsed());
                events += batch as u64;
            }
            Ok::<_, bellwire_ledger::Error>((events, waits))
        });
    }
    let (mut events, mut waits) = (0, Vec::new());
    for result in tasks.join_all().await {
        let (own, times) = result?;
        events += own;
        waits.extend(times);
    }
    Ok((events, waits))
}

fn event(dedup: bool) -> NewEvent {
    let id = Uuid::new_v4().to_string();
    let dedup = dedup.then(|| DedupKey { value: id.clone(), window: Duration::from_secs(86_400) });
    let event = Event {
        id,
        source: "bench:rates".into(),
        kind: "bench.event".into(),
        subject: Some("thing".into()),
        time: "2026-01-01T00:00:00Z".into(),
        datacontenttype: Some("application/json".into()),
        data: Some(Bytes::from(vec![b'x'; PAYLOAD])),
        ..Event::default()
    };
    NewEvent { source: "bench".into(), lane: Lane(1), key: None, dedup, event: Arc::new(event) }
}

async fn flushes(ledger: &SqliteLedger) -> Result<(), bellwire_ledger::Error> {
    let clock = Clock::system();
    let record = BindingRecord {
        id: BindingId(0),
        name: "f:bench".into(),
        source: "bench".into(),
        function: "f".into(),
        filter: Vec::new(),
        start: Start::Earliest,
        revision: 0,
        paused: None,
        active: true,
        since: Default::default(),
    };
    let binding = ledger.declare_bindings(vec![record], clock.now()).await?[0].id;
    let Some(epoch) = ledger.acquire(ControllerId(Uuid::now_v7()), Lane(1), clock.now()).await? else {
        return Ok(());
    };
    let tail = ledger.tail(Lane(1)).await?;
    let (mut mark, mut version, mut waits) = (0, 0, Vec::new());
    let (start, before) = (Instant::now(), cpu());
    while start.elapsed() < RUN && mark + 500 <= tail.0 {
        version += 1;
        let line = |seq: u64| LogEntry {
            seq: Seq(seq),
            attempt: 1,
            at: clock.now(),
            duration_ms: 3,
            outcome: LogOutcome::Final(FinalState::Delivered),
            error: None,
            worker: "python-1".into(),
            version: "3f9a".into(),
            revision: 1,
            replay: None,
        };
        let part = BindingFlush {
            binding,
            version,
            mark: Seq(mark + 500),
            done: SeqRanges::default(),
            log: (mark + 1..=mark + 500).map(line).collect(),
            owed: Vec::new(),
            settled: Vec::new(),
            dead: Vec::new(),
            emitted: Vec::new(),
        };
        let began = Instant::now();
        ledger.flush(Flush { lane: Lane(1), epoch, at: Clock::system().now(), bindings: vec![part] }).await?;
        waits.push(began.elapsed());
        mark += 500;
    }
    row("flush of 500 outcomes", mark, start.elapsed(), waits, before);
    let began = Instant::now();
    let totals = ledger.totals().await?;
    let waiting = totals.get(&binding).map_or(0, |t| t.waiting);
    println!("totals with {waiting} waiting: {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

async fn reads(ledger: &SqliteLedger) -> Result<(), bellwire_ledger::Error> {
    let (mut from, mut count, mut waits) = (Seq(1), 0, Vec::new());
    let (start, before) = (Instant::now(), cpu());
    while start.elapsed() < RUN {
        let began = Instant::now();
        let events = ledger.read(Lane(1), from, 500, usize::MAX).await?;
        waits.push(began.elapsed());
        count += events.len() as u64;
        from = events.last().map_or(Seq(1), |e| e.address.seq.next());
    }
    row("read 500", count, start.elapsed(), waits, before);
    Ok(())
}
