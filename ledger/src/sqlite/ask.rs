//! Questions that are neither lists by selector nor totals.

use bellwire_schemas::{Address, BindingId, Lane, ReplayId, Seq, SourceName, Timestamp};
use rusqlite::{OptionalExtension, Row};

use super::codec::{address_of, bytes_at, json_at, place_of, places_of, time_at};
use super::fault::Outcome;
use super::list::name_id;
use super::readers::Reader;
use super::rows::{DEAD_LETTER, EVENT, LINE, OWED, dead_letter_at, event_at, line_at, owed_at};
use crate::{
    DeadLetter, DeliveryKey, DueRetries, Duplicate, LogEntry, Owed, Position, QuarantineRecord, Refusal,
    ReplayRecord, StoredEvent,
};

/// Rows of one answer where the contract names the figure.
const FEW: usize = 100;
const MANY: usize = 1_000;

/// The newest position of a shard.
pub(super) fn position(reader: &Reader, shard: &str) -> Outcome<Option<Position>> {
    let mut statement = reader.conn.prepare_cached("SELECT version, value FROM position WHERE shard = ?1")?;
    let position = |r: &Row<'_>| Ok(Position { version: r.get(0)?, value: r.get(1)? });
    Ok(statement.query_row([shard], position).optional()?)
}

/// Events of a lane from a place on.
pub(super) fn read(
    reader: &mut Reader,
    lane: Lane,
    from: Seq,
    limit: usize,
    bytes: usize,
) -> Outcome<Vec<StoredEvent>> {
    let Reader { conn, names } = reader;
    let sql = format!("{EVENT} WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT ?3");
    let mut statement = conn.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let first = place_of(Address::new(lane, from));
    let mut rows = statement.query((first, places_of(lane).1, limit))?;
    let (mut events, mut size) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let event = event_at(row, conn, names)?;
        let own = event.event.data.as_ref().map_or(0, |d| d.len());
        size += own.max(1);
        if !events.is_empty() && size > bytes {
            break;
        }
        events.push(event);
    }
    Ok(events)
}

/// Debts that are due, and when to look again.
pub(super) fn due(
    reader: &Reader,
    lane: Lane,
    binding: BindingId,
    now: Timestamp,
    limit: usize,
) -> Outcome<DueRetries> {
    // Very many may be parked: what is not due by time is not in the index.
    let sql = format!(
        "{OWED} INDEXED BY owed_by_time WHERE binding = ?1 AND lane = ?2 AND reason NOT IN (3, 4)
         ORDER BY next_at, place LIMIT ?3"
    );
    let mut statement = reader.conn.prepare_cached(&sql)?;
    let rows = i64::try_from(limit).unwrap_or(i64::MAX - 1).saturating_add(1);
    let mut rows = statement.query((binding.0, lane.0, rows))?;
    let mut answer = DueRetries::default();
    while let Some(row) = rows.next()? {
        let owed = owed_at(row)?;
        if owed.next_at > now || answer.due.len() == limit {
            answer.next_at = Some(owed.next_at);
            break;
        }
        answer.due.push(owed);
    }
    Ok(answer)
}

/// Debts in the order of places.
pub(super) fn debts(
    reader: &Reader,
    lane: Lane,
    binding: BindingId,
    after: Seq,
    limit: usize,
) -> Outcome<Vec<Owed>> {
    let sql = format!("{OWED} WHERE binding = ?1 AND place > ?2 AND place <= ?3 ORDER BY place LIMIT ?4");
    let mut statement = reader.conn.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = place_of(Address::new(lane, after));
    let rows = statement.query_map((binding.0, after, places_of(lane).1, limit), owed_at)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether some debts wait for their key.
pub(super) fn has_parked(reader: &Reader, lane: Lane, binding: BindingId) -> Outcome<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM owed
        WHERE binding = ?1 AND place BETWEEN ?2 AND ?3 AND reason IN (3, 4))";
    let (first, last) = places_of(lane);
    Ok(reader.conn.prepare_cached(sql)?.query_row((binding.0, first, last), |row| row.get(0))?)
}

/// The delivery log of one event.
pub(super) fn log(
    reader: &mut Reader,
    address: Address,
    binding: Option<BindingId>,
) -> Outcome<Vec<(BindingId, LogEntry)>> {
    let Reader { conn, names } = reader;
    let sql = format!("{LINE} WHERE place = ?1 AND (?2 IS NULL OR binding = ?2) ORDER BY at, n");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map((place_of(address), binding.map(|b| b.0)), |r| line_at(r, conn, names))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The debt of one delivery.
pub(super) fn owed(reader: &Reader, key: DeliveryKey) -> Outcome<Option<Owed>> {
    let mut statement = reader.conn.prepare_cached(&format!("{OWED} WHERE binding = ?1 AND place = ?2"))?;
    Ok(statement.query_row((key.binding.0, place_of(key.address)), owed_at).optional()?)
}

/// One dead letter.
pub(super) fn dead_letter(reader: &mut Reader, key: DeliveryKey) -> Outcome<Option<DeadLetter>> {
    let Reader { conn, names } = reader;
    let mut statement = conn.prepare_cached(&format!("{DEAD_LETTER} WHERE binding = ?1 AND place = ?2"))?;
    let key = (key.binding.0, place_of(key.address));
    Ok(statement.query_row(key, |r| dead_letter_at(r, conn, names)).optional()?)
}

const DUPLICATE: &str =
    "SELECT d.at, d.id, n.text, d.first FROM duplicate d JOIN name n ON n.id = d.source WHERE";

fn duplicate_at(row: &Row<'_>) -> rusqlite::Result<Duplicate> {
    Ok(Duplicate {
        at: time_at(row, 0)?,
        id: row.get(1)?,
        source: SourceName::new(row.get::<_, String>(2)?),
        first: address_of(row.get(3)?),
    })
}

/// Later arrivals of an event.
pub(super) fn duplicates(reader: &Reader, first: Address) -> Outcome<Vec<Duplicate>> {
    let sql = format!("{DUPLICATE} d.first = ?1 ORDER BY d.n LIMIT {FEW}");
    let mut statement = reader.conn.prepare_cached(&sql)?;
    Ok(statement.query_map([place_of(first)], duplicate_at)?.collect::<Result<_, _>>()?)
}

/// Later arrivals with an id.
pub(super) fn duplicates_of_id(
    reader: &Reader,
    id: &str,
    source: Option<&SourceName>,
) -> Outcome<Vec<Duplicate>> {
    let sql = format!(
        "{DUPLICATE} substr(d.id, 1, 64) = substr(?1, 1, 64) AND d.id = ?1 AND (?2 IS NULL OR n.text = ?2)
         ORDER BY d.n DESC LIMIT {FEW}"
    );
    let mut statement = reader.conn.prepare_cached(&sql)?;
    let rows = statement.query_map((id, source.map(|s| s.as_str())), duplicate_at)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Quarantined messages, newest first.
pub(super) fn quarantined(
    reader: &Reader,
    source: Option<&SourceName>,
    limit: usize,
) -> Outcome<Vec<QuarantineRecord>> {
    let source = match source {
        Some(word) => match name_id(reader, word.as_str())? {
            Some(id) => Some(id),
            None => return Ok(Vec::new()),
        },
        None => None,
    };
    let mut statement = reader.conn.prepare_cached(
        "SELECT q.id, q.at, n.text, q.reason, q.bytes, q.meta FROM quarantine q JOIN name n ON n.id = q.source
         WHERE ?1 IS NULL OR q.source = ?1 ORDER BY q.id DESC LIMIT ?2",
    )?;
    let record = |r: &Row<'_>| {
        Ok(QuarantineRecord {
            id: r.get(0)?,
            at: time_at(r, 1)?,
            source: SourceName::new(r.get::<_, String>(2)?),
            reason: r.get(3)?,
            bytes: bytes_at(r, 4)?.unwrap_or_default(),
            meta: r.get(5)?,
        })
    };
    let limit = i64::try_from(limit.min(MANY)).unwrap_or(i64::MAX);
    Ok(statement.query_map((source, limit), record)?.collect::<Result<_, _>>()?)
}

/// Refusals since a time.
pub(super) fn refusals(reader: &Reader, since: Timestamp) -> Outcome<Vec<Refusal>> {
    let mut statement = reader.conn.prepare_cached(&format!(
        "SELECT source, reason, count, last_at, last_peer FROM refusal WHERE last_at >= ?1
         ORDER BY last_at DESC, source, reason LIMIT {MANY}"
    ))?;
    let refusal = |r: &Row<'_>| {
        Ok(Refusal {
            source: r.get(0)?,
            reason: r.get(1)?,
            count: r.get(2)?,
            last_at: time_at(r, 3)?,
            last_peer: r.get(4)?,
        })
    };
    Ok(statement.query_map([since.micros()], refusal)?.collect::<Result<_, _>>()?)
}

/// All replays, or one, newest first.
pub(super) fn replays(reader: &Reader, id: Option<&ReplayId>) -> Outcome<Vec<ReplayRecord>> {
    let mut statement = reader.conn.prepare_cached(&format!(
        "SELECT record, created_at, since, until FROM replay WHERE ?1 IS NULL OR id = ?1
         ORDER BY created_at DESC, n DESC LIMIT {MANY}"
    ))?;
    let replay = |r: &Row<'_>| {
        let mut replay: ReplayRecord = json_at(r, 0)?;
        let time = |column| r.get::<_, Option<i64>>(column).map(|t| t.map(Timestamp::from_micros));
        replay.created_at = time_at(r, 1)?;
        replay.selector.since = time(2)?;
        replay.selector.until = time(3)?;
        Ok(replay)
    };
    Ok(statement.query_map([id.map(|i| i.as_str())], replay)?.collect::<Result<_, _>>()?)
}
