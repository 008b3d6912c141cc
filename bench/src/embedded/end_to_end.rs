//! From append to outcome: the dispatcher with warm workers of native code, on the SQLite ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_dispatcher::{Configuration, Handle, LeaseOptions, Rooms};
use bellwire_ledger::sqlite::{SqliteLedger, SqliteOptions};
use bellwire_ledger::{Append, Arrival, BindingRecord, Feed, Ledger};
use bellwire_schemas::service::{
    Batch, BindingSpec, Format, FunctionSpec, Ordering, RequestSpec, Secret, Start, Target, Warm,
};
use bellwire_schemas::{BindingId, ByteSize, Clock, ControllerId, FinalState, RetryPolicy};
use bellwire_workers::{Invoker, Workers, WorkersConfig};
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::{event, fresh};
use crate::table::{Row, percentile};

/// Events appended at once while throughput is measured.
const BATCH: usize = 200;
/// Events that may be owed at once, so that the measurement is of a steady flow and not of a backlog.
const OWED: u64 = 5_000;

/// One controller in this process, without doors.
struct Rig {
    feed: Arc<Feed>,
    dispatcher: Handle,
    workers: Arc<Workers>,
    notes: PathBuf,
}

/// Events per second from append to committed outcome, by worker processes.
pub async fn throughput(length: Duration, dir: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for concurrency in [1, 4] {
        let rig = Rig::new(dir, concurrency, false).await?;
        let (started, mut sent) = (Instant::now(), 0_u64);
        let done = loop {
            let done = rig.delivered().await?;
            if started.elapsed() >= length {
                break done;
            }
            while sent < done + OWED {
                rig.append(sent, BATCH).await?;
                sent += BATCH as u64;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let per_s = done as f64 / started.elapsed().as_secs_f64();
        rows.push(Row::new(format!("{concurrency} workers"), vec![("delivered_per_s", per_s)]));
        rig.stop().await;
    }
    Ok(rows)
}

/// From the start of an append, and from its commit, to the moment when the handler has the event.
pub async fn latency(length: Duration, dir: &Path) -> anyhow::Result<Vec<Row>> {
    let rig = Rig::new(dir, 4, true).await?;
    let clock = Clock::system();
    // The first events pay for the start of the workers: they are not measured.
    for number in 0..50 {
        rig.append(1_000_000 + number, 1).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = BTreeMap::new();
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < length {
        pace.tick().await;
        let sent = clock.now();
        rig.append(number, 1).await?;
        times.insert(format!("bench-{number}"), (sent, clock.now()));
        number += 1;
    }
    while rig.delivered().await? < number + 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut from_sent, mut from_commit) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(&rig.notes)?.lines() {
        let Some((id, micros)) = line.split_once(' ') else { continue };
        let (Some((sent, committed)), Ok(micros)) = (times.get(id), micros.parse::<i64>()) else { continue };
        from_sent.push((micros - sent.micros()) as f64 / 1_000.0);
        from_commit.push((micros - committed.micros()).max(0) as f64 / 1_000.0);
    }
    rig.stop().await;
    let row = |name: &str, samples: &mut Vec<f64>| {
        let (p50, p99) = (percentile(samples, 0.5), percentile(samples, 0.99));
        Row::new(name, vec![("p50_ms", p50), ("p99_ms", p99), ("events", samples.len() as f64)])
    };
    Ok(vec![
        row("accepted -> handler start", &mut from_commit),
        row("append called -> handler start", &mut from_sent),
    ])
}

impl Rig {
    async fn new(dir: &Path, concurrency: u32, notes: bool) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let ledger: Arc<dyn Ledger> =
            Arc::new(SqliteLedger::open(&fresh(dir, "flow"), SqliteOptions::default())?);
        let feed = Arc::new(Feed::new(ledger, clock.clone()).await?);
        let program = std::env::current_exe()?;
        let workers = Arc::new(Workers::new(WorkersConfig {
            launcher: Some(program.clone()),
            clock: clock.clone(),
            ..WorkersConfig::new(dir.join("runtime"))
        })?);
        let notes_file = dir.join(format!("notes-{}", Uuid::now_v7().simple()));
        let mut function = function(program, dir, concurrency);
        if notes {
            function.environment.insert("NOTES".into(), Secret::new(notes_file.display().to_string()));
        }
        workers.apply(vec![function.clone()]).await?;
        let dispatcher = Handle::start(rooms(&feed, Arc::clone(&workers) as _, &clock));
        let spec = binding();
        let records = feed.ledger().declare_bindings(vec![record(&spec)], clock.now()).await?;
        dispatcher
            .apply(Configuration {
                bindings: vec![spec].into_iter().zip(records).collect(),
                functions: BTreeMap::from([(function.name.clone(), function)]),
                kinds: BTreeMap::from([("topic.bench".into(), "topic")]),
            })
            .await?;
        Ok(Self { feed, dispatcher, workers, notes: notes_file })
    }

    async fn append(&self, first: u64, count: usize) -> anyhow::Result<()> {
        let append = Append {
            append_id: Uuid::now_v7(),
            events: (first..first + count as u64).map(event).collect(),
            positions: Vec::new(),
            quarantined: Vec::new(),
        };
        let appended = self.feed.append(append).await?;
        anyhow::ensure!(
            appended.items.iter().all(|item| matches!(item, Arrival::Accepted(_))),
            "events were not stored"
        );
        Ok(())
    }

    async fn delivered(&self) -> anyhow::Result<u64> {
        let totals = self.feed.ledger().totals().await?;
        Ok(totals.values().filter_map(|t| t.ended.get(&FinalState::Delivered)).sum())
    }

    async fn stop(self) {
        self.dispatcher.shutdown(Duration::from_secs(5)).await;
        self.workers.shutdown(Duration::from_secs(1)).await;
        self.feed.ledger().close().await;
    }
}

/// A no-op function that is a program of its own.
pub fn function(program: PathBuf, dir: &Path, concurrency: u32) -> FunctionSpec {
    FunctionSpec {
        name: "noop".into(),
        target: Target::Command(vec![program.display().to_string(), "__worker".into()]),
        code: dir.to_path_buf(),
        timeout: Duration::from_secs(30),
        memory: ByteSize(1 << 30),
        concurrency,
        warm: Warm { min: concurrency, idle: Duration::from_secs(600) },
        environment: BTreeMap::new(),
        format: Format::Cloudevents,
        request: RequestSpec::default(),
    }
}

/// A binding of it with all defaults.
pub fn binding() -> BindingSpec {
    BindingSpec {
        name: "noop:topic.bench".into(),
        function: "noop".into(),
        source: "topic.bench".into(),
        filter: Vec::new(),
        retry: RetryPolicy::default(),
        max_age: None,
        concurrency: None,
        start: Start::Now,
        input: None,
        on_success: None,
        on_failure: None,
        batch: Batch::default(),
        ordering: Ordering::None,
        rate: None,
        debounce: None,
        singleton: None,
        enabled: true,
    }
}

/// What the ledger is told of a binding.
pub fn record(spec: &BindingSpec) -> BindingRecord {
    BindingRecord {
        id: BindingId(0),
        name: spec.name.clone(),
        source: spec.source.clone(),
        function: spec.function.clone(),
        filter: Vec::new(),
        start: spec.start,
        revision: 0,
        paused: None,
        active: true,
        since: Default::default(),
    }
}

/// What the dispatcher of a benchmark is handed.
pub fn rooms(feed: &Arc<Feed>, invoker: Arc<dyn Invoker>, clock: &Clock) -> Rooms {
    Rooms {
        feed: Arc::clone(feed),
        invoker,
        clock: clock.clone(),
        controller: ControllerId(Uuid::now_v7()),
        name: "bench".into(),
        lease: LeaseOptions::default(),
        live: broadcast::channel(16).0,
        event_bytes: 1 << 20,
        seed: 1,
    }
}
