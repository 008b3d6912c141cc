//! The workers of one version of one function: leased to invocations, started when needed, stopped when not.
//!
//! `book.rs` decides, this file acts: it holds the book's lock only to look something up or write it down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bellwire_schemas::service::FunctionSpec;
use bellwire_schemas::{ErrorInfo, FailureClass};
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, oneshot};
use tokio::time::{Instant, timeout};

use super::Shared;
use super::book::{Book, Limits, Stage};
use super::function::Numbers;
use super::launch::{Program, Seat, region};
use super::logs::Logs;
use super::status::Condition;
use super::worker::Worker;
use crate::runtime_api::desk::{Change, Desk};

/// How long an invocation waits for workers that are about to ask for more before another one is started.
const PATIENCE: Duration = Duration::from_millis(20);
/// Shortest time a worker gets between its answer and its next call.
const MIN_SETTLE: Duration = Duration::from_secs(1);

/// The workers of one version.
pub struct Crew {
    /// What the workers run.
    pub spec: Arc<FunctionSpec>,
    /// Its version.
    pub version: String,
    /// `Lambda-Runtime-Invoked-Function-Arn` of its events.
    pub arn: HeaderValue,
    shared: Arc<Shared>,
    numbers: Arc<Numbers>,
    program: OnceCell<Program>,
    book: Mutex<Book<Arc<Worker>, oneshot::Sender<Grant>>>,
    me: Weak<Self>,
}

type Grant = Result<Lease, Denied>;

/// Why no worker can be had.
#[derive(Clone, Debug)]
pub enum Denied {
    /// A newer version has taken over.
    Retired,
    /// Workers cannot start; with what the last start printed.
    CannotStart(ErrorInfo, Vec<String>),
}

/// A worker that one invocation has to itself; goes back when dropped unused.
pub struct Lease {
    /// The worker.
    pub worker: Arc<Worker>,
    /// How long it took to start, when this lease waited for that.
    pub init: Option<Duration>,
    crew: Option<Arc<Crew>>,
}

impl Lease {
    /// The event was handed over: the worker comes back by asking for more.
    pub fn used(mut self) -> Arc<Worker> {
        self.crew = None;
        self.worker.clone()
    }

    /// The worker is no good.
    pub fn spoiled(mut self) {
        if let Some(crew) = self.crew.take() {
            crew.lock().turn(self.worker.number, Stage::Dying, Instant::now());
            self.worker.kill();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(crew) = self.crew.take() {
            crew.offer(self.worker.number);
        }
    }
}

impl Crew {
    /// A crew without workers.
    pub fn new(
        shared: Arc<Shared>,
        spec: Arc<FunctionSpec>,
        version: String,
        numbers: Arc<Numbers>,
    ) -> Arc<Self> {
        let arn = format!("arn:aws:lambda:{}:000000000000:function:{}", region(&spec), spec.name);
        let arn = HeaderValue::from_str(&arn).unwrap_or_else(|_| HeaderValue::from_static("arn:aws:lambda"));
        let book = Mutex::new(Book::new(limits(&spec)));
        let program = OnceCell::new();
        let registry = shared.clone();
        let crew =
            Arc::new_cyclic(|me| Self { spec, version, arn, shared, numbers, program, book, me: me.clone() });
        registry.register(&crew);
        crew
    }

    /// Takes over limits that changed without a new version.
    pub fn set_limits(&self, spec: &FunctionSpec) {
        self.lock().limits = limits(spec);
        self.fill(false);
    }

    /// Waits for a worker.
    ///
    /// # Errors
    /// When a newer version has taken over, or no worker can start.
    pub async fn lease(&self) -> Grant {
        let mut granted = {
            let mut book = self.lock();
            if book.retired {
                return Err(Denied::Retired);
            }
            while let Some((number, worker)) = book.pop_idle(Instant::now()) {
                if worker.is_fit() {
                    return Ok(Lease { worker, init: None, crew: self.me.upgrade() });
                }
                book.turn(number, Stage::Dying, Instant::now());
                worker.kill();
            }
            if let Some(error) = book.hopeless(Instant::now()) {
                return Err(Denied::CannotStart(error, Vec::new()));
            }
            let (send, receive) = oneshot::channel();
            book.waiting.push_back(send);
            receive
        };
        self.fill(false);
        let granted = match timeout(PATIENCE, &mut granted).await {
            Ok(granted) => granted,
            Err(_) => {
                self.fill(true);
                granted.await
            }
        };
        granted.unwrap_or(Err(Denied::Retired))
    }

    /// Starts what the book wants.
    pub fn fill(&self, impatient: bool) {
        let now = Instant::now();
        let mut book = self.lock();
        book.waiting.retain(|waiter| !waiter.is_closed());
        for _ in 0..book.wanted(now, impatient) {
            let number = self.numbers.next();
            book.begin(number, now);
            if let Some(crew) = self.me.upgrade() {
                let process = self.shared.processes.enter();
                tokio::spawn(async move {
                    crew.live(number).await;
                    drop(process);
                });
            }
        }
    }

    /// Lets a newer version take over: running invocations end here, all else goes.
    pub fn retire(&self) {
        let mut book = self.lock();
        book.retired = true;
        let waiting = std::mem::take(&mut book.waiting);
        let here: Vec<_> = book.members().map(|(number, member)| (number, member.stage)).collect();
        for (number, stage) in here {
            if stage != Stage::Busy {
                self.dismiss(&mut book, number);
            }
        }
        drop(book);
        for waiter in waiting {
            let _ = waiter.send(Err(Denied::Retired));
        }
    }

    /// Kills everything at once.
    pub fn kill_all(&self) {
        let book = self.lock();
        book.members().filter_map(|(_, member)| member.worker.as_ref()).for_each(|worker| worker.kill());
    }

    /// Periodic work: stops idle workers, kills those that do not come back, keeps the warm ones ready.
    pub fn tend(&self, now: Instant) {
        let mut book = self.lock();
        for number in book.overdue(now) {
            self.dismiss(&mut book, number);
        }
        let limit = self.spec.timeout.max(MIN_SETTLE);
        let lost: Vec<u32> = book
            .members()
            .filter(|(_, member)| member.stage == Stage::Settling && now - member.since >= limit)
            .map(|(number, _)| number)
            .collect();
        for number in lost {
            book.turn(number, Stage::Dying, now);
            if let Some(worker) = book.member(number).and_then(|member| member.worker.clone()) {
                worker.kill();
            }
        }
        drop(book);
        self.fill(false);
    }

    /// The workers whose memory must be watched.
    pub fn active(&self) -> Vec<Arc<Worker>> {
        let book = self.lock();
        let active = |stage| matches!(stage, Stage::Starting | Stage::Busy | Stage::Settling);
        book.members().filter(|(_, m)| active(m.stage)).filter_map(|(_, m)| m.worker.clone()).collect()
    }

    /// Idle workers, starting workers, waiting invocations, and whether workers can start.
    pub fn status(&self) -> (usize, usize, usize, Condition) {
        let book = self.lock();
        let condition = match &book.trouble {
            None => Condition::Ok,
            Some(trouble) => Condition::CannotStart {
                error: trouble.error.clone(),
                since: trouble.since,
                next_try: trouble.next_try,
            },
        };
        (book.count(Stage::Idle), book.count(Stage::Starting), book.waiting.len(), condition)
    }

    /// The whole life of one worker.
    async fn live(self: Arc<Self>, number: u32) {
        let (error, logs) = match self.start(number).await {
            Err(error) => (error, Vec::new()),
            Ok((worker, listener, child)) => {
                let deadline = Instant::now() + self.shared.config.init_timeout;
                let started = || self.stage(number) != Some(Stage::Starting);
                let ended = worker.run(listener, child, deadline, started).await;
                let error = ended.unwrap_or_else(|error| system_error("watch the worker", &error));
                (error, worker.desk.logs.take())
            }
        };
        self.gone(number, error, logs);
    }

    async fn start(&self, number: u32) -> Result<(Arc<Worker>, TcpListener, std::process::Child), ErrorInfo> {
        let ground = &self.shared.ground;
        let program = self.program.get_or_try_init(|| ground.program(&self.spec)).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.map_err(|error| system_error("open the worker's port", &error))?;
        let address =
            listener.local_addr().map_err(|error| system_error("read the worker's port", &error))?;
        let seat = Seat { number, version: &self.version, address };
        let (command, output) = ground
            .command(&self.spec, program, &seat)
            .map_err(|error| system_error("prepare the worker", &error))?;
        let logs =
            Logs::new(output.into()).map_err(|error| system_error("watch the worker's output", &error))?;
        let child = self.shared.spawner.spawn(command).await;
        let child = child.map_err(|error| system_error("start the worker", &error))?;
        let crew = self.me.clone();
        let desk = Desk::new(logs, self.shared.outbox.clone(), move |change| {
            if let Some(crew) = crew.upgrade() {
                match change {
                    Change::Ready => crew.offer(number),
                    Change::Answered => crew.answered(number),
                }
            }
        });
        let worker = Arc::new(Worker::new(number, &child, Arc::new(desk)));
        let mut book = self.lock();
        match book.member(number) {
            Some(member) => member.worker = Some(worker.clone()),
            None => worker.kill(),
        }
        if book.retired {
            worker.stop();
        }
        Ok((worker, listener, child))
    }

    fn answered(&self, number: u32) {
        let mut book = self.lock();
        book.turn(number, Stage::Settling, Instant::now());
        if book.retired {
            self.dismiss(&mut book, number);
        }
    }

    /// A worker waits for work: it goes to whoever waits longest, or to the idle ones.
    fn offer(&self, number: u32) {
        loop {
            let now = Instant::now();
            let mut book = self.lock();
            let Some((worker, begun)) =
                book.member(number).and_then(|m| m.worker.clone().map(|worker| (worker, m.since)))
            else {
                return;
            };
            if book.retired {
                return self.dismiss(&mut book, number);
            }
            let waiter = book.waiting.pop_front();
            let stage = if waiter.is_some() { Stage::Busy } else { Stage::Idle };
            let Some(before) = book.turn(number, stage, now) else {
                // It was told to go meanwhile; somebody else must serve the one who waits.
                waiter.into_iter().for_each(|waiter| book.waiting.push_front(waiter));
                return;
            };
            let init = (before == Stage::Starting).then(|| now - begun);
            if init.is_some() {
                book.trouble = None;
            }
            drop(book);
            if init.is_some() {
                // Those that wait for their turn to start.
                self.fill(false);
            }
            let Some(waiter) = waiter else { return };
            let crew = self.me.upgrade();
            match waiter.send(Ok(Lease { worker, init, crew })) {
                // Whoever waited is gone: the next one.
                Err(Ok(mut lease)) => lease.crew = None,
                _ => return,
            }
        }
    }

    /// A worker's process has ended.
    fn gone(&self, number: u32, mut error: ErrorInfo, logs: Vec<String>) {
        let now = Instant::now();
        let mut book = self.lock();
        if book.remove(number, now) == Some(Stage::Starting) && !book.retired {
            error.class = FailureClass::CannotStart;
            tracing::warn!(target: crate::START_LOG, function = %self.spec.name, error = %error.headline(), "worker cannot start");
            book.failed(error, self.shared.config.clock.now(), now);
        }
        let lost = match book.hopeless(now) {
            Some(error) => {
                let waiting = std::mem::take(&mut book.waiting);
                waiting.into_iter().map(|waiter| (waiter, error.clone())).collect()
            }
            None => Vec::new(),
        };
        drop(book);
        for (waiter, error) in lost {
            let _ = waiter.send(Err(Denied::CannotStart(error, logs.clone())));
        }
        self.fill(false);
    }

    fn dismiss(&self, book: &mut Book<Arc<Worker>, oneshot::Sender<Grant>>, number: u32) {
        if book.turn(number, Stage::Dying, Instant::now()).is_some()
            && let Some(worker) = book.member(number).and_then(|member| member.worker.clone())
        {
            worker.stop();
        }
    }

    fn stage(&self, number: u32) -> Option<Stage> {
        self.lock().member(number).map(|member| member.stage)
    }

    fn lock(&self) -> MutexGuard<'_, Book<Arc<Worker>, oneshot::Sender<Grant>>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(spec: &FunctionSpec) -> Limits {
    let most = spec.concurrency.max(1) as usize;
    Limits { most, least: (spec.warm.min as usize).min(most), idle: spec.warm.idle }
}

fn system_error(what: &str, error: &std::io::Error) -> ErrorInfo {
    ErrorInfo::platform(FailureClass::CannotStart, "Runtime.SystemError", format!("{what}: {error}"))
}
