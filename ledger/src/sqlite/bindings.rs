//! Bindings: declared, revised, paused; and where their accounts begin.

use std::collections::{BTreeMap, HashSet};

use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, BindingId, FunctionName, Lane, Seq, SourceName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::book::Book;
use super::codec::{address_of, json, json_at, json_or_none, place_of, places_of, start_at, time_at};
use super::fault::Outcome;
use super::flush::checkpoint;
use crate::query::{REVISIONS, by_lane};
use crate::start::StoredStart;
use crate::{BindingRecord, BindingRevision, Error, Pause};

/// Columns of a binding with its newest revision, read by [`record`].
const RECORD: &str =
    "SELECT b.id, b.name, n.text, r.function, r.filter, b.start, b.revision, b.paused_at, b.paused_by,
    b.paused_reason, b.active, r.tails
  FROM binding b JOIN binding_revision r ON r.binding = b.id AND r.revision = b.revision
  JOIN name n ON n.id = r.source";

/// All bindings ever declared, by number.
pub(super) fn bindings(conn: &Connection) -> Outcome<Vec<BindingRecord>> {
    let mut statement = conn.prepare_cached(&format!("{RECORD} ORDER BY b.id"))?;
    Ok(statement.query_map([], record)?.collect::<Result<_, _>>()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<BindingRecord> {
    let paused = match row.get::<_, Option<i64>>(7)? {
        Some(since) => {
            Some(Pause { since: Timestamp::from_micros(since), by: row.get(8)?, reason: row.get(9)? })
        }
        None => None,
    };
    Ok(BindingRecord {
        id: BindingId(row.get(0)?),
        name: row.get::<_, String>(1)?.as_str().into(),
        source: SourceName::new(row.get::<_, String>(2)?),
        function: FunctionName::new(row.get::<_, String>(3)?),
        filter: json_at(row, 4)?,
        start: start_at(row, 5)?,
        revision: row.get(6)?,
        paused,
        active: row.get(10)?,
        since: since_at(row, 11)?,
    })
}

/// The tails that a revision begins at.
fn since_at(row: &Row<'_>, column: usize) -> rusqlite::Result<BTreeMap<Lane, Seq>> {
    let tails: Option<Vec<u64>> = json_or_none(row, column)?;
    Ok(by_lane(tails.into_iter().flatten().map(Seq)))
}

/// The newest revisions of a binding, oldest first.
pub(super) fn revisions(conn: &Connection, binding: BindingId) -> Outcome<Vec<BindingRevision>> {
    let mut statement = conn.prepare_cached(
        "SELECT r.revision, n.text, r.function, r.filter, r.since, r.tails
         FROM binding_revision r JOIN name n ON n.id = r.source
         WHERE r.binding = ?1 ORDER BY r.revision DESC LIMIT ?2",
    )?;
    let revision = |row: &Row<'_>| {
        Ok(BindingRevision {
            revision: row.get(0)?,
            source: SourceName::new(row.get::<_, String>(1)?),
            function: FunctionName::new(row.get::<_, String>(2)?),
            filter: json_at(row, 3)?,
            at: time_at(row, 4)?,
            since: since_at(row, 5)?,
        })
    };
    let rows = statement.query_map((binding.0, REVISIONS as i64), revision)?;
    let mut all = rows.collect::<Result<Vec<_>, _>>()?;
    all.reverse();
    Ok(all)
}

/// The filter of one revision.
pub(super) fn filter_of(
    conn: &Connection,
    binding: BindingId,
    revision: u32,
) -> Outcome<Option<Vec<serde_json::Value>>> {
    Ok(conn
        .prepare_cached("SELECT filter FROM binding_revision WHERE binding = ?1 AND revision = ?2")?
        .query_row((binding.0, revision), |r| json_at(r, 0))
        .optional()?)
}

/// Makes the declared bindings the active ones.
pub(super) fn declare(
    book: &mut Book,
    declared: &[BindingRecord],
    now: Timestamp,
) -> Outcome<Vec<BindingRecord>> {
    let mut named = HashSet::new();
    if let Some(twice) = declared.iter().find(|b| !named.insert(&b.name)) {
        return Err(Error::Corrupt(format!("binding `{}` is declared twice", twice.name)).into());
    }
    let old = bindings(&book.conn)?;
    for gone in old.iter().filter(|b| b.active && !named.contains(&b.name)) {
        book.conn.execute("UPDATE binding SET active = 0 WHERE id = ?1", [gone.id.0])?;
    }
    for new in declared {
        match old.iter().find(|b| b.name == new.name) {
            Some(old) => revise(book, old, new, now)?,
            None => create(book, new, now)?,
        }
    }
    let all = bindings(&book.conn)?;
    let active = declared.iter().filter_map(|new| all.iter().find(|b| b.name == new.name));
    Ok(active.cloned().collect())
}

fn create(book: &mut Book, new: &BindingRecord, now: Timestamp) -> Outcome<()> {
    crate::start::check(new, now, |lane| {
        book.check_lane(lane)?;
        book.tail(lane)
    })?;
    let source = book.name(new.source.as_str())?;
    book.conn.execute(
        "INSERT INTO binding (name, revision, start, active, uncounted) VALUES (?1, 1, ?2, 1, 0)",
        (new.name.as_str(), json(&StoredStart::from(new.start))?),
    )?;
    let id = BindingId(u32::try_from(book.conn.last_insert_rowid()).map_err(|_| too_many())?);
    write_revision(book, id, 1, source, new, now)?;
    for lane in (1..=book.lanes).map(Lane) {
        let mark = start_mark(book, lane, new.start)?;
        book.conn.execute(
            "INSERT INTO checkpoint (binding, lane, version, mark, done, counted_from) VALUES (?1, ?2, 0, ?3, '[]', ?3)",
            (id.0, lane.0, mark.0),
        )?;
    }
    open_account(book, id, source)
}

fn too_many() -> Error {
    Error::Corrupt("the numbers of bindings are used up".into())
}

fn start_mark(book: &Book, lane: Lane, start: Start) -> Outcome<Seq> {
    let tail = book.tail(lane)?;
    Ok(match start {
        Start::Now => tail,
        Start::Earliest => Seq(0),
        Start::At(time) => {
            let (first, last) = places_of(lane);
            let place: Option<i64> = book.conn.query_row(
                "SELECT min(place) FROM event INDEXED BY event_by_time
                 WHERE accepted_at >= ?1 AND place BETWEEN ?2 AND ?3",
                (time.micros(), first, last),
                |r| r.get(0),
            )?;
            place.map_or(tail, |place| Seq(address_of(place).seq.0 - 1))
        }
        Start::Address(at) if at.lane == lane => Seq(at.seq.0.saturating_sub(1)),
        Start::Address(_) => tail,
    })
}

fn write_revision(
    book: &Book,
    id: BindingId,
    revision: u32,
    source: i64,
    new: &BindingRecord,
    now: Timestamp,
) -> Outcome<()> {
    book.conn.execute(
        "INSERT INTO binding_revision (binding, revision, source, function, filter, since, tails)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT json_group_array(tail) FROM (SELECT tail FROM lane ORDER BY lane)))",
        (id.0, revision, source, new.function.as_str(), json(&new.filter)?, now.micros()),
    )?;
    Ok(())
}

fn revise(book: &mut Book, old: &BindingRecord, new: &BindingRecord, now: Timestamp) -> Outcome<()> {
    book.conn.execute("UPDATE binding SET active = 1 WHERE id = ?1", [old.id.0])?;
    let moved = old.source != new.source;
    if !moved && old.function == new.function && old.filter == new.filter {
        return Ok(());
    }
    let source = book.name(new.source.as_str())?;
    let revision = old.revision + 1;
    write_revision(book, old.id, revision, source, new, now)?;
    book.conn.execute("UPDATE binding SET revision = ?2 WHERE id = ?1", (old.id.0, revision))?;
    if moved {
        book.conn.execute("DELETE FROM owed WHERE binding = ?1 AND reason = 7", [old.id.0])?;
        for lane in (1..=book.lanes).map(Lane) {
            let reach = checkpoint(&book.conn, lane, old.id)?.0.reach();
            book.conn.execute(
                "UPDATE checkpoint SET counted_from = ?3 WHERE binding = ?1 AND lane = ?2",
                (old.id.0, lane.0, reach.0),
            )?;
        }
        open_account(book, old.id, source)?;
    }
    Ok(())
}

/// Begins the account of a binding anew: it counts the kept events of its source that its cursor has ahead.
fn open_account(book: &Book, id: BindingId, source: i64) -> Outcome<()> {
    let mut ahead = 0;
    for lane in (1..=book.lanes).map(Lane) {
        let from = checkpoint(&book.conn, lane, id)?.1;
        ahead += count_between(&book.conn, source, Address::new(lane, from), places_of(lane).1)?;
    }
    book.conn.execute("DELETE FROM ended WHERE binding = ?1", [id.0])?;
    book.conn.execute("UPDATE owed SET counted = 0 WHERE binding = ?1", [id.0])?;
    book.conn.execute("UPDATE dead_letter SET counted = 0 WHERE binding = ?1", [id.0])?;
    book.conn.execute(
        "UPDATE binding SET uncounted =
           coalesce((SELECT accepted FROM arrival WHERE source = ?2), 0) - ?3 WHERE id = ?1",
        (id.0, source, ahead),
    )?;
    Ok(())
}

/// How many kept events of a source lie after an address, up to a place.
pub(super) fn count_between(conn: &Connection, source: i64, after: Address, last: i64) -> Outcome<u64> {
    Ok(conn
        .prepare_cached(
            "SELECT count(*) FROM event INDEXED BY event_by_source
             WHERE source = ?1 AND place > ?2 AND place <= ?3",
        )?
        .query_row((source, place_of(after), last), |r| r.get(0))?)
}

/// Pauses or resumes.
pub(super) fn set_paused(book: &Book, binding: BindingId, pause: Option<&Pause>) -> Outcome<()> {
    let changed = book.conn.execute(
        "UPDATE binding SET paused_at = ?2, paused_by = ?3, paused_reason = ?4 WHERE id = ?1",
        (binding.0, pause.map(|p| p.since.micros()), pause.map(|p| &p.by), pause.map(|p| &p.reason)),
    )?;
    if changed == 0 {
        return Err(Error::NotFound(format!("binding number {binding} was never declared")).into());
    }
    Ok(())
}
