//! Talks to SQS in the background: polls while there is room, keeps what is uncommitted, deletes what is committed,
//! and gives the rest back when told to stop.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_sdk_sqs::types::Message;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::{Buffer, Lot};
use super::client::{About, BATCH, Failure, Sqs};
use crate::pressure::Share;

/// How hard a feeder tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Polls at once, at most.
    pub(super) polls: usize,
    /// Deletions at once.
    pub(super) deletes: usize,
    /// Messages held: handed out, waiting for that, and waiting for their deletion.
    pub(super) items: usize,
    /// Bytes of bodies held.
    pub(super) bytes: usize,
    /// The shortest visibility that is asked for: below it, messages would come again while they are stored.
    pub(super) visibility: Duration,
}

impl Pace {
    /// Measured against one stand-in only: 16 polls of 10 messages at 15 ms are about 10,000 messages/s, more than one
    /// ledger takes; the items are three of the intake's batches.
    pub(super) const DEFAULT: Self =
        Self { polls: 16, deletes: 16, items: 3_000, bytes: 16 << 20, visibility: Duration::from_secs(10) };
}

/// Pauses after a failed poll: doubling between these bounds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Prolongations at once.
const KEEPS: usize = 4;
/// What a poll may bring, before one has brought more.
const POLL_BYTES: usize = 64 << 10;
/// How long the end may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// What connector and feeder share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    share: Share,
    /// Something to receive, or an error.
    pub(super) arrived: Notify,
    /// Something to delete, or room.
    pub(super) changed: Notify,
}

/// Behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) buffer: Buffer,
    /// Why the last poll failed, until somebody is told.
    pub(super) error: Option<String>,
    /// Why deletions fail.
    pub(super) undeleted: Option<String>,
    /// Why prolongations fail.
    pub(super) unkept: Option<String>,
}

impl Shared {
    /// Nothing received yet.
    pub(super) fn new(visibility: Duration, share: Share) -> Self {
        let state = State { buffer: Buffer::new(visibility), error: None, undeleted: None, unkept: None };
        Self { state: Mutex::new(state), share, arrived: Notify::new(), changed: Notify::new() }
    }

    /// The state; never held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

/// For how long messages are asked to stay away from others.
pub(super) fn visibility(about: &About, pace: &Pace) -> Duration {
    about.visibility.max(pace.visibility)
}

/// A call that ended.
enum Done {
    Polled(Result<Vec<Message>, Failure>),
    Deleted(Lot, Result<Vec<(usize, Failure)>, Failure>),
    Kept(Lot, Instant, Result<Vec<(usize, Failure)>, Failure>),
}

struct Feeder {
    sqs: Sqs,
    shared: Arc<Shared>,
    pace: Pace,
    visibility: Duration,
    calls: JoinSet<Done>,
    polling: usize,
    deleting: usize,
    keeping: usize,
    /// Polls wanted at once.
    wanted: usize,
    /// The most that a poll brought, in bytes.
    largest: usize,
    /// No poll before this, after a failure.
    not_before: Instant,
    pause: Duration,
}

/// Runs until told to stop; then finishes deletions and gives back the rest, within a bounded time.
pub(super) async fn run(
    sqs: Sqs,
    shared: Arc<Shared>,
    pace: Pace,
    visibility: Duration,
    stop: CancellationToken,
) {
    let mut feeder = Feeder {
        sqs,
        shared,
        pace,
        visibility,
        calls: JoinSet::new(),
        polling: 0,
        deleting: 0,
        keeping: 0,
        wanted: 1,
        largest: POLL_BYTES,
        not_before: Instant::now(),
        pause: FIRST_PAUSE,
    };
    loop {
        let wake = feeder.start();
        let shared = feeder.shared.clone();
        tokio::select! {
            () = stop.cancelled() => break,
            () = shared.changed.notified() => {}
            () = tokio::time::sleep_until(wake) => {}
            Some(done) = feeder.calls.join_next() => match done {
                Ok(done) => feeder.done(done),
                Err(error) => {
                    tracing::error!(%error, "a call to SQS broke down");
                    break;
                }
            },
        }
    }
    // What takes longer comes again by itself.
    let _ = tokio::time::timeout(FAREWELL, feeder.farewell()).await;
}

impl Feeder {
    /// Starts every call that is due; answers when to look again.
    fn start(&mut self) -> Instant {
        let now = Instant::now();
        let mut state = self.shared.lock();
        while self.deleting < self.pace.deletes
            && let Some(lot) = state.buffer.due_deletions(now)
        {
            self.deleting += 1;
            let sqs = self.sqs.clone();
            self.calls.spawn(async move {
                let answer = sqs.delete(&lot.handles).await;
                Done::Deleted(lot, answer)
            });
        }
        while self.keeping < KEEPS
            && let Some(lot) = state.buffer.due_keeps(now)
        {
            self.keeping += 1;
            let (sqs, visibility) = (self.sqs.clone(), self.visibility);
            self.calls.spawn(async move {
                let since = Instant::now();
                let answer = sqs.keep(&lot.handles, visibility).await;
                Done::Kept(lot, since, answer)
            });
        }
        while self.polling < self.wanted && self.not_before <= now && self.has_room(&state.buffer) {
            self.polling += 1;
            let (sqs, visibility) = (self.sqs.clone(), self.visibility);
            self.calls.spawn(async move { Done::Polled(sqs.receive(visibility).await) });
        }
        let due = state.buffer.next_due().unwrap_or(now + LONGEST_PAUSE);
        let poll = if self.polling == 0 && self.not_before > now { self.not_before } else { due };
        // A call that waits for a free place starts when another ends.
        due.min(poll).max(now + Duration::from_millis(10))
    }

    /// Whether everything that polls may bring still fits; backpressure is not asking.
    fn has_room(&self, buffer: &Buffer) -> bool {
        let (polls, bytes) = (self.polling + 1, self.shared.share.of(self.pace.bytes));
        buffer.len() + polls * BATCH <= self.pace.items
            && (buffer.bytes() + polls * self.largest <= bytes || (buffer.len() == 0 && polls == 1))
    }

    fn done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Polled(Ok(messages)) => self.polled(messages, now),
            Done::Polled(Err(failure)) => {
                self.polling -= 1;
                self.wanted = 1;
                self.not_before = now + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.shared.lock().error = Some(failure.to_string());
                self.shared.arrived.notify_one();
            }
            Done::Deleted(lot, answer) => {
                self.deleting -= 1;
                let (failed, complaint) = judged(&lot, answer);
                let mut state = self.shared.lock();
                state.buffer.deleted(&lot, &failed, now);
                state.undeleted = complaint;
            }
            Done::Kept(lot, since, answer) => {
                self.keeping -= 1;
                let (failed, complaint) = judged(&lot, answer);
                let mut state = self.shared.lock();
                state.buffer.kept(&lot, &failed, since, now);
                state.unkept = complaint;
            }
        }
    }

    /// A full poll says that there is more: one more at once. A poll that brings little says that there are too many.
    fn polled(&mut self, messages: Vec<Message>, now: Instant) {
        self.polling -= 1;
        self.pause = FIRST_PAUSE;
        self.wanted = match messages.len() {
            n if n >= BATCH - 2 => (self.wanted + 1).min(self.pace.polls),
            0 => (self.wanted / 2).max(1),
            n if n <= BATCH / 3 => (self.wanted - 1).max(1),
            _ => self.wanted,
        };
        if messages.is_empty() {
            return;
        }
        let bytes = self.shared.lock().buffer.push(messages, now);
        self.largest = self.largest.max(bytes);
        self.shared.arrived.notify_one();
    }

    /// Ends polls, finishes deletions, gives back what is not committed.
    async fn farewell(&mut self) {
        self.calls.abort_all();
        let lots = self.shared.lock().buffer.give_up();
        let mut calls = JoinSet::new();
        for lot in lots {
            let sqs = self.sqs.clone();
            calls.spawn(async move { drop(sqs.keep(&lot.handles, Duration::ZERO).await) });
        }
        // Deletions that were cut off are made once more: deleting twice is harmless.
        let lots: Vec<Lot> = std::iter::from_fn(|| self.shared.lock().buffer.last_deletions()).collect();
        for lot in lots {
            let sqs = self.sqs.clone();
            calls.spawn(async move { drop(sqs.delete(&lot.handles).await) });
        }
        calls.join_all().await;
    }
}

/// Which entries failed, and the first reason.
fn judged(lot: &Lot, answer: Result<Vec<(usize, Failure)>, Failure>) -> (Vec<usize>, Option<String>) {
    match answer {
        Ok(failed) => {
            let complaint = failed.first().map(|(_, failure)| failure.to_string());
            (failed.into_iter().map(|(index, _)| index).collect(), complaint)
        }
        Err(failure) => ((0..lot.ids.len()).collect(), Some(failure.to_string())),
    }
}
