//! One function as all its bindings share it: its slots, and its condition (`flow.rs`) behind a lock, with the time, the
//! facts and the wake-ups around it.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwire_schemas::live::Fact;
use bellwire_schemas::service::FunctionSpec;
use bellwire_schemas::{Address, Clock, ErrorInfo, FunctionName, Timestamp};
use tokio::sync::{Notify, broadcast, watch};

use super::Gate;
use super::flow::{Answer, Call, Flow, News, Wait};
use crate::decide::{Next, WaitReason};

/// A function as the dispatcher sees it.
pub(crate) struct Target {
    pub(crate) name: FunctionName,
    pub(crate) gate: Arc<Gate>,
    clock: Clock,
    live: broadcast::Sender<Fact>,
    changed: watch::Sender<u64>,
    state: Mutex<State>,
}

struct State {
    spec: Option<Arc<FunctionSpec>>,
    flow: Flow,
}

/// The answer to "may it be called now".
pub(crate) enum Admit {
    /// Yes, with this pass.
    Go(Pass),
    /// Not before; somebody else's probe, an unknown function: no time is known.
    Later(Option<Timestamp>),
}

/// The right to make one call; gives a probe back when it is dropped without a report.
pub(crate) struct Pass {
    target: Arc<Target>,
    call: Call,
    was_away: AtomicBool,
    is_reported: bool,
    pub(crate) waits: u32,
}

impl Target {
    pub(crate) fn new(
        name: FunctionName,
        clock: Clock,
        live: broadcast::Sender<Fact>,
        hungry: Option<Arc<Notify>>,
    ) -> Self {
        let changed = watch::Sender::new(0);
        let state = Mutex::new(State { spec: None, flow: Flow::new(0) });
        Self { name, gate: Arc::new(Gate::new(hungry)), clock, live, changed, state }
    }

    /// Takes a new definition; a changed one is asked again at once.
    pub(crate) fn define(&self, spec: Option<Arc<FunctionSpec>>) {
        let mut state = self.lock();
        if state.spec == spec {
            return;
        }
        state.spec = spec;
        let most = state.spec.as_ref().map_or(0, |spec| spec.concurrency);
        self.gate.set_most(Some(most));
        state.flow.set_ceiling(most);
        self.ask_again(&mut state);
    }

    /// Ends the wait: the next delivery is a probe.
    pub(crate) fn retry_now(&self) {
        self.ask_again(&mut self.lock());
    }

    pub(crate) fn is_known(&self) -> bool {
        self.lock().spec.is_some()
    }

    /// How long one call may take, once the function is known.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.lock().spec.as_ref().map(|spec| spec.timeout)
    }

    pub(crate) fn waiting(&self) -> Option<Wait> {
        self.lock().flow.wait().cloned()
    }

    /// Calls that may be out while it ramps up after a wait.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.lock().flow.limit()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn admit(self: &Arc<Self>) -> Admit {
        let mut state = self.lock();
        if state.spec.is_none() {
            return Admit::Later(None);
        }
        match state.flow.admit(self.clock.now()) {
            Answer::Later(at) => Admit::Later(at),
            Answer::Go(call) => Admit::Go(Pass {
                target: Arc::clone(self),
                call,
                was_away: AtomicBool::new(false),
                is_reported: false,
                waits: call.waits,
            }),
        }
    }

    fn ask_again(&self, state: &mut State) {
        state.flow.ask_again(self.clock.now());
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn say(&self, state: &str, detail: String) {
        let subject = self.name.to_string();
        let _ =
            self.live.send(Fact::Condition { at: self.clock.now(), subject, state: state.into(), detail });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Whether the target, and not the event, is at fault for a call that found it away.
    pub(crate) fn is_away(&self, address: Address) -> bool {
        self.was_away.store(true, Relaxed);
        self.target.lock().flow.is_away(self.call, address)
    }

    /// Says what followed the call. Enters, prolongs or leaves the wait, and tells it once.
    pub(crate) fn report(mut self, next: Option<&Next>, error: Option<&ErrorInfo>) {
        let Some(next) = next else { return };
        self.is_reported = true;
        let target = Arc::clone(&self.target);
        let was_away = self.was_away.load(Relaxed);
        let news = target.lock().flow.report(self.call, next, error, was_away, target.clock.now());
        match news {
            News::None => return,
            News::StillWaits => {}
            News::Waits(why) => target.say(word(why), error.map_or_else(String::new, describe)),
            News::Back => target.say("started", String::new()),
        }
        target.notify();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.target.lock().flow.leave(self.call, self.is_reported) {
            self.target.notify();
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.name)
    }
}

fn word(why: WaitReason) -> &'static str {
    match why {
        WaitReason::CannotStart => "cannot-start",
        WaitReason::Throttled => "throttled",
        WaitReason::Unavailable => "unavailable",
        WaitReason::BreakerOpen => "breaker-open",
    }
}

fn describe(error: &ErrorInfo) -> String {
    let mut text = format!("{}: {}", error.kind, error.message);
    for line in &error.stack {
        text.push('\n');
        text.push_str(line);
    }
    text
}
