//! The shared intake: the one object through which the controller runs all sources.
//!
//! [`Intake::handle`] takes one HTTP request to its answer; [`Intake::apply`] makes a new configuration run, leaving
//! unchanged sources alone. It owns the queue of the doors (`inbox.rs`) and one loop per pull source (`pump.rs`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bellwire_ledger::{Feed, StoredEvent};
use bellwire_schemas::api::{SendItem, SendRequest};
use bellwire_schemas::live::Fact;
use bellwire_schemas::service::SourceSpec;
use bellwire_schemas::{Clock, SourceName};
use http::StatusCode;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::appender::Appender;
use crate::inbox::{self, Inbox};
use crate::meter::Meter;
use crate::object_store::Carriers;
use crate::pressure::{LEDGER_FULL, Pressure, Share};
use crate::progress::STALL_AFTER;
use crate::refusals::Refusals;
use crate::registry::{self, Around, Auth, HOOKS, S3, TOPICS, Table};
use crate::{Admitted, DoorRequest, DoorResponse, Refused, SourceReport, pump, samples};

mod answer;

/// How often refusals are noted in the ledger.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// The bounds of intake.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest event, in bytes (`limits.event_size`).
    pub event_bytes: usize,
    /// Bytes of requests that may be read or wait for the ledger before doors say 429 (`limits.memory`). The buffers
    /// of pull sources share half as much again.
    pub memory_bytes: usize,
    /// Requests that may wait.
    pub queue_requests: usize,
    /// Events of one append (design section 4: about 1,000).
    pub batch_events: usize,
    /// Bytes of one append (design section 4: about 1 MiB).
    pub batch_bytes: usize,
    /// How long a request waits for its commit before it is told 503. GitHub gives up after 10 s.
    pub answer_within: Duration,
    /// How long a pull source may bring nothing while messages wait upstream, or a call of its may last, before it is
    /// dropped and connected anew: 2 minutes, see `progress.rs`.
    pub stall_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 1 << 20,
            memory_bytes: 256 << 20,
            queue_requests: 4_096,
            batch_events: 1_000,
            batch_bytes: 1 << 20,
            answer_within: Duration::from_secs(9),
            stall_after: STALL_AFTER,
        }
    }
}

/// Who must check a request before its body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The door itself does, by signature.
    Door,
    /// The HTTP server: `Authorization: Bearer` with a token that may publish. `HEAD` needs none.
    Token,
}

/// A configuration that cannot run; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ApplyError(
    /// Everything that is wrong.
    pub Vec<String>,
);

/// All sources of this process.
pub struct Intake {
    appender: Arc<Appender>,
    around: Around,
    limits: Limits,
    table: RwLock<Arc<Table>>,
    inbox: std::sync::Mutex<Option<Inbox>>,
    refusals: Arc<Refusals>,
    pulls: tokio::sync::Mutex<HashMap<SourceName, Pull>>,
    carriers: Carriers,
    stop: CancellationToken,
    stopping: AtomicBool,
    tasks: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// A running pull source.
struct Pull {
    spec: Arc<SourceSpec>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Intake {
    /// Starts the intake without any source, for the controller of this name. Needs a tokio runtime.
    pub fn new(
        feed: Arc<Feed>,
        live: broadcast::Sender<Fact>,
        clock: Clock,
        limits: Limits,
        controller: String,
    ) -> Self {
        let share = Share::default();
        let around = Around { ledger: feed.ledger().clone(), clock: clock.clone(), controller, share };
        let (meter, pressure, turn) = (Arc::new(Meter::default()), Pressure::default(), AtomicU64::new(0));
        let appender = Arc::new(Appender { feed, clock, live, meter, pressure, turn });
        let (inbox, queue) = Inbox::new(&limits);
        let refusals = Arc::new(Refusals::default());
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(inbox::run(queue, appender.clone(), limits.clone())),
            tokio::spawn(note_refusals(refusals.clone(), appender.clone(), stop.clone())),
        ];
        Self {
            appender,
            around,
            limits,
            table: RwLock::default(),
            inbox: std::sync::Mutex::new(Some(inbox)),
            refusals,
            pulls: tokio::sync::Mutex::default(),
            carriers: Carriers::default(),
            stop,
            stopping: AtomicBool::new(false),
            tasks: tokio::sync::Mutex::new(tasks),
        }
    }

    /// Makes these sources run, and no others. Unchanged ones go on undisturbed; removed and changed pull sources
    /// finish or release their batch first.
    ///
    /// # Errors
    /// When a source cannot be opened; then nothing changes.
    pub async fn apply(&self, sources: Vec<SourceSpec>) -> Result<(), ApplyError> {
        let table = Arc::new(Table::open(sources).map_err(ApplyError)?);
        let mut pulls = self.pulls.lock().await;
        if self.stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
        *self.table.write().expect("no code panics while it holds this lock") = table.clone();
        self.carriers.set(table.carried.clone());
        let keep = |name: &SourceName, pull: &Pull| table.source(name).is_some_and(|spec| *spec == pull.spec);
        let old: Vec<SourceName> =
            pulls.iter().filter(|(name, pull)| !keep(name, pull)).map(|(name, _)| name.clone()).collect();
        for name in old {
            if let Some(pull) = pulls.remove(&name) {
                pull.stop.cancel();
                // The task ends by itself once told; a panic in it ended the source already.
                let _ = pull.task.await;
            }
        }
        let enabled = table.pulls.keys().filter(|name| table.source(name).is_some_and(|s| s.enabled));
        self.around.share.set(self.limits.memory_bytes, enabled.count());
        for (name, pull) in &table.pulls {
            let Some(spec) = table.source(name).filter(|s| s.enabled && !pulls.contains_key(name)) else {
                continue;
            };
            let (pull, around, carriers) = (pull.clone(), self.around.clone(), self.carriers.clone());
            let carrier = name.clone();
            let connect = move || carriers.wrap(&carrier, pull.connect(&around));
            let stop = self.stop.child_token();
            let run =
                pump::keep(connect, name.clone(), self.appender.clone(), self.limits.clone(), stop.clone());
            pulls.insert(name.clone(), Pull { spec: spec.clone(), stop, task: tokio::spawn(run) });
        }
        Ok(())
    }

    /// Whether anything takes events in at a path, and who checks the caller. Asked before the body is read.
    pub fn route(&self, path: &str) -> Option<Route> {
        let auth = self.table().entrance(path)?.auth;
        Some(if auth == Auth::Token { Route::Token } else { Route::Door })
    }

    /// Takes one request to its answer; a 202 is sent after the commit. The body must be bounded, and the caller
    /// checked where [`Intake::route`] says so.
    pub async fn handle(&self, request: DoorRequest) -> DoorResponse {
        let table = self.table();
        let Some(entrance) = table.entrance(&request.path) else {
            let detail = format!("nothing takes events in at {}", request.path);
            self.refuse(&request.path, "not-found", request.peer).await;
            return Refused::new(StatusCode::NOT_FOUND, "not-found", detail).response();
        };
        match entrance.door.admit(&request, self.appender.clock.now()) {
            Ok(Admitted::Reply(reply)) => reply,
            Ok(Admitted::Parcels(parcels)) => self.store(parcels, request.peer).await,
            Err(refused) => {
                self.note_refused(&entrance.name, refused.code, &refused.detail, request.peer);
                refused.response()
            }
        }
    }

    /// Holds all intake back, or lets it go on at once: doors answer 429, connectors keep their batch and confirm
    /// nothing. `reason` says what is wrong and what to do, as of a full ledger.
    pub fn hold(&self, reason: Option<String>) {
        let why = reason.clone().unwrap_or_default();
        if self.appender.pressure.set(reason, self.appender.clock.now()) {
            if why.is_empty() {
                tracing::info!("intake goes on");
            } else {
                tracing::warn!(%why, "intake is held back");
            }
        }
    }

    /// Memory for a request to a path while its body is read. Let go of it before [`Intake::handle`], which takes its
    /// own.
    pub fn room(&self, path: &str) -> BodyRoom<'_> {
        BodyRoom { intake: self, path: path.to_owned(), room: self.inbox().map(|inbox| inbox.room()) }
    }

    /// Notes a request that the HTTP server refused before its body was read.
    #[allow(clippy::unused_async, reason = "notes may become writes; callers already await")]
    pub async fn refuse(&self, path: &str, code: &'static str, peer: Option<SocketAddr>) {
        let table = self.table();
        let name = match table.entrance(path) {
            Some(entrance) => entrance.name.as_str(),
            // What a stranger typed is not kept: the prefix says enough.
            None => [HOOKS, TOPICS, S3].into_iter().find(|p| path.starts_with(p)).unwrap_or("/"),
        };
        self.note_refused(name, code, code, peer);
    }

    /// Sends one event by hand through a source's own door: the given data, or the kind's sample; webhooks are
    /// signed with the source's own secret, a schedule ticks now. `None` when there is no such source.
    ///
    /// # Errors
    /// When the door refuses the request as a whole.
    pub async fn send(
        &self,
        source: &SourceName,
        request: &SendRequest,
    ) -> Result<Option<Vec<SendItem>>, Refused> {
        let now = self.appender.clock.now();
        let Some(spec) = self.table().source(source).cloned() else { return Ok(None) };
        let response = match samples::request_for(&spec, request, now) {
            Some(request) => self.handle(request).await,
            None => self.tick_now(source).await,
        };
        answer::items_of(response).map(Some)
    }

    /// Lets a schedule tick now, by hand, beside its own ticks.
    pub async fn tick_now(&self, source: &SourceName) -> DoorResponse {
        let table = self.table();
        let (Some(timer), Some(spec)) = (table.timer(source), table.source(source)) else {
            let detail = format!("`{source}` has no door of its own: send to its broker, or to its carrier");
            return Refused::new(StatusCode::NOT_FOUND, "not-found", detail).response();
        };
        let draft = timer.envelope(self.appender.clock.now());
        let content = crate::Content::Event(Box::new(draft));
        self.store(vec![crate::Parcel { source: spec.clone(), content }], None).await
    }

    /// A stored event as the first sample of a kind would be, for a function called by hand; never stored.
    pub fn sample_event(&self, kind: &str) -> Option<StoredEvent> {
        samples::sample_event(kind, self.appender.clock.now())
    }

    /// Every source, in the order of the configuration.
    pub fn status(&self) -> Vec<SourceReport> {
        let table = self.table();
        let now = self.appender.clock.now();
        let hold = self.appender.pressure.hold();
        let report = |spec: &Arc<SourceSpec>| {
            let gauge = self.appender.meter.read(&spec.name, now);
            let restarts = gauge.restarts;
            let next_tick = table.timer(&spec.name).and_then(|timer| timer.next_after(now));
            let entrance = match next_tick {
                Some(tick) => format!("next {tick}"),
                None => registry::entrance_of(spec),
            };
            let (state, reason, since) = match (gauge.trouble, &hold) {
                _ if !spec.enabled => ("paused", Some("enabled: false".to_owned()), None),
                (Some(trouble), _) => (trouble.kind.word(), Some(trouble.reason), Some(trouble.since)),
                (None, Some(hold)) => {
                    ("paused", Some(format!("{LEDGER_FULL}: {}", hold.reason)), Some(hold.since))
                }
                (None, None) => ("ok", None, None),
            };
            let (name, kind, counts) = (spec.name.clone(), spec.kind.word(), gauge.counts);
            SourceReport { name, kind, state, reason, since, entrance, next_tick, counts, restarts }
        };
        table.sources.iter().map(report).collect()
    }

    /// Stops: doors answer 503, connectors finish or release their batch, waiting requests are committed, refusals
    /// noted. What is not done after `grace` is dropped unacknowledged.
    pub async fn shutdown(&self, grace: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.cancel();
        drop(self.inbox.lock().expect("no code panics while it holds this lock").take());
        let end = tokio::time::Instant::now() + grace;
        let mut tasks = std::mem::take(&mut *self.tasks.lock().await);
        tasks.extend(self.pulls.lock().await.drain().map(|(_, pull)| pull.task));
        for mut task in tasks {
            if tokio::time::timeout_at(end, &mut task).await.is_err() {
                task.abort();
            }
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().expect("no code panics while it holds this lock").clone()
    }

    fn inbox(&self) -> Option<Inbox> {
        self.inbox.lock().expect("no code panics while it holds this lock").clone()
    }

    fn note_refused(&self, name: &str, code: &'static str, detail: &str, peer: Option<SocketAddr>) {
        let now = self.appender.clock.now();
        let source = SourceName::new(name);
        self.refusals.add(name, code, peer, now);
        self.appender.meter.count(&source, |counts| {
            counts.received += 1;
            counts.refused += 1;
        });
        let fact =
            Fact::NotAccepted { at: now, source, arrival: "refused".into(), detail: detail.to_owned() };
        // Nobody listening is fine: a fact is only news.
        let _ = self.appender.live.send(fact);
    }
}

/// Memory that a body takes while it is read; given back when this is dropped.
pub struct BodyRoom<'a> {
    intake: &'a Intake,
    path: String,
    room: Option<inbox::Room>,
}

impl BodyRoom<'_> {
    /// Takes room for so many more bytes.
    ///
    /// # Errors
    /// 429 `busy` with `Retry-After` when `limits.memory` is used up; nothing of the request is to be kept.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        // Without an inbox the intake stops, and says so itself.
        if self.room.as_mut().is_none_or(|room| room.grow(bytes)) {
            return Ok(());
        }
        if let Some(entrance) = self.intake.table().entrance(&self.path) {
            self.intake.note_busy(&SourceName::new(entrance.name.as_str()));
        }
        Err(answer::busy())
    }
}

async fn note_refusals(refusals: Arc<Refusals>, appender: Arc<Appender>, stop: CancellationToken) {
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(NOTE_EVERY) => false,
        };
        refusals.flush(appender.feed.ledger().as_ref()).await;
        if stopped {
            return;
        }
    }
}

/// Reads a member of an answer's body.
fn member<'a>(body: &'a Option<Value>, name: &str) -> Option<&'a Value> {
    body.as_ref()?.get(name)
}

#[cfg(test)]
mod tests;
