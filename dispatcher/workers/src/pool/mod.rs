//! The pool: functions by name, each with its warm workers or its endpoint.
//!
//! Read `function.rs` (one invocation), `crew.rs` (the workers of one version) with `book.rs` (its pure half), and
//! `worker.rs` (one process). The pool never retries, never queues beyond `concurrency`, and keeps nothing on disk but
//! the bundled bootstraps and caches.

pub mod book;
pub mod crew;
pub mod function;
pub mod gate;
pub mod launch;
pub mod logs;
pub mod memory;
pub mod spawn;
pub mod status;
pub mod version;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bellwire_schemas::service::{FunctionSpec, Target};
use bellwire_schemas::{Clock, ErrorInfo, FailureClass, FunctionName, SourceName};
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::emit::Outbox;
use crate::http::Callers;
use crate::outlet::Opener;
use crate::{Invocation, InvocationResult, Invoker};
use crew::Crew;
use function::{Function, failed, unknown};
use launch::Ground;
use spawn::Spawner;
use status::FunctionStatus;

/// How the pool runs.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// Folder for bootstraps, home folders and caches; made with mode 0700.
    pub state_dir: PathBuf,
    /// Program that [`crate::exec_main`] answers for as `__exec`; without it workers get no limits and survive a
    /// killed controller.
    pub launcher: Option<PathBuf>,
    /// Where time comes from.
    pub clock: Clock,
    /// Endpoints at private addresses may be called, as `dev` allows.
    pub dev: bool,
    /// Where interpreters and programs are searched; workers get it as their PATH. Default: this process's PATH.
    pub path: OsString,
    /// How long a worker may take from its start to its first `next`. Default 30 s.
    pub init_timeout: Duration,
    /// How often idle workers and memory are looked at. Default 1 s.
    pub tick: Duration,
    /// Opens destinations. Default: none can be opened.
    pub outlets: Opener,
    /// Most bytes of the events that one attempt sends (`limits.event_size`). Default 1 MiB.
    pub emitted_bytes: usize,
}

impl WorkersConfig {
    /// The defaults, with bootstraps below `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            launcher: None,
            clock: Clock::system(),
            dev: false,
            path: std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            init_timeout: Duration::from_secs(30),
            tick: Duration::from_secs(1),
            outlets: Opener::default(),
            emitted_bytes: 1 << 20,
        }
    }
}

/// Why the pool cannot be set up.
#[derive(Debug, Error)]
pub enum WorkersError {
    /// The state folder cannot be written.
    #[error("prepare the workers' folder {path}")]
    State {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that starts processes could not be started.
    #[error("start the thread that starts workers")]
    Spawner(#[source] io::Error),
    /// HTTP clients could not be made.
    #[error("set up the HTTP client")]
    Http(#[source] crate::http::SetupError),
    /// A function's settings cannot be used.
    #[error("function `{name}`: {}", error.message)]
    Function {
        /// The function.
        name: FunctionName,
        /// What is wrong.
        error: ErrorInfo,
    },
}

/// What `apply` did to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The function.
    pub name: FunctionName,
    /// Its version from now on; empty when it was removed.
    pub version: String,
    /// Whether that is another version than before.
    pub changed: bool,
}

/// What all parts of the pool share.
pub struct Shared {
    /// How the pool runs.
    pub config: WorkersConfig,
    /// Bootstraps and interpreters.
    pub ground: Ground,
    /// Starts processes.
    pub spawner: Spawner,
    /// HTTP clients.
    pub callers: Callers,
    /// Processes that are alive or starting.
    pub processes: Tally,
    /// Where functions may send events.
    pub outbox: Outbox,
    crews: std::sync::Mutex<Vec<Weak<Crew>>>,
}

impl Shared {
    /// Notes a crew, so that it is looked after until its last worker is gone, also once it is replaced.
    pub fn register(&self, crew: &Arc<Crew>) {
        let mut crews = self.crews.lock().unwrap_or_else(PoisonError::into_inner);
        crews.retain(|crew| crew.strong_count() > 0);
        crews.push(Arc::downgrade(crew));
    }

    fn crews(&self) -> Vec<Arc<Crew>> {
        let crews = self.crews.lock().unwrap_or_else(PoisonError::into_inner);
        crews.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Counts what is going on, and lets somebody wait for its end.
#[derive(Clone, Debug)]
pub struct Tally(Arc<watch::Sender<usize>>);

/// One counted thing, until dropped.
#[derive(Debug)]
pub struct Tallied(Arc<watch::Sender<usize>>);

impl Tally {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Counts one more.
    pub fn enter(&self) -> Tallied {
        self.0.send_modify(|count| *count += 1);
        Tallied(self.0.clone())
    }

    async fn ended(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Tallied {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The pool. Dropping it kills the workers; [`Workers::shutdown`] lets running invocations end first.
pub struct Workers {
    shared: Arc<Shared>,
    functions: Functions,
    running: Tally,
    applying: Mutex<()>,
}

struct Functions {
    by_name: RwLock<HashMap<FunctionName, Arc<Function>>>,
    closed: watch::Sender<bool>,
}

impl Workers {
    /// Sets the pool up, without functions. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the state folder cannot be written or the system has no thread left.
    pub fn new(config: WorkersConfig) -> Result<Self, WorkersError> {
        let ground = Ground::prepare(&config.state_dir, config.launcher.clone(), config.path.clone())
            .map_err(|source| WorkersError::State { path: config.state_dir.clone(), source })?;
        let spawner = Spawner::start().map_err(WorkersError::Spawner)?;
        let callers = Callers::new(config.clock.clone()).map_err(WorkersError::Http)?;
        let outbox = Outbox::new(config.emitted_bytes, config.clock.clone());
        let shared = Arc::new(Shared {
            outbox,
            config,
            ground,
            spawner,
            callers,
            processes: Tally::new(),
            crews: std::sync::Mutex::default(),
        });
        let closed = watch::Sender::new(false);
        let functions = Functions { by_name: RwLock::default(), closed };
        tokio::spawn(tend(Arc::downgrade(&shared), shared.config.tick));
        Ok(Self { shared, functions, running: Tally::new(), applying: Mutex::new(()) })
    }

    /// Makes these the functions: adds, replaces, removes. Of a replaced one, running invocations end on the old
    /// version while new ones go to the new.
    ///
    /// # Errors
    /// When an endpoint's settings cannot be used; functions before it in the list are applied then, later ones not.
    pub async fn apply(&self, specs: Vec<FunctionSpec>) -> Result<Vec<Applied>, WorkersError> {
        let _one_at_a_time = self.applying.lock().await;
        let digests = digests(&specs).await;
        let mut applied = Vec::with_capacity(specs.len());
        let mut keep = Vec::with_capacity(specs.len());
        for spec in specs {
            let name = spec.name.clone();
            let version = version::of(&spec, digests.get(&spec.code).unwrap_or(&[0; 32]));
            let known = self.functions.get(&name);
            let function = known.unwrap_or_else(|| Arc::new(Function::new(self.shared.clone(), &spec)));
            let changed = function
                .set(spec, &version)
                .map_err(|error| WorkersError::Function { name: name.clone(), error })?;
            self.functions.write(|all| all.insert(name.clone(), function));
            keep.push(name.clone());
            applied.push(Applied { name, version, changed });
        }
        let gone = self.functions.write(|all| {
            all.extract_if(|name, _| !keep.contains(name)).map(|(_, function)| function).collect::<Vec<_>>()
        });
        for function in gone {
            applied.extend(function.status().map(|status| Applied {
                name: status.name,
                version: String::new(),
                changed: true,
            }));
            function.remove();
        }
        Ok(applied)
    }

    /// Makes these the sources to which functions may send events while they run. Default: none.
    pub fn let_emit(&self, sources: BTreeSet<SourceName>) {
        self.shared.outbox.set(sources);
    }

    /// All functions by name.
    pub fn status(&self) -> Vec<FunctionStatus> {
        let mut all: Vec<_> = self.functions.all().iter().filter_map(|function| function.status()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Takes no more invocations, lets running ones end within `grace`, then kills every worker and waits for that.
    pub async fn shutdown(&self, grace: Duration) {
        self.functions.closed.send_replace(true);
        let _ = timeout(grace, self.running.ended()).await;
        self.functions.all().iter().for_each(|function| function.remove());
        let crews = self.shared.crews();
        // Idle workers were asked to stop and are killed soon; what still runs is killed now.
        crews.iter().for_each(|crew| crew.active().iter().for_each(|worker| worker.kill()));
        if timeout(Duration::from_secs(2), self.shared.processes.ended()).await.is_err() {
            crews.iter().for_each(|crew| crew.kill_all());
            let _ = timeout(Duration::from_secs(2), self.shared.processes.ended()).await;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.functions.all().iter().for_each(|function| function.remove());
        self.shared.crews().iter().for_each(|crew| crew.kill_all());
    }
}

#[async_trait]
impl Invoker for Workers {
    async fn invoke(&self, invocation: Invocation) -> InvocationResult {
        let _running = self.running.enter();
        if *self.functions.closed.borrow() {
            let message = "the controller is stopping";
            return failed(ErrorInfo::platform(FailureClass::CannotStart, "Controller.Stopping", message));
        }
        match self.functions.get(&invocation.function) {
            Some(function) => function.invoke(&invocation).await,
            None => unknown(&invocation.function),
        }
    }
}

impl Functions {
    fn get(&self, name: &FunctionName) -> Option<Arc<Function>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Function>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn write<R>(&self, change: impl FnOnce(&mut HashMap<FunctionName, Arc<Function>>) -> R) -> R {
        change(&mut self.by_name.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Hashes the code folders, each once, off the async threads.
async fn digests(specs: &[FunctionSpec]) -> BTreeMap<PathBuf, [u8; 32]> {
    let with_code =
        specs.iter().filter(|spec| !matches!(spec.target, Target::Url(_) | Target::Destination(_)));
    let mut folders: Vec<PathBuf> = with_code.map(|spec| spec.code.clone()).collect();
    folders.sort();
    folders.dedup();
    let hash = |folder: PathBuf| (folder.clone(), version::code_digest(Path::new(&folder)));
    tokio::task::spawn_blocking(move || folders.into_iter().map(hash).collect()).await.unwrap_or_default()
}

/// Looks after all crews until the pool is dropped.
async fn tend(shared: Weak<Shared>, tick: Duration) {
    let mut ticks = interval(tick.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(crews) = shared.upgrade().map(|shared| shared.crews()) else { return };
        let now = Instant::now();
        crews.iter().for_each(|crew| crew.tend(now));
        watch_memory(&crews).await;
    }
}

/// Kills workers whose process group holds more than their function's memory.
async fn watch_memory(crews: &[Arc<Crew>]) {
    let watched: Vec<_> = crews
        .iter()
        .flat_map(|crew| crew.active().into_iter().map(|worker| (worker, crew.spec.memory)))
        .collect();
    if watched.is_empty() {
        return;
    }
    let groups: Vec<i32> = watched.iter().map(|(worker, _)| worker.group()).collect();
    let sums =
        tokio::task::spawn_blocking(move || memory::resident_by_group(&groups)).await.unwrap_or_default();
    for (worker, limit) in watched {
        let used = sums.get(&worker.group()).copied().unwrap_or(0);
        if used > limit.0 {
            let message = format!("the worker used {} MB, more than its memory of {limit}", used >> 20);
            worker.kill_because(ErrorInfo::platform(FailureClass::Crash, "Runtime.OutOfMemory", message));
        }
    }
}
