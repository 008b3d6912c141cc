//! Retention: whole generations that nobody needs are dropped, one at a time; and what is old besides.
//!
//! The database judges and drops in one transaction under the fences of all lanes, so that nothing can begin to need an
//! event between the two; see `migrations/postgres/0009_retention.sql`.

use std::time::Duration;

use bellwire_schemas::Timestamp;
use postgres_types::Type;

use super::codec::Time;
use super::fault::{Fault, misread};
use super::{Shared, one, upkeep};
use crate::{Error, Retained};

/// How often a generation is tried that somebody holds for a moment, and the rest between two tries.
const TRIES: (u32, Duration) = (5, Duration::from_millis(100));
/// Rows removed in one step of everything else.
const STEP: i32 = 2_000;
/// The server's code for a lock that was not got in time.
const LOCK_TIMEOUT: &str = "55P03";

/// Removes what is older than `before` and not needed.
pub(super) async fn retain(shared: &Shared, before: Timestamp, now: Timestamp) -> Result<Retained, Error> {
    shared.check_writable()?;
    let mut retained = Retained::default();
    let old = shared.sql("select bellwire.open_is_old($1)");
    if one(&shared.look(&old, &[(&Time(before), Type::TIMESTAMPTZ)]).await?, 0)? {
        upkeep::rotate(shared).await?;
    }
    let sql = shared.sql("select gen from bellwire.generation where closed_at is not null order by gen");
    let rows = shared.look(&sql, &[]).await?;
    let closed = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i32>, _>>().map_err(misread)?;
    for generation in closed {
        let judged = judge(shared, generation, before).await?;
        match judged.state {
            State::Free => match drop_generation(shared, generation, before).await? {
                Judged { state: State::Dropped, events } => retained.events += events,
                Judged { state: State::Needed, events } => retained.kept_for_debts += events,
                _ => {}
            },
            State::Needed => retained.kept_for_debts += judged.events,
            _ => {}
        }
    }
    prune(shared, before, &mut retained).await?;
    drop_buckets(shared, now).await?;
    upkeep::measure(shared).await?;
    Ok(retained)
}

/// What may be done with a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Young,
    Untallied,
    Needed,
    Free,
    Dropped,
    /// Somebody holds its tables.
    Held,
}

struct Judged {
    state: State,
    events: u64,
}

impl Judged {
    fn of(rows: &[tokio_postgres::Row]) -> Result<Self, Error> {
        let state: String = one(rows, 0)?;
        let events: Option<i64> = one(rows, 1)?;
        let state = match state.as_str() {
            "open" => State::Open,
            "young" => State::Young,
            "untallied" => State::Untallied,
            "needed" => State::Needed,
            "free" => State::Free,
            "dropped" => State::Dropped,
            other => {
                return Err(Error::Corrupt(format!("a generation was judged `{other}`, an unknown word")));
            }
        };
        Ok(Self { state, events: u64::try_from(events.unwrap_or(0)).unwrap_or(0) })
    }
}

/// Asks what may be done with a generation; tallies it first where that is missing.
async fn judge(shared: &Shared, generation: i32, before: Timestamp) -> Result<Judged, Error> {
    let sql = shared.sql("select o_state, o_events from bellwire.judge_generation($1, $2)");
    for _ in 0..TRIES.0 {
        let params: &[_] = &[(&generation as _, Type::INT4), (&Time(before) as _, Type::TIMESTAMPTZ)];
        let judged = match shared.look(&sql, params).await {
            Ok(rows) => Judged::of(&rows)?,
            // Another controller dropped it.
            Err(fault) if super::reading::is_gone(&fault) => Judged { state: State::Open, events: 0 },
            Err(fault) => return Err(fault.into()),
        };
        if judged.state != State::Untallied {
            return Ok(judged);
        }
        if !upkeep::tally_all(shared).await? {
            tokio::time::sleep(TRIES.1).await;
        }
    }
    Ok(Judged { state: State::Untallied, events: 0 })
}

/// Drops a generation, unless somebody holds it for longer than a moment; then the next pass tries again.
async fn drop_generation(shared: &Shared, generation: i32, before: Timestamp) -> Result<Judged, Error> {
    let sql = shared.sql("select o_state, o_events from bellwire.drop_generation($1, $2)");
    for _ in 0..TRIES.0 {
        let params: &[_] = &[(&generation as _, Type::INT4), (&Time(before) as _, Type::TIMESTAMPTZ)];
        match shared.pool.call(&sql, params).await {
            Ok(rows) => {
                let judged = Judged::of(&rows)?;
                if judged.state == State::Dropped {
                    tracing::info!(generation, events = judged.events, "dropped a generation of the ledger");
                    shared.reading.forget();
                    shared.load_ranges().await?;
                }
                return Ok(judged);
            }
            Err(Fault::Server { code, .. }) if code == LOCK_TIMEOUT => {}
            Err(fault) => return Err(fault.into()),
        }
        tokio::time::sleep(TRIES.1).await;
    }
    warn_of_holder(shared, generation).await?;
    Ok(Judged { state: State::Held, events: 0 })
}

async fn warn_of_holder(shared: &Shared, generation: i32) -> Result<(), Error> {
    let sql = shared.sql("select bellwire.holder_of($1)");
    let holder: Option<String> = one(&shared.look(&sql, &[(&generation, Type::INT4)]).await?, 0)?;
    let holder = holder.unwrap_or_else(|| "nobody any more".into());
    tracing::warn!(
        generation,
        holder,
        "a generation of the ledger cannot be dropped while a session holds its tables: end its transaction"
    );
    Ok(())
}

/// Removes quarantine, refusals and events brought back that are too old. What is held for longer than a moment stays for
/// the next pass: a flush holds the fence of its lane until it is on disk.
async fn prune(shared: &Shared, before: Timestamp, retained: &mut Retained) -> Result<(), Error> {
    let sql = shared.sql("select o_rows, o_events, o_needed from bellwire.prune($1, $2)");
    let mut held = 0;
    while held < TRIES.0 {
        let params: &[_] = &[(&Time(before) as _, Type::TIMESTAMPTZ), (&STEP as _, Type::INT4)];
        let rows = match shared.pool.call(&sql, params).await {
            Err(Fault::Server { code, .. }) if code == LOCK_TIMEOUT => {
                held += 1;
                tokio::time::sleep(TRIES.1).await;
                continue;
            }
            other => other?,
        };
        let count = |column| one::<i64>(&rows, column).map(|n| u64::try_from(n).unwrap_or(0));
        retained.events += count(1)?;
        if count(0)? == 0 {
            retained.kept_for_debts += count(2)?;
            break;
        }
    }
    Ok(())
}

/// Drops dedup buckets whose windows are all over.
async fn drop_buckets(shared: &Shared, now: Timestamp) -> Result<(), Error> {
    let sql = shared.sql("select bellwire.drop_bucket($1)");
    loop {
        match shared.pool.call(&sql, &[(&Time(now), Type::TIMESTAMPTZ)]).await {
            Ok(rows) if one::<i32>(&rows, 0)? > 0 => {}
            Ok(_) => return Ok(()),
            // The next pass tries again; a bucket that is too old costs space only.
            Err(Fault::Server { code, .. }) if code == LOCK_TIMEOUT => return Ok(()),
            Err(fault) => return Err(fault.into()),
        }
    }
}

/// Bytes of all tables of the ledger with their indexes.
pub(super) async fn size_bytes(shared: &Shared) -> Result<u64, Error> {
    upkeep::measure(shared).await
}
