//! What an explanation says about a delivery that waits: the true cause, whatever it is.

use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Ledger, Pause};
use bellwire_schemas::api::ExplainedDelivery;
use bellwire_schemas::service::{Batch, BindingSpec, Ordering, Rate};
use bellwire_schemas::{Address, FailureClass};
use serde_json::json;

use super::world::{Act, Functions, World, binding, event, function};
use crate::explain::explain;

const HOUR: Duration = Duration::from_secs(3_600);

async fn explained(world: &World, address: Address) -> ExplainedDelivery {
    let found = explain(&world.ledger, Some(world.handle()), address, world.clock.now()).await;
    found.unwrap().unwrap().deliveries.remove(0)
}

/// State, reason, and what it waits for.
fn words(delivery: &ExplainedDelivery) -> (&str, &str, &str) {
    let (reason, waits_for) = (delivery.reason.as_deref(), delivery.waits_for.as_deref());
    (&delivery.state, reason.unwrap_or_default(), waits_for.unwrap_or_default())
}

/// Starts with these functions and this binding; each of `keys` is the key of one event.
async fn waiting(
    spec: BindingSpec,
    concurrency: u32,
    functions: std::sync::Arc<Functions>,
    keys: &[&str],
) -> (World, Vec<Address>) {
    let mut world = World::new(1, functions, vec![spec]).await;
    world.known.insert("f".into(), function("f", concurrency));
    world.start().await;
    let events = keys.iter().enumerate().map(|(n, key)| (event(&format!("e{n}"), &json!(n)), *key)).collect();
    let addresses = world.send_keyed(&world.feed, "in", events).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    (world, addresses)
}

#[tokio::test(start_paused = true)]
async fn a_rate_says_when_it_allows_the_next_one_and_the_binding_says_so_too() {
    let rate = Some(Rate { events: 1, per: HOUR });
    let spec = BindingSpec { rate, ..binding("f", "in") };
    let (world, sent) = waiting(spec, 3, Functions::new(|_, _| Act::Answer), &["a", "b", "c"]).await;
    assert_eq!(world.functions.calls().len(), 1);
    let last = explained(&world, sent[2]).await;
    assert_eq!(words(&last), ("waiting", "rate", "f:in"));
    let detail = last.detail.unwrap();
    assert!(detail.starts_with("limited by rate 1/h, the next one may start at 2027-01-15T09:"), "{detail}");
    let live = world.handle().binding_live(world.id("f:in").await).unwrap();
    assert_eq!((live.state, live.reason), ("ok", Some("rate")));
    assert_eq!(live.detail.as_deref(), Some("limited by rate 1/h"));
}

#[tokio::test(start_paused = true)]
async fn a_key_in_flight_is_named_unless_the_rate_takes_longer() {
    let spec = BindingSpec { ordering: Ordering::Key, ..binding("f", "in") };
    let slow = Functions::new(|_, _| Act::Hang);
    let (world, sent) = waiting(spec.clone(), 3, slow, &["a", "a", "a", "b"]).await;
    for address in &sent[1..3] {
        let next = explained(&world, *address).await;
        assert_eq!((words(&next), next.behind), (("waiting", "key-in-flight", "key a"), Some(sent[0])));
    }
    assert_eq!(explained(&world, sent[3]).await.state, "running");
    let rate = Some(Rate { events: 1, per: HOUR });
    let slow = Functions::new(|_, _| Act::Hang);
    let (world, sent) = waiting(BindingSpec { rate, ..spec }, 3, slow, &["a", "a"]).await;
    assert_eq!(words(&explained(&world, sent[1]).await), ("waiting", "rate", "f:in"));
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_its_window() {
    let batch = Batch { size: 10, window: Duration::from_secs(60), ..Batch::default() };
    let spec = BindingSpec { batch, ..binding("f", "in") };
    let (world, sent) = waiting(spec, 3, Functions::new(|_, _| Act::Answer), &["a", "b"]).await;
    let found = explained(&world, sent[1]).await;
    assert_eq!(words(&found), ("waiting", "batch-window", "f:in"));
    let left = found.next_attempt_at.unwrap().since(world.clock.now());
    assert!((57..=60).contains(&left.as_secs()), "{left:?}");
    assert_eq!(found.detail.as_deref(), Some("a batch of 10 that is not full waits 1m"));
}

#[tokio::test(start_paused = true)]
async fn slots_are_named_by_whose_they_are() {
    let slow = || Functions::new(|_, _| Act::Hang);
    let (world, sent) = waiting(binding("f", "in"), 2, slow(), &["a", "b", "c"]).await;
    let found = explained(&world, sent[2]).await;
    assert_eq!(words(&found), ("waiting", "concurrency", "f"));
    assert_eq!(found.detail.as_deref(), Some("all 2 slots of function f are taken"));
    let spec = BindingSpec { concurrency: Some(1), ..binding("f", "in") };
    let (world, sent) = waiting(spec, 2, slow(), &["a", "b", "c"]).await;
    let found = explained(&world, sent[2]).await;
    assert_eq!(found.detail.as_deref(), Some("the only slot of binding f:in is taken"));
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_away_or_does_not_start_is_named_with_its_next_probe() {
    for (class, reason) in
        [(FailureClass::Unreachable, "breaker-open"), (FailureClass::CannotStart, "function-cannot-start")]
    {
        let functions = Functions::new(move |_, _| Act::Fail(class, "Gone"));
        let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (world, sent) = waiting(binding("f", "in"), 2, functions, &keys).await;
        world
            .until("left alone", async |w| {
                let live = w.handle().binding_live(w.id("f:in").await).unwrap();
                live.reason == Some(reason) && live.next_probe_at > Some(w.clock.now())
            })
            .await;
        let found = explained(&world, sent[19]).await;
        assert_eq!(words(&found), ("waiting", reason, "f"));
        assert_eq!(found.detail.as_deref(), Some("Gone: as told"));
        assert!(found.held_since.is_some() && found.next_attempt_at > Some(world.clock.now()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_again_says_what_holds_it_and_what_is_not_due_keeps_its_time() {
    let functions =
        Functions::new(|_, n| if n == 1 { Act::Fail(FailureClass::Function, "E") } else { Act::Hang });
    let rate = Some(Rate { events: 1, per: HOUR });
    let mut spec = BindingSpec { rate, ..binding("f", "in") };
    (spec.retry.min_delay, spec.retry.max_delay) = (Duration::from_secs(600), Duration::from_secs(600));
    let (world, sent) = waiting(spec, 2, functions, &["a"]).await;
    let found = explained(&world, sent[0]).await;
    let due = found.next_attempt_at.unwrap();
    assert_eq!((found.state.as_str(), found.reason.as_deref()), ("retrying", Some("retry")));
    world.until("due", async |w| w.clock.now() > due.plus(Duration::from_secs(1))).await;
    let found = explained(&world, sent[0]).await;
    assert_eq!(words(&found), ("retrying", "rate", "f:in"));
}

#[tokio::test(start_paused = true)]
async fn the_lane_of_another_controller_is_not_guessed_about() {
    let world = World::new(2, Functions::new(|_, _| Act::Hang), vec![binding("f", "in")]).await;
    let ana = world.peer(1, Functions::new(|_, _| Act::Hang)).await;
    let ben = world.peer(2, Functions::new(|_, _| Act::Hang)).await;
    world.until("shared", async |_| (ana.owned(), ben.owned()) == (1, 1)).await;
    let events = (0..20).map(|n| (event(&format!("e{n}"), &json!(n)), ["a", "b", "c", "d"][n % 4])).collect();
    let sent = world.send_keyed(&ana.feed, "in", events).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let owns = |address: &&Address| {
        ana.handle.lanes().iter().any(|lane| lane.lane == address.lane && lane.epoch.is_some())
    };
    let (here, there) = (sent.iter().rfind(owns).unwrap(), sent.iter().rfind(|a| !owns(a)).unwrap());
    let of = async |address: &Address| {
        let found = explain(&world.ledger, Some(&ana.handle), *address, world.clock.now()).await;
        found.unwrap().unwrap().deliveries.remove(0)
    };
    assert_eq!(words(&of(here).await), ("waiting", "concurrency", "f"));
    assert_eq!(words(&of(there).await), ("waiting", "other-controller", "controller peer-2"));
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_the_configuration_lost_still_owes_its_events() {
    let functions = Functions::new(|_, _| Act::Fail(FailureClass::Function, "E"));
    let mut spec = binding("f", "in");
    (spec.retry.min_delay, spec.retry.max_delay) = (HOUR, HOUR);
    let (mut world, sent) = waiting(spec, 2, functions, &["a"]).await;
    world.specs.clear();
    world.apply().await;
    let later = world.send("in", vec![event("later", &json!(1))]).await[0];
    tokio::time::sleep(Duration::from_secs(2)).await;
    for address in [sent[0], later] {
        let found = explained(&world, address).await;
        assert_eq!(words(&found), ("paused", "binding-inactive", "f:in"));
        assert_eq!(found.detail.as_deref(), Some("the configuration has this binding no more"));
        let found = explain(&world.ledger, None, address, world.clock.now()).await.unwrap().unwrap();
        assert_eq!(found.deliveries[0].state, "paused", "a ledger without its dispatcher says the same");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_delivery_of_a_paused_binding_says_so() {
    let mut world = World::new(1, Functions::new(|_, _| Act::Answer), vec![binding("f", "in")]).await;
    world.start().await;
    let id = world.id("f:in").await;
    let pause = Pause { since: world.clock.now(), by: "ana".into(), reason: "db migration".into() };
    world.ledger.set_paused(id, Some(pause.clone())).await.unwrap();
    world.handle().set_paused(&"f:in".into(), Some(pause));
    let sent = world.send("in", vec![event("e1", &json!(1)), event("e2", &json!(2))]).await;
    let asked_at = world.clock.now();
    let key = DeliveryKey { binding: id, address: sent[0] };
    assert_eq!(world.ledger.cancel(&[key], "wrong bucket", "ben", asked_at).await.unwrap(), 1);
    world.handle().cancel(&[key]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let found = explained(&world, sent[0]).await;
    assert_eq!(words(&found), ("waiting", "cancel-requested", "f:in"));
    assert_eq!(
        found.detail.unwrap(),
        format!("cancelled at {asked_at} and ends when the binding is resumed: wrong bucket (by ben)")
    );
    assert_eq!(words(&explained(&world, sent[1]).await), ("paused", "binding-paused", "f:in"));
    world.ledger.set_paused(id, None).await.unwrap();
    world.handle().set_paused(&"f:in".into(), None);
    world.settled().await;
    assert_eq!(explained(&world, sent[0]).await.state, "discarded");
}
