//! Redrives, discards, replays.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Error, Ledger, ReplayRecord, ReplayState};
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{FailureClass, FinalState, Lane, ReplayId};
use serde_json::json;

use super::world::{Act, Functions, World, binding, event};
use crate::explain::explain;
use crate::replay::plan;

async fn sent(lanes: u16, count: usize) -> (World, Vec<bellwire_schemas::Address>) {
    let functions = Functions::new(|call, _| match call.id.trim_start_matches('e').parse::<usize>() {
        Ok(n) if n % 10 == 3 => Act::Fail(FailureClass::Function, "ValidationError"),
        _ => Act::Answer,
    });
    let mut world = World::new(lanes, functions, vec![binding("f", "in")]).await;
    world.start().await;
    let mut addresses = Vec::new();
    for n in 0..count / 10 {
        let batch = (n * 10..n * 10 + 10).map(|n| event(&format!("e{n}"), &json!({"n": n}))).collect();
        addresses.extend(world.send("in", batch).await);
    }
    world.settled().await;
    (world, addresses)
}

async fn replay(world: &World, id: &str, selector: Selector) -> u64 {
    let all = world.ledger.bindings().await.unwrap();
    let plan = plan(&world.ledger, &selector, &all[0], world.clock.now()).await.unwrap();
    let mut until = BTreeMap::new();
    for lane in (1..=world.ledger.lanes()).map(Lane) {
        until.insert(lane, world.ledger.tail(lane).await.unwrap());
    }
    let record = ReplayRecord {
        id: ReplayId::new(id),
        version: 1,
        selector,
        binding: all[0].id,
        binding_name: all[0].name.clone(),
        state: ReplayState::Running,
        total: plan.total,
        enqueued: 0,
        cursor: BTreeMap::new(),
        until,
        by: "ana".into(),
        created_at: world.clock.now(),
    };
    world.ledger.save_replay(&record, &[]).await.unwrap();
    world.handle().poke();
    plan.total
}

async fn replayed(world: &World, id: &str) -> ReplayRecord {
    let id = ReplayId::new(id);
    world
        .until("the replay is done", async |w| {
            w.ledger.replay(&id).await.unwrap().unwrap().state == ReplayState::Done
        })
        .await;
    world.settled().await;
    world.ledger.replay(&id).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_redriven_after_the_fix() {
    let (world, addresses) = sent(1, 10).await;
    let id = world.id("f:in").await;
    let key = DeliveryKey { binding: id, address: addresses[3] };
    let dead = world.ledger.dead_letter(key).await.unwrap().unwrap();
    assert_eq!((dead.attempts, dead.error.kind.as_str(), dead.logs.len()), (1, "ValidationError", 1));
    let found =
        explain(&world.ledger, Some(world.handle()), key.address, world.clock.now()).await.unwrap().unwrap();
    assert_eq!(found.deliveries[0].reason.as_deref(), Some("non-retryable"));
    assert_eq!(found.deliveries[0].group.as_deref(), Some(dead.fingerprint.as_str()));
    world.functions.rewrite(|_, _| Act::Answer);
    assert_eq!(world.ledger.redrive(&[key], world.clock.now()).await.unwrap(), 1);
    world.handle().poke();
    world.settled().await;
    let totals = &world.ledger.totals().await.unwrap()[&id];
    assert_eq!((totals.ended.get(&FinalState::Delivered), totals.dead_letters), (Some(&10), 0));
    let keys: std::collections::BTreeSet<_> =
        world.functions.calls().into_iter().filter(|c| c.id == "e3").map(|c| c.key).collect();
    assert_eq!(keys.len(), 1, "a redrive is the same delivery");
    let found =
        explain(&world.ledger, Some(world.handle()), key.address, world.clock.now()).await.unwrap().unwrap();
    assert_eq!(found.deliveries[0].state, "delivered");
    assert_eq!(found.deliveries[0].attempts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_debt_in_memory_can_be_discarded() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValueError"));
    let mut spec = binding("f", "in");
    spec.retry.min_delay = Duration::from_secs(30);
    spec.retry.max_delay = Duration::from_secs(30);
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    let address = world.send("in", vec![event("e1", &json!(1))]).await[0];
    let key = DeliveryKey { binding: world.id("f:in").await, address };
    world.until("owed", async |w| w.ledger.owed(key).await.unwrap().is_some()).await;
    world.ledger.discard(&[key], "no use", "ana", world.clock.now()).await.unwrap();
    world.handle().poke();
    world.settled().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.functions.calls().len(), 1);
    let found =
        explain(&world.ledger, Some(world.handle()), address, world.clock.now()).await.unwrap().unwrap();
    assert_eq!(
        (found.deliveries[0].state.as_str(), found.deliveries[0].reason.as_deref()),
        ("discarded", Some("operator"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_replay_delivers_everything_again_once_over_a_crash() {
    let (mut world, _) = sent(3, 3_000).await;
    world.functions.rewrite(|_, _| Act::After(Duration::from_millis(1)));
    let before = world.functions.calls().len();
    let total = replay(&world, "r-1", Selector { source: Some("in".into()), ..Selector::default() }).await;
    assert_eq!(total, 3_000);
    tokio::time::sleep(Duration::from_millis(700)).await;
    world.crash();
    world.start().await;
    let record = replayed(&world, "r-1").await;
    assert_eq!(record.enqueued, 3_000);
    let again = world.functions.calls().len() - before;
    assert!((3_000..3_040).contains(&again), "{again}");
    let totals = &world.ledger.totals().await.unwrap()[&record.binding];
    assert_eq!(totals.ended.get(&FinalState::Delivered), Some(&3_000));
    assert_eq!(totals.dead_letters, 0);
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_the_dead_or_by_content_takes_no_other() {
    let (world, addresses) = sent(2, 100).await;
    world.functions.rewrite(|_, _| Act::Answer);
    let filter = json!({"data": {"n": [{"numeric": ["<", 7]}]}});
    for (name, selector, expected) in [
        ("filter", Selector { filter: Some(filter), ..Selector::default() }, 7),
        ("ids", Selector { ids: vec!["e5".into(), "e77".into(), "none".into()], ..Selector::default() }, 2),
        ("addresses", Selector { addresses: vec![addresses[1], addresses[2]], ..Selector::default() }, 2),
        ("future", Selector { since: Some(world.clock.now()), ..Selector::default() }, 0),
        ("delivered", Selector { state: Some("delivered".into()), ..Selector::default() }, 91),
        ("dead", Selector { state: Some("dead".into()), ..Selector::default() }, 9),
        ("dead again", Selector { state: Some("dead".into()), ..Selector::default() }, 0),
    ] {
        let before = world.functions.calls().len();
        assert_eq!(replay(&world, name, selector).await, expected, "{name}");
        replayed(&world, name).await;
        assert_eq!((world.functions.calls().len() - before) as u64, expected, "{name}");
    }
    let all = world.ledger.bindings().await.unwrap();
    let waiting = Selector { state: Some("waiting".into()), ..Selector::default() };
    assert!(plan(&world.ledger, &waiting, &all[0], world.clock.now()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_replay_stops() {
    let (world, _) = sent(1, 3_000).await;
    world.functions.rewrite(|_, _| Act::After(Duration::from_secs(1)));
    replay(&world, "r-1", Selector { source: Some("in".into()), ..Selector::default() }).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let id = ReplayId::new("r-1");
    let record = world.handle().change_replay(&id, ReplayState::Cancelled).await.unwrap().unwrap();
    assert!((1_000..=1_050).contains(&record.enqueued), "{}", record.enqueued);
    assert_eq!(world.handle().change_replay(&id, ReplayState::Running).await.unwrap(), None);
    world.functions.rewrite(|_, _| Act::Answer);
    world.settled().await;
    assert_eq!(world.ledger.replay(&id).await.unwrap().unwrap().enqueued, record.enqueued);
}

/// The ledger has committed a death, the runner has not heard of it yet, and the dead letter is redriven: the debt
/// comes for a place that the runner still holds.
#[tokio::test(start_paused = true)]
async fn a_redrive_between_commit_and_its_answer_is_not_forgotten() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "ValueError"));
    let mut spec = binding("f", "in");
    spec.retry.attempts = Some(2);
    let mut world = World::new(1, functions, vec![spec]).await;
    world.start().await;
    let address = world.send("in", vec![event("e1", &json!(1))]).await[0];
    let key = DeliveryKey { binding: world.id("f:in").await, address };
    world.until("owed", async |w| w.ledger.owed(key).await.unwrap().is_some()).await;
    world.ledger.commit_then_fail_flush(Error::Unavailable("the answer got lost".into()));
    world.until("dead", async |w| w.ledger.dead_letter(key).await.unwrap().is_some()).await;
    world.functions.rewrite(|_, _| Act::Answer);
    assert_eq!(world.ledger.redrive(&[key], world.clock.now()).await.unwrap(), 1);
    world.handle().poke();
    world.settled().await;
    assert_eq!(world.functions.calls().len(), 3);
}
