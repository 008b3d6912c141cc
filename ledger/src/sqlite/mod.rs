//! The ledger in one SQLite file, for one controller.
//!
//! [`SqliteLedger`] keeps the contract with one writer thread (`writer.rs`: many callers in one commit) and a few
//! reading connections (`readers.rs`). Each verb has its file; each statement lives in the function that runs it. It
//! shares the file with nobody: a second controller is refused by a lock beside it. Tools may read it while it runs.
//!
//! The file is opened with a write-ahead log and `synchronous=FULL`: an answer is given after `fsync`. When the disk
//! fails (anything but "full"), writing stops for good and [`SqliteLedger::failed`] says so: after a failed `fsync`
//! nobody knows what the disk holds, so the process must end and open the file anew.
//!
//! Read `migrations/sqlite/0001_ledger.sql` first, then `writer.rs`, `append.rs` and `flush.rs`.

mod append;
mod ask;
mod bindings;
mod book;
mod codec;
mod dedup;
mod fault;
mod flush;
mod keep;
mod list;
mod lock;
mod operate;
mod readers;
mod retain;
mod rows;
mod schema;
mod totals;
mod writer;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;
use book::{Book, create_lanes, disown_lanes, stored_lanes};
use fault::{Outcome, from_sql};
use lock::Lock;
use readers::{Reader, Readers};
use writer::{Kind, Writer};

pub use schema::{SchemaStatus, migrate, schema_status};

/// How a ledger file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Number of lanes of a new ledger (1 to 1,024); an old one must have as many.
    pub lanes: u16,
    /// Bytes in use at which appends are refused as [`Error::Full`]. Everything else may use a quarter more, so that
    /// a full ledger can still be worked off.
    pub max_bytes: Option<u64>,
}

impl Default for SqliteOptions {
    /// One lane, no limit.
    fn default() -> Self {
        Self { lanes: 1, max_bytes: None }
    }
}

/// A ledger in a SQLite file. Clones share it.
///
/// Call [`crate::Ledger::close`] before the process ends: it waits for pending writes and frees the lock. A process
/// that is killed frees the lock too and loses nothing it was answered for.
#[derive(Clone)]
pub struct SqliteLedger {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    lanes: u16,
    /// Absent when the file was opened for reading.
    writer: Option<Writer>,
    readers: Readers,
}

impl SqliteLedger {
    /// Opens a ledger for this process alone, creating it or bringing its schema up to date as needed. Lanes that a
    /// killed controller owned are free again. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it open, [`Error::Incompatible`] when the file is no ledger, is
    /// newer than this program or has another number of lanes, [`Error::Unavailable`] or [`Error::Full`] when it
    /// cannot be written.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, Error> {
        if options.lanes == 0 || options.lanes > 1_024 {
            return Err(Error::Incompatible(format!("a ledger has 1 to 1024 lanes, not {}", options.lanes)));
        }
        schema::create_folder(path)?;
        let lock = Lock::take(path)?;
        let conn = schema::open_writer(path)?;
        let lanes = match stored_lanes(&conn)? {
            Some(lanes) if lanes == options.lanes => lanes,
            Some(lanes) => {
                return Err(Error::Incompatible(format!(
                    "ledger `{}` was made with {lanes} lanes, which is for ever; the configuration says {}",
                    path.display(),
                    options.lanes
                )));
            }
            None => {
                create_lanes(&conn, options.lanes)?;
                options.lanes
            }
        };
        disown_lanes(&conn)?;
        limit_pages(&conn, options.max_bytes)?;
        let readers = Readers::new(path.to_owned(), schema::open_reader(path)?);
        let book = Book::new(conn, lanes, options.max_bytes)?;
        let writer = Some(Writer::start(book, lock)?);
        Ok(Self { shared: Arc::new(Shared { path: path.to_owned(), lanes, writer, readers }) })
    }

    /// Opens a ledger for reading, whether or not a controller runs on it; every write is refused.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no such file or it cannot be read, [`Error::Incompatible`] when it is no
    /// ledger or has another schema than this program reads.
    pub fn open_read_only(path: &Path) -> Result<Self, Error> {
        let conn = schema::open_post_mortem(path)?;
        let empty =
            || Error::Incompatible(format!("ledger `{}` was never opened by a controller", path.display()));
        let lanes = stored_lanes(&conn)?.ok_or_else(empty)?;
        let readers = Readers::new(path.to_owned(), conn);
        Ok(Self { shared: Arc::new(Shared { path: path.to_owned(), lanes, writer: None, readers }) })
    }

    /// Waits until writing has stopped for good because the disk failed or the writer broke down, and says why; for
    /// ever while it has not. The controller ends when this does.
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let watch = self.shared.writer.as_ref().map(Writer::failed);
        async move {
            if let Some(mut watch) = watch
                && let Ok(why) = watch.wait_for(Option::is_some).await
            {
                return why.clone().unwrap_or_default();
            }
            std::future::pending().await
        }
    }

    async fn write<T, F>(&self, kind: Kind, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Book) -> Outcome<T> + Send + 'static,
    {
        match &self.shared.writer {
            Some(writer) => writer.run(kind, bytes, work).await,
            None => Err(Error::Incompatible("the ledger was opened for reading only".into())),
        }
    }

    async fn change<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Book) -> Outcome<T> + Send + 'static,
    {
        self.write(Kind::Other, 0, work).await
    }

    async fn ask<T, F>(&self, question: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reader) -> Outcome<T> + Send + 'static,
    {
        self.shared.readers.ask(question).await
    }
}

/// The hard limit, a quarter above the one that appends respect.
fn limit_pages(conn: &rusqlite::Connection, max_bytes: Option<u64>) -> Result<(), Error> {
    let Some(max) = max_bytes else { return Ok(()) };
    let page: u64 = conn.pragma_query_value(None, "page_size", |r| r.get(0)).map_err(|e| from_sql(&e))?;
    // 512 pages on top, so that a very small limit leaves room for the tables themselves.
    let pages = i64::try_from(max / page.max(1) / 4 * 5 + 512).unwrap_or(i64::MAX);
    // SQLite caps the figure at 2^32 - 2 pages by itself.
    conn.pragma_update_and_check(None, "max_page_count", pages.min(i64::from(u32::MAX - 1)), |_| Ok(()))
        .map_err(|e| from_sql(&e))
}
