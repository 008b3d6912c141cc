//! The accounts: totals and arrivals, each worked out by the database from one snapshot, see
//! `migrations/postgres/0006_accounts.sql` and `0017_totals.sql`.
//!
//! What is asked about `only bellwire.event_batch` is always so: naming it lets the question wait for a generation that is
//! being dropped before it takes its snapshot. Otherwise the snapshot would have the sums from before, and the tables
//! those from after.

use std::collections::BTreeMap;

use bellwire_schemas::{BindingId, FinalState, SourceName};
use tokio_postgres::Row;

use super::Shared;
use super::codec::{Time, unescape};
use super::fault::misread;
use crate::{ArrivalTotals, BindingTotals, Error};

/// The states in the order of the account.
const STATES: [FinalState; 5] = [
    FinalState::Delivered,
    FinalState::Filtered,
    FinalState::Expired,
    FinalState::Dead,
    FinalState::Discarded,
];

/// Totals of every binding, all of one moment.
pub(super) async fn totals(shared: &Shared) -> Result<BTreeMap<BindingId, BindingTotals>, Error> {
    let sql = shared.sql(
        "select binding, ended, waiting, retrying, dead_letters, oldest_owed, accepted, outside, parked, delayed
         from bellwire.accounts() where not exists (select from only bellwire.event_batch)",
    );
    let rows = shared.pool.ask(&sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let id: i32 = row.try_get(0).map_err(misread)?;
            Ok((BindingId(u32::try_from(id).unwrap_or(0)), totals_of(row)?))
        })
        .collect()
}

fn totals_of(row: &Row) -> Result<BindingTotals, Error> {
    let ended: Vec<i64> = row.try_get(1).map_err(misread)?;
    let ended = STATES.into_iter().zip(ended).filter(|(_, count)| *count != 0);
    let ended = ended.map(|(state, n)| Ok((state, count(n)?))).collect::<Result<_, Error>>()?;
    Ok(BindingTotals {
        ended,
        waiting: count_at(row, 2)?,
        retrying: count_at(row, 3)?,
        dead_letters: count_at(row, 4)?,
        oldest_owed: row.try_get::<_, Option<Time>>(5).map_err(misread)?.map(|time| time.0),
        accepted: count_at(row, 6)?,
        outside: count_at(row, 7)?,
        parked: count_at(row, 8)?,
        delayed: count_at(row, 9)?,
    })
}

fn count_at(row: &Row, column: usize) -> Result<u64, Error> {
    count(row.try_get(column).map_err(misread)?)
}

fn count(count: i64) -> Result<u64, Error> {
    u64::try_from(count).map_err(|_| Error::Corrupt(format!("an account stands at {count}")))
}

/// Arrivals of every source.
pub(super) async fn arrivals(shared: &Shared) -> Result<BTreeMap<SourceName, ArrivalTotals>, Error> {
    let sql = shared.sql(
        "select name, accepted, duplicate, quarantined, last_at
         from bellwire.arrivals() where not exists (select from only bellwire.event_batch)",
    );
    let rows = shared.pool.ask(&sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let name = SourceName::new(unescape(row.try_get(0).map_err(misread)?));
            let last_at = row.try_get::<_, Option<Time>>(4).map_err(misread)?.map(|time| time.0);
            let (accepted, duplicate) = (count_at(row, 1)?, count_at(row, 2)?);
            Ok((name, ArrivalTotals { accepted, duplicate, quarantined: count_at(row, 3)?, last_at }))
        })
        .collect()
}
