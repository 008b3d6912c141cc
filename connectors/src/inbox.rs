//! The queue between the doors and the ledger: requests that wait together become one append.
//!
//! Nothing lingers: the first request commits at once, and while its commit is in flight the next append grows. The
//! queue is bounded in requests and in bytes; a full queue is an answer, not a wait.

use std::sync::Arc;

use bellwire_schemas::Vital;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::appender::{Appender, CommitError, Item, Lot, Patience};
use crate::contract::Fate;
use crate::intake::Limits;

/// What a request waits for: one fate per item, or none where the error struck.
pub(crate) type Answer = (Vec<Option<Fate>>, Option<CommitError>);

/// The doors' end.
#[derive(Clone)]
pub(crate) struct Inbox {
    queue: mpsc::Sender<Waiting>,
    budget: Arc<Semaphore>,
}

/// A request's durable items, waiting for their append.
pub(crate) struct Waiting {
    items: Vec<Item>,
    bytes: usize,
    until: Instant,
    reply: oneshot::Sender<Answer>,
    _permit: OwnedSemaphorePermit,
}

impl Inbox {
    /// An inbox and the end that [`run`] reads.
    pub(crate) fn new(limits: &Limits) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(limits.queue_requests.max(1));
        let budget = Arc::new(Semaphore::new(kilobytes(limits.memory_bytes) as usize));
        (Self { queue, budget }, waiting)
    }

    /// Queues a request's items.
    ///
    /// # Errors
    /// The items again, when memory or queue say stop.
    pub(crate) fn submit(
        &self,
        items: Vec<Item>,
        until: Instant,
    ) -> Result<oneshot::Receiver<Answer>, Vec<Item>> {
        let bytes = items.iter().map(Item::bytes).sum();
        let Ok(permit) = self.budget.clone().try_acquire_many_owned(kilobytes(bytes)) else {
            return Err(items);
        };
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { items, bytes, until, reply, _permit: permit };
        self.queue.try_send(waiting).map_err(|error| error.into_inner().items)?;
        Ok(answer)
    }

    /// Memory for a request that is being read; none of it is taken yet.
    pub(crate) fn room(&self) -> Room {
        Room { budget: self.budget.clone(), held: None, bytes: 0 }
    }
}

/// Memory that a request takes while it is read, out of what the doors have together.
pub(crate) struct Room {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Room {
    /// Takes room for so many more bytes; returns whether there was any.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let has = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = (kilobytes(self.bytes) as usize).saturating_sub(has);
        let Ok(more) = u32::try_from(more) else { return false };
        match (self.budget.clone().try_acquire_many_owned(more), &mut self.held) {
            (Err(_), _) => false,
            (Ok(permit), Some(held)) => {
                held.merge(permit);
                true
            }
            (Ok(permit), held) => {
                *held = Some(permit);
                true
            }
        }
    }
}

/// Appends what waits, until all doors' ends are gone and the queue is empty.
pub(crate) async fn run(mut queue: mpsc::Receiver<Waiting>, appender: Arc<Appender>, limits: Limits) {
    let _vital = Vital("the intake of the doors");
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(waiting) => waiting,
            None => match queue.recv().await {
                Some(waiting) => waiting,
                None => return,
            },
        };
        let (group, next) = gather(first, &mut queue, &limits);
        held = next;
        if !group.is_empty() {
            append(&appender, group).await;
        }
    }
}

/// Takes what waits, up to the limits; requests whose sender has gone were promised nothing and are left out.
fn gather(
    first: Waiting,
    queue: &mut mpsc::Receiver<Waiting>,
    limits: &Limits,
) -> (Vec<Waiting>, Option<Waiting>) {
    let (mut items, mut bytes) = (0, 0);
    let mut group = Vec::new();
    let mut next = Some(first);
    while let Some(waiting) = next.take() {
        if !waiting.reply.is_closed() {
            let over = items + waiting.items.len() > limits.batch_events
                || bytes + waiting.bytes > limits.batch_bytes;
            if over && !group.is_empty() {
                return (group, Some(waiting));
            }
            items += waiting.items.len();
            bytes += waiting.bytes;
            group.push(waiting);
        }
        next = queue.try_recv().ok();
    }
    (group, None)
}

async fn append(appender: &Appender, mut group: Vec<Waiting>) {
    // The most patient sender decides; the others have their own clock and leave when it is over.
    let until = group.iter().map(|w| w.until).max().unwrap_or_else(Instant::now);
    let counts: Vec<usize> = group.iter().map(|w| w.items.len()).collect();
    let items = group.iter_mut().flat_map(|w| std::mem::take(&mut w.items)).collect();
    let lot = Lot { items, positions: Vec::new() };
    let reached = appender.commit(&lot, &Patience::Until(until)).await;
    let mut fates = reached.fates.into_iter();
    for (waiting, count) in group.into_iter().zip(counts) {
        let own: Vec<_> = fates.by_ref().take(count).collect();
        let error = reached.error.clone().filter(|_| own.iter().any(Option::is_none));
        // The sender may have gone: the events are durable all the same, and a repeat is recognised by its id.
        let _ = waiting.reply.send((own, error));
    }
}

fn kilobytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX >> 3).min(u32::MAX >> 3)
}
