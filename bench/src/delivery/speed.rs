//! How many events a second go from append to a committed outcome, without order and in order of few and many keys.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_schemas::service::{Batch, Ordering};

use super::rig::{Rig, bound, event};
use crate::table::Row;

/// Events appended at once.
const BATCH: u64 = 500;
/// Events that may be owed at once: a steady flow, not a backlog.
const OWED: u64 = 10_000;

/// One case.
pub struct Speed {
    /// Its stable key.
    pub key: &'static str,
    /// Events a second.
    pub per_s: f64,
    name: &'static str,
    calls_per_s: f64,
}

impl Speed {
    /// Its line in the table.
    pub fn row(&self) -> Row {
        Row::new(self.name, vec![("events_per_s", self.per_s), ("calls_per_s", self.calls_per_s)])
    }
}

/// Measures all cases, batches of 100 at most but for the last two.
pub async fn measure(length: Duration, dir: &Path) -> anyhow::Result<Vec<Speed>> {
    let mut all = Vec::new();
    for (key, name, ordering, keys, size) in [
        ("unordered_per_s", "no order, batches of 100", Ordering::None, 100_000, 100),
        ("ordered_1_key_per_s", "1 key in order, batches of 100", Ordering::Key, 1, 100),
        ("ordered_100_keys_per_s", "100 keys in order, batches of 100", Ordering::Key, 100, 100),
        ("ordered_100000_keys_per_s", "100,000 keys in order, batches of 100", Ordering::Key, 100_000, 100),
        ("unordered_single_per_s", "no order, one by one", Ordering::None, 100_000, 1),
        ("ordered_single_per_s", "100,000 keys in order, one by one", Ordering::Key, 100_000, 1),
    ] {
        let spec = bound("noop", |spec| {
            spec.ordering = ordering;
            spec.batch = Batch::of(size);
        });
        let rig = Rig::new(dir, vec![spec], 10, false, Arc::new(|_| (Duration::ZERO, Ok(())))).await?;
        let started = Instant::now();
        let mut sent = 0_u64;
        let done = loop {
            let done = rig.delivered().await?;
            if started.elapsed() >= length {
                break done;
            }
            while sent < done + OWED {
                let batch = (sent..sent + BATCH).map(|n| {
                    let data = format!("{{\"order\":{n:010},\"note\":\"{}\"}}", "x".repeat(270));
                    event(n, Some(&format!("k{}", n.wrapping_mul(0x9E37_79B9) % keys)), data)
                });
                rig.append(batch.collect()).await?;
                sent += BATCH;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let seconds = started.elapsed().as_secs_f64();
        let calls = rig.calls.count.load(std::sync::atomic::Ordering::Relaxed);
        all.push(Speed { key, name, per_s: done as f64 / seconds, calls_per_s: calls as f64 / seconds });
        rig.stop().await;
    }
    Ok(all)
}
