//! Flush: checkpoints, log lines, debts and dead letters of one lane, fenced by its epoch.
//!
//! The account (`ended`) moves in the same commit. A delivery is waiting (the cursor has not passed it), owed (it has a
//! debt row) or ended (its last final log line). A first ending comes from "waiting" and needs no look-up; only places
//! that the cursor had passed before are asked for what they were.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem::take;

use bellwire_schemas::{Address, BindingId, FinalState, Lane, Seq, SeqRanges};
use rusqlite::{OptionalExtension, Row};

use super::append::{Row as NewRow, emit, texts};
use super::book::{Book, tail};
use super::codec::{
    CANCELLED, error_text, json, json_at, outcome_code, place_of, places_of, reason_code, state_code,
    state_of,
};
use super::fault::Outcome;
use super::rows::{OWED, owed_at};
use crate::{BindingFlush, Checkpoint, DeadLetter, Error, Flush, FlushOutcome, LogEntry, LogOutcome, Owed};

/// A flush with everything worked out that needs no connection, so that the writer only writes.
pub(super) struct Prepared {
    flush: Flush,
    /// What each part emits.
    emitted: Vec<Vec<NewRow>>,
    /// What it weighs in bytes, for the limits of the queue: some 64 per line, the copies of dead events, new events.
    pub bytes: usize,
}

impl Prepared {
    /// Works out texts and hashes of what it emits.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it emits into a lane that does not exist; when an event cannot be written as JSON.
    pub fn new(mut flush: Flush, lanes: u16) -> Result<Self, Error> {
        flush.check_lanes(lanes)?;
        let dead = |d: &DeadLetter| d.event.event.data.as_ref().map_or(0, |data| data.len()) + 1_024;
        let mut emitted = Vec::with_capacity(flush.bindings.len());
        let mut bytes = 0;
        for part in &mut flush.bindings {
            let rows = take(&mut part.emitted).into_iter().map(NewRow::new).collect::<Result<Vec<_>, _>>()?;
            bytes += (part.log.len() + part.owed.len()) * 64 + part.dead.iter().map(dead).sum::<usize>();
            bytes += rows.iter().map(NewRow::bytes).sum::<usize>();
            emitted.push(rows);
        }
        Ok(Self { flush, emitted, bytes })
    }
}

/// Commits a flush, inside the group's transaction.
pub(super) fn flush(book: &mut Book, prepared: &Prepared) -> Outcome<FlushOutcome> {
    let flush = &prepared.flush;
    book.check_lane(flush.lane)?;
    let owned: bool = book
        .conn
        .prepare_cached("SELECT owner IS NOT NULL AND epoch = ?2 FROM lane WHERE lane = ?1")?
        .query_row((flush.lane.0, flush.epoch.0), |r| r.get(0))?;
    if !owned {
        return Ok(FlushOutcome::Fenced);
    }
    flush.check_once_each()?;
    let tail = tail(&book.conn, flush.lane)?;
    for (part, emitted) in flush.bindings.iter().zip(&prepared.emitted) {
        let (before, counted_from) = checkpoint(&book.conn, flush.lane, part.binding)?;
        if part.version > before.version {
            part.check(&before, tail)?;
            let (flags, owes) = Default::default();
            Part { book, part, lane: flush.lane, before, counted_from, flags, owes }.apply()?;
            emit(book, emitted, flush.at)?;
        }
    }
    Ok(FlushOutcome::Flushed)
}

/// The checkpoint of a binding and where its account begins.
pub(super) fn checkpoint(
    conn: &rusqlite::Connection,
    lane: Lane,
    binding: BindingId,
) -> Outcome<(Checkpoint, Seq)> {
    let found = conn
        .prepare_cached(
            "SELECT version, mark, done, counted_from FROM checkpoint WHERE binding = ?1 AND lane = ?2",
        )?
        .query_row((binding.0, lane.0), |r| Ok((checkpoint_at(r)?, Seq(r.get(3)?))))
        .optional()?;
    found.ok_or_else(|| Error::NotFound(format!("binding number {binding} was never declared")).into())
}

fn checkpoint_at(row: &Row<'_>) -> rusqlite::Result<Checkpoint> {
    let done: SeqRanges = json_at(row, 2)?;
    Ok(Checkpoint { version: row.get(0)?, mark: Seq(row.get(1)?), done })
}

/// How a delivery that the cursor had passed stands ended: state, and whether the account counts it.
pub(super) fn last_ending(
    book: &Book,
    binding: BindingId,
    address: Address,
    counted_from: Seq,
) -> Outcome<Option<(FinalState, bool)>> {
    let found = book
        .conn
        .prepare_cached(
            "SELECT outcome, counted FROM log WHERE place = ?1 AND binding = ?2 AND outcome > 0
             ORDER BY n DESC LIMIT 1",
        )?
        .query_row((place_of(address), binding.0), |r| Ok((state_of(r.get(0)?)?, r.get::<_, bool>(1)?)))
        .optional()?;
    // Lines from before the binding changed its source are out of the account.
    Ok(found.map(|(state, counted)| (state, counted && address.seq > counted_from)))
}

/// Removes a dead letter whose delivery goes on; says whether the account counted it.
pub(super) fn remove_dead_letter(book: &Book, binding: BindingId, address: Address) -> Outcome<Option<bool>> {
    Ok(book
        .conn
        .prepare_cached("DELETE FROM dead_letter WHERE binding = ?1 AND place = ?2 RETURNING counted")?
        .query_row((binding.0, place_of(address)), |r| r.get(0))
        .optional()?)
}

/// Removes a debt, but no request to cancel; says whether the account counted it.
fn remove_owed(book: &Book, binding: BindingId, address: Address) -> Outcome<Option<bool>> {
    Ok(book
        .conn
        .prepare_cached(
            "DELETE FROM owed WHERE binding = ?1 AND place = ?2 AND reason <> 7 RETURNING counted",
        )?
        .query_row((binding.0, place_of(address)), |r| r.get(0))
        .optional()?)
}

/// Whether a debt is there and the account counts it.
pub(super) fn owed_flag(book: &Book, binding: BindingId, address: Address) -> Outcome<Option<bool>> {
    Ok(book
        .conn
        .prepare_cached("SELECT counted FROM owed WHERE binding = ?1 AND place = ?2")?
        .query_row((binding.0, place_of(address)), |r| r.get(0))
        .optional()?)
}

/// A debt that an operator cancelled, if this is one.
fn cancelled_debt(book: &Book, binding: BindingId, address: Address) -> Outcome<Option<Owed>> {
    Ok(book
        .conn
        .prepare_cached(&format!("{OWED} WHERE binding = ?1 AND place = ?2 AND reason = ?3"))?
        .query_row((binding.0, place_of(address), CANCELLED), owed_at)
        .optional()?)
}

/// When an event was accepted, if it is kept.
pub(super) fn accepted_at(book: &Book, address: Address) -> Outcome<Option<i64>> {
    Ok(book
        .conn
        .prepare_cached("SELECT accepted_at FROM event WHERE place = ?1")?
        .query_row([place_of(address)], |r| r.get(0))
        .optional()?)
}

/// Writes a debt in place of an older one.
pub(super) fn put_owed(
    book: &Book,
    binding: BindingId,
    address: Address,
    accepted_at: i64,
    owed: &Owed,
    counted: bool,
) -> Outcome<()> {
    let (reason, replay) = reason_code(&owed.reason);
    book.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO owed
               (binding, place, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute((
            binding.0,
            place_of(address),
            accepted_at,
            owed.attempts,
            owed.next_at.micros(),
            owed.since.micros(),
            error_text(owed.error.as_ref())?,
            reason,
            replay,
            &owed.key,
            counted,
        ))?;
    Ok(())
}

/// Writes a line of the delivery log.
pub(super) fn put_line(
    book: &mut Book,
    binding: BindingId,
    address: Address,
    line: &LogEntry,
    counted: bool,
) -> Outcome<()> {
    let n = book.next_line;
    book.next_line += 1;
    let worker = book.name_or_none(&line.worker)?;
    let version = book.name_or_none(&line.version)?;
    book.conn
        .prepare_cached(
            "INSERT INTO log (place, n, binding, attempt, at, duration_ms, outcome, counted, error, worker, version,
               revision, replay) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute((
            place_of(address),
            n,
            binding.0,
            line.attempt,
            line.at.micros(),
            line.duration_ms,
            outcome_code(line.outcome),
            counted,
            error_text(line.error.as_ref())?,
            worker,
            version,
            line.revision,
            line.replay.as_ref().map(|r| r.as_str()),
        ))?;
    Ok(())
}

/// Keeps the number of the next log line; once per write that added some.
pub(super) fn save_next_line(book: &Book) -> Outcome<()> {
    book.conn.prepare_cached("UPDATE ledger SET next_line = ?1")?.execute([book.next_line])?;
    Ok(())
}

/// One binding's share of a flush on its way into the file.
struct Part<'a> {
    book: &'a mut Book,
    part: &'a BindingFlush,
    lane: Lane,
    before: Checkpoint,
    counted_from: Seq,
    /// Whether the account counts a delivery, for those of which the place alone does not say it.
    flags: HashMap<Seq, bool>,
    /// Places with a debt written by this flush.
    owes: HashSet<Seq>,
}

impl Part<'_> {
    fn apply(mut self) -> Outcome<()> {
        let endings = self.part.endings();
        let asked = self.end_requests()?;
        self.owe(asked)?;
        let settled: HashSet<Seq> = self
            .part
            .settled
            .iter()
            .copied()
            .chain(self.part.dead.iter().map(|d| d.event.address.seq))
            .collect();
        for seq in &settled {
            self.settle(*seq, endings.contains_key(seq))?;
        }
        let mut changes: BTreeMap<i64, i64> = BTreeMap::new();
        for (seq, state) in &endings {
            self.end(*seq, *state, &settled, &mut changes)?;
        }
        for (state, by) in changes {
            self.book.add_ended(self.part.binding, state, by)?;
        }
        for letter in &self.part.dead {
            self.bury(letter)?;
        }
        for line in &self.part.log {
            let counted = line.outcome != LogOutcome::Failed && self.counts(line.seq);
            put_line(self.book, self.part.binding, self.address(line.seq), line, counted)?;
        }
        if !self.part.log.is_empty() {
            save_next_line(self.book)?;
        }
        self.book
            .conn
            .prepare_cached(
                "UPDATE checkpoint SET version = ?3, mark = ?4, done = ?5 WHERE binding = ?1 AND lane = ?2",
            )?
            .execute((
                self.part.binding.0,
                self.lane.0,
                self.part.version,
                self.part.mark.0,
                json(&self.part.done)?,
            ))?;
        Ok(())
    }

    fn address(&self, seq: Seq) -> Address {
        Address::new(self.lane, seq)
    }

    fn counts(&self, seq: Seq) -> bool {
        self.flags.get(&seq).copied().unwrap_or(seq > self.counted_from)
    }

    /// Takes away the requests to cancel what this part passes.
    fn end_requests(&mut self) -> Outcome<HashMap<Seq, Owed>> {
        let (first, last) = places_of(self.lane);
        let sql = format!(
            "{OWED} INDEXED BY owed_asked WHERE binding = ?1 AND place BETWEEN ?2 AND ?3 AND reason = 7"
        );
        let mut asked = HashMap::new();
        {
            let mut statement = self.book.conn.prepare_cached(&sql)?;
            for owed in statement.query_map((self.part.binding.0, first, last), owed_at)? {
                let owed = owed?;
                asked.insert(owed.seq, owed);
            }
        }
        asked.retain(|seq, _| *seq <= self.part.mark || self.part.done.contains(*seq));
        for seq in asked.keys() {
            self.book
                .conn
                .prepare_cached("DELETE FROM owed WHERE binding = ?1 AND place = ?2")?
                .execute((self.part.binding.0, place_of(self.address(*seq))))?;
        }
        Ok(asked)
    }

    /// Writes debts. One of a place passed before that is not there was given up meanwhile; what an operator cancelled
    /// stays cancelled.
    fn owe(&mut self, asked: HashMap<Seq, Owed>) -> Outcome<()> {
        let binding = self.part.binding;
        for owed in &self.part.owed {
            let address = self.address(owed.seq);
            // Retention keeps what is owed; a debt that comes after its delivery ended and went is out of date.
            let Some(accepted_at) = accepted_at(self.book, address)? else { continue };
            let mut cancelled = asked.get(&owed.seq).cloned();
            if self.before.passed(owed.seq) {
                let Some(flag) = owed_flag(self.book, binding, address)? else { continue };
                self.flags.insert(owed.seq, flag);
                cancelled = cancelled_debt(self.book, binding, address)?;
            }
            let standing = cancelled.map(|Owed { next_at, error, reason, .. }| {
                let (attempts, since, key) = (owed.attempts, owed.since, owed.key.clone());
                Owed { seq: owed.seq, attempts, next_at, since, error, reason, key }
            });
            let owed = standing.as_ref().unwrap_or(owed);
            put_owed(self.book, binding, address, accepted_at, owed, self.counts(owed.seq))?;
            self.owes.insert(owed.seq);
        }
        Ok(())
    }

    /// Ends a debt. Without an ending of its own the delivery stands as it did before it was owed.
    fn settle(&mut self, seq: Seq, ends: bool) -> Outcome<()> {
        let address = self.address(seq);
        let Some(flag) = remove_owed(self.book, self.part.binding, address)? else { return Ok(()) };
        self.flags.insert(seq, flag);
        if flag
            && !ends
            && let Some((state, _)) = last_ending(self.book, self.part.binding, address, self.counted_from)?
        {
            self.book.add_ended(self.part.binding, state_code(state), 1)?;
        }
        Ok(())
    }

    /// Adds an ending to the account, in place of an older one.
    fn end(
        &mut self,
        seq: Seq,
        state: FinalState,
        settled: &HashSet<Seq>,
        changes: &mut BTreeMap<i64, i64>,
    ) -> Outcome<()> {
        let (binding, address) = (self.part.binding, self.address(seq));
        let was_owed = self.flags.contains_key(&seq);
        if self.before.passed(seq) && !was_owed {
            if let Some(flag) = owed_flag(self.book, binding, address)? {
                // Still owed: it is counted when the debt ends.
                self.flags.insert(seq, flag);
                return Ok(());
            }
            let flag = reopen(self.book, binding, address, self.counted_from)?;
            self.flags.insert(seq, flag);
        }
        let owed_again = self.owes.contains(&seq) && !settled.contains(&seq);
        if !owed_again && self.counts(seq) {
            *changes.entry(state_code(state)).or_default() += 1;
        }
        Ok(())
    }

    fn bury(&mut self, letter: &DeadLetter) -> Outcome<()> {
        let stored = &letter.event;
        let counted = self.counts(stored.address.seq);
        let (attributes, meta) = texts(&stored.event)?;
        let source = self.book.name(stored.source.as_str())?;
        let kind = self.book.name(&stored.event.kind)?;
        self.book
            .conn
            .prepare_cached(
                "INSERT OR REPLACE INTO dead_letter (binding, place, died_at, first_at, attempts, error, fingerprint,
                   logs, counted, source, type, accepted_at, key, id, attributes, meta, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            )?
            .execute(rusqlite::params![
                self.part.binding.0,
                place_of(stored.address),
                letter.died_at.micros(),
                letter.first_at.micros(),
                letter.attempts,
                json(&letter.error)?,
                letter.fingerprint,
                json(&letter.logs)?,
                counted,
                source,
                kind,
                stored.accepted_at.micros(),
                stored.key,
                stored.event.id,
                attributes,
                meta,
                stored.event.data.as_deref(),
            ])?;
        Ok(())
    }
}

/// Takes an ended delivery out of the account's endings, and out of the dead letters, because it is owed again; says
/// whether the account counts it at all.
pub(super) fn reopen(book: &Book, binding: BindingId, address: Address, counted_from: Seq) -> Outcome<bool> {
    let (state, counted) = match remove_dead_letter(book, binding, address)? {
        Some(counted) => (FinalState::Dead, counted),
        None => match last_ending(book, binding, address, counted_from)? {
            Some(last) => last,
            None => return Ok(false),
        },
    };
    if counted {
        book.add_ended(binding, state_code(state), -1)?;
    }
    Ok(counted)
}
