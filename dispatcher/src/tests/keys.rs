//! Who holds a key where one delivery of it is let run at a time: nothing keeps one for ever, and nothing loses its own.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Error, Ledger, OwedReason};
use bellwire_schemas::service::{BindingSpec, Ordering, Singleton};
use bellwire_schemas::{Address, Event, Exhausted, FailureClass, FinalState};

use super::singles::{LONG, done, end, later, named, send, world};
use super::world::{Act, Functions, World, binding, function};
use crate::MAX_UNFLUSHED;

const SKIP: Option<Singleton> = Some(Singleton::Skip);

/// More than wait for their key in memory.
const MANY: usize = 4_300;
/// More than may be unknown to the ledger.
const FEWER: usize = 2_000;

async fn reload(world: &mut World, change: impl Fn(&mut BindingSpec)) {
    change(&mut world.specs[0]);
    world.apply().await;
}

async fn is_turned_away(world: &World, address: Address) {
    world.until("it ended", async |w| end(w, address).await.is_some()).await;
    assert_eq!(end(world, address).await.unwrap(), (FinalState::Filtered, "Delivery.singleton".into()));
}

async fn is_delivered(world: &World, address: Address) {
    world.until("it ended", async |w| end(w, address).await.is_some()).await;
    assert_eq!(end(world, address).await.unwrap().0, FinalState::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_redriven_ones_does_not_hide_the_one_that_holds_the_key() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValidationError"));
    let mut spec = binding("f", "in");
    (spec.retry.min_delay, spec.retry.max_delay) = (LONG, LONG);
    let mut world = World::new(1, functions, vec![spec]).await;
    world.known.insert("f".into(), function("f", 100));
    world.start().await;
    let feed = Arc::clone(&world.feed);
    let ids: Vec<String> = (0..MANY).map(|n| format!("dead{n}")).collect();
    let events: Vec<(Event, &str)> = ids.iter().map(|id| (named(id), "k")).collect();
    let sent = world.send_keyed(&feed, "in", events).await;
    world.until("all were tried", async |w| w.functions.count("f") == MANY).await;
    world.settled().await;
    reload(&mut world, |spec| spec.singleton = SKIP).await;
    world.functions.rewrite(|call, number| match (call.id.as_str(), number) {
        ("dead0", 2) => Act::Fail(FailureClass::Function, "ValueError"),
        _ => Act::Answer,
    });
    let id = world.id("f:in").await;
    let dead: Vec<DeliveryKey> =
        sent.iter().map(|address| DeliveryKey { binding: id, address: *address }).collect();
    assert_eq!(world.ledger.redrive(&dead, world.clock.now()).await.unwrap(), MANY as u64);
    world.handle().poke();
    world.until("some went on", async |w| done(w).len() >= 5).await;
    assert_eq!(done(&world)[..3], ["dead0", "dead1", "dead2"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_blocks_holds_its_key_until_it_is_given_up() {
    for is_restarted in [false, true] {
        let mut world = world(1, Singleton::Skip, |spec| {
            (spec.ordering, spec.retry.exhausted) = (Ordering::Key, Exhausted::BlockKey);
        })
        .await;
        let key = DeliveryKey { binding: world.id("f:in").await, address: send(&world, "dead").await };
        world
            .until("it blocks", async |w| {
                w.ledger.owed(key).await.unwrap().is_some_and(|owed| owed.reason == OwedReason::Blocked)
            })
            .await;
        if is_restarted {
            world.crash();
            world.start().await;
        }
        let second = send(&world, "second").await;
        is_turned_away(&world, second).await;
        world.ledger.discard(&[key], "broken", "ana", world.clock.now()).await.unwrap();
        world.handle().poke();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let third = send(&world, "third").await;
        is_delivered(&world, third).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_taken_away_and_put_back_leaves_no_key_held() {
    let mut world = world(1, Singleton::Skip, |_| {}).await;
    let first = send(&world, "first").await;
    world.until("it runs", async |w| w.functions.running() == 1).await;
    reload(&mut world, |spec| spec.singleton = None).await;
    is_delivered(&world, first).await;
    reload(&mut world, |spec| spec.singleton = SKIP).await;
    let second = send(&world, "second").await;
    is_delivered(&world, second).await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_new_counts_what_runs_and_what_is_tried_again() {
    for ordering in [Ordering::None, Ordering::Key] {
        let mut world = world(1, Singleton::Skip, |spec| {
            (spec.singleton, spec.ordering) = (None, ordering);
            (spec.retry.min_delay, spec.retry.max_delay) = (LONG, LONG);
        })
        .await;
        world.functions.rewrite(|call, number| match (call.id.as_str(), number) {
            ("again", 1) => Act::Fail(FailureClass::Function, "ValueError"),
            _ => Act::After(LONG),
        });
        let feed = Arc::clone(&world.feed);
        world.send_keyed(&feed, "in", vec![(named("again"), "a"), (named("first"), "k")]).await;
        world.until("they ran", async |w| w.functions.calls().len() == 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        reload(&mut world, |spec| spec.singleton = SKIP).await;
        let late = world.send_keyed(&feed, "in", vec![(named("late"), "a"), (named("second"), "k")]).await;
        for address in late {
            is_turned_away(&world, address).await;
        }
        world.settled().await;
        let mut done = done(&world);
        done.sort();
        assert_eq!(done, ["again", "first"], "{ordering:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_are_turned_away_wait_for_the_ledger() {
    for ordering in [Ordering::None, Ordering::Key] {
        let world = world(1, Singleton::Skip, |spec| spec.ordering = ordering).await;
        let feed = Arc::clone(&world.feed);
        let at = world.clock.now().plus(Duration::from_secs(60));
        let ids: Vec<String> = (0..FEWER).map(|n| format!("late{n}")).collect();
        let events = ids.iter().map(|id| (later(id, at), "k")).collect();
        let late = world.send_keyed(&feed, "in", events).await;
        tokio::time::sleep(Duration::from_secs(57)).await;
        send(&world, "first").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..4 {
            world.ledger.fail_next_flush(Error::Unavailable("busy".into()));
        }
        let id = world.id("f:in").await;
        let mut most = 0;
        world
            .until("they ended", async |w| {
                most = most.max(w.handle().binding_live(id).unwrap().unflushed);
                end(w, late[FEWER - 1]).await.is_some()
            })
            .await;
        assert!((MAX_UNFLUSHED / 2..MAX_UNFLUSHED + 200).contains(&most), "{ordering:?}: {most}");
        world.settled().await;
        assert_eq!(done(&world), ["first"], "{ordering:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_turn_has_come_is_not_overtaken_while_it_waits_for_a_slot() {
    for ordering in [Ordering::None, Ordering::Key] {
        let functions = Functions::new(|call, _| match call.id.starts_with("dead") {
            true => Act::Fail(FailureClass::Function, "ValidationError"),
            false => Act::After(LONG),
        });
        let single = BindingSpec { singleton: SKIP, ordering, ..binding("f", "in") };
        let mut world = World::new(1, functions, vec![single, binding("f", "out")]).await;
        world.start().await;
        let id = world.id("f:in").await;
        let mut dead = Vec::new();
        for name in ["dead1", "dead2"] {
            dead.push(DeliveryKey { binding: id, address: send(&world, name).await });
            world.settled().await;
        }
        world.functions.rewrite(|call, _| match call.id.starts_with("other") {
            true => Act::After(6 * LONG),
            false => Act::After(LONG),
        });
        send(&world, "first").await;
        world.until("it runs", async |w| w.functions.running() == 1).await;
        assert_eq!(world.ledger.redrive(&dead, world.clock.now()).await.unwrap(), 2);
        world.handle().poke();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let feed = Arc::clone(&world.feed);
        world.send_keyed(&feed, "out", vec![(named("other1"), "o"), (named("other2"), "p")]).await;
        world.until("both slots are taken", async |w| done(w).len() == 1 && w.functions.running() == 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let fresh = send(&world, "fresh").await;
        // In order, its line is busy: it is asked when a slot is there.
        match ordering {
            Ordering::None => is_turned_away(&world, fresh).await,
            Ordering::Key => is_delivered(&world, fresh).await,
        }
        world.settled().await;
        let done: Vec<String> =
            done(&world).into_iter().filter(|id| !id.starts_with("other") && id != "fresh").collect();
        assert_eq!(done, ["first", "dead1", "dead2"], "{ordering:?}");
    }
}
