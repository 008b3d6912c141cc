//! Append: events, positions, dedup keys and quarantine of one batch, all or nothing.
//!
//! A few tasks, each with a connection of its own, commit what waits for them: one for each share of the lanes, and one
//! for appends that span lanes or have no event. While one commit is under way the next group grows, so a busy ledger
//! shares each commit among many callers and an idle one waits for nobody.
//!
//! An append whose outcome is unknown (its connection was lost) is sent again with the same id and the place from which
//! on it can be (`tried.rs`): the function looks there first, under the lane's lock. So it never happens twice.
//!
//! Read `job.rs` first, then `group.rs` (many appends as one call), `appender.rs` (the tasks) and `settle.rs` (answers).

mod appender;
mod buckets;
mod emission;
mod group;
mod job;
mod present;
mod settle;
mod tried;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bellwire_schemas::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Shared;
use crate::{Append, Appended, Error};
pub(super) use emission::Emission;

use appender::Appender;
use buckets::Buckets;
use job::Job;
use tried::Memory;

/// Tasks that append to one lane at a time; more lanes than that share them. Each has a connection.
const APPENDERS: u16 = 8;
/// Appends that may wait per task.
const QUEUE: usize = 1_024;
/// Bytes of events that may wait, in KiB.
const QUEUE_KIB: u32 = 64 << 10;
/// How long an append is tried while the server is away, before its caller is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// The callers' end.
pub(super) struct Appenders {
    queues: RwLock<Option<Queues>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    room: Semaphore,
    memory: Memory,
    buckets: Buckets,
}

/// One queue per share of the lanes, and at the end the one for appends that span lanes.
type Queues = Arc<[mpsc::Sender<Job>]>;

impl Appenders {
    /// A ledger's end without any task; see [`start`].
    pub fn new(lanes: u16) -> Self {
        Self {
            queues: RwLock::new(None),
            tasks: Mutex::default(),
            room: Semaphore::new(QUEUE_KIB as usize),
            memory: Memory::new(lanes),
            buckets: Buckets::default(),
        }
    }

    /// Asks where everything stands in the history of a server that took over.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn rewind(&self, shared: &Shared) -> Result<(), Error> {
        self.memory.load_tails(shared).await?;
        self.buckets.load(shared).await
    }

    /// Asks which dedup buckets there are.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn reload(&self, shared: &Shared) -> Result<(), Error> {
        self.buckets.load(shared).await
    }

    /// Refuses new appends and waits for those that are under way.
    pub async fn close(&self) {
        drop(self.queues.write().expect("no code panics while it holds this lock").take());
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no code panics while it holds this lock"));
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task that appends did not end cleanly");
            }
        }
    }
}

/// Starts the tasks of a ledger that was opened for writing. They end when it is closed or dropped.
///
pub(super) fn start(shared: &Arc<Shared>) {
    let count = shared.lanes.min(APPENDERS) + 1;
    let mut queues = Vec::new();
    for _ in 0..count {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let appender = Appender::new(Arc::downgrade(shared), jobs);
        let mut tasks = shared.appenders.tasks.lock().expect("no code panics while it holds this lock");
        tasks.push(tokio::spawn(appender.run()));
        queues.push(queue);
    }
    *shared.appenders.queues.write().expect("no code panics while it holds this lock") = Some(queues.into());
}

/// Commits a batch; see [`crate::Ledger::append`].
pub(super) async fn append(shared: &Shared, append: Append, now: Timestamp) -> Result<Appended, Error> {
    shared.check_writable()?;
    let closed = || Error::Unavailable("the ledger was closed".into());
    let end = &shared.appenders;
    let new = !end.memory.knows(append.append_id);
    if new && shared.full.load(Ordering::Acquire) {
        let max = shared.max_bytes.unwrap_or_default();
        return Err(Error::Full(format!(
            "{max} bytes are used; it takes events again when retention has removed some, or raise ledger.max_size"
        )));
    }
    let (reply, answer) = oneshot::channel();
    let job = Job::new(append, now, shared.lanes, reply)?;
    let share = u32::try_from(job.bytes >> 10).unwrap_or(u32::MAX).min(QUEUE_KIB);
    let _room = end.room.acquire_many(share).await.map_err(|_| closed())?;
    let queue = {
        let queues = end.queues.read().expect("no code panics while it holds this lock");
        let queues = queues.as_ref().ok_or_else(closed)?;
        let spanning = queues.len() - 1;
        let at = job.only_lane().map_or(spanning, |lane| usize::from(lane - 1) % spanning);
        queues[at].clone()
    };
    queue.send(job).await.map_err(|_| closed())?;
    drop(queue);
    answer.await.map_err(|_| closed())?
}
