//! What outcomes bring forth: one event for each, over crashes and faults; destinations that are away or refuse.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwire_ledger::{DeadLetterQuery, Error, Ledger, StoredEvent};
use bellwire_schemas::brokers::{Destination, Sending, SendingPayload, SqsQueue};
use bellwire_schemas::service::{BindingSpec, Target};
use bellwire_schemas::{FailureClass, Lane, Seq};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::world::{Act, Functions, World, binding, event};
use crate::sending::{FAILED, SUCCEEDED};

const EVENTS: usize = 120;
const CRASHES: usize = 5;

fn to(source: &str) -> Option<Sending> {
    Some(Sending { to: source.into(), payload: SendingPayload::Record })
}

fn sends(function: &str) -> BindingSpec {
    BindingSpec { on_success: to("done"), on_failure: to("failed"), ..binding(function, "in") }
}

async fn of_source(world: &World, source: &str) -> Vec<StoredEvent> {
    let mut found = Vec::new();
    for lane in (1..=world.ledger.lanes()).map(Lane) {
        let all = world.ledger.read(lane, Seq(1), usize::MAX, usize::MAX).await.unwrap();
        found.extend(all.into_iter().filter(|e| e.source.as_str() == source));
    }
    found
}

fn record(stored: &StoredEvent) -> Value {
    serde_json::from_slice(stored.event.data.as_deref().unwrap()).unwrap()
}

/// Deliveries end, the process crashes, flushes fail or commit without an answer; a function hears of every success.
async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let functions = Functions::new(|call, number| {
        let n: usize = call.id.trim_start_matches('e').parse().unwrap_or(1);
        match (call.function.as_str(), n % 6, number) {
            ("audit", ..) => Act::Answer,
            (_, 0, _) => Act::Fail(FailureClass::Function, "ValidationError"),
            (_, 2, 1) => Act::Fail(FailureClass::Timeout, "Function.Timeout"),
            (_, 3, _) => Act::Fail(FailureClass::Function, "ValueError"),
            _ => Act::Answer,
        }
    });
    let mut world = World::new(3, functions, vec![sends("price"), binding("audit", "done")]).await;
    world.start().await;
    let mut addresses = BTreeMap::new();
    let mut crashes = 0;
    while addresses.len() < EVENTS || crashes < CRASHES {
        let from = addresses.len();
        let upto = EVENTS.min(from + rng.random_range(1..12));
        for n in from..upto {
            let address = world.send("in", vec![event(&format!("e{n}"), &json!(n))]).await[0];
            addresses.insert(address, n);
        }
        match rng.random_range(0..6) {
            0 => world.ledger.fail_next_flush(Error::Unavailable("a test said so".into())),
            1 => world.ledger.commit_then_fail_flush(Error::Unavailable("a test said so".into())),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
        if crashes < CRASHES && rng.random_bool(0.3) {
            crashes += 1;
            world.crash();
            world.start().await;
        }
    }
    world.settled().await;
    let mut told = BTreeMap::new();
    for (source, kind) in [("done", SUCCEEDED), ("failed", FAILED)] {
        for sent in of_source(&world, source).await {
            assert_eq!(sent.event.kind, kind);
            let address: bellwire_schemas::Address = sent.event.subject.as_deref().unwrap().parse().unwrap();
            assert_eq!(told.insert(address, source), None, "seed {seed}: {address} is told once");
            assert_eq!(sent.address.lane, address.lane);
            assert_eq!(record(&sent)["requestPayload"]["id"], sent.event.extensions["causationid"]);
        }
    }
    for (address, n) in &addresses {
        let wanted = if matches!(n % 6, 0 | 3) { "failed" } else { "done" };
        assert_eq!(told.get(address), Some(&wanted), "seed {seed}: event {n}");
    }
    assert_eq!(told.len(), EVENTS);
    let heard: std::collections::BTreeSet<_> =
        world.functions.calls().into_iter().filter(|c| c.function == "audit").map(|c| c.key).collect();
    assert_eq!(heard.len(), EVENTS - EVENTS / 3, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_told_once_over_crashes_and_faults() {
    for seed in 0..8 {
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_grows_too_old_is_told_with_its_last_failure() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValueError"));
    let mut spec = sends("price");
    spec.max_age = Some(Duration::from_secs(20));
    spec.retry.attempts = None;
    spec.retry.max_delay = Duration::from_secs(300);
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    world.send("in", vec![event("tried", &json!(1))]).await;
    world.settled().await;
    world.crash();
    world.send("in", vec![event("late", &json!(2))]).await;
    world.clock.advance(Duration::from_secs(60));
    world.start().await;
    world.settled().await;
    let sent = of_source(&world, "failed").await;
    let records: Vec<_> = sent.iter().map(record).collect();
    let conditions: Vec<_> = records.iter().map(|r| r["requestContext"]["condition"].as_str()).collect();
    assert_eq!(conditions, [Some("EventAgeExceeded"); 2]);
    assert_eq!(records[0]["responsePayload"]["errorType"], "ValueError");
    assert!(records[0]["requestContext"]["approximateInvokeCount"].as_u64().unwrap() > 1);
    assert_eq!(records[1]["requestContext"]["approximateInvokeCount"], 0);
    assert_eq!(records[1]["responsePayload"]["errorType"], "EventAgeExceeded");
}

/// A debt that is found too old when it comes up, after a restart: its event is read for the record.
#[tokio::test(start_paused = true)]
async fn a_debt_that_came_up_too_late_is_told_with_its_event() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValueError"));
    let mut spec = sends("price");
    spec.max_age = Some(Duration::from_secs(100));
    spec.retry.attempts = None;
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    world.send("in", vec![event("tried", &json!(1))]).await;
    world.until("a debt", async |w| w.ledger.totals().await.unwrap().values().any(|t| t.retrying == 1)).await;
    world.crash();
    world.clock.advance(Duration::from_secs(1_000));
    world.start().await;
    world.settled().await;
    let sent = of_source(&world, "failed").await;
    assert_eq!(sent.len(), 1);
    let record = record(&sent[0]);
    assert_eq!(record["requestPayload"]["id"], "tried");
    assert_eq!(record["responsePayload"]["errorType"], "ValueError");
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
}

/// An outage of a destination makes no dead letter and no debt, and is seen; what it refuses is dead at once.
#[tokio::test(start_paused = true)]
async fn a_destination_that_is_away_is_waited_for_and_one_that_refuses_is_not_asked_again() {
    let functions = Functions::new(|_, _| {
        Act::Fail(FailureClass::CannotStart, bellwire_workers::DESTINATION_UNAVAILABLE)
    });
    let mut spec = binding("destination.audit", "destination.audit");
    spec.name = "destination.audit:outbox".into();
    spec.retry.attempts = Some(1);
    let mut world = World::new(2, functions, vec![spec]).await;
    let queue = SqsQueue { queue: "q".into(), endpoint: None, region: None };
    for function in world.known.values_mut() {
        function.target = Target::Destination(Box::new(Destination::Sqs(queue.clone())));
    }
    world.start().await;
    for n in 0..20 {
        world.send("destination.audit", vec![event(&format!("e{n}"), &json!(n))]).await;
    }
    world
        .until("it is left alone", async |w| {
            w.handle().bindings()[0].reason == Some("destination-unavailable")
        })
        .await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let probes = world.functions.calls().len();
    assert!(probes < 40, "{probes} calls while it was away");
    let totals = world.ledger.totals().await.unwrap().into_values().next().unwrap();
    assert_eq!((totals.retrying, totals.dead_letters, totals.waiting), (0, 0, 20));
    world.functions.rewrite(|call, _| match call.id.as_str() {
        "e7" => Act::Fail(FailureClass::Function, bellwire_workers::DESTINATION_REFUSED),
        _ => Act::Answer,
    });
    world.settled().await;
    let dead = world
        .ledger
        .dead_letters(&DeadLetterQuery { limit: 10, ..DeadLetterQuery::default() })
        .await
        .unwrap()
        .items;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].event.event.id.as_str(), dead[0].attempts), ("e7", 1));
}
