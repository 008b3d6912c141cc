//! The limit: the same rows inserted into a bare SQLite table, same pragmas, one transaction a batch.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{event, fresh};

/// Rows per second of bare inserts with this many rows a transaction.
pub fn inserts_per_s(dir: &Path, batch: usize, length: Duration) -> anyhow::Result<f64> {
    let mut db = Connection::open(fresh(dir, "bare"))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.execute_batch(
        "create table event (lane integer, seq integer, source integer, at integer, attributes text, data blob,
         primary key (lane, seq)) without rowid",
    )?;
    let (started, mut rows) = (Instant::now(), 0_u64);
    while started.elapsed() < length {
        let events: Vec<_> = (0..batch as u64).map(|n| event(rows + n)).collect();
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare_cached("insert into event values (1, ?, 1, 0, ?, ?)")?;
            for new in &events {
                rows += 1;
                let attributes = serde_json::to_string(&*new.event)?;
                insert.execute((rows as i64, attributes, new.event.data.as_deref()))?;
            }
        }
        transaction.commit()?;
    }
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}
