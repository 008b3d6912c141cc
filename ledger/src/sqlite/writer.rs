//! The writer: one thread, one connection, many callers in one commit.
//!
//! It takes whatever waits (within limits) into one transaction, each piece of work in a savepoint of its own, commits,
//! and then answers all of them. While one commit is under way the next group gathers, so a busy ledger shares each
//! `fsync` among many callers and an idle one never waits for company.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bellwire_schemas::crash_point;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::book::Book;
use super::fault::{Fault, Outcome};
use super::lock::Lock;
use crate::Error;

/// Pieces of work that may wait.
const QUEUE: usize = 1_024;
/// Bytes of events that may wait, in KiB.
const QUEUE_KIB: u32 = 64 << 10;
/// Pieces of work in one commit: bounds what a caller waits for its neighbours.
const GROUP: usize = 512;
/// Bytes in one commit, after which no more is taken in: 4 MiB, some 30 ms of work.
const GROUP_BYTES: usize = 4 << 20;
/// Pages in the write-ahead log (of 8 KiB) at which it is copied back into the file: 16 MiB.
const CHECKPOINT_PAGES: i32 = 2_048;

thread_local! {
    /// Pages in the write-ahead log after the last commit of this thread's connection.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// What a piece of work is, for the crash points of the tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Append,
    Flush,
    Other,
}

/// A piece of work with the caller who waits for it.
trait Work: Send {
    fn kind(&self) -> Kind;
    fn bytes(&self) -> usize;
    /// Does the work inside the group's transaction and keeps the answer; says whether to keep what it wrote.
    fn run(&mut self, book: &mut Book) -> Result<Ran, rusqlite::Error>;
    /// Tells the caller: its own answer, or why the group did not commit.
    fn answer(self: Box<Self>, commit: Result<(), Error>);
}

/// What became of a piece of work inside its group.
enum Ran {
    /// It is to be committed.
    Done,
    /// It was refused: what it wrote is undone.
    Refused,
}

struct Job<T, F> {
    kind: Kind,
    bytes: usize,
    work: Option<F>,
    answer: Option<Result<T, Error>>,
    caller: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, F: FnOnce(&mut Book) -> Outcome<T> + Send> Work for Job<T, F> {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, book: &mut Book) -> Result<Ran, rusqlite::Error> {
        let Some(work) = self.work.take() else { return Ok(Ran::Refused) };
        match work(book) {
            Ok(answer) => {
                self.answer = Some(Ok(answer));
                Ok(Ran::Done)
            }
            Err(Fault::Refused(error)) => {
                self.answer = Some(Err(error));
                Ok(Ran::Refused)
            }
            // Its own statement failed; SQLite has undone that, the savepoint undoes the rest.
            Err(fault) if fault.is_own() => {
                self.answer = Some(Err(fault.into()));
                Ok(Ran::Refused)
            }
            Err(Fault::Sql(error)) => Err(error),
        }
    }

    fn answer(self: Box<Self>, commit: Result<(), Error>) {
        let answer = match (commit, self.answer) {
            // A refusal wrote nothing, so it stands whatever became of the others.
            (_, Some(Err(refusal))) => Err(refusal),
            (Err(error), _) => Err(error),
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(Error::Unavailable("its writer skipped a piece of work".into())),
        };
        // The caller may have gone; the work stands all the same.
        let _ = self.caller.send(answer);
    }
}

/// The callers' end of the writer.
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Work>>,
    room: Semaphore,
    failed: watch::Receiver<Option<String>>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
}

impl Writer {
    /// Starts the thread; it holds the lock until it ends.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(book: Book, lock: Lock) -> Result<Self, Error> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (failing, failed) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || {
                Thread { book, failing }.run(jobs);
                drop(lock);
            })
            .map_err(|e| Error::Unavailable(format!("start the writer thread: {e}")))?;
        let thread = std::sync::Mutex::new(Some(thread));
        let room = Semaphore::new(QUEUE_KIB as usize);
        Ok(Self { queue, room, failed, thread, closed: AtomicBool::new(false) })
    }

    /// Hands in a piece of work and waits until it is committed. Dropping the future leaves it to be done or not.
    pub async fn run<T, F>(&self, kind: Kind, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Book) -> Outcome<T> + Send + 'static,
    {
        let closed = || Error::Unavailable("it was closed".into());
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let share = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).min(QUEUE_KIB);
        let _room = self.room.acquire_many(share).await.map_err(|_| closed())?;
        let (caller, answer) = oneshot::channel();
        let job = Job { kind, bytes, work: Some(work), answer: None, caller };
        self.queue.send(Box::new(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Tells when writing has stopped for good, and why.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.clone()
    }

    /// Refuses new work, waits for the rest and ends the thread.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let thread = self.thread.lock().expect("no code panics while it holds this lock").take();
        let Some(thread) = thread else { return };
        let (caller, answer) = oneshot::channel();
        let work = |book: &mut Book| {
            book.closing = true;
            Ok(())
        };
        let job = Job { kind: Kind::Other, bytes: 0, work: Some(work), answer: None, caller };
        if self.queue.send(Box::new(job)).await.is_ok() {
            // A closed answer means the thread has ended already.
            let _ = answer.await;
        }
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the ledger's writer thread did not end cleanly");
        }
    }
}

struct Thread {
    book: Book,
    failing: watch::Sender<Option<String>>,
}

impl Thread {
    fn run(&mut self, mut jobs: mpsc::Receiver<Box<dyn Work>>) {
        self.book.conn.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(pages);
            Ok(())
        }));
        let mut copy_at = CHECKPOINT_PAGES;
        while !self.book.closing
            && let Some(first) = jobs.blocking_recv()
        {
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while group.len() < GROUP && bytes < GROUP_BYTES && !self.book.closing {
                let Ok(next) = jobs.try_recv() else { break };
                bytes += next.bytes();
                group.push(next);
            }
            self.commit(group);
            let pages = LOG_PAGES.get();
            if pages < CHECKPOINT_PAGES {
                copy_at = CHECKPOINT_PAGES;
            } else if pages >= copy_at {
                // A reader may keep the log from starting over; do not copy after every commit then.
                self.copy_back("PASSIVE");
                copy_at = pages.saturating_add(CHECKPOINT_PAGES);
            }
        }
        self.copy_back("TRUNCATE");
    }

    fn commit(&mut self, mut group: Vec<Box<dyn Work>>) {
        let has = |kind| group.iter().any(|job| job.kind() == kind);
        let (appends, flushes) = (has(Kind::Append), has(Kind::Flush));
        if appends {
            crash_point("append.before");
        }
        if flushes {
            crash_point("flush.before");
        }
        let outcome = match &*self.failing.borrow() {
            Some(why) => Err(Error::Failed(why.clone())),
            None => Ok(()),
        };
        let outcome = outcome.and_then(|()| self.transaction(&mut group).map_err(|f| self.undo(f)));
        if outcome.is_ok() && appends {
            crash_point("append.after_commit");
        }
        if outcome.is_ok() && flushes {
            crash_point("flush.after_commit");
        }
        for job in group {
            job.answer(outcome.as_ref().copied().map_err(copy));
        }
    }

    fn transaction(&mut self, group: &mut [Box<dyn Work>]) -> Outcome<()> {
        let alone = group.len() == 1;
        self.book.begin()?;
        for job in group.iter_mut() {
            if !alone {
                self.book.savepoint()?;
            }
            match job.run(&mut self.book)? {
                Ran::Done if alone => {}
                Ran::Done => self.book.release()?,
                Ran::Refused if alone => return self.book.rollback(),
                Ran::Refused => self.book.undo_savepoint()?,
            }
        }
        self.book.commit()
    }

    /// Takes back what a failed transaction left, in the file and in memory.
    fn undo(&mut self, fault: Fault) -> Error {
        match self.book.rollback() {
            Ok(()) => self.judge(fault),
            Err(worse) if worse.is_fatal() => self.judge(worse),
            Err(_) => self.judge(fault),
        }
    }

    /// Decides whether writing may go on.
    fn judge(&self, fault: Fault) -> Error {
        let fatal = fault.is_fatal();
        let error = Error::from(fault);
        if fatal {
            let why = format!("writing stopped after {error}; restart the controller");
            tracing::error!(error = %error, "the disk failed under the ledger: writing stops until it is reopened");
            self.failing.send_replace(Some(why));
            // The commit may have reached the disk before it failed.
            return Error::Unavailable(error.to_string());
        }
        error
    }

    /// Copies the write-ahead log back into the file; callers have their answers already.
    fn copy_back(&mut self, mode: &str) {
        if self.failing.borrow().is_some() {
            return;
        }
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        if let Err(error) = self.book.conn.query_row(&sql, [], |_| Ok(())) {
            let fault = Fault::Sql(error);
            if fault.is_fatal() {
                self.judge(fault);
            } else {
                tracing::warn!(error = %Error::from(fault), "the ledger's log was not copied back; tried again later");
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "its writer thread broke down; restart the controller";
            self.failing.send_replace(Some(why.into()));
        }
    }
}

/// The same error for each caller of a group.
fn copy(error: &Error) -> Error {
    match error {
        Error::Full(text) => Error::Full(text.clone()),
        Error::Failed(text) => Error::Failed(text.clone()),
        Error::Corrupt(text) => Error::Corrupt(text.clone()),
        other => Error::Unavailable(other.to_string()),
    }
}
