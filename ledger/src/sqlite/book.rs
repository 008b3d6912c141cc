//! The writer's hold on the file: its connection, its transaction, and the little it remembers between commits.

use std::collections::HashMap;
use std::sync::Arc;

use bellwire_schemas::{Address, BindingId, Lane, Seq};
use rusqlite::{Connection, OptionalExtension};

use super::codec::{address_of, place_of};
use super::dedup::Groups;
use super::fault::Outcome;
use crate::Error;

/// Statements kept prepared on the writing connection; there are fewer.
const STATEMENTS: usize = 128;
/// Interned words kept in memory; beyond that the memory starts afresh.
const NAMES: usize = 4_096;

/// The connection that writes, with what the file holds of its hottest rows.
pub(super) struct Book {
    pub conn: Connection,
    /// How many lanes there are.
    pub lanes: u16,
    /// Size at which appends are refused, bytes.
    pub max_bytes: Option<u64>,
    /// The next number of a log line.
    pub next_line: i64,
    /// The dedup groups whose windows are not over.
    pub groups: Groups,
    /// Set by the last piece of work: the thread ends after this commit.
    pub closing: bool,
    names: HashMap<Arc<str>, i64>,
    /// Whether this transaction's size was compared with the limit already.
    pub size_checked: bool,
}

impl Book {
    /// Takes over a connection whose schema is current.
    pub fn new(conn: Connection, lanes: u16, max_bytes: Option<u64>) -> Outcome<Self> {
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        let mut book = Self {
            conn,
            lanes,
            max_bytes,
            next_line: 0,
            groups: Groups::default(),
            closing: false,
            names: HashMap::new(),
            size_checked: false,
        };
        book.reload()?;
        Ok(book)
    }

    pub fn begin(&mut self) -> Outcome<()> {
        self.size_checked = false;
        self.execute("BEGIN IMMEDIATE")
    }

    pub fn savepoint(&self) -> Outcome<()> {
        self.execute("SAVEPOINT work")
    }

    pub fn release(&self) -> Outcome<()> {
        self.execute("RELEASE work")
    }

    pub fn undo_savepoint(&mut self) -> Outcome<()> {
        self.execute("ROLLBACK TO work")?;
        self.execute("RELEASE work")?;
        self.reload()
    }

    pub fn commit(&self) -> Outcome<()> {
        self.execute("COMMIT")
    }

    /// Undoes the transaction, if SQLite has not done so itself, and forgets what it had changed in memory.
    pub fn rollback(&mut self) -> Outcome<()> {
        if !self.conn.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        self.reload()
    }

    /// Reads again what is kept in memory.
    fn reload(&mut self) -> Outcome<()> {
        self.names.clear();
        self.next_line =
            self.conn.query_row("SELECT next_line FROM ledger", [], |r| r.get(0)).optional()?.unwrap_or(1);
        self.groups = Groups::load(&self.conn)?;
        Ok(())
    }

    fn execute(&self, sql: &str) -> Outcome<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// The number of a word, given one if it is new.
    pub fn name(&mut self, text: &str) -> Outcome<i64> {
        if let Some(id) = self.names.get(text) {
            return Ok(*id);
        }
        let known = self
            .conn
            .prepare_cached("SELECT id FROM name WHERE text = ?1")?
            .query_row([text], |r| r.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                self.conn.prepare_cached("INSERT INTO name (text) VALUES (?1)")?.execute([text])?;
                self.conn.last_insert_rowid()
            }
        };
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        self.names.insert(text.into(), id);
        Ok(id)
    }

    /// The number of a word, or none for the empty one.
    pub fn name_or_none(&mut self, text: &str) -> Outcome<Option<i64>> {
        if text.is_empty() { Ok(None) } else { self.name(text).map(Some) }
    }

    /// Refuses a lane that does not exist.
    pub fn check_lane(&self, lane: Lane) -> Result<(), Error> {
        check_lane(lane, self.lanes)
    }

    /// The last place used in a lane.
    pub fn tail(&self, lane: Lane) -> Outcome<Seq> {
        tail(&self.conn, lane)
    }

    pub fn set_tail(&self, lane: Lane, tail: Seq) -> Outcome<()> {
        let seq = address_of(place_of(Address::new(lane, tail))).seq;
        self.conn.prepare_cached("UPDATE lane SET tail = ?2 WHERE lane = ?1")?.execute((lane.0, seq.0))?;
        Ok(())
    }

    /// Moves the account of a binding: so many more, or fewer, deliveries stand ended in this state.
    pub fn add_ended(&self, binding: BindingId, state: i64, by: i64) -> Outcome<()> {
        let sql = match by {
            0 => return Ok(()),
            1.. => {
                "INSERT INTO ended (binding, state, count) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET count = count + ?3"
            }
            // The check on `count` would refuse the row that an upsert begins with.
            _ => "UPDATE ended SET count = count + ?3 WHERE binding = ?1 AND state = ?2",
        };
        self.conn.prepare_cached(sql)?.execute((binding.0, state, by))?;
        Ok(())
    }
}

/// Refuses a lane that does not exist.
pub(super) fn check_lane(lane: Lane, lanes: u16) -> Result<(), Error> {
    if lane.0 == 0 || lane.0 > lanes {
        return Err(Error::NotFound(format!("lane {lane} does not exist: the ledger has {lanes}")));
    }
    Ok(())
}

/// The last place used in a lane that exists.
pub(super) fn tail(conn: &Connection, lane: Lane) -> Outcome<Seq> {
    let mut statement = conn.prepare_cached("SELECT tail FROM lane WHERE lane = ?1")?;
    Ok(Seq(statement.query_row([lane.0], |r| r.get(0))?))
}

/// What the file says of itself.
pub(super) fn stored_lanes(conn: &Connection) -> Outcome<Option<u16>> {
    Ok(conn.query_row("SELECT lanes FROM ledger", [], |r| r.get(0)).optional()?)
}

/// Writes the number of lanes into a new ledger, once for ever.
pub(super) fn create_lanes(conn: &Connection, lanes: u16) -> Outcome<()> {
    let tx = conn.unchecked_transaction()?;
    tx.execute("INSERT INTO ledger (one, lanes, next_line) VALUES (1, ?1, 1)", [lanes])?;
    for lane in 1..=lanes {
        tx.execute("INSERT INTO lane (lane) VALUES (?1)", [lane])?;
    }
    Ok(tx.commit()?)
}

/// Lanes whose owner died with its process are free again; their epochs stay.
pub(super) fn disown_lanes(conn: &Connection) -> Outcome<()> {
    conn.execute("UPDATE lane SET owner = NULL, taken_at = NULL WHERE owner IS NOT NULL", [])?;
    Ok(())
}
