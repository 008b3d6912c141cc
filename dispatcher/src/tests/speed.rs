//! How many events a second the dispatcher itself can do; run by hand:
//! `cargo test --release -p bellwire-dispatcher speed -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{Append, Feed, Ledger, NewEvent};
use bellwire_schemas::{Clock, ControllerId, Lane, SourceName};
use bellwire_workers::{Answer, Invocation, InvocationResult, Invoker};
use serde_json::json;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::world::{binding, event, function, record};
use crate::{Configuration, Handle, LeaseOptions, Rooms};

struct Nothing;

#[async_trait]
impl Invoker for Nothing {
    async fn invoke(&self, _: Invocation) -> InvocationResult {
        InvocationResult {
            answer: Ok(Answer::default()),
            duration: Duration::ZERO,
            init: None,
            worker: String::new(),
            version: String::new(),
            logs: Vec::new(),
            retry_after: None,
        }
    }
}

async fn measure(name: &str, lanes: u16, filters: &[serde_json::Value], concurrency: u32) {
    const EVENTS: usize = 200_000;
    let clock = Clock::system();
    let ledger = ModelLedger::new(lanes);
    let feed = Arc::new(Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap());
    let data = json!({"order": 17, "status": "NEW", "pad": "x".repeat(300)});
    for batch in 0..EVENTS / 500 {
        let fresh = |n| NewEvent {
            source: SourceName::new("in"),
            lane: Lane(u16::try_from(batch % usize::from(lanes)).unwrap() + 1),
            key: None,
            dedup: None,
            event: Arc::new(event(&format!("{batch}-{n}"), &data)),
        };
        let events = (0..500).map(fresh).collect();
        let append =
            Append { append_id: Uuid::new_v4(), events, positions: Vec::new(), quarantined: Vec::new() };
        feed.append(append).await.unwrap();
    }
    let specs: Vec<_> = filters
        .iter()
        .enumerate()
        .map(|(n, filter)| {
            let mut spec = binding("f", "in");
            spec.name = format!("f:{n}").as_str().into();
            spec.filter = if filter.is_null() { Vec::new() } else { vec![filter.clone()] };
            spec
        })
        .collect();
    let records = ledger.declare_bindings(specs.iter().map(record).collect(), clock.now()).await.unwrap();
    let handle = Handle::start(Rooms {
        feed,
        invoker: Arc::new(Nothing),
        clock,
        controller: ControllerId(Uuid::new_v4()),
        name: "test".into(),
        lease: LeaseOptions::default(),
        live: broadcast::channel(16).0,
        event_bytes: 1 << 20,
        seed: 1,
    });
    let started = Instant::now();
    let functions = BTreeMap::from([("f".into(), function("f", concurrency))]);
    let bindings = specs.into_iter().zip(records.clone()).collect();
    handle.apply(Configuration { bindings, functions, kinds: BTreeMap::new() }).await.unwrap();
    let mut done = false;
    while !done {
        tokio::time::sleep(Duration::from_millis(5)).await;
        done = true;
        for record in &records {
            for lane in (1..=lanes).map(Lane) {
                let mark = ledger.checkpoint(lane, record.id).await.unwrap().mark;
                done &= mark == ledger.tail(lane).await.unwrap();
            }
        }
    }
    let rate = EVENTS as f64 * filters.len() as f64 / started.elapsed().as_secs_f64();
    println!("{name:<50} {rate:>10.0} deliveries/s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn speed() {
    let null = serde_json::Value::Null;
    let yes = json!({"data": {"status": ["NEW"]}});
    let no = json!({"data": {"status": ["PAID"]}});
    measure("1 lane, 1 binding, no filter, 10 slots", 1, std::slice::from_ref(&null), 10).await;
    measure("1 lane, 1 binding, no filter, 100 slots", 1, std::slice::from_ref(&null), 100).await;
    measure("2 lanes, 1 binding, no filter, 100 slots", 2, std::slice::from_ref(&null), 100).await;
    measure("1 lane, 1 binding, matching filter, 100 slots", 1, std::slice::from_ref(&yes), 100).await;
    measure("1 lane, 1 binding, filter says no", 1, std::slice::from_ref(&no), 100).await;
    measure("1 lane, 4 bindings, filters say no", 1, &[no.clone(), no.clone(), no.clone(), no], 100).await;
}
