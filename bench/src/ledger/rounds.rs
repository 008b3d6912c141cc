//! One measurement: how many events in how much time, at which price to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwire_ledger::Append;

use super::server::{Reading, Server};
use crate::table::percentile;

/// What one round found.
#[derive(Debug, Default)]
pub struct Round {
    /// Events per second.
    pub per_s: f64,
    /// Bytes of write-ahead log per event.
    pub wal_bytes: f64,
    /// Processor time of the server per event, microseconds; NaN for a server on another machine.
    pub cpu_us: f64,
    /// Processor time of this process per event, microseconds.
    pub client_cpu_us: f64,
    /// Milliseconds from call to answer, of every call.
    pub calls_ms: Vec<f64>,
}

/// The end of a round: by the clock, or because somebody ran out of prepared work.
#[derive(Clone, Debug)]
pub struct Whistle {
    end: Instant,
    blown: Arc<AtomicBool>,
}

impl Whistle {
    /// A whistle that blows by itself after `length`.
    pub fn after(length: Duration) -> Self {
        Self { end: Instant::now() + length, blown: Arc::default() }
    }

    /// Time left by the clock.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether the round is over.
    pub fn blown(&self) -> bool {
        self.blown.load(Ordering::Relaxed) || Instant::now() >= self.end
    }

    /// Ends the round for all.
    pub fn blow(&self) {
        self.blown.store(true, Ordering::Relaxed);
    }
}

/// What one runner of a round did.
#[derive(Debug)]
pub struct Ran {
    events: u64,
    calls_ms: Vec<f64>,
    ended: Instant,
    unused: Vec<Append>,
}

impl Ran {
    /// Nothing so far.
    pub fn new() -> Self {
        Self { events: 0, calls_ms: Vec::new(), ended: Instant::now(), unused: Vec::new() }
    }

    /// Counts one call that is over.
    pub fn call(&mut self, sent: Instant, events: usize) {
        self.events += events as u64;
        self.calls_ms.push(sent.elapsed().as_secs_f64() * 1_000.0);
    }

    /// Stops the runner's own clock. Prepared work that is left over is dropped after the meters were read.
    pub fn end(&mut self, unused: Vec<Append>) {
        self.ended = Instant::now();
        self.keep(unused);
    }

    /// Takes prepared work that was left over.
    pub fn keep(&mut self, unused: Vec<Append>) {
        self.unused = unused;
    }
}

/// Runs tasks side by side until the whistle, and reads the server's meters before and after.
pub async fn round<F>(
    server: &Server,
    length: Duration,
    runners: impl FnOnce(&Whistle) -> Vec<F>,
) -> anyhow::Result<Round>
where
    F: Future<Output = anyhow::Result<Ran>> + Send + 'static,
{
    let before = server.read_meters().await?;
    let started = Instant::now();
    let whistle = Whistle::after(length);
    let tasks: Vec<_> = runners(&whistle).into_iter().map(tokio::spawn).collect();
    let mut ran = Ran { ended: started, ..Ran::new() };
    for task in tasks {
        let one = task.await??;
        ran.events += one.events;
        ran.calls_ms.extend(one.calls_ms);
        ran.ended = ran.ended.max(one.ended);
        ran.unused.extend(one.unused);
    }
    let seconds = ran.ended.duration_since(started).as_secs_f64();
    let after = server.read_meters().await?;
    Ok(Round::new(ran, seconds, &before, &after))
}

impl Round {
    fn new(ran: Ran, seconds: f64, before: &Reading, after: &Reading) -> Self {
        let events = ran.events.max(1) as f64;
        Self {
            per_s: ran.events as f64 / seconds,
            wal_bytes: (after.wal_bytes - before.wal_bytes) / events,
            cpu_us: (after.cpu_us - before.cpu_us) / events,
            client_cpu_us: (after.client_cpu_us - before.client_cpu_us) / events,
            calls_ms: ran.calls_ms,
        }
    }

    /// The rounds as one: medians, and the calls of all.
    pub fn median(rounds: Vec<Self>) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            per_s: of(|r| r.per_s),
            wal_bytes: of(|r| r.wal_bytes),
            cpu_us: of(|r| r.cpu_us),
            client_cpu_us: of(|r| r.client_cpu_us),
            calls_ms: rounds.into_iter().flat_map(|r| r.calls_ms).collect(),
        }
    }
}

/// The middle value; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}
