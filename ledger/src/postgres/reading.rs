//! What reading keeps in memory: where generations begin, and the batch each lane was last read from.
//!
//! All of it is a cache of what never changes once committed. A generation that is gone is noticed by the statement that
//! names its table; a newer one by the answer that says so. A batch is kept for a moment only, because a server that took
//! over may hold other events at its places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use bellwire_schemas::{Lane, Seq};
use postgres_types::Type;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::Shared;
use super::codec::{Batch, RawEvent};
use super::fault::{Fault, Outcome, misread};
use super::pool::Param;
use crate::{Error, StoredEvent};

/// How long a decoded batch is served without asking the server.
const FRESH: Duration = Duration::from_secs(2);
/// Payload bytes of a batch that is kept at most: 4 MiB. Larger ones are fetched again.
const KEPT: usize = 4 << 20;

/// The caches of one handle.
#[derive(Default)]
pub(super) struct Reading {
    ranges: RwLock<Arc<Ranges>>,
    lanes: Mutex<HashMap<Lane, LaneReading>>,
}

/// The generations that are there, oldest first, each with the first place of every lane in it.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(i32, Vec<i64>)>);

impl Ranges {
    /// The newest generation.
    pub fn newest(&self) -> Option<i32> {
        self.0.last().map(|(generation, _)| *generation)
    }

    /// The generation to look for a place in, and where to begin: at the place, or, when it is gone, at the first one
    /// after it that may be there.
    pub fn of(&self, lane: Lane, seq: Seq) -> Option<(i32, Seq)> {
        let starts = || self.0.iter().map(|(generation, firsts)| (*generation, first(firsts, lane)));
        starts().rev().find(|(_, first)| *first <= seq).map(|(g, _)| (g, seq)).or_else(|| starts().next())
    }

    /// The generation after one, and where it begins.
    pub fn after(&self, lane: Lane, generation: i32) -> Option<(i32, Seq)> {
        let next = self.0.iter().find(|(g, _)| *g > generation)?;
        Some((next.0, first(&next.1, lane)))
    }
}

fn first(firsts: &[i64], lane: Lane) -> Seq {
    let first = usize::from(lane.0).checked_sub(1).and_then(|n| firsts.get(n));
    Seq(first.and_then(|f| u64::try_from(*f).ok()).unwrap_or(1))
}

struct LaneReading {
    /// Events of one batch, and when they were fetched.
    events: Arc<Vec<StoredEvent>>,
    at: Instant,
    /// What a row weighed lately, bytes.
    row_bytes: usize,
}

impl Reading {
    /// Forgets batches: after retention, and when events that were read turned out to be lost.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// The batch that holds a place, if it was read a moment ago.
    pub fn batch(&self, lane: Lane, seq: Seq) -> Option<Arc<Vec<StoredEvent>>> {
        let lanes = self.lock();
        let lane = lanes.get(&lane).filter(|lane| lane.at.elapsed() < FRESH)?;
        let (first, last) = (lane.events.first()?.address.seq, lane.events.last()?.address.seq);
        (first <= seq && seq <= last).then(|| lane.events.clone())
    }

    /// Remembers the last batch of a read, and what its rows weigh.
    pub fn remember(&self, lane: Lane, events: Vec<StoredEvent>, row_bytes: usize) {
        let bytes: usize = events.iter().map(|e| e.event.data.as_ref().map_or(0, |d| d.len())).sum();
        let events = Arc::new(if bytes <= KEPT { events } else { Vec::new() });
        self.lock().insert(lane, LaneReading { events, at: Instant::now(), row_bytes });
    }

    /// What a row of a lane weighed lately, bytes.
    pub fn row_bytes(&self, lane: Lane) -> Option<usize> {
        self.lock().get(&lane).map(|lane| lane.row_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, LaneReading>> {
        self.lanes.lock().expect("no code panics while it holds this lock")
    }

    /// The generations as known; none before the first [`Shared::load_ranges`].
    pub fn ranges(&self) -> Arc<Ranges> {
        self.ranges.read().expect("no code panics while it holds this lock").clone()
    }
}

impl Shared {
    /// Asks for something that does not change; once more when its connection was lost. For whoever minds the code of a
    /// refusal.
    pub(super) async fn look(&self, sql: &str, params: &[Param<'_>]) -> Outcome<Vec<Row>> {
        match self.pool.call(sql, params).await {
            Err(Fault::Lost(_)) => self.pool.call(sql, params).await,
            other => other,
        }
    }

    /// Asks again which generations there are.
    pub(super) async fn load_ranges(&self) -> Result<Arc<Ranges>, Error> {
        let sql = self.sql(
            "select g.gen, array_agg(s.first_seq order by s.lane) from bellwire.generation g
             join bellwire.lane_start s on s.gen = g.gen group by g.gen order by g.gen",
        );
        let rows = self.look(&sql, &[]).await?;
        let range = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let ranges = Arc::new(Ranges(rows.iter().map(range).collect::<Result<_, _>>().map_err(misread)?));
        *self.reading.ranges.write().expect("no code panics while it holds this lock") = ranges.clone();
        Ok(ranges)
    }

    /// The generations as known, asked for when nothing is.
    pub(super) async fn ranges(&self) -> Result<Arc<Ranges>, Error> {
        let known = self.reading.ranges();
        if known.newest().is_some() { Ok(known) } else { self.load_ranges().await }
    }

    /// Events of a lane by their places, in no order; those that are gone are left out.
    pub(super) async fn events_at(&self, lane: Lane, seqs: &[i64]) -> Result<Vec<StoredEvent>, Error> {
        let sql = self.sql("select * from bellwire.events_at($1, $2)");
        let number = lane_number(lane);
        let params: &[Param<'_>] = &[(&number, Type::INT2), (&seqs, Type::INT8_ARRAY)];
        let mut result = self.look(&sql, params).await;
        if result.as_ref().is_err_and(is_gone) {
            // A generation was dropped between two looks.
            result = self.look(&sql, params).await;
        }
        let rows = result?;
        let raws = rows.iter().map(|row| RawEvent::of(row, 0, lane)).collect::<Result<Vec<_>, _>>()?;
        let sources = self.sources_with(raws.iter().map(|raw| raw.source)).await?;
        raws.iter().map(|raw| raw.decode(&sources.names)).collect()
    }

    /// Decodes the events of batches.
    pub(super) async fn decode(&self, batches: &[Batch<'_>]) -> Result<Vec<Vec<StoredEvent>>, Error> {
        let sources = self.sources_with(batches.iter().flat_map(Batch::sources)).await?;
        let events = |batch: &Batch<'_>| batch.events().map(|raw| raw?.decode(&sources.names)).collect();
        batches.iter().map(events).collect()
    }
}

/// A lane as the database has it.
pub(super) fn lane_number(lane: Lane) -> i16 {
    i16::try_from(lane.0).unwrap_or(i16::MAX)
}

/// Whether a statement failed because a generation that it names is gone: undefined table or function, or a relation that
/// vanished under a plan.
pub(super) fn is_gone(fault: &Fault) -> bool {
    matches!(fault.code(), "42P01" | "42883" | "XX000")
}
