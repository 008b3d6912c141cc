//! Append: events, positions, dedup keys and quarantine of one batch, all or nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwire_schemas::{Address, Event, Lane, Seq, SourceName, Timestamp};
use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::book::Book;
use super::codec::{address_of, json, place_of};
use super::fault::Outcome;
use crate::append::QUARANTINED_BYTES;
use crate::attributes::attributes;
use crate::dedup::{Hash, hash};
use crate::{Append, Appended, Arrival, Error, NewEvent, PositionAdvance, Quarantine, StoredEvent};

/// How many answers are kept for repeated appends; `retain` also drops those older than a day.
const ANSWERS: i64 = 100_000;

/// A batch with everything worked out that needs no connection, so that the writer only writes.
pub(super) struct Prepared {
    append_id: Uuid,
    positions: Vec<PositionAdvance>,
    quarantined: Vec<Quarantine>,
    events: Vec<Row>,
    /// What the batch weighs, for the limits of the queue.
    pub bytes: usize,
}

/// An event ready to be bound.
pub(super) struct Row {
    new: NewEvent,
    dedup: Option<(Hash, Duration)>,
    attributes: String,
    meta: Option<String>,
}

impl Prepared {
    /// Works out texts and hashes.
    ///
    /// # Errors
    /// When an event cannot be written as JSON.
    pub fn new(append: Append) -> Result<Self, Error> {
        let mut bytes = append.quarantined.iter().map(|q| q.bytes.len()).sum();
        let mut events = Vec::with_capacity(append.events.len());
        for new in append.events {
            let row = Row::new(new)?;
            bytes += row.bytes();
            events.push(row);
        }
        let Append { append_id, positions, quarantined, .. } = append;
        Ok(Self { append_id, positions, quarantined, events, bytes })
    }
}

impl Row {
    /// Works out texts and hash.
    ///
    /// # Errors
    /// When the event cannot be written as JSON.
    pub fn new(new: NewEvent) -> Result<Self, Error> {
        let dedup = new.dedup.as_ref().map(|d| (hash(&new.source, &d.value), d.window));
        let (attributes, meta) = texts(&new.event)?;
        Ok(Self { new, dedup, attributes, meta })
    }

    /// What it weighs, for the limits of the queue.
    pub fn bytes(&self) -> usize {
        let data = self.new.event.data.as_ref().map_or(0, |d| d.len());
        data + self.attributes.len() + 200 + self.meta.as_ref().map_or(0, String::len)
    }
}

/// Attributes and metadata of an event as they lie in their columns.
pub(super) fn texts(event: &Event) -> Result<(String, Option<String>), Error> {
    let meta = if event.meta.is_empty() { None } else { Some(json(&event.meta)?) };
    Ok((json(&attributes(event))?, meta))
}

/// Commits a batch, inside the group's transaction.
pub(super) fn append(book: &mut Book, batch: &Prepared, now: Timestamp) -> Outcome<Appended> {
    if let Some(first) = answer_of(book, batch.append_id)? {
        return Ok(first);
    }
    check_room(book)?;
    for row in &batch.events {
        book.check_lane(row.new.lane)?;
    }
    for advance in &batch.positions {
        advance_position(book, advance)?;
    }
    let items = arrive(book, &batch.events, now)?;
    count_arrivals(book, &batch.events, &batch.quarantined, &items, now)?;
    for message in &batch.quarantined {
        quarantine(book, message, now)?;
    }
    let answer = Appended { items, accepted_at: now };
    remember(book, batch.append_id, &answer)?;
    Ok(answer)
}

/// Appends what a flush emits, in its transaction. A full ledger takes it, see [`crate::BindingFlush::emitted`].
pub(super) fn emit(book: &mut Book, rows: &[Row], now: Timestamp) -> Outcome<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let items = arrive(book, rows, now)?;
    count_arrivals(book, rows, &[], &items, now)
}

/// Refuses events beyond the configured size. Flushes are not asked, so that a full ledger can still be worked off.
fn check_room(book: &mut Book) -> Outcome<()> {
    let Some(max) = book.max_bytes else { return Ok(()) };
    if book.size_checked {
        return Ok(());
    }
    let used = used_bytes(&book.conn)?;
    if used >= max {
        return Err(Error::Full(format!(
            "{used} of {max} bytes are used; it takes events again when retention has removed some, or raise \
             ledger.max_size"
        ))
        .into());
    }
    book.size_checked = true;
    Ok(())
}

/// Bytes of the file that hold something.
pub(super) fn used_bytes(conn: &rusqlite::Connection) -> Outcome<u64> {
    let ask = |what: &str| -> rusqlite::Result<u64> {
        conn.prepare_cached(&format!("PRAGMA {what}"))?.query_row([], |r| r.get(0))
    };
    Ok(ask("page_count")?.saturating_sub(ask("freelist_count")?) * ask("page_size")?)
}

fn advance_position(book: &Book, advance: &PositionAdvance) -> Outcome<()> {
    let found: u64 = book
        .conn
        .prepare_cached("SELECT version FROM position WHERE shard = ?1")?
        .query_row([&advance.shard], |r| r.get(0))
        .optional()?
        .unwrap_or(0);
    if found != advance.expected {
        let (shard, expected) = (advance.shard.clone(), advance.expected);
        return Err(Error::PositionConflict { shard, expected, found }.into());
    }
    book.conn
        .prepare_cached(
            "INSERT INTO position (shard, version, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET version = ?2, value = ?3",
        )?
        .execute((&advance.shard, found + 1, &advance.value))?;
    Ok(())
}

/// Gives each event its place, or finds the one that it repeats.
fn arrive(book: &mut Book, rows: &[Row], now: Timestamp) -> Outcome<Vec<Arrival>> {
    let mut tails: BTreeMap<Lane, Seq> = BTreeMap::new();
    let mut items = Vec::with_capacity(rows.len());
    let mut hashed = false;
    for row in rows {
        let lane = row.new.lane;
        let tail = match tails.get(&lane) {
            Some(tail) => *tail,
            None => book.tail(lane)?,
        };
        let address = Address::new(lane, tail.next());
        if let Some((hash, window)) = &row.dedup {
            if let Some(first) = book.groups.find(&book.conn, hash, now)? {
                record_duplicate(book, &row.new, first, now)?;
                items.push(Arrival::Duplicate(first));
                continue;
            }
            book.groups.insert(&book.conn, hash, address, now, *window)?;
            hashed = true;
        }
        let new = &row.new;
        insert(
            book,
            address,
            now,
            &new.source,
            new.key.as_deref(),
            &new.event,
            &row.attributes,
            row.meta.as_deref(),
        )?;
        tails.insert(lane, address.seq);
        items.push(Arrival::Accepted(address));
    }
    for (lane, tail) in tails {
        book.set_tail(lane, tail)?;
    }
    if hashed {
        book.groups.save(&book.conn)?;
    }
    Ok(items)
}

#[allow(
    clippy::too_many_arguments,
    reason = "one per column; a struct would be built and taken apart per event"
)]
fn insert(
    book: &mut Book,
    address: Address,
    accepted_at: Timestamp,
    source: &SourceName,
    key: Option<&str>,
    event: &Event,
    attributes: &str,
    meta: Option<&str>,
) -> Outcome<()> {
    let source = book.name(source.as_str())?;
    let kind = book.name(&event.kind)?;
    book.conn
        .prepare_cached(
            "INSERT INTO event (place, source, type, accepted_at, key, id, attributes, meta, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            place_of(address),
            source,
            kind,
            accepted_at.micros(),
            key,
            &event.id,
            attributes,
            meta,
            event.data.as_deref(),
        ))?;
    Ok(())
}

/// Puts an event back where it was; see `operate.rs`.
pub(super) fn insert_again(book: &mut Book, stored: &StoredEvent) -> Outcome<()> {
    let StoredEvent { address, source, accepted_at, key, event } = stored;
    let (attributes, meta) = texts(event)?;
    insert(book, *address, *accepted_at, source, key.as_deref(), event, &attributes, meta.as_deref())
}

fn record_duplicate(book: &mut Book, new: &NewEvent, first: Address, now: Timestamp) -> Outcome<()> {
    let source = book.name(new.source.as_str())?;
    book.conn
        .prepare_cached("INSERT INTO duplicate (at, source, id, first) VALUES (?1, ?2, ?3, ?4)")?
        .execute((now.micros(), source, &new.event.id, place_of(first)))?;
    Ok(())
}

/// Adds to the sources' counters, one row per source and batch.
fn count_arrivals(
    book: &mut Book,
    rows: &[Row],
    quarantined: &[Quarantine],
    items: &[Arrival],
    now: Timestamp,
) -> Outcome<()> {
    let mut counts: Vec<(&SourceName, [u64; 3])> = Vec::new();
    let arrivals = rows
        .iter()
        .zip(items)
        .map(|(row, item)| (&row.new.source, usize::from(matches!(item, Arrival::Duplicate(_)))));
    for (source, what) in arrivals.chain(quarantined.iter().map(|q| (&q.source, 2))) {
        match counts.iter_mut().find(|(s, _)| *s == source) {
            Some((_, count)) => count[what] += 1,
            None => {
                let mut count = [0; 3];
                count[what] = 1;
                counts.push((source, count));
            }
        }
    }
    for (source, [accepted, duplicate, quarantined]) in counts {
        let source = book.name(source.as_str())?;
        let last_at = (accepted > 0).then_some(now.micros());
        book.conn
            .prepare_cached(
                "INSERT INTO arrival (source, accepted, duplicate, quarantined, last_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET accepted = accepted + ?2, duplicate = duplicate + ?3,
                   quarantined = quarantined + ?4, last_at = coalesce(?5, last_at)",
            )?
            .execute((source, accepted, duplicate, quarantined, last_at))?;
    }
    Ok(())
}

fn quarantine(book: &mut Book, message: &Quarantine, now: Timestamp) -> Outcome<()> {
    let source = book.name(message.source.as_str())?;
    let bytes = &message.bytes[..message.bytes.len().min(QUARANTINED_BYTES)];
    book.conn
        .prepare_cached(
            "INSERT INTO quarantine (at, source, reason, bytes, meta) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((now.micros(), source, &message.reason, bytes, &message.meta))?;
    Ok(())
}

fn answer_of(book: &Book, id: Uuid) -> Outcome<Option<Appended>> {
    let found: Option<(i64, Vec<u8>)> = book
        .conn
        .prepare_cached("SELECT accepted_at, answer FROM append WHERE id = ?1")?
        .query_row([id.as_bytes()], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    let Some((accepted_at, answer)) = found else { return Ok(None) };
    Ok(Some(Appended { items: decode(&answer)?, accepted_at: Timestamp::from_micros(accepted_at) }))
}

fn remember(book: &Book, id: Uuid, answer: &Appended) -> Outcome<()> {
    book.conn
        .prepare_cached("INSERT INTO append (id, accepted_at, answer) VALUES (?1, ?2, ?3)")?
        .execute((id.as_bytes(), answer.accepted_at.micros(), encode(&answer.items)))?;
    let oldest = book.conn.last_insert_rowid() - ANSWERS;
    book.conn.prepare_cached("DELETE FROM append WHERE n <= ?1")?.execute([oldest])?;
    Ok(())
}

/// Bytes of a run in an answer: kind, first place, count.
const RUN: usize = 1 + 8 + 4;

/// An answer as runs of neighbouring places; a batch of one lane is one run.
fn encode(items: &[Arrival]) -> Vec<u8> {
    let mut runs: Vec<(u8, i64, u32)> = Vec::new();
    for item in items {
        let (kind, place) = match item {
            Arrival::Accepted(address) => (0, place_of(*address)),
            Arrival::Duplicate(first) => (1, place_of(*first)),
        };
        match runs.last_mut() {
            Some((k, first, count)) if *k == kind && *first + i64::from(*count) == place => *count += 1,
            _ => runs.push((kind, place, 1)),
        }
    }
    let mut bytes = Vec::with_capacity(runs.len() * RUN);
    for (kind, first, count) in runs {
        bytes.push(kind);
        bytes.extend(first.to_be_bytes());
        bytes.extend(count.to_be_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Arrival>, Error> {
    let broken = || Error::Corrupt("a stored answer of an append is not readable".into());
    let mut items = Vec::new();
    for run in bytes.chunks(RUN) {
        let run: [u8; RUN] = run.try_into().map_err(|_| broken())?;
        let [kind, f0, f1, f2, f3, f4, f5, f6, f7, c0, c1, c2, c3] = run;
        let first = i64::from_be_bytes([f0, f1, f2, f3, f4, f5, f6, f7]);
        for n in 0..i64::from(u32::from_be_bytes([c0, c1, c2, c3])) {
            let address = address_of(first + n);
            items.push(match kind {
                0 => Arrival::Accepted(address),
                1 => Arrival::Duplicate(address),
                _ => return Err(broken()),
            });
        }
    }
    Ok(items)
}
