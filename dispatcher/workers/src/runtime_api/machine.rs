//! The protocol as a pure function: (phase, call) → (reply, next phase). The rules are those of AWS's emulator and
//! of what the official clients insist on; each has a row in the test below.

use std::sync::Arc;

/// Where one worker stands in the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Started, has not asked for work yet; moved on by the first `next`, or ended by `init/error`.
    Init,
    /// Waits in `next`; the pool may hand it an event.
    Ready,
    /// Has the event with this request id; ended by its answer, or by the pool.
    Running(Arc<str>),
    /// Has answered this request id and has not asked for work again.
    Answered(Arc<str>),
    /// Gets nothing more: init failed, deadline, crash, replaced.
    Ended,
}

/// One call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// `GET /runtime/invocation/next`.
    Next,
    /// `POST /runtime/invocation/{id}/response` or `…/error`, with what became of its body.
    Answer(&'a str, Received),
    /// Our own `POST /bellwire/v1/invocation/{id}/emit/{source}`.
    Emit(&'a str),
    /// `POST /runtime/init/error`.
    InitError,
    /// `GET /runtime/restore/next`, called only by a worker that was told to use snapshots.
    RestoreNext,
    /// `POST /runtime/restore/error`.
    RestoreError,
}

/// What became of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Read to its end.
    Whole,
    /// More than [`super::MAX_ANSWER_BYTES`].
    TooLarge,
    /// The connection ended in its middle.
    Truncated,
    /// It named a response mode that does not exist.
    UnknownMode,
}

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing until there is an event.
    Hold,
    /// 200 with the running event, again.
    Event,
    /// 200 without a body.
    Restored,
    /// 202.
    Accepted,
    /// A refusal.
    Refused(Refusal),
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request id is not the running one.
    InvalidRequestId,
    /// The call does not fit the phase.
    InvalidTransition,
    /// The answer is too large; the invocation ended with it.
    TooLarge,
    /// The answer broke off; the invocation ended with it.
    Truncated,
    /// The response mode does not exist; the invocation goes on.
    UnknownMode,
    /// Nobody waits for this worker any more.
    Gone,
    /// The event would be too much for one attempt; the invocation goes on without it.
    TooMuch,
}

impl Refusal {
    /// HTTP status, error type and message, as clients expect them.
    pub const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::InvalidRequestId => (400, "InvalidRequestID", "Invalid request ID"),
            Self::InvalidTransition => (403, "InvalidStateTransition", "State transition is not allowed"),
            Self::TooLarge => {
                (413, "RequestEntityTooLarge", "the answer is larger than 6 MiB plus 100 bytes")
            }
            Self::Truncated => (400, "TruncatedHTTPRequest", "the request body ended early"),
            Self::UnknownMode => (400, "InvalidFunctionResponseMode", "the response mode is not known"),
            Self::Gone => (410, "Gone", "nobody waits for this worker any more"),
            Self::TooMuch => (
                413,
                "RequestEntityTooLarge",
                "the events of one attempt are more than 100, or together larger than `limits.event_size`",
            ),
        }
    }
}

/// Decides a call: the reply, and the phase to go to when it changes.
pub fn step(phase: &Phase, call: Call<'_>) -> (Reply, Option<Phase>) {
    use Reply::{Accepted, Event, Hold, Refused, Restored};
    match (phase, call) {
        (Phase::Init, Call::InitError | Call::RestoreError) => (Accepted, Some(Phase::Ended)),
        (Phase::Init, Call::RestoreNext) => (Restored, None),
        (_, Call::InitError | Call::RestoreError | Call::RestoreNext) => {
            (Refused(Refusal::InvalidTransition), None)
        }
        (Phase::Ended, _) => (Refused(Refusal::Gone), None),
        (Phase::Ready, Call::Next) => (Hold, None),
        (Phase::Init | Phase::Answered(_), Call::Next) => (Hold, Some(Phase::Ready)),
        (Phase::Running(_), Call::Next) => (Event, None),
        (Phase::Running(current), Call::Answer(id, received)) if **current == *id => {
            let answered = Some(Phase::Answered(current.clone()));
            match received {
                Received::Whole => (Accepted, answered),
                Received::TooLarge => (Refused(Refusal::TooLarge), answered),
                Received::Truncated => (Refused(Refusal::Truncated), answered),
                Received::UnknownMode => (Refused(Refusal::UnknownMode), None),
            }
        }
        (Phase::Running(current), Call::Emit(id)) if **current == *id => (Accepted, None),
        (Phase::Answered(last), Call::Answer(id, _) | Call::Emit(id)) if **last == *id => {
            (Refused(Refusal::InvalidTransition), None)
        }
        (_, Call::Answer(..) | Call::Emit(_)) => (Refused(Refusal::InvalidRequestId), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Phase {
        Phase::Running("a".into())
    }

    fn answered() -> Phase {
        Phase::Answered("a".into())
    }

    #[test]
    fn every_rule_of_the_protocol() {
        use Received::{Truncated, UnknownMode, Whole};
        let refused = |why| Reply::Refused(why);
        let big = Received::TooLarge;
        let rows = [
            // `next`: held until there is an event, the same event again while it runs.
            (Phase::Init, Call::Next, Reply::Hold, Phase::Ready),
            (Phase::Ready, Call::Next, Reply::Hold, Phase::Ready),
            (running(), Call::Next, Reply::Event, running()),
            (answered(), Call::Next, Reply::Hold, Phase::Ready),
            (Phase::Ended, Call::Next, refused(Refusal::Gone), Phase::Ended),
            // Answers: the running id only, once.
            (running(), Call::Answer("a", Whole), Reply::Accepted, answered()),
            (running(), Call::Answer("b", Whole), refused(Refusal::InvalidRequestId), running()),
            (answered(), Call::Answer("a", Whole), refused(Refusal::InvalidTransition), answered()),
            (answered(), Call::Answer("b", Whole), refused(Refusal::InvalidRequestId), answered()),
            (Phase::Init, Call::Answer("a", Whole), refused(Refusal::InvalidRequestId), Phase::Init),
            (Phase::Ready, Call::Answer("a", Whole), refused(Refusal::InvalidRequestId), Phase::Ready),
            (Phase::Ended, Call::Answer("a", Whole), refused(Refusal::Gone), Phase::Ended),
            // Bodies that are not an answer.
            (running(), Call::Answer("a", big), refused(Refusal::TooLarge), answered()),
            (running(), Call::Answer("b", big), refused(Refusal::InvalidRequestId), running()),
            (running(), Call::Answer("a", Truncated), refused(Refusal::Truncated), answered()),
            (running(), Call::Answer("a", UnknownMode), refused(Refusal::UnknownMode), running()),
            // Events: the running id only, before its answer.
            (running(), Call::Emit("a"), Reply::Accepted, running()),
            (running(), Call::Emit("b"), refused(Refusal::InvalidRequestId), running()),
            (answered(), Call::Emit("a"), refused(Refusal::InvalidTransition), answered()),
            (Phase::Ready, Call::Emit("a"), refused(Refusal::InvalidRequestId), Phase::Ready),
            (Phase::Ended, Call::Emit("a"), refused(Refusal::Gone), Phase::Ended),
            // Init errors: before the first `next` only, and they end the worker.
            (Phase::Init, Call::InitError, Reply::Accepted, Phase::Ended),
            (Phase::Ready, Call::InitError, refused(Refusal::InvalidTransition), Phase::Ready),
            (running(), Call::InitError, refused(Refusal::InvalidTransition), running()),
            (answered(), Call::InitError, refused(Refusal::InvalidTransition), answered()),
            (Phase::Ended, Call::InitError, refused(Refusal::InvalidTransition), Phase::Ended),
            // Snapshots.
            (Phase::Init, Call::RestoreNext, Reply::Restored, Phase::Init),
            (Phase::Ready, Call::RestoreNext, refused(Refusal::InvalidTransition), Phase::Ready),
            (Phase::Init, Call::RestoreError, Reply::Accepted, Phase::Ended),
            (running(), Call::RestoreError, refused(Refusal::InvalidTransition), running()),
        ];
        for (phase, call, reply, then) in rows {
            let (got, next) = step(&phase, call);
            assert_eq!((got, next.unwrap_or_else(|| phase.clone())), (reply, then), "{phase:?} {call:?}");
        }
    }

    #[test]
    fn refusals_carry_the_status_that_clients_check() {
        let status = |why: Refusal| why.parts().0;
        assert_eq!(status(Refusal::InvalidRequestId), 400);
        assert_eq!(status(Refusal::InvalidTransition), 403);
        assert_eq!(status(Refusal::TooLarge), 413);
        assert_eq!(status(Refusal::Truncated), 400);
        assert_eq!(status(Refusal::UnknownMode), 400);
        assert_eq!(status(Refusal::Gone), 410);
    }
}
