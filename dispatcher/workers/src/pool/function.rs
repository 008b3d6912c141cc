//! One function by its name: what its current version is, how many may run at once, and how an invocation runs.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bellwire_schemas::brokers::Destination;
use bellwire_schemas::service::{FunctionSpec, Target};
use bellwire_schemas::{ErrorInfo, FailureClass, FunctionName};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::crew::{Crew, Denied, Lease};
use super::gate::Gate;
use super::status::{Condition, FunctionStatus};
use super::worker::Worker;
use crate::http::Endpoint;
use crate::outlet::Post;
use crate::runtime_api::desk::{Ending, NotWaiting};
use crate::runtime_api::event::Event;
use crate::{Invocation, InvocationResult};

/// How many workers an invocation may find dead at hand-over before it gives up.
const MAX_DEAD_WORKERS: u32 = 3;

/// Numbers of a function's workers, counted over all versions.
#[derive(Debug, Default)]
pub struct Numbers(AtomicU32);

impl Numbers {
    /// The next number, from 1.
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

/// A function.
pub struct Function {
    name: FunctionName,
    shared: Arc<Shared>,
    numbers: Arc<Numbers>,
    gate: Arc<Gate>,
    current: RwLock<Option<Current>>,
    busy: AtomicU32,
    waiting: AtomicU32,
    invocations: AtomicU64,
    failures: AtomicU64,
}

#[derive(Clone)]
struct Current {
    version: String,
    concurrency: u32,
    runner: Runner,
}

#[derive(Clone)]
enum Runner {
    Crew(Arc<Crew>),
    Endpoint(Arc<Endpoint>),
    Outlet(Arc<Post>),
}

impl Runner {
    fn destination(&self) -> Option<&Destination> {
        match self {
            Self::Outlet(post) => Some(&post.destination),
            Self::Crew(_) | Self::Endpoint(_) => None,
        }
    }
}

fn is_to(spec: &FunctionSpec, destination: &Destination) -> bool {
    matches!(&spec.target, Target::Destination(to) if **to == *destination)
}

impl Function {
    /// A function that has no version yet.
    pub fn new(shared: Arc<Shared>, spec: &FunctionSpec) -> Self {
        Self {
            name: spec.name.clone(),
            shared,
            numbers: Arc::default(),
            gate: Arc::new(Gate::new(spec.concurrency)),
            current: RwLock::new(None),
            busy: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            invocations: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Makes `spec` current; returns whether that is another version than before.
    ///
    /// # Errors
    /// When an endpoint's settings cannot be used; the old version stays.
    pub fn set(&self, spec: FunctionSpec, version: &str) -> Result<bool, ErrorInfo> {
        let concurrency = spec.concurrency.max(1);
        let before = self.current();
        let changed = before.as_ref().is_none_or(|before| {
            before.version != version || before.runner.destination().is_some_and(|was| !is_to(&spec, was))
        });
        let runner = match (before, &spec.target) {
            (Some(Current { runner: Runner::Crew(crew), .. }), _) if !changed => {
                crew.set_limits(&spec);
                Runner::Crew(crew)
            }
            (Some(before), _) if !changed => before.runner,
            (_, Target::Url(url)) => {
                let endpoint = Endpoint::new(&self.shared.callers, url, &spec, self.shared.config.dev)?;
                Runner::Endpoint(Arc::new(endpoint))
            }
            (_, Target::Destination(to)) => {
                Runner::Outlet(Arc::new(Post::open(&self.shared.config.outlets, to, spec.timeout)?))
            }
            _ => {
                let numbers = self.numbers.clone();
                let crew = Crew::new(self.shared.clone(), Arc::new(spec), version.to_owned(), numbers);
                Runner::Crew(crew)
            }
        };
        self.gate.resize(concurrency);
        let next = Current { version: version.to_owned(), concurrency, runner: runner.clone() };
        let old = self.replace(Some(next)).filter(|_| changed);
        if let Some(Runner::Crew(old)) = old.map(|old| old.runner) {
            old.retire();
        }
        if let Runner::Crew(crew) = runner {
            crew.fill(false);
        }
        Ok(changed)
    }

    /// Takes the function away; running invocations end.
    pub fn remove(&self) {
        if let Some(Runner::Crew(crew)) = self.replace(None).map(|current| current.runner) {
            crew.retire();
        }
    }

    /// Runs one invocation.
    pub async fn invoke(&self, invocation: &Invocation) -> InvocationResult {
        let waiting = Counted::up(&self.waiting);
        let _pass = self.gate.enter().await;
        drop(waiting);
        let _busy = Counted::up(&self.busy);
        let Some(result) = self.run(invocation).await else { return withdrawn() };
        self.invocations.fetch_add(1, Ordering::Relaxed);
        if result.answer.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// What the pool says about it.
    pub fn status(&self) -> Option<FunctionStatus> {
        let current = self.current()?;
        let (idle, starting, waiting, condition) = match &current.runner {
            Runner::Crew(crew) => crew.status(),
            Runner::Endpoint(_) | Runner::Outlet(_) => (0, 0, 0, Condition::Ok),
        };
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        Some(FunctionStatus {
            name: self.name.clone(),
            version: current.version,
            concurrency: current.concurrency,
            idle: u32::try_from(idle).unwrap_or(u32::MAX),
            busy: self.busy.load(Ordering::Relaxed).saturating_sub(waiting),
            starting: u32::try_from(starting).unwrap_or(u32::MAX),
            waiting: self.waiting.load(Ordering::Relaxed).saturating_add(waiting),
            condition,
            invocations: self.invocations.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        })
    }

    /// `None` when consent was not given any more: nothing was handed over.
    async fn run(&self, invocation: &Invocation) -> Option<InvocationResult> {
        let mut dead = 0;
        loop {
            let Some(current) = self.current() else { return Some(unknown(&self.name)) };
            let version = current.version;
            let crew = match current.runner {
                Runner::Endpoint(_) | Runner::Outlet(_) if !invocation.consent.is_given() => return None,
                Runner::Endpoint(endpoint) => {
                    return Some(InvocationResult { version, ..endpoint.call(invocation).await });
                }
                Runner::Outlet(post) => {
                    return Some(InvocationResult { version, ..post.send(invocation).await });
                }
                Runner::Crew(crew) => crew,
            };
            let lease = match crew.lease().await {
                Ok(lease) => lease,
                Err(Denied::Retired) => continue,
                Err(Denied::CannotStart(error, logs)) => {
                    return Some(InvocationResult { logs, version, ..failed(error) });
                }
            };
            if !invocation.consent.is_given() {
                return None;
            }
            match run_on(&crew, lease, invocation, &self.shared).await {
                Ok(result) => return Some(result),
                Err(NotWaiting) if dead < MAX_DEAD_WORKERS => dead += 1,
                Err(NotWaiting) => {
                    let message = "workers keep leaving before they take their event";
                    let error = ErrorInfo::platform(FailureClass::Crash, "Runtime.ExitError", message);
                    return Some(InvocationResult { version, ..failed(error) });
                }
            }
        }
    }

    fn current(&self) -> Option<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, next: Option<Current>) -> Option<Current> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, next)
    }
}

/// Hands the event to a leased worker and waits for the end.
async fn run_on(
    crew: &Crew,
    lease: Lease,
    invocation: &Invocation,
    shared: &Shared,
) -> Result<InvocationResult, NotWaiting> {
    let timeout = crew.spec.timeout;
    let event = Event::new(invocation, shared.config.clock.now().plus(timeout), &crew.arn);
    let begun = Instant::now();
    let Ok(mut ending) = lease.worker.desk.hand_over(event) else {
        lease.spoiled();
        return Err(NotWaiting);
    };
    let init = lease.init;
    let mut running = Running(Some(lease.used()));
    let deadline = begun.checked_add(timeout).unwrap_or(begun);
    let ended = match timeout_at(deadline, &mut ending).await {
        Ok(ended) => ended,
        Err(_) => {
            // An answer that came in this very moment still wins: the desk ends an invocation once.
            running.end(|| timed_out(timeout));
            ending.await
        }
    };
    let worker = running.0.take().map(|worker| worker.number.to_string()).unwrap_or_default();
    let ended = ended.unwrap_or_else(|_| Ending {
        answer: Err(ErrorInfo::platform(
            FailureClass::Crash,
            "Runtime.ExitError",
            "the worker was taken away",
        )),
        logs: Vec::new(),
        at: Instant::now(),
    });
    Ok(InvocationResult {
        answer: ended.answer,
        duration: ended.at.saturating_duration_since(begun),
        init,
        worker,
        version: crew.version.clone(),
        logs: ended.logs,
        retry_after: None,
    })
}

/// A worker with an invocation that somebody waits for; killed when nobody does any more.
struct Running(Option<Arc<Worker>>);

impl Running {
    fn end(&self, why: impl FnOnce() -> ErrorInfo) {
        if let Some(worker) = &self.0 {
            worker.desk.end(why);
            worker.kill();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(|| ErrorInfo::platform(FailureClass::Crash, "Runtime.Cancelled", "nobody waits any more"));
    }
}

/// Counts while it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn up(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The failure of an invocation whose deadline has passed.
pub fn timed_out(timeout: Duration) -> ErrorInfo {
    let message = format!("no answer within {:.2} s, the function's timeout", timeout.as_secs_f64());
    ErrorInfo::platform(FailureClass::Timeout, "Sandbox.Timedout", message)
}

/// The result of an invocation that reached no worker.
pub fn failed(error: ErrorInfo) -> InvocationResult {
    InvocationResult {
        answer: Err(error),
        duration: Duration::ZERO,
        init: None,
        worker: String::new(),
        version: String::new(),
        logs: Vec::new(),
        retry_after: None,
    }
}

/// The result of an invocation whose caller did not consent any more.
fn withdrawn() -> InvocationResult {
    let message = "the caller took the event back before it was handed over";
    failed(ErrorInfo::platform(FailureClass::Crash, "Invocation.Withdrawn", message))
}

/// The result of calling a function that does not exist.
pub fn unknown(name: &FunctionName) -> InvocationResult {
    let message = format!("there is no function `{name}`; it was removed, or never applied");
    failed(ErrorInfo::platform(FailureClass::CannotStart, "Function.Unknown", message))
}
