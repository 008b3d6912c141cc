//! A small world: a ledger, a clock, functions that do as they are told and keep their own notes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellwire_ledger::append::lane_of;
use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{Append, Arrival, BindingRecord, Feed, Ledger, NewEvent};
use bellwire_schemas::live::Fact;
use bellwire_schemas::service::{
    Batch, BindingSpec, Format, FunctionSpec, Ordering as OrderingSpec, RequestSpec, Start,
    Target as FunctionTarget, Warm,
};
use bellwire_schemas::{
    Address, BindingId, BindingName, ByteSize, Clock, ControllerId, ErrorInfo, Event, FailureClass,
    FunctionName, RetryPolicy, SourceName, Timestamp,
};
use bellwire_workers::{Answer, Invocation, InvocationResult, Invoker};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{Configuration, Handle, LeaseOptions, Rooms};

pub(super) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// What a function does with one call.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Answer,
    After(Duration),
    Fail(FailureClass, &'static str),
    /// Answers after a while and reports these events.
    Report(Duration, Vec<String>),
    Hang,
    Panic,
}

/// One call as the function saw it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) function: String,
    /// The id of its first event.
    pub(super) id: String,
    /// All of them.
    pub(super) ids: Vec<String>,
    pub(super) key: String,
}

/// A call from its start to its end; `from` and `to` count all starts and ends.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) ids: Vec<String>,
    pub(super) from: u64,
    pub(super) to: Option<u64>,
    /// Events that it dealt with.
    pub(super) done: Vec<String>,
}

type Script = dyn Fn(&Call, usize) -> Act + Send + Sync;

pub(super) struct Functions {
    script: Mutex<Arc<Script>>,
    calls: Mutex<Vec<Call>>,
    spans: Mutex<Vec<Span>>,
    moments: AtomicU64,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Functions {
    pub(super) fn new(script: impl Fn(&Call, usize) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(Arc::new(script)),
            calls: Mutex::default(),
            spans: Mutex::default(),
            moments: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    pub(super) fn rewrite(&self, script: impl Fn(&Call, usize) -> Act + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn count(&self, function: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|c| c.function == function).count()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    /// Calls at once now.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Most calls at once so far.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

struct Inside<'a>(&'a Functions, usize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        let to = self.0.moment();
        self.0.spans.lock().unwrap()[self.1].to = Some(to);
    }
}

#[async_trait]
impl Invoker for Functions {
    async fn invoke(&self, invocation: Invocation) -> InvocationResult {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let body: Value = serde_json::from_slice(&invocation.payload).unwrap();
        let one = std::slice::from_ref(&body);
        let events = body.as_array().map_or(one, Vec::as_slice);
        let ids: Vec<String> = events.iter().filter_map(|e| Some(e["id"].as_str()?.to_owned())).collect();
        let id = ids.first().cloned().unwrap_or_default();
        let (function, key) = (invocation.function.to_string(), invocation.idempotency_key);
        let call = Call { function, id, ids: ids.clone(), key };
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(call.clone());
            calls.iter().filter(|c| c.key == call.key).count()
        };
        let place = {
            let from = self.moment();
            let mut spans = self.spans.lock().unwrap();
            spans.push(Span { ids: ids.clone(), from, to: None, done: Vec::new() });
            spans.len() - 1
        };
        let _inside = Inside(self, place);
        let script = Arc::clone(&self.script.lock().unwrap());
        let act = script(&call, number);
        let reports = matches!(act, Act::Report(..));
        let answer = match act {
            Act::Answer => Ok(Answer::default()),
            Act::After(wait) => {
                tokio::time::sleep(wait).await;
                Ok(Answer::default())
            }
            Act::Fail(class, kind) => {
                tokio::time::sleep(Duration::from_millis(3)).await;
                Err(ErrorInfo::platform(class, kind, "as told"))
            }
            Act::Report(wait, failed) => {
                tokio::time::sleep(wait).await;
                let all = ids.iter().filter(|id| !failed.contains(id)).cloned().collect();
                self.spans.lock().unwrap()[place].done = all;
                let report = |id: &String| json!({ "itemIdentifier": id });
                let answer = json!({ "batchItemFailures": failed.iter().map(report).collect::<Vec<_>>() });
                let payload = Bytes::from(answer.to_string());
                Ok(Answer { payload, ..Answer::default() })
            }
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("as told"),
        };
        if answer.is_ok() && !reports {
            self.spans.lock().unwrap()[place].done = ids;
        }
        InvocationResult {
            answer,
            duration: Duration::from_millis(1),
            init: None,
            worker: "1".into(),
            version: "v1".into(),
            logs: vec!["printed".into()],
            retry_after: None,
        }
    }
}

pub(super) struct World {
    pub(super) ledger: ModelLedger,
    pub(super) clock: Clock,
    pub(super) live: broadcast::Sender<Fact>,
    pub(super) functions: Arc<Functions>,
    pub(super) specs: Vec<BindingSpec>,
    pub(super) known: BTreeMap<FunctionName, FunctionSpec>,
    pub(super) feed: Arc<Feed>,
    pub(super) handle: Option<Handle>,
    turn: u64,
    _ticker: tokio::task::JoinHandle<()>,
}

/// A controller among others.
pub(super) struct Peer {
    pub(super) id: ControllerId,
    pub(super) feed: Arc<Feed>,
    pub(super) functions: Arc<Functions>,
    pub(super) handle: Handle,
}

impl Peer {
    pub(super) fn owned(&self) -> usize {
        self.handle.lanes().iter().filter(|lane| lane.epoch.is_some()).count()
    }
}

pub(super) fn binding(function: &str, source: &str) -> BindingSpec {
    BindingSpec {
        name: BindingName::new(format!("{function}:{source}")),
        function: function.into(),
        source: source.into(),
        filter: Vec::new(),
        retry: RetryPolicy {
            attempts: Some(4),
            min_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(2),
            non_retryable: vec!["ValidationError".into()],
            ..RetryPolicy::default()
        },
        max_age: None,
        concurrency: None,
        start: Start::Earliest,
        input: None,
        on_success: None,
        on_failure: None,
        batch: Batch::default(),
        ordering: OrderingSpec::None,
        rate: None,
        debounce: None,
        singleton: None,
        enabled: true,
    }
}

pub(super) fn function(name: &str, concurrency: u32) -> FunctionSpec {
    FunctionSpec {
        name: name.into(),
        target: FunctionTarget::Command(vec!["x".into()]),
        code: PathBuf::from("/"),
        timeout: Duration::from_secs(30),
        memory: ByteSize(1 << 30),
        concurrency,
        warm: Warm { min: 0, idle: Duration::from_secs(600) },
        environment: BTreeMap::new(),
        format: Format::CloudeventsStructured,
        request: RequestSpec::default(),
    }
}

pub(super) fn event(id: &str, data: &Value) -> Event {
    Event {
        id: id.into(),
        source: "/test".into(),
        kind: "test".into(),
        time: START.to_string(),
        data: Some(Bytes::from(data.to_string())),
        ..Event::default()
    }
}

impl World {
    /// A ledger of `lanes` lanes and functions that follow the script; each of `functions` may run twice at once.
    pub(super) async fn new(lanes: u16, functions: Arc<Functions>, specs: Vec<BindingSpec>) -> Self {
        let clock = Clock::manual(START);
        let ledger = ModelLedger::new(lanes);
        let feed = Arc::new(Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap());
        let ticking = clock.clone();
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                ticking.advance(Duration::from_millis(5));
            }
        });
        let known = specs.iter().map(|s| (s.function.clone(), function(s.function.as_str(), 2))).collect();
        let (live, _) = broadcast::channel(10_000);
        Self { ledger, clock, live, functions, specs, known, feed, handle: None, turn: 0, _ticker: ticker }
    }

    /// Starts a dispatcher on the ledger, as after a restart of the process.
    pub(super) async fn start(&mut self) {
        self.feed = Arc::new(Feed::new(Arc::new(self.ledger.clone()), self.clock.clone()).await.unwrap());
        self.handle = Some(Handle::start(Rooms {
            feed: Arc::clone(&self.feed),
            invoker: Arc::clone(&self.functions) as _,
            clock: self.clock.clone(),
            controller: ControllerId(Uuid::new_v4()),
            name: "test".into(),
            lease: LeaseOptions::default(),
            live: self.live.clone(),
            event_bytes: 1 << 20,
            seed: 7,
        }));
        self.apply().await;
    }

    pub(super) async fn apply(&self) {
        self.handle().apply(self.configuration().await).await.unwrap();
    }

    /// Declares the bindings; what the ledger answers is what is put in force.
    pub(super) async fn configuration(&self) -> Configuration {
        let records = self.specs.iter().map(record).collect();
        let records = self.ledger.declare_bindings(records, self.clock.now()).await.unwrap();
        let bindings = self.specs.iter().cloned().zip(records).collect();
        Configuration { bindings, functions: self.known.clone(), kinds: BTreeMap::new() }
    }

    pub(super) fn handle(&self) -> &Handle {
        self.handle.as_ref().unwrap()
    }

    /// Ends the dispatcher as `kill -9` would.
    pub(super) fn crash(&mut self) {
        self.handle = None;
        self.ledger.reopen();
    }

    pub(super) async fn send(&mut self, source: &str, events: Vec<Event>) -> Vec<Address> {
        let feed = Arc::clone(&self.feed);
        self.send_through(&feed, source, events).await
    }

    /// Sends events with keys, each into the lane of its key.
    pub(super) async fn send_keyed(
        &self,
        feed: &Feed,
        source: &str,
        events: Vec<(Event, &str)>,
    ) -> Vec<Address> {
        let fresh = |(event, key): (Event, &str)| NewEvent {
            source: SourceName::new(source),
            lane: lane_of(Some(key), 0, self.ledger.lanes()),
            key: Some(key.to_owned()),
            dedup: None,
            event: Arc::new(event),
        };
        let append = Append {
            append_id: Uuid::new_v4(),
            events: events.into_iter().map(fresh).collect(),
            positions: Vec::new(),
            quarantined: Vec::new(),
        };
        let accepted = |item: &Arrival| match item {
            Arrival::Accepted(address) | Arrival::Duplicate(address) => *address,
        };
        feed.append(append).await.unwrap().items.iter().map(accepted).collect()
    }

    /// Sends by the intake of another controller.
    pub(super) async fn send_through(
        &mut self,
        feed: &Feed,
        source: &str,
        events: Vec<Event>,
    ) -> Vec<Address> {
        self.turn += 1;
        let lane = lane_of(None, self.turn, self.ledger.lanes());
        let fresh = |event| NewEvent {
            source: SourceName::new(source),
            lane,
            key: None,
            dedup: None,
            event: Arc::new(event),
        };
        let append = Append {
            append_id: Uuid::new_v4(),
            events: events.into_iter().map(fresh).collect(),
            positions: Vec::new(),
            quarantined: Vec::new(),
        };
        let appended = feed.append(append).await.unwrap();
        let accepted = |item: &Arrival| match item {
            Arrival::Accepted(address) | Arrival::Duplicate(address) => *address,
        };
        appended.items.iter().map(accepted).collect()
    }

    pub(super) async fn id(&self, name: &str) -> BindingId {
        let all = self.ledger.bindings().await.unwrap();
        all.iter().find(|b| b.name.as_str() == name).unwrap().id
    }

    /// Starts one more controller over the same ledger.
    pub(super) async fn peer(&self, id: u128, functions: Arc<Functions>) -> Peer {
        let feed = Arc::new(Feed::new(Arc::new(self.ledger.clone()), self.clock.clone()).await.unwrap());
        let id = ControllerId(Uuid::from_u128(id));
        let handle = Handle::start(Rooms {
            feed: Arc::clone(&feed),
            invoker: Arc::clone(&functions) as _,
            clock: self.clock.clone(),
            controller: id,
            name: format!("peer-{}", id.0.as_u128()),
            lease: LeaseOptions::default(),
            live: self.live.clone(),
            event_bytes: 1 << 20,
            seed: 7,
        });
        handle.apply(self.configuration().await).await.unwrap();
        Peer { id, feed, functions, handle }
    }

    /// Waits, in paused time, for a condition; fails after ten minutes of it.
    pub(super) async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let deadline = self.clock.now().plus(Duration::from_secs(600));
        while !holds(self).await {
            assert!(
                self.clock.now() < deadline,
                "never: {what}; {:?}",
                self.handle.as_ref().map(Handle::bindings)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing is owed to any active binding.
    pub(super) async fn settled(&self) {
        self.until("settled", async |world| {
            let totals = world.ledger.totals().await.unwrap();
            let active: Vec<_> =
                world.ledger.bindings().await.unwrap().into_iter().filter(|b| b.active).collect();
            active.iter().all(|b| totals.get(&b.id).is_none_or(|t| t.waiting == 0 && t.retrying == 0))
        })
        .await;
    }
}

pub(super) fn record(spec: &BindingSpec) -> BindingRecord {
    BindingRecord {
        id: BindingId(0),
        name: spec.name.clone(),
        source: spec.source.clone(),
        function: spec.function.clone(),
        filter: spec.filter.clone(),
        start: spec.start,
        revision: 0,
        paused: None,
        active: true,
        since: Default::default(),
    }
}
