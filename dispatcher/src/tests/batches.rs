//! Batches: how they are made, and what becomes of their events when they fail in part or as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwire_ledger::{Ledger, LogOutcome};
use bellwire_schemas::service::{Batch, BindingSpec, Ordering};
use bellwire_schemas::{Address, ByteSize, Event, FailureClass, FinalState, RetryPolicy, Timestamp};
use serde_json::json;

use super::world::{Act, Functions, World, binding, event};

fn batched(batch: Batch) -> BindingSpec {
    BindingSpec { batch, ..binding("f", "in") }
}

fn events(count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&format!("e{n}"), &json!(n))).collect()
}

/// Attempts of each event by number, and how it ended.
async fn ends(world: &World, sent: &[Address]) -> Vec<(u32, FinalState)> {
    let mut all = Vec::new();
    for address in sent {
        let log = world.ledger.log(*address, None).await.unwrap();
        let last = &log.last().unwrap().1;
        let LogOutcome::Final(state) = last.outcome else { panic!("{address} has not ended") };
        all.push((last.attempt, state));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_what_is_there_and_keeps_to_its_size() {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, functions, vec![batched(Batch::of(10))]).await;
    world.start().await;
    world.send("in", events(1)).await;
    world.settled().await;
    world.send("in", events(25)).await;
    world.settled().await;
    let sizes: Vec<usize> = world.functions.calls().iter().map(|c| c.ids.len()).collect();
    assert_eq!(sizes, [1, 10, 10, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_window_gathers_and_a_full_batch_does_not_wait_for_it() {
    let functions = Functions::new(|_, _| Act::Answer);
    let window = Duration::from_secs(5);
    let mut world = World::new(1, functions, vec![batched(Batch { window, ..Batch::of(10) })]).await;
    world.start().await;
    let from = world.clock.now();
    for n in 0..4 {
        world.send("in", vec![event(&format!("w{n}"), &json!(n))]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(world.functions.calls().is_empty());
    world.settled().await;
    let took = world.clock.now().since(from);
    assert!((4_900..6_500).contains(&took.as_millis()), "{took:?}");
    world.send("in", events(10)).await;
    let from = world.clock.now();
    world.settled().await;
    assert!(world.clock.now().since(from) < Duration::from_secs(2));
    let sizes: Vec<usize> = world.functions.calls().iter().map(|c| c.ids.len()).collect();
    assert_eq!(sizes, [4, 10]);
}

#[tokio::test(start_paused = true)]
async fn bytes_bound_a_batch_and_a_larger_event_goes_alone() {
    let functions = Functions::new(|_, _| Act::Answer);
    let batch = Batch { bytes: ByteSize(4_000), ..Batch::of(100) };
    let mut world = World::new(1, functions, vec![batched(batch)]).await;
    world.start().await;
    let text = |n: usize| json!("x".repeat(if n == 4 { 9_000 } else { 1_100 }));
    world.send("in", (0..8).map(|n| event(&format!("e{n}"), &text(n))).collect()).await;
    world.settled().await;
    let sizes: Vec<usize> = world.functions.calls().iter().map(|c| c.ids.len()).collect();
    assert_eq!(sizes, [3, 1, 1, 3]);
}

#[tokio::test(start_paused = true)]
async fn reported_events_alone_are_tried_again() {
    let functions = Functions::new(|call, _| {
        let failed = ["e3", "e7"].map(str::to_owned).into_iter().filter(|id| call.ids.contains(id)).collect();
        Act::Report(Duration::ZERO, failed)
    });
    let mut world = World::new(1, functions, vec![batched(Batch::of(10))]).await;
    world.start().await;
    let sent = world.send("in", events(10)).await;
    world.settled().await;
    for (n, end) in ends(&world, &sent).await.into_iter().enumerate() {
        let expected = if n == 3 || n == 7 { (4, FinalState::Dead) } else { (1, FinalState::Delivered) };
        assert_eq!(end, expected, "e{n}");
    }
    assert_eq!(world.functions.calls().len(), 4, "what was reported together comes back together");
}

/// A batch utility reports what failed, and raises when that is all of the batch.
#[tokio::test(start_paused = true)]
async fn reported_events_that_then_fail_together_are_halved_in_any_order() {
    for ordering in [Ordering::None, Ordering::Key] {
        let functions = Functions::new(|call, _| {
            let is_bad = |id: &&String| id.trim_start_matches('e').parse::<usize>().unwrap() % 4 == 1;
            let failed: Vec<String> = call.ids.iter().filter(is_bad).cloned().collect();
            match failed.len() == call.ids.len() {
                true => Act::Fail(FailureClass::Function, "BatchProcessingError"),
                false => Act::Report(Duration::ZERO, failed),
            }
        });
        let spec = BindingSpec { ordering, ..batched(Batch::of(20)) };
        let mut world = World::new(1, functions, vec![spec]).await;
        world.start().await;
        let sent = world.send("in", events(20)).await;
        world.settled().await;
        for (n, end) in ends(&world, &sent).await.into_iter().enumerate() {
            let expected = if n % 4 == 1 { (4, FinalState::Dead) } else { (1, FinalState::Delivered) };
            assert_eq!(end, expected, "e{n}, {ordering:?}");
        }
        assert!(world.functions.calls().len() < 50, "{}", world.functions.calls().len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_understood_fails_the_batch() {
    let functions = Functions::new(|_, number| match number {
        1 => Act::Report(Duration::ZERO, vec!["unknown".into()]),
        _ => Act::Answer,
    });
    let batch = Batch { bisect: false, ..Batch::of(10) };
    let mut world = World::new(1, functions, vec![batched(batch)]).await;
    world.start().await;
    let sent = world.send("in", events(5)).await;
    world.settled().await;
    assert!(ends(&world, &sent).await.iter().all(|end| *end == (2, FinalState::Delivered)));
}

#[tokio::test(start_paused = true)]
async fn one_poison_is_found_by_halving_and_the_others_use_one_attempt() {
    for class in [FailureClass::Function, FailureClass::Crash, FailureClass::Timeout] {
        let functions = Functions::new(move |call, _| match call.ids.iter().any(|id| id == "e37") {
            true => Act::Fail(class, "ValueError"),
            false => Act::Answer,
        });
        let mut world = World::new(1, functions, vec![batched(Batch::of(100))]).await;
        world.start().await;
        let sent = world.send("in", events(100)).await;
        world.settled().await;
        for (n, end) in ends(&world, &sent).await.into_iter().enumerate() {
            let expected = if n == 37 { (4, FinalState::Dead) } else { (1, FinalState::Delivered) };
            assert_eq!(end, expected, "e{n}");
        }
        let calls = world.functions.calls();
        let hit = calls.iter().filter(|c| c.ids.iter().any(|id| id == "e37"));
        let sizes: Vec<usize> = hit.map(|c| c.ids.len()).collect();
        assert_eq!(sizes[sizes.len() - 4..], [1, 1, 1, 1], "what failed alone is tried alone");
        assert!(sizes.len() <= 8 + 3 && calls.len() <= 20, "{sizes:?} of {}", calls.len());
    }
}

#[tokio::test(start_paused = true)]
async fn without_halving_everything_comes_back_together() {
    let functions = Functions::new(|call, _| match call.ids.iter().any(|id| id == "e3") {
        true => Act::Fail(FailureClass::Function, "ValueError"),
        false => Act::Answer,
    });
    let batch = Batch { bisect: false, ..Batch::of(10) };
    let mut world = World::new(1, functions, vec![batched(batch)]).await;
    world.start().await;
    let sent = world.send("in", events(10)).await;
    world.settled().await;
    let states: BTreeMap<_, usize> =
        ends(&world, &sent).await.into_iter().fold(BTreeMap::new(), |mut all, end| {
            *all.entry(end).or_default() += 1;
            all
        });
    assert_eq!(states, BTreeMap::from([((4, FinalState::Dead), 10)]));
    assert_eq!(world.functions.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn batches_survive_a_crash_with_nothing_lost() {
    let functions = Functions::new(|_, _| Act::After(Duration::from_millis(30)));
    let mut world = World::new(2, functions, vec![batched(Batch::of(7))]).await;
    world.start().await;
    let mut sent = Vec::new();
    for n in 0..30 {
        sent.extend(world.send("in", (0..5).map(|m| event(&format!("c{n}-{m}"), &json!(n))).collect()).await);
        tokio::time::sleep(Duration::from_millis(11)).await;
        if n % 10 == 9 {
            world.crash();
            world.start().await;
        }
    }
    world.settled().await;
    assert!(ends(&world, &sent).await.iter().all(|(_, state)| *state == FinalState::Delivered));
}

type Noted = (Timestamp, Vec<String>);

/// A world whose function runs one call at a time, 50 ms each, throws on these events, and notes when each call began.
async fn poisoned(spec: BindingSpec, poisons: &'static [&'static str]) -> (World, Arc<Mutex<Vec<Noted>>>) {
    let functions = Functions::new(|_, _| Act::Answer);
    let mut world = World::new(1, Arc::clone(&functions), vec![spec]).await;
    world.known.values_mut().for_each(|function| function.concurrency = 1);
    let (clock, notes) = (world.clock.clone(), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&notes);
    functions.rewrite(move |call, _| {
        noted.lock().unwrap().push((clock.now(), call.ids.clone()));
        match call.ids.iter().any(|id| poisons.contains(&id.as_str())) {
            true => Act::Fail(FailureClass::Function, "ValueError"),
            false => Act::After(Duration::from_millis(50)),
        }
    });
    world.start().await;
    (world, notes)
}

/// When an event was tried alone.
fn alone(notes: &[Noted], id: &str) -> Vec<Timestamp> {
    notes.iter().filter(|(_, ids)| *ids == [id]).map(|(at, _)| *at).collect()
}

#[tokio::test(start_paused = true)]
async fn several_that_failed_alone_take_turns_with_full_batches() {
    const POISONS: [&str; 4] = ["e3", "e14", "e25", "e36"];
    for ordering in [Ordering::None, Ordering::Key] {
        let retry = RetryPolicy {
            attempts: Some(3),
            min_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(1),
            ..RetryPolicy::default()
        };
        let spec = BindingSpec { ordering, retry, ..batched(Batch::of(10)) };
        let (mut world, notes) = poisoned(spec, &POISONS).await;
        world.send("in", events(1_000)).await;
        world.settled().await;
        let notes = notes.lock().unwrap().clone();
        // A hundred batches; a poison costs four halvings of two calls, and two tries more.
        assert!(notes.len() <= 100 + 4 * (8 + 2), "{} calls, {ordering:?}", notes.len());
        for poison in POISONS {
            let tries = alone(&notes, poison);
            assert_eq!(tries.len(), 3, "{poison}, {ordering:?}");
            for pair in tries.windows(2) {
                let waited = pair[1].since(pair[0]);
                assert!(
                    waited <= Duration::from_millis(1_000 + 8 * 55),
                    "{poison}: {waited:?}, {ordering:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_does_not_wait_for_the_window_but_new_events_do() {
    for ordering in [Ordering::None, Ordering::Key] {
        let retry = RetryPolicy {
            attempts: Some(3),
            min_delay: Duration::from_millis(100),
            max_delay: Duration::from_millis(100),
            ..RetryPolicy::default()
        };
        let batch = Batch { window: Duration::from_secs(20), ..Batch::of(8) };
        let (mut world, notes) = poisoned(BindingSpec { ordering, retry, ..batched(batch) }, &["e0"]).await;
        let from = world.clock.now();
        world.send("in", events(8)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.send("in", vec![event("late", &json!(0))]).await;
        world.settled().await;
        let notes = notes.lock().unwrap().clone();
        let (late, others): (Vec<Noted>, Vec<Noted>) =
            notes.into_iter().partition(|(_, ids)| ids.iter().any(|id| id == "late"));
        let took = others.last().unwrap().0.since(from);
        assert!(took < Duration::from_secs(1), "{took:?}: {others:?}");
        assert!(others.len() <= 1 + 6 + 2, "{others:?}");
        assert_eq!(late.len(), 1);
        let waited = late[0].0.since(from);
        assert!((20_000..20_500).contains(&waited.as_millis()), "{waited:?}, {ordering:?}");
        assert_eq!(late[0].1, ["late"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_function_reported_is_tried_again_when_it_is_due() {
    let functions = Functions::new(|call, _| match call.ids.len() {
        8 => Act::Report(Duration::ZERO, vec!["e1".into(), "e2".into()]),
        _ => Act::Answer,
    });
    let batch = Batch { window: Duration::from_secs(20), ..Batch::of(8) };
    let mut world = World::new(1, Arc::clone(&functions), vec![batched(batch)]).await;
    world.start().await;
    let from = world.clock.now();
    world.send("in", events(8)).await;
    world.settled().await;
    assert!(world.clock.now().since(from) < Duration::from_secs(3), "{:?}", world.clock.now().since(from));
    assert_eq!(functions.calls().len(), 2);
}
