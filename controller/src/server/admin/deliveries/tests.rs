use bellwire_ledger::{OwedReason, Pause};
use bellwire_schemas::selector::Selector;

use super::super::testing::{World, at};
use super::*;

async fn listed(world: &World, query: &str) -> Vec<(String, String, String)> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let uri = format!("/v1/deliveries?{query}{cursor}").parse().unwrap();
        let page = pages(&world.reads, ListQuery::parse(&uri, &world.reads.clock).unwrap()).await.unwrap();
        let reason = |view: &DeliveryView| view.reason.clone().unwrap_or_default();
        all.extend(page.items.iter().map(|v| (v.address.to_string(), v.state.clone(), reason(v))));
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn row(address: &str, state: &str, reason: &str) -> (String, String, String) {
    (address.into(), state.into(), reason.into())
}

/// What a cancellation answers: first when it only counts, then when it does it.
async fn cancelled(world: &World, selector: Selector) -> [(u64, u64, u64); 2] {
    let mut answers = [(0, 0, 0); 2];
    for (answer, dry_run) in answers.iter_mut().zip([true, false]) {
        let selector = selector.clone();
        let request =
            CancelRequest { selector, reason: "closed".into(), dry_run, ..CancelRequest::default() };
        let changed = give_up(&world.reads, &request, "ana").await.unwrap();
        assert_eq!((changed.dry_run, changed.next), (dry_run, None));
        *answer = (changed.count, changed.paused, changed.inactive);
    }
    answers
}

fn of(binding: &str) -> Selector {
    Selector { binding: Some(binding.into()), ..Selector::default() }
}

async fn pause(world: &World, name: &str) {
    let pause = Pause { since: at(0), by: "ana".into(), reason: String::new() };
    world.ledger.set_paused(world.record(name).await.id, Some(pause)).await.unwrap();
}

#[tokio::test]
async fn what_no_cursor_has_come_to_is_cancelled_by_every_condition() {
    let world = World::new(&["a:orders", "b:orders"]).await;
    world.events(3, "8812").await;
    world.events(9, "7").await;
    pause(&world, "b:orders").await;
    assert_eq!(listed(&world, "binding=b:orders").await, [], "what waits is only counted");
    let id = Selector { ids: vec!["9".into()], ..of("b:orders") };
    assert_eq!(cancelled(&world, id.clone()).await, [(1, 1, 0); 2]);
    assert_eq!(cancelled(&world, id).await, [(0, 0, 0); 2], "a repeat");
    let key = Selector { key: Some("8812".into()), ..of("b:orders") };
    assert_eq!(cancelled(&world, key).await, [(3, 3, 0); 2]);
    assert_eq!(listed(&world, "binding=b:orders&state=waiting").await.len(), 4, "the requests");
    let retries = Selector { state: Some("retrying".into()), ..Selector::default() };
    assert_eq!(cancelled(&world, retries).await, [(0, 0, 0); 2]);
    let source = Selector { source: Some("orders".into()), since: Some(at(5)), ..Selector::default() };
    assert_eq!(
        cancelled(&world, source.clone()).await,
        [(9, 4, 0); 2],
        "both bindings, but for what is asked"
    );
    let other = Selector { source: Some("others".into()), ..source };
    assert_eq!(cancelled(&world, other).await, [(0, 0, 0); 2]);
    assert_eq!(cancelled(&world, of("a:orders")).await, [(7, 0, 0); 2]);
}

#[tokio::test]
async fn debts_and_what_waits_are_cancelled_together() {
    let world = World::new(&["a:orders"]).await;
    world.events(6, "k").await;
    world.owes("a:orders", &[OwedReason::Retry, OwedReason::Blocked]).await;
    assert_eq!(
        listed(&world, "").await,
        [row("1-2", "parked", "key-blocked"), row("1-1", "retrying", "retry")],
        "newest event first"
    );
    assert_eq!(cancelled(&world, of("a:orders")).await, [(6, 0, 0); 2]);
    let left = listed(&world, "").await;
    assert!(left.iter().all(|(_, _, reason)| reason == "cancel-requested") && left.len() == 4, "{left:?}");
}

#[tokio::test]
async fn a_cancellation_goes_on_where_the_one_before_ended() {
    let world = World::new(&["a:orders"]).await;
    world.events(4, "k").await;
    let after = Some(write_cursor(Cursor { at: at(2), address: "2-1".parse().unwrap() }));
    let request =
        CancelRequest { selector: of("a:orders"), dry_run: true, after, ..CancelRequest::default() };
    assert_eq!(give_up(&world.reads, &request, "ana").await.unwrap().count, 2);
    let request = CancelRequest { after: Some("x".into()), ..request };
    assert!(give_up(&world.reads, &request, "ana").await.is_err(), "no cursor of ours");
}

#[tokio::test]
async fn what_is_owed_to_a_binding_that_is_gone_is_listed_and_cancelled() {
    let world = World::new(&["a:orders", "gone:orders"]).await;
    world.events(6, "k").await;
    world.owes("gone:orders", &[OwedReason::Retry, OwedReason::Parked]).await;
    world.declare(&["a:orders"]).await;
    let why = |address: &str| row(address, "paused", "binding-inactive");
    let all = ["2-3", "1-3", "2-2", "1-2", "2-1", "1-1"].map(why);
    for query in ["binding=gone:orders", "binding=gone:orders&limit=1", "binding=gone:orders&limit=4"] {
        assert_eq!(listed(&world, query).await, all, "{query}");
    }
    assert_eq!(listed(&world, "address=2-3&binding=gone:orders").await, [why("2-3")]);
    assert_eq!(listed(&world, "binding=gone:orders&state=parked").await, [why("1-2")]);
    assert_eq!(cancelled(&world, of("gone:orders")).await, [(6, 0, 4); 2]);
    assert_eq!(cancelled(&world, of("gone:orders")).await, [(0, 0, 0); 2]);
    assert_eq!(listed(&world, "binding=gone:orders").await.len(), 4, "each once");
}

#[tokio::test]
async fn a_pause_is_told_of_its_debts() {
    let world = World::new(&["a:orders"]).await;
    world.events(6, "k").await;
    world.owes("a:orders", &[OwedReason::Retry, OwedReason::Blocked]).await;
    pause(&world, "a:orders").await;
    let paused = [row("1-1", "paused", "binding-paused")];
    let blocked = [row("1-2", "parked", "key-blocked")];
    let both = [blocked.clone(), paused.clone()].concat();
    assert_eq!(listed(&world, "").await, both);
    assert_eq!(listed(&world, "state=retrying").await, paused);
    assert_eq!(listed(&world, "state=parked").await, blocked);
    assert_eq!(listed(&world, "state=paused").await, both);
    let retries = Selector { state: Some("retrying".into()), ..Selector::default() };
    assert_eq!(cancelled(&world, retries).await, [(1, 0, 0); 2], "a debt ends at once");
}
