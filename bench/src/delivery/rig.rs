//! One controller in this process, with functions that are closures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bellwire_dispatcher::{Configuration, Handle};
use bellwire_ledger::sqlite::{SqliteLedger, SqliteOptions};
use bellwire_ledger::{Append, Arrival, Feed, Ledger, NewEvent};
use bellwire_schemas::service::{BindingSpec, FunctionSpec, Target};
use bellwire_schemas::{Address, Clock, ErrorInfo, FinalState, Lane};
use bellwire_workers::{Answer, Invocation, InvocationResult, Invoker};
use serde_json::json;
use uuid::Uuid;

use crate::embedded::end_to_end::{binding, function, record, rooms};
use crate::embedded::{event_of, fresh};

/// The source of every binding here.
pub const SOURCE: &str = "topic.bench";

/// What a function does with a call: waits, then answers or fails.
pub type Act = Arc<dyn Fn(&Invocation) -> (Duration, Result<(), ErrorInfo>) + Send + Sync>;

/// A controller without doors and workers.
pub struct Rig {
    pub feed: Arc<Feed>,
    pub dispatcher: Handle,
    pub calls: Arc<Calls>,
    pub clock: Clock,
}

/// The functions.
pub struct Calls {
    act: Act,
    running: AtomicU64,
    /// Most calls at once since it was last set to zero.
    pub most: AtomicU64,
    /// Calls so far.
    pub count: AtomicU64,
}

#[async_trait]
impl Invoker for Calls {
    async fn invoke(&self, invocation: Invocation) -> InvocationResult {
        self.count.fetch_add(1, Ordering::Relaxed);
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(running, Ordering::Relaxed);
        let (wait, end) = (self.act)(&invocation);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        InvocationResult {
            answer: end.map(|()| Answer::default()),
            duration: wait,
            init: None,
            worker: "1".into(),
            version: "1".into(),
            logs: Vec::new(),
            retry_after: None,
        }
    }
}

/// A binding of the function `name` to the one source.
pub fn bound(name: &str, change: impl FnOnce(&mut BindingSpec)) -> BindingSpec {
    let mut spec = binding();
    spec.name = format!("{name}:{SOURCE}").as_str().into();
    spec.function = name.into();
    change(&mut spec);
    spec
}

/// An event with a key; `data` is JSON.
pub fn event(number: u64, key: Option<&str>, data: String) -> NewEvent {
    event_of(number, Lane(1), key.map(str::to_owned), data)
}

impl Rig {
    /// Starts with these bindings; each function may run `concurrency` calls at once.
    pub async fn new(
        dir: &Path,
        bindings: Vec<BindingSpec>,
        concurrency: u32,
        is_endpoint: bool,
        act: Act,
    ) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let ledger: Arc<dyn Ledger> =
            Arc::new(SqliteLedger::open(&fresh(dir, "delivery"), SqliteOptions::default())?);
        let feed = Arc::new(Feed::new(ledger, clock.clone()).await?);
        let (most, count, running) = Default::default();
        let calls = Arc::new(Calls { act, running, most, count });
        let dispatcher = Handle::start(rooms(&feed, Arc::clone(&calls) as _, &clock));
        let records = bindings.iter().map(record).collect();
        let records = feed.ledger().declare_bindings(records, clock.now()).await?;
        let define = |spec: &BindingSpec| {
            let mut function: FunctionSpec = function("unused".into(), dir, concurrency);
            function.name = spec.function.clone();
            if is_endpoint {
                function.target = Target::Url("http://endpoint.test/".into());
            }
            (spec.function.clone(), function)
        };
        let functions = bindings.iter().map(define).collect();
        let bindings = bindings.into_iter().zip(records).collect();
        let kinds = BTreeMap::from([(SOURCE.into(), "topic")]);
        dispatcher.apply(Configuration { bindings, functions, kinds }).await?;
        Ok(Self { feed, dispatcher, calls, clock })
    }

    /// Appends events in one commit.
    pub async fn append(&self, events: Vec<NewEvent>) -> anyhow::Result<Vec<Address>> {
        let append_id = Uuid::now_v7();
        let append = Append { append_id, events, positions: Vec::new(), quarantined: Vec::new() };
        let appended = self.feed.append(append).await?;
        let place = |item: &Arrival| match item {
            Arrival::Accepted(address) | Arrival::Duplicate(address) => *address,
        };
        Ok(appended.items.iter().map(place).collect())
    }

    /// An event that says when it was made.
    pub fn stamped(&self, number: u64, key: &str, kind: &str) -> NewEvent {
        let data = json!({ "at": self.clock.now().micros(), "kind": kind });
        event(number, Some(key), data.to_string())
    }

    /// Deliveries that succeeded, over all bindings.
    pub async fn delivered(&self) -> anyhow::Result<u64> {
        let totals = self.feed.ledger().totals().await?;
        Ok(totals.values().filter_map(|t| t.ended.get(&FinalState::Delivered)).sum())
    }

    /// What is owed.
    pub async fn owed(&self) -> anyhow::Result<u64> {
        let totals = self.feed.ledger().totals().await?;
        Ok(totals.values().map(|t| t.waiting + t.retrying).sum())
    }

    /// Waits until nothing is owed.
    pub async fn quiet(&self) -> anyhow::Result<()> {
        while self.owed().await? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub async fn stop(self) {
        self.dispatcher.shutdown(Duration::from_secs(5)).await;
        self.feed.ledger().close().await;
    }
}
