//! The condition of one function: may it be called now, and if not, when is it asked again.
//!
//! While it waits, all bindings of the function wait; when the time has come, exactly one of them sends a probe.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwire_schemas::live::Fact;
use bellwire_schemas::service::FunctionSpec;
use bellwire_schemas::{Clock, ErrorInfo, FunctionName, Timestamp};
use tokio::sync::{broadcast, watch};

use super::Gate;
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

#[derive(Default)]
struct State {
    spec: Option<Arc<FunctionSpec>>,
    wait: Option<Wait>,
    /// Grows with every change of condition; results of attempts from before it say nothing about now.
    generation: u64,
    probing: bool,
}

/// A function that is left alone.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) until: Timestamp,
    pub(crate) why: WaitReason,
    pub(crate) since: Timestamp,
    pub(crate) error: Option<ErrorInfo>,
    /// From when it was noted until `until`.
    length: Duration,
    count: u32,
}

impl Wait {
    /// Whether it is too early to ask. When more is left than there was at first, the clock was set back.
    fn is_on(&self, now: Timestamp) -> bool {
        self.until > now && self.until.since(now) <= self.length
    }
}

/// The answer to "may it be called now".
pub(crate) enum Admit {
    /// Yes, with this pass.
    Go(Pass),
    /// Not before; somebody else's probe, an unknown function: no time is known.
    Later(Option<Timestamp>),
}

/// The right to make one call; reports how it went, and gives a probe back when it is dropped without a report.
pub(crate) struct Pass {
    target: Arc<Target>,
    generation: u64,
    probe: bool,
    pub(crate) waits: u32,
}

impl Target {
    pub(crate) fn new(name: FunctionName, clock: Clock, live: broadcast::Sender<Fact>) -> Self {
        let changed = watch::Sender::new(0);
        Self { name, gate: Arc::new(Gate::new(0)), clock, live, changed, state: Mutex::default() }
    }

    /// Takes a new definition; a changed one is asked again at once.
    pub(crate) fn define(&self, spec: Option<Arc<FunctionSpec>>) {
        let mut state = self.lock();
        if state.spec == spec {
            return;
        }
        self.gate.resize(spec.as_ref().map_or(0, |s| s.concurrency));
        state.spec = spec;
        self.ask_again(&mut state);
    }

    /// Ends the wait: the next delivery is a probe.
    pub(crate) fn retry_now(&self) {
        self.ask_again(&mut self.lock());
    }

    pub(crate) fn is_known(&self) -> bool {
        self.lock().spec.is_some()
    }

    pub(crate) fn waiting(&self) -> Option<Wait> {
        self.lock().wait.clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn admit(self: &Arc<Self>) -> Admit {
        let mut state = self.lock();
        if state.spec.is_none() {
            return Admit::Later(None);
        }
        let (probe, waits) = match &state.wait {
            None => (false, 0),
            Some(_) if state.probing => return Admit::Later(None),
            Some(wait) if wait.is_on(self.clock.now()) => return Admit::Later(Some(wait.until)),
            Some(wait) => (true, wait.count),
        };
        state.probing |= probe;
        Admit::Go(Pass { target: Arc::clone(self), generation: state.generation, probe, waits })
    }

    fn ask_again(&self, state: &mut State) {
        if let Some(wait) = &mut state.wait {
            wait.until = self.clock.now();
        }
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
    /// Says what followed the call. Enters, prolongs or leaves the wait, and tells it once.
    pub(crate) fn report(mut self, next: &Next, error: Option<&ErrorInfo>) {
        let target = Arc::clone(&self.target);
        let mut state = target.lock();
        if state.generation != self.generation {
            return;
        }
        if self.probe {
            self.probe = false;
            state.probing = false;
        }
        match (next, state.wait.take()) {
            (Next::Wait { until, why }, before) => {
                let now = target.clock.now();
                let since = before.as_ref().map_or(now, |w| w.since);
                let length = until.since(now);
                let count = before.as_ref().map_or(1, |w| w.count.saturating_add(1));
                let news = before.is_none_or(|w| w.why != *why);
                state.wait =
                    Some(Wait { until: *until, why: *why, since, error: error.cloned(), length, count });
                state.generation += 1;
                if news {
                    target.say(word(*why), error.map_or_else(String::new, describe));
                }
                target.notify();
            }
            (_, Some(_)) => {
                state.generation += 1;
                target.say("started", String::new());
                target.notify();
            }
            (_, None) => {}
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe {
            let mut state = self.target.lock();
            if state.generation == self.generation {
                state.probing = false;
                self.target.notify();
            }
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
