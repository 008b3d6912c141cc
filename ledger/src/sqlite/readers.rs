//! The readers: a few connections on blocking threads, so that questions never hold up the runtime or the writer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::{Fault, Outcome};
use super::rows::Names;
use super::schema::open_reader;
use crate::Error;

/// Connections that read at the same time.
const READERS: usize = 4;
/// Statements kept prepared per connection.
const STATEMENTS: usize = 64;

/// A connection that reads, with the words it has met.
pub(super) struct Reader {
    pub conn: Connection,
    pub names: Names,
}

/// The pool.
pub(super) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Reader>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// A pool that opens its connections when they are first needed.
    pub fn new(path: PathBuf, first: Connection) -> Self {
        let idle = vec![Reader::new(first)];
        Self { path, idle: Arc::new(Mutex::new(idle)), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Asks a question in one snapshot, on a blocking thread. Dropping the future lets the question run to its end.
    pub async fn ask<T, F>(&self, question: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reader) -> Outcome<T> + Send + 'static,
    {
        let closed = || Error::Unavailable("it was closed".into());
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let (idle, path) = (self.idle.clone(), self.path.clone());
        let work = move || {
            let _permit = permit;
            let waiting = idle.lock().expect("no code panics while it holds this lock").pop();
            let mut reader = match waiting {
                Some(reader) => reader,
                None => Reader::new(open_reader(&path)?),
            };
            let answer = reader.snapshot(question);
            idle.lock().expect("no code panics while it holds this lock").push(reader);
            answer.map_err(Error::from)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| Error::Corrupt(format!("a question to the ledger broke off: {e}")))?
    }

    /// Refuses new questions, waits for those under way and closes the connections.
    pub async fn close(&self) {
        let Ok(all) = self.permits.acquire_many(u32::try_from(READERS).unwrap_or(1)).await else { return };
        self.permits.close();
        self.idle.lock().expect("no code panics while it holds this lock").clear();
        drop(all);
    }
}

impl Reader {
    fn new(conn: Connection) -> Self {
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Self { conn, names: Names::default() }
    }

    /// Everything a question reads is of one moment, so that sums add up.
    fn snapshot<T>(&mut self, question: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.conn.prepare_cached("BEGIN")?.execute([])?;
        let answer = question(self);
        let ended = self.conn.prepare_cached("ROLLBACK")?.execute([]);
        let answer = answer?;
        ended.map_err(Fault::Sql)?;
        Ok(answer)
    }
}
