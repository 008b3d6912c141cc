//! The first answer of an append that is there already.

use std::collections::{BTreeMap, VecDeque};

use bellwire_schemas::{Address, Lane, Seq};
use postgres_types::Type;
use tokio_postgres::Row;
use uuid::Uuid;

use super::job::{Fate, Job};
use super::tried::Tried;
use crate::postgres::Shared;
use crate::postgres::codec::Time;
use crate::postgres::fault::misread;
use crate::{Appended, Error};

/// Where its events lie, what it met, and that it was there at all.
const ROWS: &str = "select b.lane, b.first_seq, b.count, b.part_ids, b.part_counts, b.appended_at
    from unnest($2, $3) k (lane, known)
    join bellwire.event_batch b on b.lane = k.lane and b.first_seq >= k.known
    where b.gen >= $1 and (b.append_id = $4 or $4 = any (b.part_ids)) order by b.lane, b.first_seq";
const DUPLICATES: &str =
    "select ord, lane, seq from bellwire.duplicate where gen >= $1 and append_id = $2 order by ord";
const MARK: &str = "select appended_at from bellwire.append_mark where gen >= $1 and append_id = $2";

/// Looks for an append in the generation of its first try and all later ones; nothing when it was never committed.
///
/// # Errors
/// When the database cannot be asked; [`Error::Corrupt`] when what is there is not what was sent.
pub(super) async fn find(shared: &Shared, job: &mut Job, tried: &Tried) -> Result<Option<Appended>, Error> {
    let id = job.id();
    let (lanes, known): (Vec<i16>, Vec<i64>) =
        tried.known.iter().map(|(lane, known)| (i16::try_from(*lane).unwrap_or(0), *known)).unzip();
    let rows = [
        (&tried.generation as _, Type::INT4),
        (&lanes as _, Type::INT2_ARRAY),
        (&known as _, Type::INT8_ARRAY),
        (&id as _, Type::UUID),
    ];
    let rows = shared.pool.ask(&shared.sql(ROWS), &rows).await?;
    let by_id = [(&tried.generation as _, Type::INT4), (&id as _, Type::UUID)];
    let duplicates = shared.pool.ask(&shared.sql(DUPLICATES), &by_id).await?;
    let marks = shared.pool.ask(&shared.sql(MARK), &by_id).await?;
    let mut at = None;
    let mut places: BTreeMap<u16, VecDeque<Seq>> = BTreeMap::new();
    for row in &rows {
        let (lane, seqs) = part(row, id).map_err(misread)?;
        places.entry(lane).or_default().extend(seqs);
        at = at.max(Some(row.try_get::<_, Time>(5).map_err(misread)?.0));
    }
    for row in &marks {
        at = at.max(Some(row.try_get::<_, Time>(0).map_err(misread)?.0));
    }
    let Some(accepted_at) = at else { return Ok(None) };
    // What a later look at the windows said does not count.
    for fate in job.fates.iter_mut().filter(|fate| matches!(fate, Fate::Duplicate(_))) {
        *fate = Fate::Fresh;
    }
    for row in &duplicates {
        let (event, first) = duplicate(row).map_err(misread)?;
        // One that repeats another of its append is worked out from that.
        if let Some(fate) = job.fates.get_mut(event).filter(|fate| !matches!(fate, Fate::Repeats(_))) {
            *fate = Fate::Duplicate(first);
        }
    }
    let mut fresh = BTreeMap::new();
    for (event, new) in job.append.events.iter().enumerate().filter(|(n, _)| job.fates[*n] == Fate::Fresh) {
        if let Some(seq) = places.get_mut(&new.lane.0).and_then(VecDeque::pop_front) {
            fresh.insert(event, Address::new(new.lane, seq));
        }
    }
    let items =
        job.items(|event| fresh.get(&event).copied()).filter(|_| places.values().all(VecDeque::is_empty));
    let other = || Error::Corrupt(format!("append {id} was committed with other events than it has now"));
    Ok(Some(Appended { items: items.ok_or_else(other)?, accepted_at }))
}

/// The places that an append has in a row of events.
fn part(row: &Row, id: Uuid) -> Result<(u16, impl Iterator<Item = Seq>), tokio_postgres::Error> {
    let lane: i16 = row.try_get(0)?;
    let first: i64 = row.try_get(1)?;
    let count: i32 = row.try_get(2)?;
    let ids: Option<Vec<Uuid>> = row.try_get(3)?;
    let counts: Option<Vec<i32>> = row.try_get(4)?;
    let mut range = (first, i64::from(count));
    if let (Some(ids), Some(counts)) = (ids, counts) {
        let before = ids.iter().position(|part| *part == id).unwrap_or(0);
        let mut counts = counts.into_iter().map(i64::from);
        range.0 += counts.by_ref().take(before).sum::<i64>();
        range.1 = counts.next().unwrap_or(0);
    }
    let lane = u16::try_from(lane).unwrap_or(0);
    Ok((lane, (range.0..range.0 + range.1).map(|seq| Seq(u64::try_from(seq).unwrap_or(0)))))
}

fn duplicate(row: &Row) -> Result<(usize, Address), tokio_postgres::Error> {
    let event: i32 = row.try_get(0)?;
    let lane: i16 = row.try_get(1)?;
    let seq: i64 = row.try_get(2)?;
    let lane = Lane(u16::try_from(lane).unwrap_or(0));
    let seq = Seq(u64::try_from(seq).unwrap_or(0));
    Ok((usize::try_from(event).unwrap_or(usize::MAX), Address::new(lane, seq)))
}
