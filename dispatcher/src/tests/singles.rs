//! One delivery of a key at a time, also when it comes late: delayed, redriven, replayed, tried again.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Ledger, LogOutcome};
use bellwire_schemas::service::{BindingSpec, Debounce, Ordering, Singleton};
use bellwire_schemas::{Address, Event, FailureClass, FinalState, Timestamp};
use serde_json::json;

use super::world::{Act, Functions, World, binding, event, function};

pub(super) const LONG: Duration = Duration::from_secs(10);

pub(super) fn named(id: &str) -> Event {
    event(id, &json!(0))
}

pub(super) fn later(id: &str, at: Timestamp) -> Event {
    let mut event = named(id);
    event.extensions.insert("deliverat".into(), json!(at.to_string()));
    event
}

pub(super) async fn world(lanes: u16, rule: Singleton, change: impl Fn(&mut BindingSpec)) -> World {
    let functions = Functions::new(|call, _| match call.id.starts_with("dead") {
        true => Act::Fail(FailureClass::Function, "ValidationError"),
        false => Act::After(LONG),
    });
    let mut spec = BindingSpec { singleton: Some(rule), ..binding("f", "in") };
    change(&mut spec);
    let mut world = World::new(lanes, functions, vec![spec]).await;
    world.known.insert("f".into(), function("f", 10));
    world.start().await;
    world
}

pub(super) async fn send(world: &World, id: &str) -> Address {
    let feed = Arc::clone(&world.feed);
    world.send_keyed(&feed, "in", vec![(named(id), "k")]).await[0]
}

pub(super) async fn end(world: &World, address: Address) -> Option<(FinalState, String)> {
    let log = world.ledger.log(address, None).await.unwrap();
    let (_, entry) = log.last()?;
    let kind = entry.error.as_ref().map(|error| error.kind.clone()).unwrap_or_default();
    match entry.outcome {
        LogOutcome::Final(state) => Some((state, kind)),
        LogOutcome::Failed => None,
    }
}

pub(super) fn done(world: &World) -> Vec<String> {
    world.functions.spans().into_iter().flat_map(|span| span.done).collect()
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_is_asked_when_it_is_due() {
    for ordering in [Ordering::None, Ordering::Key] {
        for (rule, size) in [(Singleton::Skip, 1), (Singleton::Cancel, 1), (Singleton::Cancel, 5)] {
            let world = world(1, rule, |spec| {
                (spec.ordering, spec.batch.size) = (ordering, size);
            })
            .await;
            let feed = Arc::clone(&world.feed);
            let at = world.clock.now().plus(Duration::from_secs(3));
            let late = vec![(later("late1", at), "k"), (later("late2", at), "k"), (later("other", at), "o")];
            let late = world.send_keyed(&feed, "in", late).await;
            let first = send(&world, "first").await;
            world.settled().await;
            let mut done = done(&world);
            done.sort();
            let (turned_away, given_up) = (
                Some((FinalState::Filtered, "Delivery.singleton".to_owned())),
                Some((FinalState::Discarded, "Delivery.singleton".to_owned())),
            );
            match rule {
                Singleton::Skip => {
                    assert_eq!(done, ["first", "other"], "{ordering:?}");
                    assert_eq!(end(&world, late[0]).await, turned_away);
                    assert_eq!(end(&world, late[1]).await, turned_away);
                }
                Singleton::Cancel => {
                    assert_eq!(done, ["late2", "other"], "{ordering:?}");
                    assert_eq!(end(&world, first).await, given_up, "{ordering:?} {size}");
                    assert_eq!(end(&world, late[0]).await, given_up, "{ordering:?} {size}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_that_finds_no_slot_is_asked_all_the_same() {
    let mut world = world(1, Singleton::Skip, |_| {}).await;
    world.known.insert("f".into(), function("f", 1));
    world.apply().await;
    let feed = Arc::clone(&world.feed);
    let at = world.clock.now().plus(Duration::from_secs(3));
    let late = world.send_keyed(&feed, "in", vec![(later("late", at), "k")]).await[0];
    send(&world, "first").await;
    world.settled().await;
    assert_eq!(done(&world), ["first"]);
    assert_eq!(end(&world, late).await.unwrap().0, FinalState::Filtered);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_is_asked_after_a_crash_as_well() {
    for ordering in [Ordering::None, Ordering::Key] {
        let mut world = world(1, Singleton::Skip, |spec| spec.ordering = ordering).await;
        let feed = Arc::clone(&world.feed);
        let at = world.clock.now().plus(Duration::from_secs(30));
        let late = world.send_keyed(&feed, "in", vec![(later("late", at), "k")]).await[0];
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.crash();
        world.start().await;
        tokio::time::sleep(Duration::from_secs(22)).await;
        send(&world, "first").await;
        world.settled().await;
        assert_eq!(done(&world), ["first"], "{ordering:?}");
        assert_eq!(end(&world, late).await.unwrap().0, FinalState::Filtered, "{ordering:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_redriven_waits_for_the_one_that_runs() {
    for ordering in [Ordering::None, Ordering::Key] {
        for (rule, size) in [(Singleton::Skip, 1), (Singleton::Cancel, 1), (Singleton::Skip, 5)] {
            let mut world = world(1, rule, |spec| {
                (spec.ordering, spec.batch.size) = (ordering, size);
            })
            .await;
            let id = world.id("f:in").await;
            let mut dead = Vec::new();
            for name in ["dead1", "dead2", "dead3"] {
                dead.push(DeliveryKey { binding: id, address: send(&world, name).await });
                world.settled().await;
            }
            world.functions.rewrite(|_, _| Act::After(LONG));
            let first = send(&world, "first").await;
            world.until("it runs", async |w| w.functions.running() == 1).await;
            assert_eq!(world.ledger.redrive(&dead, world.clock.now()).await.unwrap(), 3);
            world.handle().poke();
            tokio::time::sleep(Duration::from_secs(15)).await;
            assert_eq!(end(&world, first).await, Some((FinalState::Delivered, String::new())));
            world.handle().poke();
            if ordering == Ordering::Key {
                world.crash();
                world.start().await;
            }
            world.settled().await;
            for key in &dead {
                let end = end(&world, key.address).await.unwrap();
                assert_eq!(end.0, FinalState::Delivered, "{rule:?} {ordering:?} {size}");
            }
            assert_eq!(done(&world), ["first", "dead1", "dead2", "dead3"], "{rule:?} {ordering:?} {size}");
            assert_eq!(world.functions.most(), 1, "{rule:?} {ordering:?} {size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_redriven_one_that_waits_for_its_retry_keeps_its_key() {
    let world = world(1, Singleton::Skip, |spec| {
        (spec.retry.min_delay, spec.retry.max_delay) = (Duration::from_secs(60), Duration::from_secs(60));
    })
    .await;
    let id = world.id("f:in").await;
    let mut dead = Vec::new();
    for name in ["dead1", "dead2"] {
        dead.push(DeliveryKey { binding: id, address: send(&world, name).await });
        world.settled().await;
    }
    world.functions.rewrite(|call, number| match (call.id.as_str(), number) {
        ("dead1", 2) => Act::Fail(FailureClass::Function, "ValueError"),
        _ => Act::After(LONG),
    });
    assert_eq!(world.ledger.redrive(&dead, world.clock.now()).await.unwrap(), 2);
    world.handle().poke();
    world.until("it failed", async |w| w.functions.calls().len() == 3 && w.functions.running() == 0).await;
    let live = send(&world, "live").await;
    world.until("it ended", async |w| end(w, live).await.is_some()).await;
    assert_eq!(end(&world, live).await.unwrap().0, FinalState::Filtered);
    world.settled().await;
    assert_eq!(done(&world), ["dead1", "dead2"]);
    assert_eq!(world.functions.most(), 1);
}

#[tokio::test(start_paused = true)]
async fn events_without_a_key_wait_for_each_other_over_lanes() {
    let mut world = world(2, Singleton::Skip, |_| {}).await;
    let id = world.id("f:in").await;
    let mut dead = Vec::new();
    for name in ["dead1", "dead2", "dead3", "dead4"] {
        let address = world.send("in", vec![named(name)]).await[0];
        dead.push(DeliveryKey { binding: id, address });
        world.settled().await;
    }
    world.functions.rewrite(|_, _| Act::After(LONG));
    assert_eq!(world.ledger.redrive(&dead, world.clock.now()).await.unwrap(), 4);
    world.handle().poke();
    world.settled().await;
    assert_eq!((done(&world).len(), world.functions.most()), (4, 1));
    // Two lanes must not be alone because nobody asks.
    assert!(dead.iter().any(|key| key.address.lane != dead[0].address.lane));
}

#[tokio::test(start_paused = true)]
async fn the_last_of_a_burst_is_asked_when_it_is_due() {
    let rule = Debounce { wait: Duration::from_secs(2), max_wait: None };
    let world = world(1, Singleton::Skip, |spec| spec.debounce = Some(rule)).await;
    send(&world, "a1").await;
    send(&world, "a2").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let late = send(&world, "b1").await;
    world.settled().await;
    assert_eq!(done(&world), ["a2"]);
    assert_eq!(end(&world, late).await.unwrap(), (FinalState::Filtered, "Delivery.singleton".into()));
}

#[tokio::test(start_paused = true)]
async fn an_event_with_a_time_of_its_own_is_not_debounced() {
    let rule = Debounce { wait: Duration::from_secs(20), max_wait: None };
    let spec = BindingSpec { debounce: Some(rule), ..binding("f", "in") };
    let mut world = World::new(1, Functions::new(|_, _| Act::Answer), vec![spec]).await;
    world.start().await;
    let feed = Arc::clone(&world.feed);
    let now = world.clock.now();
    let soon = later("soon", now.plus(Duration::from_secs(5)));
    let past = later("past", now.minus(Duration::from_secs(5)));
    world.send_keyed(&feed, "in", vec![(soon, "k"), (past, "k"), (named("plain"), "k")]).await;
    world.settled().await;
    let ids: Vec<String> = world.functions.calls().into_iter().map(|call| call.id).collect();
    assert_eq!(ids, ["past", "soon", "plain"]);
}
