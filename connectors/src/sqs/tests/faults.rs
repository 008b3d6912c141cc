//! Every message once in the ledger, whatever the calls do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::proxy::{Fault, Proxy};
use super::*;

/// Runs some messages through a proxy and counts.
async fn all_arrive(
    fifo: bool,
    count: usize,
    rule: impl Fn(&str, usize) -> Fault + Send + Sync + 'static,
) -> Running {
    let queue = TestQueue::new(fifo).await;
    let bodies: Vec<String> =
        (0..count).map(|n| if fifo { format!("{}:{n:04}", n % 3) } else { format!("{n:04}") }).collect();
    queue.send(&bodies).await;
    let proxy = Proxy::new(rule).await;
    let running = Running::new(vec![spec_of(queue.by_way_of(&proxy.url))]).await;
    assert_eq!(sorted(running.payloads(count).await), sorted(bodies));
    queue.is_empty().await;
    assert_eq!(running.stored().await.len(), count, "none came twice while the queue was emptied");
    running
}

#[tokio::test]
async fn calls_that_fail_now_and_then_lose_and_repeat_nothing() {
    all_arrive(false, 300, |operation, n| match (operation, n % 3) {
        ("ReceiveMessage", 1) => Fault::Refuse(503, "ServiceUnavailable"),
        ("DeleteMessageBatch", 0) => Fault::Refuse(400, "ThrottlingException"),
        ("DeleteMessageBatch", 1) => Fault::Lose,
        ("GetQueueAttributes", _) if n == 0 => Fault::Refuse(500, "InternalFailure"),
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn messages_that_come_twice_and_turned_around_are_stored_once() {
    all_arrive(false, 200, |operation, _| match operation {
        "ReceiveMessage" => Fault::Muddle,
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn a_group_keeps_its_order_when_answers_are_lost() {
    let running = all_arrive(true, 60, |operation, n| match (operation, n % 4) {
        ("DeleteMessageBatch", 0) => Fault::Lose,
        ("DeleteMessageBatch", 1) => Fault::Refuse(503, "ServiceUnavailable"),
        _ => Fault::None,
    })
    .await;
    in_order(&running.stored().await);
}

#[tokio::test]
async fn messages_that_cannot_be_deleted_come_again_and_are_recognised() {
    let queue = TestQueue::new(false).await;
    queue.send(&numbered(20)).await;
    let deletions = Arc::new(AtomicUsize::new(0));
    let counted = deletions.clone();
    // The visibility here is the shortest one, 10 s: long enough that some deletions are given up.
    let begin = std::time::Instant::now();
    let proxy = Proxy::new(move |operation, _| match operation {
        "DeleteMessageBatch" if begin.elapsed() < Duration::from_secs(12) => {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::Refuse(403, "AccessDenied")
        }
        _ => Fault::None,
    })
    .await;
    let set = queue.client.set_queue_attributes().queue_url(&queue.url);
    set.attributes(QueueAttributeName::VisibilityTimeout, "1").send().await.unwrap();
    let running = Running::new(vec![spec_of(queue.by_way_of(&proxy.url))]).await;
    running.payloads(20).await;
    queue.is_empty().await;
    assert_eq!(sorted(running.payloads(20).await), numbered(20));
    assert!(deletions.load(Ordering::SeqCst) > 10, "deletions are tried again until the visibility ends");
    assert_eq!(running.stored().await.len(), 20);
}

#[tokio::test]
async fn a_slow_commit_keeps_its_messages_invisible() {
    let queue = TestQueue::new(false).await;
    let set = queue.client.set_queue_attributes().queue_url(&queue.url);
    set.attributes(QueueAttributeName::VisibilityTimeout, "1").send().await.unwrap();
    queue.send(&numbered(25)).await;
    let keeps = Arc::new(AtomicUsize::new(0));
    let counted = keeps.clone();
    let proxy = Proxy::new(move |operation, _| {
        if operation == "ChangeMessageVisibilityBatch" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    })
    .await;
    let ledger = ModelLedger::new(4);
    ledger.set_full(true);
    let running = Running::over(ledger.clone(), vec![spec_of(queue.by_way_of(&proxy.url))]).await;
    // 25 messages are three calls, and each is made again when half of the 10 s are over.
    until("they are kept for longer than their visibility", async || keeps.load(Ordering::SeqCst) >= 9).await;
    assert_eq!(queue.left().await, (0, 25));
    ledger.set_full(false);
    assert_eq!(sorted(running.payloads(25).await), numbered(25));
    queue.is_empty().await;
    let made = keeps.load(Ordering::SeqCst);
    assert_eq!(running.intake.status()[0].counts.duplicate, 0);
    assert_eq!(keeps.load(Ordering::SeqCst), made, "nothing is kept after its commit");
}

#[tokio::test]
async fn messages_whose_visibility_ends_during_the_commit_are_stored_once() {
    let queue = TestQueue::new(true).await;
    let bodies: Vec<String> = (0..15).map(|n| format!("{}:{n:04}", n % 2)).collect();
    queue.send(&bodies).await;
    let received = Arc::new(AtomicUsize::new(0));
    let counted = received.clone();
    let proxy = Proxy::new(move |operation, _| match operation {
        "ChangeMessageVisibilityBatch" => Fault::Refuse(403, "AccessDenied"),
        "ReceiveMessage" => {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::None
        }
        _ => Fault::None,
    })
    .await;
    let set = queue.client.set_queue_attributes().queue_url(&queue.url);
    set.attributes(QueueAttributeName::VisibilityTimeout, "1").send().await.unwrap();
    let ledger = ModelLedger::new(4);
    ledger.set_full(true);
    let running = Running::over(ledger.clone(), vec![spec_of(queue.by_way_of(&proxy.url))]).await;
    let begin = std::time::Instant::now();
    until("their visibility is over", async || begin.elapsed() > Duration::from_secs(12)).await;
    ledger.set_full(false);
    assert_eq!(sorted(running.payloads(15).await), sorted(bodies));
    queue.is_empty().await;
    let stored = running.stored().await;
    assert_eq!(stored.len(), 15);
    in_order(&stored);
    assert!(received.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn a_poll_that_hangs_is_given_up() {
    all_arrive(false, 10, |operation, n| match operation {
        "ReceiveMessage" if n < 2 => Fault::Hang,
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn polls_that_never_end_while_messages_wait_are_noticed_and_the_queue_is_connected_anew() {
    let queue = TestQueue::new(false).await;
    let deaf = Arc::new(AtomicBool::new(true));
    let still = deaf.clone();
    let proxy = Proxy::new(move |operation, _| match operation {
        "ReceiveMessage" if still.load(Ordering::SeqCst) => Fault::Hang,
        _ => Fault::None,
    })
    .await;
    queue.send(&numbered(20)).await;
    let limits = Limits { stall_after: Duration::from_secs(2), ..Limits::default() };
    let sources = vec![spec_of(queue.by_way_of(&proxy.url))];
    let running = Running::within(limits, ModelLedger::new(4), sources).await;
    until("a stall", async || running.intake.status()[0].state == "stalled").await;
    let reason = running.intake.status()[0].reason.clone().unwrap();
    assert!(reason.starts_with("20 messages wait upstream, but none came for 2 s"), "{reason}");
    deaf.store(false, Ordering::SeqCst);
    assert_eq!(sorted(running.payloads(20).await), numbered(20));
    queue.is_empty().await;
    let report = &running.intake.status()[0];
    assert!(report.state == "ok" && report.restarts >= 1, "{report:?}");
}

#[tokio::test]
async fn a_refused_reader_says_so_and_does_not_run_hot() {
    let queue = TestQueue::new(false).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let proxy = Proxy::new(move |operation, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        if operation == "ReceiveMessage" { Fault::Refuse(403, "AccessDenied") } else { Fault::None }
    })
    .await;
    let running = Running::new(vec![spec_of(queue.by_way_of(&proxy.url))]).await;
    until("the source fails", async || running.intake.status()[0].state == "failing").await;
    let reason = running.intake.status()[0].reason.clone().unwrap();
    assert!(reason.contains("AccessDenied") && reason.contains("permissions"), "{reason}");
    let begin = std::time::Instant::now();
    until("some time is over", async || begin.elapsed() > Duration::from_secs(2)).await;
    assert!(calls.load(Ordering::SeqCst) < 12, "{}", calls.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_was_received_and_not_stored_is_given_back() {
    let queue = TestQueue::new(false).await;
    let set = queue.client.set_queue_attributes().queue_url(&queue.url);
    set.attributes(QueueAttributeName::VisibilityTimeout, "1").send().await.unwrap();
    queue.send(&numbered(30)).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let proxy = Proxy::new(move |operation, _| {
        if operation == "ChangeMessageVisibilityBatch" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    })
    .await;
    let ledger = ModelLedger::new(4);
    ledger.set_full(true);
    let running = Running::over(ledger.clone(), vec![spec_of(queue.by_way_of(&proxy.url))]).await;
    until("all are received", async || queue.left().await == (0, 30)).await;
    let before = calls.load(Ordering::SeqCst);
    running.intake.shutdown(Duration::from_secs(5)).await;
    // A poll that was cut off may have taken ten away for as long as their visibility lasts.
    let made = calls.load(Ordering::SeqCst) - before;
    assert!((2..=3).contains(&made), "ten at a time: {made}");
    ledger.set_full(false);
    let running = Running::over(ledger, vec![spec_of(queue.spec())]).await;
    assert_eq!(sorted(running.payloads(30).await), numbered(30));
}
