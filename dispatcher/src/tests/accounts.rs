//! Everything ends accounted for, whatever fails and whenever the process ends.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwire_ledger::{Error, Ledger, LogOutcome};
use bellwire_schemas::{FailureClass, FinalState};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::world::{Act, Call, Functions, World, binding, event};

const EVENTS: usize = 240;
const CRASHES: usize = 6;

/// A temper that depends on the event and the number of the call only.
fn temper(call: &Call, number: usize) -> Act {
    let n: usize = call.id.trim_start_matches('e').parse().unwrap_or(0);
    match (n % 12, number) {
        (0, _) => Act::Fail(FailureClass::Function, "ValueError"),
        (1, 1..=2) => Act::Fail(FailureClass::Timeout, "Function.Timeout"),
        (2, _) => Act::Fail(FailureClass::Function, "ValidationError"),
        (3, 1) => Act::Fail(FailureClass::Throttled, "Http.429"),
        (4, 1) => Act::Fail(FailureClass::CannotStart, "Runtime.ExitError"),
        (5, 1..=3) => Act::Fail(FailureClass::Crash, "Runtime.ExitError"),
        (6, _) => Act::After(Duration::from_millis(40)),
        _ => Act::Answer,
    }
}

fn expected(binding: &str, n: usize) -> FinalState {
    match n % 12 {
        _ if binding == "some:in" && !n.is_multiple_of(2) => FinalState::Filtered,
        0 | 2 => FinalState::Dead,
        _ => FinalState::Delivered,
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let functions = Functions::new(temper);
    let mut some = binding("some", "in");
    some.filter = vec![json!({"data": {"even": [true]}})];
    let all = binding("all", "in");
    let mut world = World::new(2, functions, vec![some, all]).await;
    world.start().await;
    let mut sent = BTreeMap::new();
    let mut crashes = 0;
    while sent.len() < EVENTS || crashes < CRASHES {
        if sent.len() < EVENTS {
            let from = sent.len();
            let batch: Vec<_> = (from..EVENTS.min(from + rng.random_range(1..20))).collect();
            let events =
                batch.iter().map(|n| event(&format!("e{n}"), &json!({"even": n % 2 == 0}))).collect();
            let source = if rng.random_bool(0.1) { "other" } else { "in" };
            let addresses = world.send(source, events).await;
            sent.extend(batch.into_iter().zip(addresses).map(|(n, address)| (n, (source, address))));
        }
        match rng.random_range(0..8) {
            0 => world.ledger.fail_next_flush(Error::Unavailable("a test said so".into())),
            1 => world.ledger.commit_then_fail_flush(Error::Unavailable("a test said so".into())),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        if crashes < CRASHES && rng.random_bool(0.3) {
            crashes += 1;
            world.crash();
            world.start().await;
        }
    }
    world.settled().await;
    check(&world, &sent, crashes, seed).await;
}

async fn check(
    world: &World,
    sent: &BTreeMap<usize, (&'static str, bellwire_schemas::Address)>,
    crashes: usize,
    seed: u64,
) {
    let totals = world.ledger.totals().await.unwrap();
    let mut counted = 0;
    for record in world.ledger.bindings().await.unwrap() {
        let total = &totals[&record.id];
        assert_eq!(total.accepted, total.ended.values().sum::<u64>(), "seed {seed}: {total:?}");
        for (n, (source, address)) in sent {
            let log = world.ledger.log(*address, Some(record.id)).await.unwrap();
            let finals: Vec<_> = log
                .iter()
                .filter_map(|(_, entry)| match entry.outcome {
                    LogOutcome::Final(state) => Some(state),
                    LogOutcome::Failed => None,
                })
                .collect();
            let wanted = if *source == "in" { vec![expected(record.name.as_str(), *n)] } else { Vec::new() };
            assert_eq!(finals, wanted, "seed {seed}: event {n} for {}", record.name);
            let attempts: Vec<_> = log.iter().map(|(_, e)| e.attempt).filter(|a| *a > 0).collect();
            assert!(attempts.len() <= 4 && attempts.is_sorted(), "seed {seed}: {attempts:?}");
            counted += attempts.len();
        }
    }
    // Calls beyond those in the log were lost in a crash, or did not count.
    let calls = world.functions.calls();
    let uncounted =
        calls.iter().filter(|c| matches!(c.id.trim_start_matches('e').parse::<usize>().unwrap() % 12, 3 | 4));
    let free = uncounted.count();
    // Two slots in each of two functions, and what one flush may hold on each of four runners.
    let bound = crashes * (4 + 4 * 8) + free;
    assert!(
        calls.len() - counted <= bound,
        "seed {seed}: {} calls, {counted} counted, bound {bound}",
        calls.len()
    );
    assert!(world.functions.most() <= 4, "seed {seed}: {} at once", world.functions.most());
}

#[tokio::test(start_paused = true)]
async fn every_event_ends_once_over_crashes_and_faults() {
    for seed in 0..12 {
        run(seed).await;
    }
}

/// The same for longer: `SEEDS=1000 cargo test -p bellwire-dispatcher soak -- --ignored`.
#[tokio::test(start_paused = true)]
#[ignore = "takes as long as it is told to"]
async fn soak() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for seed in 1_000..1_000 + seeds {
        run(seed).await;
    }
}

/// Without faults nothing is called twice, and every attempt of a delivery carries the same id and key.
#[tokio::test(start_paused = true)]
async fn without_faults_there_are_no_duplicates() {
    let functions = Functions::new(|call, number| match (call.id.as_str(), number) {
        ("e7", 1..=2) => Act::Fail(FailureClass::Function, "ValueError"),
        _ => Act::Answer,
    });
    let mut world = World::new(3, functions, vec![binding("f", "in")]).await;
    world.start().await;
    for n in 0..50 {
        world.send("in", vec![event(&format!("e{n}"), &json!(n))]).await;
    }
    world.settled().await;
    let calls = world.functions.calls();
    assert_eq!(calls.len(), 52);
    let keys: std::collections::BTreeSet<_> = calls.iter().filter(|c| c.id == "e7").map(|c| &c.key).collect();
    assert_eq!(keys.len(), 1);
}

/// Marks move over other sources' events too, so that retention is not held up.
#[tokio::test(start_paused = true)]
async fn the_mark_passes_what_concerns_others() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    let last = world.send("other", (0..500).map(|n| event(&format!("o{n}"), &json!(n))).collect()).await[499];
    let id = world.id("f:in").await;
    world
        .until("the mark is written", async |w| {
            w.ledger.checkpoint(last.lane, id).await.unwrap().mark == last.seq
        })
        .await;
    assert_eq!(world.functions.calls().len(), 0);
}
