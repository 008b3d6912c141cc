//! Appends per second, by batch size and number of callers, beside the bare limit of the same run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwire_ledger::sqlite::{SqliteLedger, SqliteOptions};
use bellwire_ledger::{Append, Ledger};
use bellwire_schemas::Clock;
use uuid::Uuid;

use super::{bare, event, fresh};
use crate::table::{Row, percentile};

/// Callers at once, and events a call.
const CASES: [(usize, usize); 6] = [(1, 1), (64, 1), (1, 10), (1, 100), (1, 500), (4, 500)];

/// One row per case.
pub async fn measure(length: Duration, dir: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (callers, batch) in CASES {
        let (per_s, mut commits) = appends(dir, callers, batch, length).await?;
        let dir = dir.to_path_buf();
        // What one transaction a caller's batch could do at most: callers share commits, so the limit does too.
        let limit =
            tokio::task::spawn_blocking(move || bare::inserts_per_s(&dir, callers * batch, length / 2))
                .await??;
        rows.push(Row::new(
            format!("{callers} callers x batch {batch}"),
            vec![
                ("append_per_s", per_s),
                ("bare_per_s", limit),
                ("of_bare_pct", 100.0 * per_s / limit),
                ("commit_p50_ms", percentile(&mut commits, 0.5)),
                ("commit_p99_ms", percentile(&mut commits, 0.99)),
            ],
        ));
    }
    Ok(rows)
}

async fn appends(
    dir: &Path,
    callers: usize,
    batch: usize,
    length: Duration,
) -> anyhow::Result<(f64, Vec<f64>)> {
    let ledger: Arc<dyn Ledger> =
        Arc::new(SqliteLedger::open(&fresh(dir, "append"), SqliteOptions::default())?);
    let numbers = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks = (0..callers).map(|_| {
        let (ledger, numbers) = (Arc::clone(&ledger), Arc::clone(&numbers));
        tokio::spawn(async move {
            let clock = Clock::system();
            let mut commits = Vec::new();
            while started.elapsed() < length {
                let first = numbers.fetch_add(batch as u64, Ordering::Relaxed);
                let append = Append {
                    append_id: Uuid::now_v7(),
                    events: (first..first + batch as u64).map(event).collect(),
                    positions: Vec::new(),
                    quarantined: Vec::new(),
                };
                let sent = Instant::now();
                ledger.append(append, clock.now()).await?;
                commits.push(sent.elapsed().as_secs_f64() * 1_000.0);
            }
            Ok::<_, bellwire_ledger::Error>(commits)
        })
    });
    let mut commits = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        commits.extend(task.await??);
    }
    let per_s = (commits.len() * batch) as f64 / started.elapsed().as_secs_f64();
    ledger.close().await;
    Ok((per_s, commits))
}
