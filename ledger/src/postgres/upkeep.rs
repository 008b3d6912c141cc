//! Upkeep: a task that makes generations and dedup buckets ahead, opens them when it is time, counts what was accepted,
//! and measures the ledger.
//!
//! Every handle runs one; the database lets one at a time do something. Nothing here is needed for correctness within a
//! moment: what fails is tried again, and appends never wait longer than a moment for it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use postgres_types::{FromSql, Type};
use tokio::time::Instant;
use tokio_postgres::Row;

use super::fault::{Fault, Outcome, misread};
use super::{PostgresOptions, Shared, one};
use crate::Error;

/// The rest between two looks.
const REST: Duration = Duration::from_secs(2);
/// Events and rows that one tally covers: counting never reads more of a lane than that.
const TALLY: (i64, i32) = (5_000, 1_000);
/// Steps of tallies in one look: at eight lanes some millions of events.
const TALLIES: usize = 200;
/// Size of a generation at most, bytes: 1 GiB.
const GENERATION_BYTES: u64 = 1 << 30;
/// And at least, where the ledger's size is limited: 16 MiB.
const SMALLEST_GENERATION: u64 = 16 << 20;
/// Generations that a ledger of limited size is made of: what retention frees at a time is a twentieth.
const GENERATIONS: u64 = 20;
/// Size at which a dedup bucket is followed by another, bytes: 512 MiB, some five million keys.
const BUCKET_BYTES: u64 = 512 << 20;
/// And its age.
const BUCKET_AGE: Duration = Duration::from_secs(6 * 3_600);
/// How often a moment without appends is waited for in one look, and the rest between two tries.
const TRIES: (u32, Duration) = (10, Duration::from_millis(50));

/// When the open generation is followed by another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    bytes: u64,
    age: Duration,
    /// Whether the ledger's size is limited.
    sized: bool,
}

impl Limits {
    /// What the options come to.
    pub fn of(options: &PostgresOptions) -> Self {
        let share = options.max_bytes.map(|max| (max / GENERATIONS).max(SMALLEST_GENERATION));
        let bytes = options.generation_bytes.or(share).unwrap_or(GENERATION_BYTES).min(GENERATION_BYTES);
        Self { bytes, age: options.generation_age, sized: options.max_bytes.is_some() }
    }
}

/// Looks after a ledger until its handle is gone or closed.
pub(super) async fn run(shared: Weak<Shared>, limits: Limits) {
    let mut failing = false;
    // A full ledger refuses events from the start.
    let mut rest = if limits.sized { Duration::ZERO } else { REST };
    loop {
        tokio::time::sleep(rest).await;
        rest = REST;
        let Some(shared) = shared.upgrade() else { return };
        match look(&shared, limits).await {
            Ok(()) => failing = false,
            // Said once: the same is said of everything else while the database is away.
            Err(error) if !failing => {
                tracing::warn!(%error, "the upkeep of the ledger failed; it is tried again");
                failing = true;
            }
            Err(_) => {}
        }
    }
}

/// One look.
pub(super) async fn look(shared: &Shared, limits: Limits) -> Result<(), Error> {
    let sizes = sizes(shared).await?;
    judge_size(shared, sizes.bytes);
    tally_all(shared).await?;
    if sizes.generation.is_due(limits.bytes, limits.age) {
        rotate(shared).await?;
    } else {
        prepare(shared, sizes.generation.number).await?;
    }
    if sizes.bucket.is_due(BUCKET_BYTES, BUCKET_AGE) {
        let next = sizes.bucket.number + 1;
        number(shared, "select bellwire.create_bucket($1)", next).await?;
        in_a_quiet_moment(shared, "select bellwire.open_bucket($1)", sizes.bucket.number).await?;
    }
    Ok(())
}

/// What the ledger weighs.
struct Sizes {
    bytes: u64,
    generation: Part,
    bucket: Part,
}

/// The open generation, or the newest dedup bucket.
struct Part {
    number: i32,
    bytes: u64,
    age: Duration,
    used: bool,
}

impl Part {
    fn of(row: &Row, column: usize) -> Result<Self, tokio_postgres::Error> {
        let age: f64 = row.try_get(column + 2)?;
        Ok(Self {
            number: row.try_get(column)?,
            bytes: u64::try_from(row.try_get::<_, i64>(column + 1)?).unwrap_or(0),
            age: Duration::try_from_secs_f64(age).unwrap_or_default(),
            used: row.try_get(column + 3)?,
        })
    }

    fn is_due(&self, bytes: u64, age: Duration) -> bool {
        self.used && (self.bytes >= bytes || self.age >= age)
    }
}

async fn sizes(shared: &Shared) -> Result<Sizes, Error> {
    let sql = shared.sql("select * from bellwire.sizes()");
    let mut rows = shared.look(&sql, &[]).await;
    if rows.as_ref().is_err_and(super::reading::is_gone) {
        rows = shared.look(&sql, &[]).await;
    }
    let rows = rows?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("the ledger has no size".into()))?;
    let read = || -> Result<Sizes, tokio_postgres::Error> {
        let bytes = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        Ok(Sizes { bytes, generation: Part::of(row, 1)?, bucket: Part::of(row, 5)? })
    };
    read().map_err(misread)
}

/// Measures the ledger, and says from then on whether it is full; returns the bytes in use.
pub(super) async fn measure(shared: &Shared) -> Result<u64, Error> {
    let bytes = sizes(shared).await?.bytes;
    judge_size(shared, bytes);
    Ok(bytes)
}

fn judge_size(shared: &Shared, bytes: u64) {
    let Some(max) = shared.max_bytes else { return };
    let full = bytes >= max;
    if shared.full.swap(full, Ordering::AcqRel) != full {
        match full {
            true => tracing::warn!(
                bytes,
                max,
                "the ledger is full: it takes no events until retention frees some"
            ),
            false => tracing::info!(bytes, max, "the ledger takes events again"),
        }
    }
}

/// Writes what tallies are missing, as far as one look goes; false when there was nothing to do, or somebody else is at it.
pub(super) async fn tally_all(shared: &Shared) -> Result<bool, Error> {
    for step in 0..TALLIES {
        if !tally(shared).await? {
            return Ok(step > 0);
        }
    }
    Ok(true)
}

/// Writes one step of tallies in every lane; false when there was nothing to do, or somebody else is at it.
pub(super) async fn tally(shared: &Shared) -> Result<bool, Error> {
    let sql = shared.sql("select bellwire.tally_lanes($1, $2)");
    let rows = shared.pool.query(&sql, &[(&TALLY.0, Type::INT8), (&TALLY.1, Type::INT4)]).await?;
    Ok(one::<i32>(&rows, 0)? > 0)
}

/// Makes the tables of the generation after this one, unless they are there.
async fn prepare(shared: &Shared, generation: i32) -> Result<(), Error> {
    number(shared, "select bellwire.create_generation($1)", generation + 1).await
}

/// Opens the next generation.
///
/// # Errors
/// [`Error::Unavailable`] when no moment was found in which that keeps nobody waiting.
pub(super) async fn rotate(shared: &Shared) -> Result<(), Error> {
    let generation = shared.refresh_generation().await?;
    prepare(shared, generation).await?;
    let since = Instant::now();
    let opened = in_a_quiet_moment(shared, "select bellwire.rotate($1)", generation).await?;
    shared.refresh_generation().await?;
    shared.load_ranges().await?;
    if opened {
        let ms = since.elapsed().as_millis();
        tracing::info!(generation = generation + 1, ms, "opened the next generation of the ledger");
    }
    Ok(())
}

/// Calls a function that needs the locks of all lanes, again when it did not get them soon enough; says whether it did
/// something.
async fn in_a_quiet_moment(shared: &Shared, sql: &'static str, which: i32) -> Result<bool, Error> {
    let sql = shared.sql(sql);
    let mut last = None;
    for _ in 0..TRIES.0 {
        match answer(shared, &sql, which).await {
            Ok(done) => return Ok(done),
            Err(fault) if fault.code() == "55P03" => last = Some(fault),
            Err(fault) => return Err(fault.into()),
        }
        tokio::time::sleep(TRIES.1).await;
    }
    last.map_or(Ok(false), |fault| Err(fault.into()))
}

async fn answer<T: for<'a> FromSql<'a>>(shared: &Shared, sql: &str, which: i32) -> Outcome<T> {
    let rows = shared.pool.call(sql, &[(&which, Type::INT4)]).await?;
    one(&rows, 0).map_err(|error| Fault::Lost(error.to_string()))
}

/// Calls a function that makes tables, unless they are there.
async fn number(shared: &Shared, sql: &'static str, which: i32) -> Result<(), Error> {
    answer::<bool>(shared, &shared.sql(sql), which).await?;
    Ok(())
}

/// Starts the task.
pub(super) fn start(shared: &Arc<Shared>, limits: Limits) {
    let task = tokio::spawn(run(Arc::downgrade(shared), limits));
    // A second start would be a second task; there is one per handle.
    if let Err(second) = shared.upkeep.set(task.abort_handle()) {
        second.abort();
    }
}
