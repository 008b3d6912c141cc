//! The embedded ledger, measured: what SQLite itself can do, what the ledger makes of it, and the way to a handler.

mod append;
mod bare;
pub mod end_to_end;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::NewEvent;
use bellwire_schemas::{Event, Lane, SourceName};
use bytes::Bytes;

use crate::table::Report;

/// Runs every measurement, each for about `length`, on the disk of `dir`.
pub async fn run(length: Duration, dir: Option<PathBuf>) -> anyhow::Result<Report> {
    let temporary = tempfile::tempdir()?;
    let dir = dir.unwrap_or_else(|| temporary.path().to_path_buf());
    std::fs::create_dir_all(&dir)?;
    let mut report = Report::new();
    report.table("append", "append, 300 B of JSON", append::measure(length, &dir).await?);
    report.table("end_to_end", "end to end, warm native no-op", end_to_end::throughput(length, &dir).await?);
    report.table(
        "latency",
        "latency at 200 events/s",
        end_to_end::latency(length.max(Duration::from_secs(3)), &dir).await?,
    );
    Ok(report)
}

/// An event of the size that the figures are about: 300 bytes of JSON.
fn event(number: u64) -> NewEvent {
    let data = format!("{{\"order\":{number:010},\"note\":\"{}\"}}", "x".repeat(270));
    event_of(number, Lane(1), None, data)
}

/// An event of the benchmarks' source; `data` is JSON.
pub fn event_of(number: u64, lane: Lane, key: Option<String>, data: String) -> NewEvent {
    NewEvent {
        source: SourceName::new("topic.bench"),
        lane,
        key,
        dedup: None,
        event: Arc::new(Event {
            id: format!("bench-{number}"),
            source: "topic:bench".into(),
            kind: "bench.order".into(),
            time: "2026-01-01T00:00:00Z".into(),
            datacontenttype: Some("application/json".into()),
            data: Some(Bytes::from(data)),
            ..Event::default()
        }),
    }
}

/// A file name that no earlier measurement used.
pub fn fresh(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}-{}.db", uuid::Uuid::now_v7().simple()))
}
