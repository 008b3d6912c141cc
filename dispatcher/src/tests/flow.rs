//! Flow control: outages, ramps, rates, backlog beside live traffic, delays, bursts, singles, cancellation.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Ledger, LogOutcome};
use bellwire_schemas::service::{BindingSpec, Debounce, Rate, Singleton, Target};
use bellwire_schemas::{Address, Event, FailureClass, FinalState};
use serde_json::json;

use super::world::{Act, Functions, World, binding, event, function};

fn events(from: usize, to: usize) -> Vec<Event> {
    (from..to).map(|n| event(&format!("e{n}"), &json!({"n": n}))).collect()
}

async fn state(world: &World, address: Address) -> Option<(FinalState, Option<String>)> {
    let log = world.ledger.log(address, None).await.unwrap();
    log.last().and_then(|(_, entry)| match entry.outcome {
        LogOutcome::Final(state) => Some((state, entry.error.as_ref().map(|e| e.kind.clone()))),
        LogOutcome::Failed => None,
    })
}

/// A world with an endpoint that may run `most` calls at once.
async fn endpoint(functions: Arc<Functions>, most: u32) -> World {
    let mut world = World::new(2, functions, vec![binding("f", "in")]).await;
    let mut spec = function("f", most);
    spec.target = Target::Url("http://endpoint.test/".into());
    world.known.insert("f".into(), spec);
    world
}

#[tokio::test(start_paused = true)]
async fn an_outage_burns_next_to_nothing_spills_nothing_and_ends_without_a_stampede() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Unreachable, "HTTP.Unreachable"));
    let mut world = endpoint(functions, 20).await;
    world.start().await;
    let mut sent = Vec::new();
    for n in 0..60 {
        sent.extend(world.send("in", events(n * 20, n * 20 + 20)).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let id = world.id("f:in").await;
    let live = world.handle().binding_live(id).unwrap();
    assert_eq!((live.state, live.reason), ("waiting", Some("breaker-open")));
    let totals = world.ledger.totals().await.unwrap();
    assert!(totals[&id].retrying <= 5, "the cursor waits: {:?}", totals[&id]);
    let probes = world.functions.calls().len();
    assert!(probes <= 20 + 15, "{probes} calls in a minute of outage");
    world.functions.rewrite(|_, _| Act::After(Duration::from_millis(50)));
    let spans = world.functions.spans().len();
    world.settled().await;
    let spans = world.functions.spans().split_off(spans);
    let at_once =
        |from: u64| spans.iter().filter(|s| s.from <= from && s.to.is_none_or(|to| to > from)).count();
    let early: Vec<usize> = spans.iter().take(40).map(|s| at_once(s.from)).collect();
    assert_eq!(early[0], 1, "one probe");
    assert!(early[..8].iter().all(|n| *n <= 4), "then it ramps up: {early:?}");
    assert!(spans.iter().all(|s| at_once(s.from) <= 20));
    let mut burnt = 0;
    for address in &sent {
        let log = world.ledger.log(*address, None).await.unwrap();
        assert_eq!(log.last().unwrap().1.outcome, LogOutcome::Final(FinalState::Delivered));
        burnt += log.len() - 1;
    }
    assert!(burnt <= 5, "{burnt} attempts burnt");
}

#[tokio::test(start_paused = true)]
async fn errors_of_events_never_open_the_breaker() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "HTTP.500"));
    let mut world = endpoint(functions, 20).await;
    world.start().await;
    let sent = world.send("in", events(0, 50)).await;
    world.settled().await;
    for address in sent {
        assert_eq!(state(&world, address).await.unwrap().0, FinalState::Dead);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_over_all_lanes() {
    let spec =
        BindingSpec { rate: Some(Rate { events: 50, per: Duration::from_secs(1) }), ..binding("f", "in") };
    let mut world = World::new(4, Functions::new(|_, _| Act::Answer), vec![spec]).await;
    world.start().await;
    for n in 0..20 {
        world.send("in", events(n * 25, n * 25 + 25)).await;
    }
    let from = world.clock.now();
    world.settled().await;
    let took = world.clock.now().since(from).as_secs_f64();
    assert!((9.0..13.0).contains(&took), "500 at 50/s took {took} s");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_now_does_not_wait_for_the_backlog() {
    let mut world =
        World::new(1, Functions::new(|_, _| Act::After(Duration::from_millis(4))), vec![binding("f", "in")])
            .await;
    for n in 0..24 {
        world.send("in", events(n * 500, n * 500 + 500)).await;
    }
    world.start().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let fresh = world.send("in", vec![event("fresh", &json!(0))]).await[0];
    let before = world.functions.calls().len();
    world.until("the fresh one is delivered", async |w| state(w, fresh).await.is_some()).await;
    let waited = world.functions.calls().len() - before;
    assert!(waited < 200, "{waited} of the backlog went first");
    world.crash();
    world.functions.rewrite(|_, _| Act::Answer);
    world.start().await;
    let id = world.id("f:in").await;
    let lane = fresh.lane;
    world
        .until("all is passed", async |w| w.ledger.checkpoint(lane, id).await.unwrap().mark == fresh.seq)
        .await;
    assert!(world.functions.calls().len() < 12_001 + 1_100, "what was done is passed over");
}

#[tokio::test(start_paused = true)]
async fn an_event_may_ask_for_a_later_time() {
    let mut world = World::new(1, Functions::new(|_, _| Act::Answer), vec![binding("f", "in")]).await;
    world.start().await;
    let at = world.clock.now().plus(Duration::from_secs(90));
    let mut later = event("later", &json!(0));
    later.extensions.insert("deliverat".into(), json!(at.to_string()));
    world.send("in", vec![later, event("now", &json!(0))]).await;
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(world.functions.calls().len(), 1);
    world.crash();
    world.start().await;
    world.settled().await;
    assert!(world.clock.now() >= at);
    assert_eq!(world.functions.calls().iter().filter(|c| c.id == "later").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_a_burst_only_the_last_is_delivered() {
    let rule = Debounce { wait: Duration::from_secs(5), max_wait: Some(Duration::from_secs(12)) };
    let spec = BindingSpec { debounce: Some(rule), ..binding("f", "in") };
    let mut world = World::new(1, Functions::new(|_, _| Act::Answer), vec![spec]).await;
    world.start().await;
    let mut sent = Vec::new();
    for n in 0..4 {
        let feed = Arc::clone(&world.feed);
        let (a, b) = (format!("a{n}"), format!("b{n}"));
        let mut batch = vec![(event(&a, &json!(0)), "a")];
        if n == 0 {
            batch.push((event(&b, &json!(0)), "b"));
        }
        sent.extend(world.send_keyed(&feed, "in", batch).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
        if n == 1 {
            world.crash();
            world.start().await;
        }
    }
    world.settled().await;
    let ids: Vec<String> = world.functions.calls().into_iter().map(|c| c.id).collect();
    assert_eq!(ids, ["b0", "a3"]);
    assert_eq!(state(&world, sent[0]).await, Some((FinalState::Filtered, Some("Delivery.debounced".into()))));
    // A burst without end is cut by its longest wait.
    let before = world.functions.calls().len();
    for n in 0..12 {
        let feed = Arc::clone(&world.feed);
        world.send_keyed(&feed, "in", vec![(event(&format!("c{n}"), &json!(0)), "c")]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    world.settled().await;
    assert_eq!(world.functions.calls().len() - before, 2);
}

#[tokio::test(start_paused = true)]
async fn while_one_of_a_key_runs_others_are_skipped_or_take_its_place() {
    for (rule, expected) in [(Singleton::Skip, "first"), (Singleton::Cancel, "third")] {
        let functions = Functions::new(|_, _| Act::After(Duration::from_secs(10)));
        let spec = BindingSpec { singleton: Some(rule), ..binding("f", "in") };
        let mut world = World::new(1, functions, vec![spec]).await;
        world.known.insert("f".into(), function("f", 10));
        world.start().await;
        let feed = Arc::clone(&world.feed);
        let mut sent = Vec::new();
        for id in ["first", "second", "third"] {
            sent.extend(
                world
                    .send_keyed(
                        &feed,
                        "in",
                        vec![(event(id, &json!(0)), "k"), (event("other", &json!(0)), id)],
                    )
                    .await,
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        world.settled().await;
        let done: Vec<String> = world.functions.spans().into_iter().flat_map(|s| s.done).collect();
        assert_eq!(done.iter().filter(|id| *id != "other").collect::<Vec<_>>(), [expected], "{rule:?}");
        assert_eq!(done.len(), 4, "other keys are not concerned");
        let turned_away = if rule == Singleton::Skip { FinalState::Filtered } else { FinalState::Discarded };
        let second = state(&world, sent[2]).await.unwrap();
        assert_eq!(second, (turned_away, Some("Delivery.singleton".into())));
        world.send_keyed(&feed, "in", vec![(event("later", &json!(0)), "k")]).await;
        world.settled().await;
        assert!(
            world.functions.calls().iter().any(|c| c.id == "later"),
            "when it is over, the next one runs"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_cancelled_wherever_it_is() {
    let functions = Functions::new(|_, _| Act::Hang);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    let sent = world.send("in", events(0, 5)).await;
    world.until("two run", async |w| w.functions.calls().len() == 2).await;
    let id = world.id("f:in").await;
    let keys: Vec<_> = [0, 3].map(|n: usize| DeliveryKey { binding: id, address: sent[n] }).into();
    assert_eq!(world.ledger.cancel(&keys, "not needed", "ana", world.clock.now()).await.unwrap(), 2);
    world.handle().cancel(&keys);
    world.until("the next one runs", async |w| w.functions.calls().len() == 3).await;
    world.functions.rewrite(|_, _| Act::Answer);
    world.crash();
    world.start().await;
    world.settled().await;
    for (n, address) in sent.iter().enumerate() {
        let expected = if n == 0 || n == 3 { FinalState::Discarded } else { FinalState::Delivered };
        assert_eq!(state(&world, *address).await.unwrap().0, expected, "e{n}");
    }
    assert!(world.functions.calls().iter().all(|c| c.id != "e3"));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_free_again_when_its_retry_is_given_up() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValueError"));
    let mut spec = BindingSpec { singleton: Some(Singleton::Skip), ..binding("f", "in") };
    (spec.retry.min_delay, spec.retry.max_delay) = (Duration::from_secs(3_600), Duration::from_secs(3_600));
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    let feed = Arc::clone(&world.feed);
    let first = world.send_keyed(&feed, "in", vec![(event("first", &json!(0)), "k")]).await[0];
    let key = DeliveryKey { binding: world.id("f:in").await, address: first };
    world.until("it is owed", async |w| w.ledger.owed(key).await.unwrap().is_some()).await;
    assert_eq!(world.ledger.cancel(&[key], "not needed", "ana", world.clock.now()).await.unwrap(), 1);
    world.handle().cancel(&[key]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.functions.rewrite(|_, _| Act::Answer);
    world.send_keyed(&feed, "in", vec![(event("second", &json!(0)), "k")]).await;
    world.settled().await;
    assert!(world.functions.calls().iter().any(|call| call.id == "second"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_runs_is_broken_off_and_not_called_again() {
    let functions = Functions::new(|_, number| match number {
        1 => Act::Fail(FailureClass::Function, "ValueError"),
        _ => Act::Hang,
    });
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    let address = world.send("in", events(0, 1)).await[0];
    world.until("the retry runs", async |w| w.functions.calls().len() == 2).await;
    let key = DeliveryKey { binding: world.id("f:in").await, address };
    assert_eq!(world.ledger.cancel(&[key], "not needed", "ana", world.clock.now()).await.unwrap(), 1);
    world.handle().cancel(&[key]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.functions.calls().len(), 2);
    assert_eq!(state(&world, address).await.unwrap().0, FinalState::Discarded);
}

#[tokio::test(start_paused = true)]
async fn one_event_that_is_never_answered_does_not_hold_up_the_others_for_good() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Unreachable, "HTTP.Unreachable"));
    let mut world = endpoint(functions, 4).await;
    world.start().await;
    let sent = world.send("in", events(0, 40)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.functions.rewrite(|call, _| match call.id.as_str() {
        "e7" => Act::Fail(FailureClass::Timeout, "Sandbox.Timedout"),
        _ => Act::Answer,
    });
    world.settled().await;
    for (n, address) in sent.iter().enumerate() {
        let expected = if n == 7 { FinalState::Dead } else { FinalState::Delivered };
        assert_eq!(state(&world, *address).await.unwrap().0, expected, "e{n}");
    }
}
