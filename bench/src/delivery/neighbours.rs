//! What healthy deliveries feel of a neighbour that misbehaves: slices with and without it in turn, in one run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellwire_schemas::service::{BindingSpec, Ordering as Order};
use bellwire_schemas::{Clock, ErrorInfo, FailureClass};
use bellwire_workers::Invocation;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::rig::{Act, Rig, bound};
use crate::table::{Row, percentile};

/// Slices of each kind.
const ROUNDS: u64 = 4;
/// Between two healthy events: 200/s.
const PACE: Duration = Duration::from_millis(5);
/// Healthy keys.
const KEYS: u64 = 50;
/// Events of the flood, at the start of its slice for each second of it.
const FLOOD_PER_S: f64 = 3_000.0;
/// So many in one append.
const FLOOD_CHUNK: usize = 250;
/// How long the flooded function works on each.
const FLOOD_WORK: Duration = Duration::from_millis(2);

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// A key of the same binding fails, is tried again, and gets as many events as all others together.
    ParkedKey,
    /// Another function on the same source never answers.
    Hanging,
    /// Another binding on the same source, with a function of its own, has far more than it can do.
    Flooding,
    /// The same, with one function for both.
    FloodingShared,
}

/// What was found.
pub struct Found {
    /// p99 beside the neighbour over p99 alone.
    pub ratio: f64,
    alone: (f64, f64),
    beside: (f64, f64),
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ParkedKey, Self::Hanging, Self::Flooding, Self::FloodingShared];

    /// The stable key of its ratio.
    pub const fn key(self) -> &'static str {
        match self {
            Self::ParkedKey => "parked_key_p99_ratio",
            Self::Hanging => "hanging_function_p99_ratio",
            Self::Flooding => "flooding_binding_p99_ratio",
            Self::FloodingShared => "flooding_shared_function_p99_ratio",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::ParkedKey => "beside a parked key",
            Self::Hanging => "beside a hanging function",
            Self::Flooding => "beside a flooding binding",
            Self::FloodingShared => "beside a flooding binding of the same function",
        }
    }

    fn bindings(self) -> Vec<BindingSpec> {
        let kind = |kind: &str| vec![json!({ "data": { "kind": [kind] } })];
        let healthy = |spec: &mut BindingSpec| {
            spec.ordering = Order::Key;
            spec.retry.min_delay = Duration::from_millis(500);
            spec.retry.attempts = None;
            if self != Self::ParkedKey {
                spec.filter = kind("healthy");
            }
        };
        let mut all = vec![bound("healthy", healthy)];
        let other = bound(if self == Self::FloodingShared { "healthy" } else { "other" }, |spec| {
            spec.name = "other:topic.bench".into();
            spec.filter = kind("other");
        });
        if self != Self::ParkedKey {
            all.push(other);
        }
        all
    }
}

impl Found {
    /// Its line in the table.
    pub fn row(&self, case: Case) -> Row {
        let ((p50, p99), (beside_p50, beside_p99)) = (self.alone, self.beside);
        let figures = vec![
            ("alone_p50_ms", p50),
            ("alone_p99_ms", p99),
            ("beside_p50_ms", beside_p50),
            ("beside_p99_ms", beside_p99),
            ("p99_ratio", self.ratio),
        ];
        Row::new(case.name(), figures)
    }
}

/// Measures one case.
pub async fn measure(case: Case, slice: Duration, dir: &Path) -> anyhow::Result<Found> {
    let (bad, samples) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let rig = Rig::new(dir, case.bindings(), 10, false, act(case, &bad, &samples)).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut number = 0;
    // The first slice warms up and is not counted.
    for round in 0..=2 * ROUNDS {
        let is_beside = round % 2 == 1;
        bad.store(is_beside, Ordering::Relaxed);
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if is_beside && matches!(case, Case::Flooding | Case::FloodingShared) {
            let flood = (FLOOD_PER_S * slice.as_secs_f64()) as u64;
            for first in (0..flood).step_by(FLOOD_CHUNK) {
                let chunk = first..(first + FLOOD_CHUNK as u64).min(flood);
                let events = chunk.map(|n| rig.stamped(1_000_000 + round * 100_000 + n, "flood", "other"));
                rig.append(events.collect()).await?;
            }
        }
        let started = Instant::now();
        while started.elapsed() < slice {
            pace.tick().await;
            number += 1;
            let mut events = vec![rig.stamped(number, &format!("k{}", number % KEYS), "healthy")];
            // The same traffic in both kinds of slice: what differs is whether it can be delivered.
            if matches!(case, Case::ParkedKey | Case::Hanging) {
                events.push(rig.stamped(2_000_000 + number, "bad", "other"));
            }
            rig.append(events).await?;
        }
        bad.store(false, Ordering::Relaxed);
        rig.quiet().await?;
        let found = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
        match (round, is_beside) {
            (0, _) => {}
            (_, true) => beside.extend(found),
            (_, false) => alone.extend(found),
        }
    }
    rig.stop().await;
    let of = |samples: &mut Vec<f64>| (percentile(samples, 0.5), percentile(samples, 0.99));
    let (alone, beside) = (of(&mut alone), of(&mut beside));
    Ok(Found { ratio: beside.1 / alone.1, alone, beside })
}

fn act(case: Case, bad: &Arc<AtomicBool>, samples: &Arc<Mutex<Vec<f64>>>) -> Act {
    let (bad, samples) = (Arc::clone(bad), Arc::clone(samples));
    let clock = Clock::system();
    Arc::new(move |invocation: &Invocation| {
        let body: Value = serde_json::from_slice(&invocation.payload).unwrap_or_default();
        let data = &body["data"];
        if data["kind"] == "healthy" {
            let late = clock.now().micros() - data["at"].as_i64().unwrap_or_default();
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(late as f64 / 1_000.0);
            return (Duration::ZERO, Ok(()));
        }
        let is_bad = bad.load(Ordering::Relaxed);
        let failure = || ErrorInfo::platform(FailureClass::Function, "ValueError", "not now");
        match case {
            Case::ParkedKey if is_bad => (Duration::ZERO, Err(failure())),
            // As long as a slice at least; then it fails, and succeeds at the next try.
            Case::Hanging if is_bad => (Duration::from_secs(3), Err(failure())),
            Case::Flooding | Case::FloodingShared => (FLOOD_WORK, Ok(())),
            _ => (Duration::ZERO, Ok(())),
        }
    })
}
