//! Retention: events that nobody needs leave in small steps, so that no writer waits long.
//!
//! A reader looks for candidates; the writer judges each one again in the transaction that removes it, because a
//! redrive or a replay may have come between.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bellwire_schemas::{Address, BindingId, Lane, Seq, Timestamp};
use rusqlite::Connection;

use super::book::Book;
use super::codec::{address_of, json_at};
use super::fault::Outcome;
use super::flush::checkpoint;
use super::readers::Reader;
use crate::ReplayRecord;

/// Events removed in one commit: some 10 ms of work.
pub(super) const STEP: usize = 250;
/// Index entries looked at in one question.
const LOOK: usize = 20_000;
/// How long the answer of an append is kept at least, while there are fewer than 100,000 newer ones: a day.
const ANSWER_AGE: Duration = Duration::from_secs(24 * 3_600);

/// An event that is old enough: when it was accepted, its source, its place.
pub(super) type Candidate = (i64, i64, i64);

/// What the candidates of one look came to.
pub(super) struct Looked {
    /// Those that nobody seems to need.
    pub free: Vec<Candidate>,
    /// How many are needed.
    pub needed: u64,
    /// Where to look on; nothing at the end.
    pub next: Option<Candidate>,
}

/// Who needs events: marks of active bindings by source and lane, unfinished replays.
struct Needs {
    marks: HashMap<(i64, Lane), Seq>,
    replays: Vec<ReplayRecord>,
}

impl Needs {
    fn load(conn: &Connection) -> Outcome<Self> {
        let mut statement = conn.prepare_cached(
            "SELECT r.source, c.lane, min(c.mark)
             FROM binding b JOIN binding_revision r ON r.binding = b.id AND r.revision = b.revision
             JOIN checkpoint c ON c.binding = b.id WHERE b.active = 1 GROUP BY 1, 2",
        )?;
        let marks = statement
            .query_map([], |r| Ok(((r.get(0)?, Lane(r.get(1)?)), Seq(r.get(2)?))))?
            .collect::<Result<_, _>>()?;
        let mut statement =
            conn.prepare_cached("SELECT record FROM replay WHERE state IN ('running', 'paused')")?;
        let replays = statement.query_map([], |r| json_at(r, 0))?.collect::<Result<_, _>>()?;
        Ok(Self { marks, replays })
    }

    fn need(&self, conn: &Connection, source: i64, place: i64) -> Outcome<bool> {
        let Address { lane, seq } = address_of(place);
        let in_replay = |r: &ReplayRecord| {
            let at = |map: &BTreeMap<Lane, Seq>| map.get(&lane).copied().unwrap_or_default();
            seq > at(&r.cursor) && seq <= at(&r.until)
        };
        if self.marks.get(&(source, lane)).is_some_and(|mark| *mark < seq)
            || self.replays.iter().any(in_replay)
        {
            return Ok(true);
        }
        let mut statement =
            conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM owed WHERE place = ?1 AND reason <> 7)")?;
        Ok(statement.query_row([place], |r| r.get(0))?)
    }
}

/// Looks for the next events to remove.
pub(super) fn look(reader: &Reader, before: Timestamp, after: Option<Candidate>) -> Outcome<Looked> {
    let needs = Needs::load(&reader.conn)?;
    let (at, source, place) = after.unwrap_or((i64::MIN, 0, 0));
    let mut statement = reader.conn.prepare_cached(
        "SELECT accepted_at, source, place FROM event INDEXED BY event_by_time
         WHERE accepted_at >= ?1 AND accepted_at < ?4 AND (accepted_at, source, place) > (?1, ?2, ?3)
         ORDER BY accepted_at, source, place LIMIT ?5",
    )?;
    let mut rows = statement.query((at, source, place, before.micros(), LOOK as i64))?;
    let mut looked = Looked { free: Vec::new(), needed: 0, next: None };
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        let candidate: Candidate = (row.get(0)?, row.get(1)?, row.get(2)?);
        seen += 1;
        if needs.need(&reader.conn, candidate.1, candidate.2)? {
            looked.needed += 1;
        } else {
            looked.free.push(candidate);
        }
        if looked.free.len() == STEP || seen == LOOK {
            looked.next = Some(candidate);
            break;
        }
    }
    Ok(looked)
}

/// Removes those of the candidates that nobody needs; returns how many.
pub(super) fn remove(book: &mut Book, candidates: &[Candidate]) -> Outcome<u64> {
    let needs = Needs::load(&book.conn)?;
    let mut idle = Idle::load(book)?;
    let mut removed = 0;
    for (_, source, place) in candidates {
        if needs.need(&book.conn, *source, *place)? {
            continue;
        }
        let gone = book.conn.prepare_cached("DELETE FROM event WHERE place = ?1")?.execute([place])?;
        if gone == 0 {
            continue;
        }
        book.conn.prepare_cached("DELETE FROM log WHERE place = ?1")?.execute([place])?;
        // Requests to cancel hold no event back, and go with it.
        book.conn.prepare_cached("DELETE FROM owed WHERE place = ?1")?.execute([place])?;
        idle.missed(&book.conn, *source, address_of(*place))?;
        removed += 1;
    }
    idle.save(book)?;
    Ok(removed)
}

/// Bindings that the configuration dropped: what is removed before they passed it leaves their accounts.
struct Idle(Vec<(BindingId, i64, u64)>);

impl Idle {
    fn load(book: &Book) -> Outcome<Self> {
        let mut statement = book.conn.prepare_cached(
            "SELECT b.id, r.source FROM binding b
             JOIN binding_revision r ON r.binding = b.id AND r.revision = b.revision WHERE b.active = 0",
        )?;
        let idle = statement
            .query_map([], |r| Ok((BindingId(r.get(0)?), r.get(1)?, 0)))?
            .collect::<Result<_, _>>()?;
        Ok(Self(idle))
    }

    fn missed(&mut self, conn: &Connection, source: i64, address: Address) -> Outcome<()> {
        for (binding, _, count) in self.0.iter_mut().filter(|(_, own, _)| *own == source) {
            let (checkpoint, counted_from) = checkpoint(conn, address.lane, *binding)?;
            if address.seq > counted_from && !checkpoint.passed(address.seq) {
                *count += 1;
            }
        }
        Ok(())
    }

    fn save(self, book: &Book) -> Outcome<()> {
        for (binding, _, count) in self.0.into_iter().filter(|(_, _, count)| *count > 0) {
            book.conn
                .prepare_cached("UPDATE binding SET uncounted = uncounted + ?2 WHERE id = ?1")?
                .execute((binding.0, count))?;
        }
        Ok(())
    }
}

/// Removes one step of everything else that is too old; false when nothing was left.
pub(super) fn prune(book: &mut Book, before: Timestamp, now: Timestamp) -> Outcome<bool> {
    let mut more = book.groups.prune(&book.conn, now, STEP * 4)?;
    // Numbers follow time, so the oldest rows come first and nothing else needs to be looked at.
    let statements = [
        (
            "DELETE FROM duplicate WHERE n IN
               (SELECT n FROM (SELECT n, at FROM duplicate ORDER BY n LIMIT ?2) WHERE at < ?1)",
            before,
        ),
        (
            "DELETE FROM quarantine WHERE id IN
               (SELECT id FROM (SELECT id, at FROM quarantine ORDER BY id LIMIT ?2) WHERE at < ?1)",
            before,
        ),
        (
            "DELETE FROM refusal WHERE (hour, source, reason) IN
               (SELECT hour, source, reason FROM refusal WHERE last_at < ?1 LIMIT ?2)",
            before,
        ),
        (
            "DELETE FROM append WHERE n IN
               (SELECT n FROM (SELECT n, accepted_at FROM append ORDER BY n LIMIT ?2) WHERE accepted_at < ?1)",
            now.minus(ANSWER_AGE),
        ),
    ];
    for (sql, limit) in statements {
        let removed = book.conn.prepare_cached(sql)?.execute((limit.micros(), STEP as i64))?;
        more |= removed > 0;
    }
    Ok(more)
}
