//! Order per key under failures, crashes, hand-overs and silence: never two deliveries of a key in flight, whoever owns
//! its lane; none before an earlier one of its key has ended; every event ends once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Ledger, LogOutcome, OwedReason};
use bellwire_schemas::service::{Batch, BindingSpec, Ordering};
use bellwire_schemas::{Address, Event, Exhausted, FailureClass};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::unrest::unrest;
use super::world::{Act, Call, Functions, Span, World, binding, event};

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const EVENTS: usize = 180;

fn ordered(size: u32) -> BindingSpec {
    let mut spec = BindingSpec { ordering: Ordering::Key, batch: Batch::of(size), ..binding("f", "in") };
    spec.retry.attempts = Some(6);
    spec
}

/// Every seventh event of `e` never succeeds.
fn is_poison(id: &str) -> bool {
    id.strip_prefix("e-").and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n % 7 == 3)
}

/// Fails by chance, differently with each call.
fn moody(seed: u64) -> Arc<Functions> {
    Functions::new(move |call: &Call, number| {
        let name: u64 = call.key.bytes().fold(seed, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let mut rng = StdRng::seed_from_u64(name ^ (number as u64) << 40);
        let has_poison = call.ids.iter().any(|id| is_poison(id));
        let wait = Duration::from_millis(rng.random_range(0..80));
        match rng.random_range(0..14) {
            0 => Act::Fail(FailureClass::Crash, "Runtime.ExitError"),
            1 => Act::Panic,
            2 => Act::Fail(FailureClass::Throttled, "HTTP.429"),
            3..=5 => {
                let failed = call.ids.iter().filter(|id| is_poison(id) || rng.random_bool(0.3));
                Act::Report(wait, failed.cloned().collect())
            }
            _ if has_poison => Act::Fail(FailureClass::Function, "ValueError"),
            _ => Act::After(wait),
        }
    })
}

/// The calls of one key, and what they say about its order; `ids` in the order of the lane.
fn check(seed: u64, ids: &[String], spans: &[Span]) {
    let mine: Vec<&Span> = spans.iter().filter(|span| span.ids.iter().any(|id| ids.contains(id))).collect();
    for pair in mine.windows(2) {
        let over = pair[0].to.is_some_and(|to| to < pair[1].from);
        assert!(over, "seed {seed}: two calls of a key at once: {pair:?}");
    }
    for pair in ids.windows(2) {
        let first = |id: &String| mine.iter().position(|span| span.ids.contains(id));
        let (Some(one), Some(next)) = (first(&pair[0]), first(&pair[1])) else {
            panic!("seed {seed}: {pair:?} were not both called");
        };
        assert!(one <= next, "seed {seed}: {} came before {}", pair[1], pair[0]);
        let tried = mine[..=next].iter().filter(|span| span.ids.contains(&pair[0])).count();
        let is_done = mine[..=next].iter().any(|span| span.done.contains(&pair[0]));
        assert!(
            is_done || one == next || tried >= 2,
            "seed {seed}: {} came before {} was done",
            pair[1],
            pair[0]
        );
    }
    for span in &mine {
        let places: Vec<_> =
            span.ids.iter().filter_map(|id| ids.iter().position(|other| other == id)).collect();
        assert!(places.is_sorted(), "seed {seed}: a batch out of order: {span:?}");
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let size = [1, 1, 3, 20][rng.random_range(0..4)];
    let mut world = World::new(4, moody(seed), vec![ordered(size)]).await;
    let mut peers = vec![world.peer(1, world.functions.clone()).await];
    let (mut next, mut sent) = (2, Vec::<Address>::new());
    let mut ids: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    while sent.len() < EVENTS {
        let feed = Arc::clone(&peers[rng.random_range(0..peers.len())].feed);
        let batch = (0..rng.random_range(1..16)).map(|_| {
            let key = KEYS[rng.random_range(0..KEYS.len())];
            let known = ids.entry(key).or_default();
            known.push(format!("{key}-{}", known.len()));
            (event(&known[known.len() - 1], &json!(1)), key)
        });
        let batch: Vec<(Event, &str)> = batch.collect();
        sent.extend(world.send_keyed(&feed, "in", batch).await);
        unrest(&mut world, &mut peers, &mut rng, &mut next, false).await;
    }
    world.settled().await;
    for address in &sent {
        let log = world.ledger.log(*address, None).await.unwrap();
        let finals = log.iter().filter(|(_, entry)| matches!(entry.outcome, LogOutcome::Final(_)));
        assert_eq!(finals.count(), 1, "seed {seed}: {address}: {log:?}");
    }
    let spans = world.functions.spans();
    ids.values().for_each(|ids| check(seed, ids, &spans));
}

#[tokio::test(start_paused = true)]
async fn keys_stay_in_order_whoever_owns_their_lane() {
    for seed in 0..15 {
        run(seed).await;
    }
}

/// The same for longer: `SEEDS=3000 cargo test -p bellwire-dispatcher order_soak -- --ignored`.
#[tokio::test(start_paused = true)]
#[ignore = "takes as long as it is told to"]
async fn order_soak() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for seed in 1_000..1_000 + seeds {
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_parks_with_its_followers_and_the_others_go_on() {
    let functions = Functions::new(|call, _| match call.id.starts_with("bad") {
        true => Act::Fail(FailureClass::Function, "ValueError"),
        false => Act::After(Duration::from_millis(1)),
    });
    let mut spec = ordered(1);
    spec.retry.min_delay = Duration::from_secs(30);
    spec.retry.max_delay = Duration::from_secs(30);
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    let feed = Arc::clone(&world.feed);
    world.send_keyed(&feed, "in", vec![(event("bad-0", &json!(0)), "bad")]).await;
    for n in 0..200 {
        let (bad, good) = (format!("bad-{}", n + 1), format!("good-{n}"));
        let key = format!("k{n}");
        let batch = vec![(event(&bad, &json!(0)), "bad"), (event(&good, &json!(0)), key.as_str())];
        world.send_keyed(&feed, "in", batch).await;
    }
    let good = |w: &World| w.functions.calls().iter().filter(|c| c.id.starts_with("good")).count();
    world.until("the others are done", async |w| good(w) == 200).await;
    assert_eq!(world.functions.calls().iter().filter(|c| c.id.starts_with("bad")).count(), 1);
    let id = world.id("f:in").await;
    world
        .until("all but the key is passed", async |w| {
            let checkpoint = w.ledger.checkpoint(bellwire_schemas::Lane(1), id).await.unwrap();
            checkpoint.mark.0 == 401
        })
        .await;
    // A restart keeps them parked, in order.
    world.crash();
    world.start().await;
    world.functions.rewrite(|_, _| Act::Answer);
    world.settled().await;
    let order: Vec<String> =
        world.functions.calls().into_iter().map(|c| c.id).filter(|id| id.starts_with("bad")).collect();
    let expected: Vec<String> =
        std::iter::once("bad-0".into()).chain((0..=200).map(|n| format!("bad-{n}"))).collect();
    assert_eq!(order, expected);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_blocks_waits_for_an_operator() {
    let functions = Functions::new(|call, _| match call.id.as_str() {
        "x-1" | "y-1" => Act::Fail(FailureClass::Function, "ValueError"),
        _ => Act::Answer,
    });
    let mut spec = ordered(1);
    (spec.retry.attempts, spec.retry.exhausted) = (Some(2), Exhausted::BlockKey);
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    let feed = Arc::clone(&world.feed);
    let sent = world
        .send_keyed(
            &feed,
            "in",
            ["x-1", "x-2", "y-1", "y-2"].map(|id| (event(id, &json!(0)), &id[..1])).into(),
        )
        .await;
    let id = world.id("f:in").await;
    let key = |at: usize| DeliveryKey { binding: id, address: sent[at] };
    let is_blocked = async |w: &World, at: usize| {
        w.ledger.owed(key(at)).await.unwrap().is_some_and(|owed| owed.reason == OwedReason::Blocked)
    };
    world.until("both block", async |w| is_blocked(w, 0).await && is_blocked(w, 2).await).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.functions.calls().len(), 4, "two attempts each, and nothing of their followers");
    world.functions.rewrite(|_, _| Act::Answer);
    assert_eq!(world.ledger.redrive(&[key(0)], world.clock.now()).await.unwrap(), 1);
    assert_eq!(world.ledger.discard(&[key(2)], "broken", "ana", world.clock.now()).await.unwrap(), 1);
    world.handle().poke();
    world.settled().await;
    let ids: Vec<String> = world.functions.calls().into_iter().skip(4).map(|c| c.id).collect();
    let of = |key: &str| ids.iter().filter(|id| id.starts_with(key)).cloned().collect::<Vec<_>>();
    assert_eq!((of("x"), of("y")), (vec!["x-1".to_owned(), "x-2".into()], vec!["y-2".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_key_blocks_nobody_and_dies() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValueError"));
    let mut spec = ordered(1);
    (spec.retry.attempts, spec.retry.exhausted) = (Some(2), Exhausted::BlockKey);
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    let address = world.send("in", vec![event("e", &json!(0))]).await[0];
    world.settled().await;
    let key = DeliveryKey { binding: world.id("f:in").await, address };
    assert!(world.ledger.dead_letter(key).await.unwrap().is_some());
    assert_eq!(world.functions.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_slow_key_does_not_stop_the_lane() {
    let functions = Functions::new(|call, _| match call.id.starts_with("slow") {
        true => Act::After(Duration::from_secs(20)),
        false => Act::Answer,
    });
    let mut world = World::new(1, functions, vec![ordered(1)]).await;
    world.start().await;
    let feed = Arc::clone(&world.feed);
    for page in 0..20 {
        let ids: Vec<String> = (0..200).map(|n| format!("slow-{page}-{n}")).collect();
        let mut batch: Vec<(Event, &str)> = ids.iter().map(|id| (event(id, &json!(0)), "slow")).collect();
        let id = format!("quick-{page}");
        batch.push((event(&id, &json!(0)), &id));
        world.send_keyed(&feed, "in", batch).await;
    }
    let quick = |w: &World| w.functions.calls().iter().filter(|c| c.id.starts_with("quick")).count();
    let from = world.clock.now();
    world.until("the quick ones are done", async |w| quick(w) == 20).await;
    assert!(world.clock.now().since(from) < Duration::from_secs(15), "while the first slow one still runs");
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_with_large_events_or_between_others_does_not_stop_the_lane() {
    let large = "x".repeat(20_000);
    for (slow, each) in [(large.as_str(), 150), ("", 1_500)] {
        let functions = Functions::new(|call, _| match call.id.starts_with("slow") {
            true => Act::After(Duration::from_secs(20)),
            false => Act::Answer,
        });
        let mut world = World::new(1, functions, vec![ordered(1)]).await;
        world.start().await;
        let feed = Arc::clone(&world.feed);
        for page in 0..each / 50 {
            let ids: Vec<(String, String)> =
                (0..50).map(|n| (format!("slow-{page}-{n}"), format!("quick-{page}-{n}"))).collect();
            let pairs = ids.iter().flat_map(|(slow_id, quick)| {
                [(event(slow_id, &json!(slow)), "slow"), (event(quick, &json!(0)), quick.as_str())]
            });
            let batch: Vec<(Event, &str)> = pairs.collect();
            world.send_keyed(&feed, "in", batch).await;
        }
        let quick = |w: &World| w.functions.spans().iter().filter(|s| s.ids[0].starts_with("quick")).count();
        let from = world.clock.now();
        world.until("the quick ones are done", async |w| quick(w) == each).await;
        assert!(
            world.clock.now().since(from) < Duration::from_secs(19),
            "while the first slow one still runs"
        );
    }
}

/// Functions that fail the event `x-1`, and a binding in order that tries it again much later.
fn first_fails() -> (Arc<Functions>, BindingSpec) {
    let functions = Functions::new(|call, _| match call.id.as_str() {
        "x-1" => Act::Fail(FailureClass::Function, "ValueError"),
        _ => Act::Answer,
    });
    let mut spec = ordered(1);
    spec.retry.min_delay = Duration::from_secs(3_000);
    spec.retry.max_delay = Duration::from_secs(3_000);
    (functions, spec)
}

/// A key that fails with two behind it; the binding gives its order up when `now` says so.
async fn gives_order_up(refused: usize, now: impl AsyncFn(&World, DeliveryKey)) {
    let (functions, spec) = first_fails();
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    for _ in 0..refused {
        world.ledger.fail_next_flush(bellwire_ledger::Error::Unavailable("a test said so".into()));
    }
    let feed = Arc::clone(&world.feed);
    let batch = ["x-1", "x-2", "x-3"].map(|id| (event(id, &json!(0)), "x"));
    let sent = world.send_keyed(&feed, "in", batch.into()).await;
    let key = DeliveryKey { binding: world.id("f:in").await, address: sent[2] };
    now(&world, key).await;
    world.specs[0].ordering = Ordering::None;
    world.apply().await;
    world
        .until("the others go on", async |w| {
            w.functions.spans().iter().filter(|s| s.ids[0] != "x-1").count() == 2
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_key_goes_on_when_the_binding_gives_order_up() {
    gives_order_up(0, async |world, key| {
        world.until("it is parked", async |w| w.ledger.owed(key).await.unwrap().is_some()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_be_parked_goes_on_as_well() {
    for refused in [0, 1, 3] {
        for wait in [0, 1, 3, 10, 50, 200, 800] {
            gives_order_up(refused, async |world, _| {
                world.until("the first has failed", async |w| !w.functions.spans().is_empty()).await;
                tokio::time::sleep(Duration::from_millis(wait)).await;
            })
            .await;
        }
    }
}

/// During a rolling change a controller that still keeps order parks what the next owner of its lane, which does not, has
/// to deliver.
#[tokio::test(start_paused = true)]
async fn what_was_parked_by_another_goes_on_in_the_hands_of_an_owner_without_order() {
    let (functions, spec) = first_fails();
    let mut world = World::new(1, Arc::clone(&functions), vec![spec]).await;
    let ana = world.peer(1, Arc::clone(&functions)).await;
    world.until("it has the lane", async |_| ana.owned() == 1).await;
    world.specs[0].ordering = Ordering::None;
    let _ben = world.peer(2, Arc::clone(&functions)).await;
    let batch = ["x-1", "x-2", "x-3"].map(|id| (event(id, &json!(0)), "x"));
    let sent = world.send_keyed(&ana.feed, "in", batch.into()).await;
    let key = DeliveryKey { binding: world.id("f:in").await, address: sent[2] };
    world.until("it is parked", async |w| w.ledger.owed(key).await.unwrap().is_some()).await;
    ana.handle.shutdown(Duration::from_secs(5)).await;
    world
        .until("the others go on", async |_| {
            functions.spans().iter().filter(|s| s.ids[0] != "x-1").count() == 2
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_on_after_one_that_was_ready_is_taken_away() {
    let mut world =
        World::new(1, Functions::new(|_, _| Act::After(Duration::from_millis(50))), vec![ordered(5)]).await;
    world.known.insert("f".into(), super::world::function("f", 1));
    world.start().await;
    let feed = Arc::clone(&world.feed);
    // One call is out, so that the next one waits.
    world.send_keyed(&feed, "in", vec![(event("other-0", &json!(0)), "other")]).await;
    for round in 0..20 {
        let (other, first) = (format!("other-{}", round + 1), format!("k-{round}"));
        let sent = world
            .send_keyed(
                &feed,
                "in",
                vec![(event(&other, &json!(0)), "other"), (event(&first, &json!(0)), "k")],
            )
            .await;
        let key = DeliveryKey { binding: world.id("f:in").await, address: sent[1] };
        tokio::time::sleep(Duration::from_millis(7)).await;
        world.ledger.cancel(&[key], "not needed", "ana", world.clock.now()).await.unwrap();
        world.handle().cancel(&[key]);
        let ids = [format!("k-{round}-a"), format!("k-{round}-b")];
        world.send_keyed(&feed, "in", ids.iter().map(|id| (event(id, &json!(0)), "k")).collect()).await;
    }
    world.settled().await;
}
