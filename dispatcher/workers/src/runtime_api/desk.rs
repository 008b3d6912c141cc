//! The desk between one worker and the pool: the worker's phase, its waiting `next`, and the invocation it runs.
//!
//! Every method takes the lock, asks [`step`], puts the result down and lets go; replies and notices leave after.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwire_schemas::{ErrorInfo, FailureClass};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::body::{self, Read};
use super::event::Event;
use super::machine::{Call, Phase, Received, Refusal, Reply, step};
use crate::Answer;
use crate::emit::{Emission, MAX_EVENTS, Outbox};
use crate::pool::logs::Logs;

/// What the pool is told about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It waits for an event.
    Ready,
    /// Its answer is in; it has not asked for more yet.
    Answered,
}

/// How an invocation ended, as the desk saw it.
#[derive(Debug)]
pub struct Ending {
    /// The answer, or the failure.
    pub answer: Result<Answer, ErrorInfo>,
    /// What was printed since the last ending.
    pub logs: Vec<String>,
    /// When.
    pub at: Instant,
}

/// What a call of `next` gets.
pub enum Next {
    /// This event, now.
    Event(Arc<Event>),
    /// The event that will come through here; the sender is dropped when the poll is superseded.
    Wait(oneshot::Receiver<Arc<Event>>),
    /// A refusal.
    Refused(Refusal),
}

/// Whether a posted answer is the function's result or its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// `/response`.
    Response,
    /// `/error`.
    Error,
}

struct Running {
    event: Arc<Event>,
    done: oneshot::Sender<Ending>,
    emitted: Vec<Emission>,
    emitted_bytes: usize,
}

struct Inner {
    phase: Phase,
    poll: Option<oneshot::Sender<Arc<Event>>>,
    running: Option<Running>,
    init_error: Option<ErrorInfo>,
}

/// The desk of one worker.
pub struct Desk {
    inner: Mutex<Inner>,
    /// What the worker prints.
    pub logs: Logs,
    /// Where its functions may send events.
    pub outbox: Outbox,
    on_change: Box<dyn Fn(Change) + Send + Sync>,
}

impl Desk {
    /// Opens the desk of a worker that is starting; `on_change` is called without the desk's lock held.
    pub fn new(logs: Logs, outbox: Outbox, on_change: impl Fn(Change) + Send + Sync + 'static) -> Self {
        let inner = Inner { phase: Phase::Init, poll: None, running: None, init_error: None };
        Self { inner: Mutex::new(inner), logs, outbox, on_change: Box::new(on_change) }
    }

    /// The worker asks for work.
    pub fn next(&self) -> Next {
        let mut inner = self.lock();
        let (reply, phase) = step(&inner.phase, Call::Next);
        let ready = phase.is_some();
        inner.phase = phase.unwrap_or_else(|| inner.phase.clone());
        match (reply, &inner.running) {
            (Reply::Hold, _) => {
                let (send, receive) = oneshot::channel();
                inner.poll = Some(send);
                drop(inner);
                if ready {
                    (self.on_change)(Change::Ready);
                }
                Next::Wait(receive)
            }
            (Reply::Event, Some(running)) => Next::Event(running.event.clone()),
            (Reply::Refused(why), _) => Next::Refused(why),
            _ => Next::Refused(Refusal::InvalidTransition),
        }
    }

    /// The worker posts a result or an error; `header` is its error type header.
    pub fn answer(
        &self,
        id: &str,
        posted: Posted,
        header: Option<&str>,
        read: Read,
        media: Option<String>,
    ) -> Reply {
        let mut inner = self.lock();
        let (reply, phase) = step(&inner.phase, Call::Answer(id, read.received));
        let Some(phase) = phase else { return reply };
        inner.phase = phase;
        let mut running = inner.running.take();
        drop(inner);
        let emitted =
            running.as_mut().map(|running| std::mem::take(&mut running.emitted)).unwrap_or_default();
        let answer = match (read.received, posted) {
            (Received::Whole, Posted::Error) => Err(body::error(FailureClass::Function, header, &read.bytes)),
            (Received::Whole, Posted::Response) => match read.trailers.as_ref().and_then(body::trailer_error)
            {
                Some(error) => Err(error),
                None => Ok(Answer { payload: read.bytes, content_type: media, emitted }),
            },
            (Received::TooLarge, _) => Err(ErrorInfo::platform(
                FailureClass::BadResponse,
                "Function.ResponseSizeTooLarge",
                format!(
                    "the answer is larger than {} bytes, the most a function may answer",
                    super::MAX_ANSWER_BYTES
                ),
            )),
            (Received::Truncated | Received::UnknownMode, _) => Err(ErrorInfo::platform(
                FailureClass::BadResponse,
                "Runtime.TruncatedResponse",
                "the worker's connection ended in the middle of its answer",
            )),
        };
        (self.on_change)(Change::Answered);
        if let Some(running) = running {
            let _ = running.done.send(Ending { answer, logs: self.logs.take(), at: Instant::now() });
        }
        reply
    }

    /// The function sends an event, which is kept until its answer.
    pub fn emit(&self, id: &str, emission: Emission) -> Reply {
        let mut inner = self.lock();
        let (reply, _) = step(&inner.phase, Call::Emit(id));
        if let (Reply::Accepted, Some(running)) = (reply, &mut inner.running) {
            let bytes = running.emitted_bytes + emission.event.size_bytes();
            if running.emitted.len() >= MAX_EVENTS || bytes > self.outbox.bytes() {
                return Reply::Refused(Refusal::TooMuch);
            }
            running.emitted_bytes = bytes;
            running.emitted.push(emission);
        }
        reply
    }

    /// The worker says that it cannot start; the error is kept for [`Desk::init_error`].
    pub fn post_init_error(&self, call: Call<'_>, header: Option<&str>, body: &[u8]) -> Reply {
        let mut inner = self.lock();
        let (reply, phase) = step(&inner.phase, call);
        if let Some(phase) = phase {
            inner.phase = phase;
            inner.init_error = Some(body::error(FailureClass::CannotStart, header, body));
        }
        reply
    }

    /// The reply to `restore/next`.
    pub fn restore(&self) -> Reply {
        step(&self.lock().phase, Call::RestoreNext).0
    }

    /// The error with which the worker's start ended, when it posted one.
    pub fn init_error(&self) -> Option<ErrorInfo> {
        self.lock().init_error.take()
    }

    /// Hands an event to the waiting worker.
    ///
    /// # Errors
    /// When it does not wait (its connection is gone): nothing was handed over, and the worker is no good.
    pub fn hand_over(&self, event: Event) -> Result<oneshot::Receiver<Ending>, NotWaiting> {
        let mut inner = self.lock();
        let poll = inner.poll.take().filter(|_| inner.phase == Phase::Ready).ok_or(NotWaiting)?;
        let event = Arc::new(event);
        poll.send(event.clone()).map_err(|_| NotWaiting)?;
        let (done, receive) = oneshot::channel();
        inner.phase = Phase::Running(event.id.clone());
        inner.running = Some(Running { event, done, emitted: Vec::new(), emitted_bytes: 0 });
        Ok(receive)
    }

    /// Ends the worker's work: a running invocation gets the failure, later calls are refused.
    pub fn end(&self, failure: impl FnOnce() -> ErrorInfo) {
        let mut inner = self.lock();
        inner.phase = Phase::Ended;
        inner.poll = None;
        let running = inner.running.take();
        drop(inner);
        if let Some(running) = running {
            self.logs.drain();
            let ending = Ending { answer: Err(failure()), logs: self.logs.take(), at: Instant::now() };
            let _ = running.done.send(ending);
        }
    }

    /// Whether it waits for an event and its connection still stands.
    pub fn is_waiting(&self) -> bool {
        let inner = self.lock();
        inner.phase == Phase::Ready && inner.poll.as_ref().is_some_and(|poll| !poll.is_closed())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held leaves whole values behind: every write above is a single assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker does not wait for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWaiting;
