//! The one writer of a lane: while a commit is under way the next one gathers.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{BindingFlush, Flush, FlushOutcome};
use bellwire_schemas::{Epoch, Lane, Vital, crash_point};
use tokio::sync::{mpsc, oneshot};

use crate::binding::Board;
use crate::rooms::Rooms;

/// Lines of the log in one commit, at most, beyond the part that came first; keeps one commit short.
const COMMIT_LINES: usize = 10_000;
/// First rest after a refusal; doubles.
const MIN_REST: Duration = Duration::from_millis(20);
/// Longest rest between two tries.
const MAX_REST: Duration = Duration::from_secs(5);

/// What one runner has to tell.
pub(crate) struct Request {
    pub(crate) part: BindingFlush,
    pub(crate) reply: oneshot::Sender<FlushOutcome>,
    pub(crate) board: Arc<Board>,
}

/// How a flusher ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// All runners are gone and everything is written.
    Drained,
    /// The lane has another owner.
    Fenced,
}

pub(super) struct Flusher {
    rooms: Arc<Rooms>,
    lane: Lane,
    epoch: Epoch,
    requests: mpsc::Receiver<Request>,
}

impl Flusher {
    pub(super) fn new(
        rooms: Arc<Rooms>,
        lane: Lane,
        epoch: Epoch,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self { rooms, lane, epoch, requests }
    }

    /// Commits until the runners are gone or the lane is.
    pub(super) async fn run(mut self) -> Last {
        let _vital = Vital("the flush of a lane");
        while let Some(first) = self.requests.recv().await {
            let mut weight = weight(&first.part);
            let mut batch = vec![first];
            while weight < COMMIT_LINES
                && let Ok(more) = self.requests.try_recv()
            {
                weight += self::weight(&more.part);
                batch.push(more);
            }
            let outcome = self.commit(&mut batch).await;
            for request in batch {
                let _ = request.reply.send(outcome);
            }
            if outcome == FlushOutcome::Fenced {
                return Last::Fenced;
            }
        }
        Last::Drained
    }

    /// Tries until the ledger answers: what is not written is not forgotten. A flush seen twice changes nothing, so a
    /// commit of unknown outcome is harmless.
    async fn commit(&self, batch: &mut [Request]) -> FlushOutcome {
        let flush = Flush {
            lane: self.lane,
            epoch: self.epoch,
            at: self.rooms.clock.now(),
            bindings: batch.iter_mut().map(|request| take(&mut request.part)).collect(),
        };
        let mut rest = MIN_REST;
        loop {
            crash_point("flush.before");
            match self.rooms.feed.flush(flush.clone()).await {
                Ok(outcome) => {
                    crash_point("flush.after_commit");
                    if rest > MIN_REST {
                        trouble(batch, None);
                        tracing::info!(lane = %self.lane, "flushing again");
                    }
                    return outcome;
                }
                Err(error) => {
                    trouble(batch, Some(error.to_string()));
                    if error.is_transient() {
                        tracing::warn!(lane = %self.lane, %error, "cannot flush, trying again");
                    } else {
                        tracing::error!(lane = %self.lane, %error, "flush refused: deliveries of this lane stand still");
                        rest = MAX_REST;
                    }
                }
            }
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(MAX_REST);
        }
    }
}

/// Lines, and what is sent with them: 1 KiB counts as one.
fn weight(part: &BindingFlush) -> usize {
    part.log.len() + part.emitted.iter().map(|new| 1 + new.event.size_bytes() / 1_024).sum::<usize>()
}

/// Moves a part out and leaves an empty one that nobody reads.
fn take(part: &mut BindingFlush) -> BindingFlush {
    let empty = BindingFlush {
        binding: part.binding,
        version: part.version,
        mark: part.mark,
        done: Default::default(),
        log: Vec::new(),
        owed: Vec::new(),
        settled: Vec::new(),
        dead: Vec::new(),
        emitted: Vec::new(),
    };
    std::mem::replace(part, empty)
}

fn trouble(batch: &[Request], what: Option<String>) {
    for request in batch {
        request.board.update(|face| face.trouble.clone_from(&what));
    }
}
