//! Functions that hang, do not start, are unknown; bindings that are paused, changed, removed; lanes that are lost.

use std::time::Duration;

use bellwire_ledger::{Error, Ledger, LogOutcome, Pause};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{ControllerId, FailureClass, FinalState, Lane};
use serde_json::json;
use uuid::Uuid;

use super::world::{Act, Functions, World, binding, event, function};
use crate::explain::explain;

fn events(from: usize, to: usize) -> Vec<bellwire_schemas::Event> {
    (from..to).map(|n| event(&format!("e{n}"), &json!({"n": n}))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hanging_function_holds_up_nobody_else() {
    let functions = Functions::new(|call, _| if call.function == "hangs" { Act::Hang } else { Act::Answer });
    let mut world = World::new(1, functions, vec![binding("hangs", "in"), binding("works", "in")]).await;
    world.start().await;
    for n in 0..20 {
        world.send("in", events(n * 50, n * 50 + 50)).await;
    }
    world.until("the other is done", async |w| w.functions.count("works") == 1_000).await;
    assert_eq!(world.functions.count("hangs"), 2, "as many as its concurrency");
    let id = world.id("hangs:in").await;
    assert_eq!(world.handle().binding_live(id).unwrap().running.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_exact_over_bindings_and_lanes() {
    let functions = Functions::new(|_, _| Act::After(Duration::from_millis(20)));
    let mut second = binding("f", "in");
    second.name = "f:again".into();
    second.concurrency = Some(1);
    let mut world = World::new(4, functions, vec![binding("f", "in"), second]).await;
    world.known.insert("f".into(), function("f", 3));
    world.start().await;
    for n in 0..40 {
        world.send("in", events(n * 5, n * 5 + 5)).await;
    }
    world.settled().await;
    assert_eq!(world.functions.most(), 3);
    assert_eq!(world.functions.calls().len(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_cannot_start_burns_no_attempt_and_is_probed_alone() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::CannotStart, "Runtime.ImportModuleError"));
    let mut world = World::new(2, functions, vec![binding("f", "in")]).await;
    let mut facts = world.live.subscribe();
    world.start().await;
    world.send("in", events(0, 30)).await;
    world.send("in", events(30, 60)).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let tried = world.functions.calls().len();
    assert!((6..=14).contains(&tried), "two at first, then one probe per wait: {tried}");
    let id = world.id("f:in").await;
    let live = world.handle().binding_live(id).unwrap();
    assert_eq!((live.state, live.reason), ("waiting", Some("function-cannot-start")));
    assert!(live.next_at.is_some());
    world.functions.rewrite(|_, _| Act::Answer);
    world.handle().retry_function(&"f".into());
    world.settled().await;
    let mut conditions = Vec::new();
    while let Ok(fact) = facts.try_recv() {
        match fact {
            Fact::Condition { state, .. } => conditions.push(state),
            Fact::Attempt { attempt, state, .. } => {
                assert_eq!((attempt, state), (1, Some(FinalState::Delivered)))
            }
            _ => {}
        }
    }
    assert_eq!(conditions, ["cannot-start", "started"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_waits_until_it_is_defined() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.known.clear();
    world.start().await;
    let address = world.send("in", events(0, 1)).await[0];
    tokio::time::sleep(Duration::from_secs(5)).await;
    let found =
        explain(&world.ledger, Some(world.handle()), address, world.clock.now()).await.unwrap().unwrap();
    assert_eq!(found.deliveries[0].state, "waiting");
    assert_eq!(found.deliveries[0].reason.as_deref(), Some("function-unknown"));
    world.known.insert("f".into(), function("f", 1));
    world.apply().await;
    world.settled().await;
    assert_eq!(world.functions.count("f"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_binding_keeps_its_place() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    let id = world.id("f:in").await;
    let pause = Pause { since: world.clock.now(), by: "ana".into(), reason: "db migration".into() };
    world.ledger.set_paused(id, Some(pause.clone())).await.unwrap();
    world.handle().set_paused(&"f:in".into(), Some(pause));
    let address = world.send("in", events(0, 10)).await[0];
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.functions.calls().len(), 0);
    let found =
        explain(&world.ledger, Some(world.handle()), address, world.clock.now()).await.unwrap().unwrap();
    assert_eq!(found.deliveries[0].state, "paused");
    assert!(found.deliveries[0].detail.as_ref().unwrap().contains("db migration"));
    world.crash();
    world.start().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.functions.calls().len(), 0, "the pause outlives a restart");
    world.ledger.set_paused(id, None).await.unwrap();
    world.handle().set_paused(&"f:in".into(), None);
    world.settled().await;
    assert_eq!(world.functions.calls().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn old_deliveries_expire_before_and_after_attempts() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValueError"));
    let mut spec = binding("f", "in");
    spec.max_age = Some(Duration::from_secs(10));
    spec.retry.attempts = None;
    let mut world = World::new(1, functions, vec![spec]).await;
    let early = world.send("in", events(0, 1)).await[0];
    world.clock.advance(Duration::from_secs(60));
    world.start().await;
    let late = world.send("in", events(1, 2)).await[0];
    world.settled().await;
    for (address, attempted) in [(early, false), (late, true)] {
        let log = world.ledger.log(address, None).await.unwrap();
        let last = &log.last().unwrap().1;
        assert_eq!(last.outcome, LogOutcome::Final(FinalState::Expired));
        assert_eq!(log.iter().any(|(_, e)| e.attempt > 0), attempted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_filter_counts_for_what_comes_after_it() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut spec = binding("f", "in");
    spec.filter = vec![json!({"data": {"n": [0]}})];
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    let address = world.send("in", events(0, 3)).await[1];
    world.settled().await;
    assert_eq!(world.functions.count("f"), 1);
    let found =
        explain(&world.ledger, Some(world.handle()), address, world.clock.now()).await.unwrap().unwrap();
    let delivery = &found.deliveries[0];
    assert_eq!((delivery.state.as_str(), delivery.revision), ("filtered", 1));
    assert!(delivery.detail.as_ref().unwrap().contains("data.n"), "{:?}", delivery.detail);
    // What was accepted before the change is judged as it was then, whenever its turn comes.
    world.handle().set_paused(
        &"f:in".into(),
        Some(Pause { since: world.clock.now(), by: "ana".into(), reason: "".into() }),
    );
    let late = world.send("in", events(6, 8)).await[0];
    world.specs[0].filter = vec![json!({"data": {"n": [{"numeric": [">", 3]}]}})];
    world.apply().await;
    world.send("in", events(3, 6)).await;
    world.handle().set_paused(&"f:in".into(), None);
    world.settled().await;
    assert_eq!(world.functions.count("f"), 3);
    let found = explain(&world.ledger, Some(world.handle()), late, world.clock.now()).await.unwrap().unwrap();
    assert_eq!((found.deliveries[0].state.as_str(), found.deliveries[0].revision), ("filtered", 1));
    let since = world.ledger.revisions(world.id("f:in").await).await.unwrap()[1].since[&Lane(1)];
    assert_eq!(since.0, 5, "the change is recorded with its place");
    let again =
        explain(&world.ledger, Some(world.handle()), address, world.clock.now()).await.unwrap().unwrap();
    assert_eq!(again.deliveries[0].detail, delivery.detail, "explained by the filter of its revision");
}

#[tokio::test(start_paused = true)]
async fn a_removed_binding_stops_and_goes_on_where_it_was() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    world.send("in", events(0, 5)).await;
    world.settled().await;
    let specs = std::mem::take(&mut world.specs);
    world.apply().await;
    world.send("in", events(5, 10)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.functions.count("f"), 5);
    world.specs = specs;
    world.apply().await;
    world.settled().await;
    assert_eq!(world.functions.count("f"), 10);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lane_is_dropped_and_taken_again() {
    let functions = Functions::new(|_, _| Act::After(Duration::from_millis(200)));
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    world.send("in", events(0, 6)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Another controller takes the lane over while two attempts are in flight, and soon gives it back.
    world.ledger.reopen();
    let other = ControllerId(Uuid::new_v4());
    let epoch = world.ledger.acquire(other, Lane(1), world.clock.now()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let id = world.id("f:in").await;
    assert_eq!(world.ledger.checkpoint(Lane(1), id).await.unwrap().version, 0, "late results wrote nothing");
    assert_eq!(world.handle().lanes()[0].epoch, None);
    world.ledger.release(Lane(1), epoch).await.unwrap();
    world.ledger.leave(other).await.unwrap();
    world.settled().await;
    assert_eq!(world.ledger.totals().await.unwrap()[&id].ended[&FinalState::Delivered], 6);
    // Repeated: the two in flight, and the two that started before the first flush was refused.
    assert!(world.functions.calls().len() <= 10);
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_attempts_end_flushes_and_gives_lanes_back() {
    let functions = Functions::new(|_, _| Act::After(Duration::from_secs(1)));
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    world.send("in", events(0, 10)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.handle().shutdown(Duration::from_secs(10)).await;
    let id = world.id("f:in").await;
    assert_eq!(world.functions.calls().len(), 2);
    assert_eq!(world.ledger.totals().await.unwrap()[&id].ended[&FinalState::Delivered], 2);
    let other = ControllerId(Uuid::new_v4());
    assert!(world.ledger.acquire(other, Lane(1), world.clock.now()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_up_what_hangs() {
    let functions = Functions::new(|_, _| Act::Hang);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    world.send("in", events(0, 10)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = tokio::time::Instant::now();
    world.handle().shutdown(Duration::from_secs(10)).await;
    assert!(before.elapsed() < Duration::from_secs(12));
    world.functions.rewrite(|_, _| Act::Answer);
    world.crash();
    world.start().await;
    assert_eq!(world.handle().recovered(), Some(10));
    world.settled().await;
    assert_eq!(world.functions.calls().len(), 12);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_breaks_its_attempt_down_dies_after_its_attempts() {
    let functions =
        Functions::new(
            |call, _| if call.id == "e0" { Act::Panic } else { Act::After(Duration::from_millis(1)) },
        );
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    world.send("in", events(0, 3)).await;
    world.until("the others are done", async |w| w.functions.count("f") >= 3).await;
    world.settled().await;
    let id = world.id("f:in").await;
    let ended = world.ledger.totals().await.unwrap()[&id].ended.clone();
    assert_eq!((ended[&FinalState::Delivered], ended[&FinalState::Dead]), (2, 1));
    assert_eq!(world.functions.count("f"), 2 + 4, "as many attempts as the binding allows");
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_prolong_the_wait_of_a_function() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::CannotStart, "Runtime.ImportModuleError"));
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    world.send("in", events(0, 3)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.functions.rewrite(|_, _| Act::Answer);
    world.clock.set(world.clock.now().minus(Duration::from_secs(86_400)));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let id = world.id("f:in").await;
    let ended = world.ledger.totals().await.unwrap()[&id].ended.clone();
    assert_eq!(ended.get(&FinalState::Delivered), Some(&3));
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_takes_no_flush_is_told_until_it_does() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    let id = world.id("f:in").await;
    for _ in 0..20 {
        world.ledger.fail_next_flush(Error::Unavailable("busy".into()));
    }
    let state = |world: &World| world.handle().binding_live(id).unwrap().reason;
    world.send("in", events(0, 1)).await;
    world.until("told", async |w| state(w) == Some("ledger-unavailable")).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    // Reading still works, and says nothing about writing.
    world.send("in", events(1, 2)).await;
    world.until("read", async |w| w.functions.count("f") == 2).await;
    assert_eq!(state(&world), Some("ledger-unavailable"));
    world.settled().await;
    world.until("over", async |w| state(w).is_none()).await;
}

/// A reload declares its bindings, an operator pauses one, and only then the reload is put in force.
#[tokio::test(start_paused = true)]
async fn a_pause_during_a_reload_holds() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, functions, vec![binding("f", "in")]).await;
    world.start().await;
    let id = world.id("f:in").await;
    let declared = world.configuration().await;
    let pause = Pause { since: world.clock.now(), by: "ana".into(), reason: "db migration".into() };
    world.ledger.set_paused(id, Some(pause.clone())).await.unwrap();
    world.handle().set_paused(&"f:in".into(), Some(pause));
    world.handle().apply(declared).await.unwrap();
    assert_eq!(world.handle().binding_live(id).unwrap().state, "paused");
    world.send("in", events(0, 1)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.functions.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_does_not_get_on_is_told_and_replaced() {
    let mut world = World::new(1, Functions::new(|_, _| Act::Answer), vec![binding("f", "in")]).await;
    let mut facts = world.live.subscribe();
    world.ledger.hang_next_due();
    world.start().await;
    world.send("in", events(0, 5)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.functions.calls().len(), 0);
    world.settled().await;
    assert_eq!(world.functions.calls().len(), 5);
    let is_told = std::iter::from_fn(|| facts.try_recv().ok())
        .any(|fact| matches!(fact, Fact::Condition { state, .. } if state == "stalled"));
    assert!(is_told);
}
