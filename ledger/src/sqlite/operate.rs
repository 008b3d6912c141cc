//! What operators do: redrive, discard, replay; and requests refused at the door.

use bellwire_schemas::{Address, BindingId, ErrorInfo, FinalState, ReplayId, Timestamp};
use rusqlite::OptionalExtension;

use super::append::insert_again;
use super::book::Book;
use super::codec::{json, place_of, state_code};
use super::fault::Outcome;
use super::flush::{
    accepted_at, checkpoint, owed_flag, put_line, put_owed, remove_dead_letter, reopen, save_next_line,
};
use super::rows::{DEAD_LETTER, Names, dead_letter_at};
use crate::flush::{Verb, discarded, given_up};
use crate::{
    DeadLetter, DeliveryKey, Error, Owed, OwedReason, Refusal, ReplayRecord, ReplayState, StoredEvent,
};

/// Rows of refusals per hour; a stranger who tries many paths fills no disk.
const REFUSALS_PER_HOUR: u32 = 1_000;
/// Microseconds in an hour.
const HOUR: i64 = 3_600_000_000;

/// Dead letters back into the debts.
pub(super) fn redrive(book: &mut Book, dead: &[DeliveryKey], now: Timestamp) -> Outcome<u64> {
    let mut moved = 0;
    let mut names = Names::default();
    for key in dead {
        let found = book
            .conn
            .prepare_cached(&format!("{DEAD_LETTER} WHERE binding = ?1 AND place = ?2"))?
            .query_row((key.binding.0, place_of(key.address)), |r| dead_letter_at(r, &book.conn, &mut names))
            .optional()?;
        let Some(letter) = found else {
            moved += redrive_blocked(book, *key, now)?;
            continue;
        };
        let DeadLetter { event, error, .. } = letter;
        let counted = remove_dead_letter(book, key.binding, key.address)?.unwrap_or(false);
        book.add_ended(key.binding, state_code(FinalState::Dead), -i64::from(counted))?;
        restore(book, &event)?;
        let owed = Owed {
            seq: key.address.seq,
            attempts: 0,
            next_at: now,
            since: now,
            error: Some(error),
            reason: OwedReason::Redrive,
            key: event.key.clone(),
        };
        put_owed(book, key.binding, key.address, event.accepted_at.micros(), &owed, counted)?;
        moved += 1;
    }
    Ok(moved)
}

/// A blocked debt is tried again; it keeps its place. Answers how many there were.
fn redrive_blocked(book: &Book, key: DeliveryKey, now: Timestamp) -> Outcome<u64> {
    let rows = book
        .conn
        .prepare_cached(
            "UPDATE owed SET reason = 0, attempts = 0, next_at = ?3, since = ?3
             WHERE binding = ?1 AND place = ?2 AND reason = 4",
        )?
        .execute((key.binding.0, place_of(key.address), now.micros()))?;
    Ok(rows as u64)
}

/// Brings an event back that retention removed. Bindings that have not passed it will meet it after all, so their
/// accounts count it again.
fn restore(book: &mut Book, event: &StoredEvent) -> Outcome<()> {
    let address = event.address;
    if accepted_at(book, address)?.is_some() {
        return Ok(());
    }
    insert_again(book, event)?;
    for binding in bindings_of(book, event.source.as_str())? {
        let (checkpoint, counted_from) = checkpoint(&book.conn, address.lane, binding)?;
        if address.seq > counted_from && !checkpoint.passed(address.seq) {
            book.conn
                .prepare_cached("UPDATE binding SET uncounted = uncounted - 1 WHERE id = ?1")?
                .execute([binding.0])?;
        }
    }
    Ok(())
}

fn bindings_of(book: &mut Book, source: &str) -> Outcome<Vec<BindingId>> {
    let source = book.name(source)?;
    let mut statement = book.conn.prepare_cached(
        "SELECT b.id FROM binding b JOIN binding_revision r ON r.binding = b.id AND r.revision = b.revision
         WHERE r.source = ?1",
    )?;
    Ok(statement.query_map([source], |r| r.get(0).map(BindingId))?.collect::<Result<_, _>>()?)
}

/// Ends dead letters or debts as discarded.
pub(super) fn discard(
    book: &mut Book,
    deliveries: &[DeliveryKey],
    reason: &str,
    by: &str,
    now: Timestamp,
) -> Outcome<u64> {
    let mut ended = 0;
    for key in deliveries {
        let DeliveryKey { binding, address } = *key;
        let taken = if let Some(taken) = take_debt(book, *key)? {
            taken
        } else if let Some(counted) = remove_dead_letter(book, binding, address)? {
            book.add_ended(binding, state_code(FinalState::Dead), -i64::from(counted))?;
            (counted, None)
        } else {
            continue;
        };
        give_up(book, *key, taken, given_up(Verb::Discard, reason, by), now)?;
        ended += 1;
    }
    save_next_line(book)?;
    Ok(ended)
}

/// Whether the account counts a delivery, and the replay that asked for it.
type Taken = (bool, Option<ReplayId>);

/// Removes a debt, but no request to cancel.
fn take_debt(book: &Book, key: DeliveryKey) -> Outcome<Option<Taken>> {
    Ok(book
        .conn
        .prepare_cached(
            "DELETE FROM owed WHERE binding = ?1 AND place = ?2 AND reason <> 7 RETURNING counted, replay",
        )?
        .query_row((key.binding.0, place_of(key.address)), |r| {
            Ok((r.get(0)?, r.get::<_, Option<String>>(1)?.map(ReplayId::new)))
        })
        .optional()?)
}

/// Ends a delivery whose debt or dead letter was taken away, logged while its event is kept.
fn give_up(
    book: &mut Book,
    key: DeliveryKey,
    (counted, replay): Taken,
    error: ErrorInfo,
    now: Timestamp,
) -> Outcome<()> {
    let DeliveryKey { binding, address } = key;
    book.add_ended(binding, state_code(FinalState::Discarded), i64::from(counted))?;
    if accepted_at(book, address)?.is_some() {
        let revision = book
            .conn
            .prepare_cached("SELECT revision FROM binding WHERE id = ?1")?
            .query_row([binding.0], |r| r.get(0))?;
        let line = discarded(address.seq, revision, replay, error, now);
        put_line(book, binding, address, &line, counted)?;
    }
    Ok(())
}

/// Ends debts as discarded, and asks for it where the cursor has not passed the place yet.
pub(super) fn cancel(
    book: &mut Book,
    deliveries: &[DeliveryKey],
    reason: &str,
    by: &str,
    now: Timestamp,
) -> Outcome<u64> {
    let error = given_up(Verb::Cancel, reason, by);
    let mut count = 0;
    for key in deliveries {
        if let Some(taken) = take_debt(book, *key)? {
            give_up(book, *key, taken, error.clone(), now)?;
            count += 1;
        } else {
            count += ask_to_cancel(book, *key, &error, now)?;
        }
    }
    save_next_line(book)?;
    Ok(count)
}

/// Puts a request, where the event is kept and of the binding's source and the cursor has not passed it. Answers how many
/// rows it wrote.
fn ask_to_cancel(book: &Book, key: DeliveryKey, error: &ErrorInfo, now: Timestamp) -> Outcome<u64> {
    let DeliveryKey { binding, address } = key;
    let known: bool = book
        .conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM checkpoint WHERE binding = ?1 AND lane = ?2)")?
        .query_row((binding.0, address.lane.0), |r| r.get(0))?;
    if !known || checkpoint(&book.conn, address.lane, binding)?.0.passed(address.seq) {
        return Ok(0);
    }
    let rows = book
        .conn
        .prepare_cached(
            "INSERT INTO owed
               (binding, place, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
             SELECT ?1, e.place, e.accepted_at, 0, ?3, ?3, ?4, 7, NULL, e.key, 0 FROM event e
               JOIN binding b ON b.id = ?1
               JOIN binding_revision r ON r.binding = b.id AND r.revision = b.revision AND r.source = e.source
             WHERE e.place = ?2 ON CONFLICT DO NOTHING",
        )?
        .execute((binding.0, place_of(address), now.micros(), json(error)?))?;
    Ok(rows as u64)
}

/// Stores a replay and the debts it enqueues.
pub(super) fn save_replay(book: &mut Book, replay: &ReplayRecord, owed: &[(Address, Owed)]) -> Outcome<u64> {
    let binding = replay.binding;
    let known: bool =
        book.conn
            .query_row("SELECT EXISTS (SELECT 1 FROM binding WHERE id = ?1)", [binding.0], |r| r.get(0))?;
    if !known {
        return Err(Error::NotFound(format!("binding number {binding} was never declared")).into());
    }
    if put_replay(book, replay)? == 0 {
        return Ok(0);
    }
    let mut new = 0;
    let mut seen = None;
    for (address, debt) in owed {
        book.check_lane(address.lane)?;
        let (lane, checkpoint, counted_from) = match seen.take() {
            Some((lane, c, from)) if lane == address.lane => (lane, c, from),
            _ => {
                let (c, from) = checkpoint(&book.conn, address.lane, binding)?;
                (address.lane, c, from)
            }
        };
        let passed = checkpoint.passed(address.seq);
        seen = Some((lane, checkpoint, counted_from));
        if !passed || owed_flag(book, binding, *address)?.is_some() {
            continue;
        }
        let Some((accepted_at, key)) = head(book, *address)? else { continue };
        let counted = reopen(book, binding, *address, counted_from)?;
        put_owed(book, binding, *address, accepted_at, &Owed { key, ..debt.clone() }, counted)?;
        new += 1;
    }
    Ok(new)
}

/// When an event was accepted and its ordering key, if it is kept.
fn head(book: &Book, address: Address) -> Outcome<Option<(i64, Option<String>)>> {
    Ok(book
        .conn
        .prepare_cached("SELECT accepted_at, key FROM event WHERE place = ?1")?
        .query_row([place_of(address)], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?)
}

/// How many rows it wrote: none when the stored record is as new or newer.
fn put_replay(book: &Book, replay: &ReplayRecord) -> Outcome<usize> {
    let state = match replay.state {
        ReplayState::Running => "running",
        ReplayState::Paused => "paused",
        ReplayState::Cancelled => "cancelled",
        ReplayState::Done => "done",
    };
    let micros = |t: Option<Timestamp>| t.map(Timestamp::micros);
    let rows = book
        .conn
        .prepare_cached(
            "INSERT INTO replay (id, binding, state, created_at, since, until, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET binding = ?2, state = ?3, created_at = ?4, since = ?5, until = ?6,
               record = ?7
             WHERE coalesce(json_extract(record, '$.version'), 0) < ?8",
        )?
        .execute((
            replay.id.as_str(),
            replay.binding.0,
            state,
            replay.created_at.micros(),
            micros(replay.selector.since),
            micros(replay.selector.until),
            json(replay)?,
            replay.version,
        ))?;
    Ok(rows)
}

/// Adds a refused request to its row.
pub(super) fn note_refusal(book: &Book, refusal: &Refusal) -> Outcome<()> {
    let hour = refusal.last_at.micros().div_euclid(HOUR);
    let (rows, known): (u32, bool) = book
        .conn
        .prepare_cached(
            "SELECT count(*), coalesce(max(source = ?2 AND reason = ?3), 0) FROM refusal WHERE hour = ?1",
        )?
        .query_row((hour, &refusal.source, &refusal.reason), |r| Ok((r.get(0)?, r.get(1)?)))?;
    let source = if known || rows < REFUSALS_PER_HOUR { refusal.source.as_str() } else { "(others)" };
    book.conn
        .prepare_cached(
            "INSERT INTO refusal (hour, source, reason, count, last_at, last_peer) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET count = count + ?4,
               last_peer = CASE WHEN ?5 >= last_at THEN ?6 ELSE last_peer END, last_at = max(last_at, ?5)",
        )?
        .execute((
            hour,
            source,
            &refusal.reason,
            refusal.count,
            refusal.last_at.micros(),
            &refusal.last_peer,
        ))?;
    Ok(())
}
