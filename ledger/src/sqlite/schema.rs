//! The schema of the file: numbered migrations, each applied in one transaction with its number.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::fault::{Outcome, from_sql};
use super::lock::{Lock, private};
use crate::Error;

/// Marks a SQLite file as a ledger: "BWLG" in its header.
const APPLICATION_ID: i32 = 0x4257_4c47;

/// Bytes per page of the file. With rows of some 500 bytes, 8 KiB needs fewer page writes per commit than 4 KiB.
const PAGE_BYTES: u32 = 8192;

/// How long a statement waits for a lock that a tool such as the `sqlite3` shell holds.
const BUSY: Duration = Duration::from_secs(5);

/// Every step from an empty file to the newest schema. Never edited once released.
const MIGRATIONS: [(&str, &str); 5] = [
    ("ledger", include_str!("../../../migrations/sqlite/0001_ledger.sql")),
    ("debts", include_str!("../../../migrations/sqlite/0002_debts.sql")),
    ("cancel", include_str!("../../../migrations/sqlite/0003_cancel.sql")),
    ("revisions", include_str!("../../../migrations/sqlite/0004_revisions.sql")),
    ("parked", include_str!("../../../migrations/sqlite/0005_parked.sql")),
];

/// The schema of a ledger file and the newest one this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The version of the file; 0 when it does not exist or is empty.
    pub current: u32,
    /// The version this program writes.
    pub newest: u32,
}

/// Brings a ledger file, new or old, to the newest schema; returns what it was before.
///
/// # Errors
/// [`Error::Locked`] while a controller runs on it, [`Error::Incompatible`] when the file is no ledger or newer than
/// this program, [`Error::Unavailable`] or [`Error::Full`] when it cannot be written.
pub fn migrate(path: &Path) -> Result<SchemaStatus, Error> {
    create_folder(path)?;
    let _lock = Lock::take(path)?;
    let before = schema_status(path)?;
    open_writer(path)?;
    Ok(before)
}

/// Reads the schema version of a ledger file without changing it.
///
/// # Errors
/// [`Error::Incompatible`] when the file is no ledger; [`Error::Unavailable`] when it cannot be read. A newer schema
/// is no error here.
pub fn schema_status(path: &Path) -> Result<SchemaStatus, Error> {
    let newest = newest();
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(SchemaStatus { current: 0, newest });
        }
        Err(e) => return Err(Error::Unavailable(format!("read `{}`: {e}", path.display()))),
        Ok(_) => {}
    }
    let conn = open_reader(path)?;
    Ok(SchemaStatus { current: version(&conn, path)?, newest })
}

fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Makes the folder of a new ledger.
pub(super) fn create_folder(path: &Path) -> Result<(), Error> {
    let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::Unavailable(format!("create folder `{}`: {e}", folder.display())))
}

/// Opens the one connection that writes, and brings the schema up to date. The caller holds the lock.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let named = |e: rusqlite::Error| name_file(path, from_sql(&e));
    private(OpenOptions::new().append(true).create(true))
        .open(path)
        .map_err(|e| Error::Unavailable(format!("open ledger `{}`: {e}", path.display())))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(named)?;
    conn.busy_timeout(BUSY).map_err(named)?;
    let current = version(&conn, path)?;
    if current > newest() {
        return Err(Error::Incompatible(format!(
            "ledger `{}` has schema {current}, this program knows {}: use the newer program",
            path.display(),
            newest()
        )));
    }
    conn.pragma_update(None, "page_size", PAGE_BYTES).map_err(named)?;
    conn.pragma_update(None, "journal_mode", "WAL").map_err(named)?;
    conn.pragma_update(None, "synchronous", "FULL").map_err(named)?;
    conn.pragma_update(None, "foreign_keys", false).map_err(named)?;
    conn.pragma_update(None, "temp_store", "MEMORY").map_err(named)?;
    conn.pragma_update(None, "cache_size", -(32 << 10)).map_err(named)?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20).map_err(named)?;
    for step in current..newest() {
        apply(&mut conn, step).map_err(|fault| name_file(path, fault.into()))?;
    }
    Ok(conn)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let named = |e: rusqlite::Error| name_file(path, from_sql(&e));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(named)?;
    conn.busy_timeout(BUSY).map_err(named)?;
    conn.pragma_update(None, "query_only", true).map_err(named)?;
    conn.pragma_update(None, "cache_size", -(4 << 10)).map_err(named)?;
    Ok(conn)
}

/// Opens a ledger that may have no controller, for a look after the fact. Where its folder cannot be written and no
/// log is left beside the file, the file alone is the whole truth and is read as such.
pub(super) fn open_post_mortem(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::Unavailable(format!("there is no ledger at `{}`", path.display())));
    }
    let conn = match open_reader(path).and_then(|conn| check_readable(&conn, path).map(|()| conn)) {
        Err(Error::Unavailable(_)) if !beside(path, "-wal").exists() => {
            let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_URI;
            let conn = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
                .map_err(|e| name_file(path, from_sql(&e)))?;
            check_readable(&conn, path)?;
            conn
        }
        other => other?,
    };
    Ok(conn)
}

/// The path of a file that SQLite keeps beside the ledger.
pub(super) fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Refuses a file that a reader cannot understand.
fn check_readable(conn: &Connection, path: &Path) -> Result<(), Error> {
    match version(conn, path)? {
        v if v == newest() => Ok(()),
        v => Err(Error::Incompatible(format!(
            "ledger `{}` has schema {v}, this program reads {}: `bellwire migrate` brings an older one up",
            path.display(),
            newest()
        ))),
    }
}

fn apply(conn: &mut Connection, step: u32) -> Outcome<()> {
    let (name, sql) = MIGRATIONS[step as usize];
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if step == 0 {
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.execute_batch(
            "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;",
        )?;
    }
    tx.execute_batch(sql)?;
    tx.execute("INSERT INTO schema_version (version, name) VALUES (?1, ?2)", (step + 1, name))?;
    Ok(tx.commit()?)
}

/// The schema version; 0 for an empty file. Anything else that is no ledger is refused, so that a wrong path never
/// harms another program's file.
fn version(conn: &Connection, path: &Path) -> Result<u32, Error> {
    let named = |e: rusqlite::Error| name_file(path, from_sql(&e));
    let tables: u32 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(named)?;
    if tables == 0 {
        return Ok(0);
    }
    let id: i32 = conn.pragma_query_value(None, "application_id", |r| r.get(0)).map_err(named)?;
    if id != APPLICATION_ID {
        return Err(Error::Incompatible(format!(
            "`{}` is a SQLite file of another program, not a ledger: choose another path",
            path.display()
        )));
    }
    let version: Option<Option<u32>> = conn
        .query_row("SELECT max(version) FROM schema_version", [], |r| r.get(0))
        .optional()
        .map_err(named)?;
    Ok(version.flatten().unwrap_or(0))
}

fn name_file(path: &Path, error: Error) -> Error {
    let at = |text: String| format!("`{}`: {text}", path.display());
    match error {
        Error::Full(text) => Error::Full(at(text)),
        Error::Unavailable(text) => Error::Unavailable(at(text)),
        Error::Incompatible(text) => Error::Incompatible(at(text)),
        Error::Failed(text) => Error::Failed(at(text)),
        Error::Corrupt(text) => Error::Corrupt(at(text)),
        other => other,
    }
}
