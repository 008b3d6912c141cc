//! Rows into values: events, dead letters, log lines, debts.

use std::collections::HashMap;
use std::sync::Arc;

use bellwire_schemas::{BindingId, Event, ReplayId, SourceName};
use rusqlite::{Connection, Row};

use super::codec::{address_of, bytes_at, json_at, json_or_none, outcome_of, reason_of, time_at};
use crate::attributes::StoredAttributes;
use crate::{DeadLetter, LogEntry, Owed, StoredEvent};

/// Interned words kept per connection; beyond that the memory starts afresh.
const NAMES: usize = 4_096;

/// Columns of an event, read by [`event_at`].
pub(super) const EVENT: &str =
    "SELECT place, source, accepted_at, key, id, type, attributes, meta, data FROM event";

/// Columns of a dead letter, read by [`dead_letter_at`].
pub(super) const DEAD_LETTER: &str =
    "SELECT place, source, accepted_at, key, id, type, attributes, meta, data, binding,
    died_at, first_at, attempts, error, fingerprint, logs FROM dead_letter";

/// Columns of a log line, read by [`line_at`].
pub(super) const LINE: &str =
    "SELECT place, binding, attempt, at, duration_ms, outcome, error, worker, version,
    revision, replay FROM log";

/// Columns of a debt, read by [`owed_at`].
pub(super) const OWED: &str = "SELECT place, attempts, next_at, since, error, reason, replay, key FROM owed";

/// Words by number, as one connection has met them. A number never changes its word once committed.
#[derive(Default)]
pub(super) struct Names(HashMap<i64, Arc<str>>);

impl Names {
    fn get(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<Arc<str>> {
        if let Some(text) = self.0.get(&id) {
            return Ok(text.clone());
        }
        let text: String =
            conn.prepare_cached("SELECT text FROM name WHERE id = ?1")?.query_row([id], |r| r.get(0))?;
        if self.0.len() >= NAMES {
            self.0.clear();
        }
        let text: Arc<str> = text.into();
        self.0.insert(id, text.clone());
        Ok(text)
    }

    fn source(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<SourceName> {
        Ok(SourceName::new(self.get(conn, id)?))
    }
}

/// An event out of the columns of [`EVENT`].
pub(super) fn event_at(row: &Row<'_>, conn: &Connection, names: &mut Names) -> rusqlite::Result<StoredEvent> {
    let attributes: StoredAttributes = json_at(row, 6)?;
    let kind = names.get(conn, row.get(5)?)?;
    let event = Event {
        id: row.get(4)?,
        source: attributes.source,
        kind: kind.as_ref().into(),
        subject: attributes.subject,
        time: attributes.time,
        datacontenttype: attributes.datacontenttype,
        dataschema: attributes.dataschema,
        extensions: attributes.extensions.unwrap_or_default(),
        data: bytes_at(row, 8)?,
        meta: json_or_none(row, 7)?.unwrap_or_default(),
    };
    Ok(StoredEvent {
        address: address_of(row.get(0)?),
        source: names.source(conn, row.get(1)?)?,
        accepted_at: time_at(row, 2)?,
        key: row.get(3)?,
        event: Arc::new(event),
    })
}

/// A dead letter out of the columns of [`DEAD_LETTER`].
pub(super) fn dead_letter_at(
    row: &Row<'_>,
    conn: &Connection,
    names: &mut Names,
) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        binding: BindingId(row.get(9)?),
        event: event_at(row, conn, names)?,
        died_at: time_at(row, 10)?,
        first_at: time_at(row, 11)?,
        attempts: row.get(12)?,
        error: json_at(row, 13)?,
        fingerprint: row.get(14)?,
        logs: json_at(row, 15)?,
    })
}

/// A log line out of the columns of [`LINE`].
pub(super) fn line_at(
    row: &Row<'_>,
    conn: &Connection,
    names: &mut Names,
) -> rusqlite::Result<(BindingId, LogEntry)> {
    let mut word = |id: Option<i64>| -> rusqlite::Result<String> {
        id.map_or(Ok(String::new()), |id| Ok(names.get(conn, id)?.as_ref().into()))
    };
    let entry = LogEntry {
        seq: address_of(row.get(0)?).seq,
        attempt: row.get(2)?,
        at: time_at(row, 3)?,
        duration_ms: row.get(4)?,
        outcome: outcome_of(row.get(5)?)?,
        error: json_or_none(row, 6)?,
        worker: word(row.get(7)?)?,
        version: word(row.get(8)?)?,
        revision: row.get(9)?,
        replay: row.get::<_, Option<String>>(10)?.map(ReplayId::new),
    };
    Ok((BindingId(row.get(1)?), entry))
}

/// A debt out of the columns of [`OWED`].
pub(super) fn owed_at(row: &Row<'_>) -> rusqlite::Result<Owed> {
    Ok(Owed {
        seq: address_of(row.get(0)?).seq,
        attempts: row.get(1)?,
        next_at: time_at(row, 2)?,
        since: time_at(row, 3)?,
        error: json_or_none(row, 4)?,
        reason: reason_of(row.get(5)?, row.get(6)?)?,
        key: row.get(7)?,
    })
}
