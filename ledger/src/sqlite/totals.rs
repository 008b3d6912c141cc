//! Totals: counters read, and what lies ahead of each cursor counted from an index.

use std::collections::BTreeMap;

use bellwire_schemas::{Address, BindingId, Lane, Seq, SourceName, Timestamp};
use rusqlite::OptionalExtension;

use super::bindings::count_between;
use super::codec::{place_of, places_of, state_of};
use super::fault::Outcome;
use super::flush::checkpoint;
use super::readers::Reader;
use crate::{ArrivalTotals, BindingTotals};

/// A binding with the number of its source and what its account should come to.
struct Account {
    binding: BindingId,
    source: i64,
    accepted: u64,
}

/// Totals of every binding, all of one moment.
pub(super) fn totals(reader: &Reader, lanes: u16) -> Outcome<BTreeMap<BindingId, BindingTotals>> {
    let mut all = BTreeMap::new();
    for account in accounts(reader)? {
        let mut totals = BindingTotals { accepted: account.accepted, ..BindingTotals::default() };
        ended(reader, account.binding, &mut totals)?;
        debts(reader, account.binding, &mut totals)?;
        for lane in (1..=lanes).map(Lane) {
            waiting(reader, &account, lane, &mut totals)?;
        }
        all.insert(account.binding, totals);
    }
    Ok(all)
}

fn accounts(reader: &Reader) -> Outcome<Vec<Account>> {
    let mut statement = reader.conn.prepare_cached(
        "SELECT b.id, r.source, coalesce(a.accepted, 0) - b.uncounted
         FROM binding b JOIN binding_revision r ON r.binding = b.id AND r.revision = b.revision
         LEFT JOIN arrival a ON a.source = r.source",
    )?;
    let account = |r: &rusqlite::Row<'_>| {
        Ok(Account { binding: BindingId(r.get(0)?), source: r.get(1)?, accepted: r.get(2)? })
    };
    Ok(statement.query_map([], account)?.collect::<Result<_, _>>()?)
}

fn ended(reader: &Reader, binding: BindingId, totals: &mut BindingTotals) -> Outcome<()> {
    let mut statement =
        reader.conn.prepare_cached("SELECT state, count FROM ended WHERE binding = ?1 AND count > 0")?;
    let rows = statement.query_map([binding.0], |r| Ok((state_of(r.get(0)?)?, r.get(1)?)))?;
    totals.ended = rows.collect::<Result<_, _>>()?;
    Ok(())
}

fn debts(reader: &Reader, binding: BindingId, totals: &mut BindingTotals) -> Outcome<()> {
    let mut statement = reader.conn.prepare_cached(
        "SELECT coalesce(sum(reason <> 3 AND NOT is_delayed), 0), coalesce(sum(counted = 0), 0),
           min(CASE WHEN is_delayed THEN next_at ELSE accepted_at END),
           (SELECT count(*) FROM dead_letter WHERE binding = ?1),
           coalesce(sum(reason = 3), 0), coalesce(sum(is_delayed), 0)
         FROM (SELECT *, reason IN (5, 6) AND attempts = 0 AS is_delayed FROM owed
           WHERE binding = ?1 AND reason <> 7)",
    )?;
    let mut rows = statement.query([binding.0])?;
    if let Some(row) = rows.next()? {
        totals.retrying = row.get(0)?;
        totals.outside = row.get(1)?;
        totals.oldest_owed = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros);
        totals.dead_letters = row.get(3)?;
        totals.parked = row.get(4)?;
        totals.delayed = row.get(5)?;
        totals.waiting = totals.parked + totals.delayed;
    }
    Ok(())
}

/// Counts the gaps between the finished ranges: what the cursor has not passed.
fn waiting(reader: &Reader, account: &Account, lane: Lane, totals: &mut BindingTotals) -> Outcome<()> {
    let (checkpoint, counted_from) = checkpoint(&reader.conn, lane, account.binding)?;
    let place = |seq: Seq| place_of(Address::new(lane, seq));
    let mut after = checkpoint.mark.max(counted_from);
    let mut gaps = Vec::new();
    for (first, last) in checkpoint.done.iter() {
        if last > after {
            gaps.push((after, place(first) - 1));
            after = last;
        }
    }
    gaps.push((after, places_of(lane).1));
    let mut first_waiting = None;
    for (after, last) in gaps {
        let after = Address::new(lane, after);
        if place_of(after) >= last {
            continue;
        }
        let count = count_between(&reader.conn, account.source, after, last)?;
        totals.waiting += count;
        if count > 0 && first_waiting.is_none() {
            first_waiting = first_accepted_at(reader, account.source, after)?;
        }
    }
    totals.oldest_owed = [totals.oldest_owed, first_waiting].into_iter().flatten().min();
    Ok(())
}

fn first_accepted_at(reader: &Reader, source: i64, after: Address) -> Outcome<Option<Timestamp>> {
    let mut statement = reader.conn.prepare_cached(
        "SELECT accepted_at FROM event INDEXED BY event_by_source
         WHERE source = ?1 AND place > ?2 ORDER BY place LIMIT 1",
    )?;
    let found = statement.query_row((source, place_of(after)), |r| r.get(0)).optional()?;
    Ok(found.map(Timestamp::from_micros))
}

/// Arrivals of every source.
pub(super) fn arrivals(reader: &Reader) -> Outcome<BTreeMap<SourceName, ArrivalTotals>> {
    let mut statement = reader.conn.prepare_cached(
        "SELECT n.text, a.accepted, a.duplicate, a.quarantined, a.last_at
         FROM arrival a JOIN name n ON n.id = a.source",
    )?;
    let rows = statement.query_map([], |r| {
        let totals = ArrivalTotals {
            accepted: r.get(1)?,
            duplicate: r.get(2)?,
            quarantined: r.get(3)?,
            last_at: r.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros),
        };
        Ok((SourceName::new(r.get::<_, String>(0)?), totals))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
