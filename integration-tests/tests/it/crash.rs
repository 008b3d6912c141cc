//! The kill matrix: the process ends at every gap between two durable writes, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bellwire_integration_tests::{Oracle, Stack};
use serde_json::{Value, json};

use crate::{NOTING, noting_service};

/// Deliveries that may be repeated after one crash: those in flight plus outcomes that were not flushed yet. The
/// dispatcher holds at most this many unflushed outcomes per binding and lane (`docs/delivery.md`).
const UNFLUSHED: usize = 1_000;
const CONCURRENCY: u32 = 4;
/// More than any crash point needs to fire: a point that did not by then is not armed (`--features failpoints`).
const MAX_SENDS: usize = 4_000;

fn event(id: &str, data: &Value) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": data}).to_string()
}

/// Sends until told to stop, or until the controller is gone. Every answer is believed; no answer is "unknown".
async fn sender(stack: &Stack, round: usize, stop: &AtomicBool, oracle: &mut Oracle) {
    for number in 0..MAX_SENDS {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let id = format!("e{round}-{number}");
        let data = json!({"poison": number % 50 == 7});
        oracle.unknown.insert(id.clone());
        match stack.publish("work", event(&id, &data)).await {
            Ok((202, _)) => {
                oracle.acknowledged.insert(id);
            }
            Ok((429 | 503, _)) => {}
            Ok((status, body)) => panic!("unexpected answer {status}: {body}"),
            Err(_) => return,
        }
    }
}

/// Starts the controller again without crash points, waits for peace, and counts.
async fn settle_and_count(stack: &mut Stack, oracle: &Oracle, crashes: usize) {
    stack.start(None).await.unwrap();
    stack.settled().await.unwrap();
    let count = oracle.count(&stack.path("notes"), &stack.dead_ids().await.unwrap());
    println!(
        "{} acknowledged, {} served, {} duplicates, {crashes} crashes",
        oracle.acknowledged.len(),
        count.served,
        count.duplicates
    );
    assert_eq!(count.lost, Vec::<String>::new(), "acknowledged events are lost");
    assert_eq!(count.invented, Vec::<String>::new(), "events were invented");
    let bound = crashes * (CONCURRENCY as usize + UNFLUSHED);
    assert!(count.duplicates <= bound, "{} duplicates, the bound is {bound}", count.duplicates);
    let verified = stack.post("/v1/verifications", &json!({})).await.unwrap();
    assert_eq!(verified["complete"], true, "{verified}");
}

/// One crash point, armed to fire after a few passes; several rounds on one ledger.
async fn crash_at(point: &str, passes: &[u32]) {
    let mut stack = Stack::new(&noting_service(CONCURRENCY), &[("note.py", NOTING)]).unwrap();
    let mut oracle = Oracle::default();
    for (round, pass) in passes.iter().enumerate() {
        stack.start(Some(&format!("{point}={pass}*off->return"))).await.unwrap();
        let stop = AtomicBool::new(false);
        sender(&stack, round, &stop, &mut oracle).await;
        let status = stack.ended().await.unwrap();
        assert!(!status.success(), "the crash point {point} did not end the process: {status}");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(6), "the process ended for another reason: {status}\n{}", stack.log());
    }
    settle_and_count(&mut stack, &oracle, passes.len()).await;
}

macro_rules! crash_tests {
    ($($test:ident: $point:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crash_at($point, &[0, 1, 7, 40]).await;
            }
        )*
    };
}

crash_tests! {
    after_receive: "source.recv",
    before_append: "append.before",
    after_append: "append.after_commit",
    before_confirm: "source.ack",
    before_dispatch: "dispatch.before",
    after_the_answer: "invoke.result",
    before_flush: "flush.before",
    after_flush: "flush.after_commit",
}

/// A vital task that breaks down ends the process, which would else look alive and do nothing; the next one recovers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vital_task_that_breaks_down_ends_the_process() {
    for point in ["flush.before", "append.after_commit_before_ack"] {
        let mut stack = Stack::new(&noting_service(CONCURRENCY), &[("note.py", NOTING)]).unwrap();
        let mut oracle = Oracle::default();
        stack.start(Some(&format!("{point}=3*off->panic"))).await.unwrap();
        sender(&stack, 0, &AtomicBool::new(false), &mut oracle).await;
        let status = stack.ended().await.unwrap();
        assert_eq!(status.code(), Some(6), "{point}: {status}\n{}", stack.log());
        settle_and_count(&mut stack, &oracle, 1).await;
    }
}

/// SIGKILL at moments that nobody chose, under load from several senders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment() {
    let mut stack = Stack::new(&noting_service(CONCURRENCY), &[("note.py", NOTING)]).unwrap();
    let mut oracle = Oracle::default();
    let rounds = 6;
    for round in 0..rounds {
        stack.start(None).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let pid = stack.pid().unwrap();
        let killer = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                // A different, fixed moment each round; the load decides what it hits.
                tokio::time::sleep(Duration::from_millis(120 + 173 * round as u64)).await;
                let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
                stop.store(true, Ordering::SeqCst);
            }
        });
        let senders = (0..4).map(|n| {
            let (stack, stop) = (&stack, &stop);
            async move {
                let mut mine = Oracle::default();
                sender(stack, round * 10 + n, stop, &mut mine).await;
                mine
            }
        });
        for mine in futures::future::join_all(senders).await {
            oracle.merge(mine);
        }
        killer.await.unwrap();
        stack.kill().await;
    }
    settle_and_count(&mut stack, &oracle, rounds).await;
}

/// Workers die, the controller does not: every event is tried again, those that kill their worker end as dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_lose_nothing() {
    let mut stack = Stack::new(&noting_service(CONCURRENCY), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    let mut oracle = Oracle::default();
    for number in 0..120 {
        let id = format!("w{number}");
        let data = json!({"kill": number % 10 == 3});
        let (status, body) = stack.publish("work", event(&id, &data)).await.unwrap();
        assert_eq!(status, 202, "{body}");
        oracle.acknowledged.insert(id);
    }
    stack.settled().await.unwrap();
    let dead = stack.dead_ids().await.unwrap();
    assert_eq!(dead.len(), 12, "the events that kill their worker, and only they: {dead:?}");
    let count = oracle.count(&stack.path("notes"), &dead);
    assert_eq!((count.lost.len(), count.invented.len(), count.duplicates), (0, 0, 0), "{count:?}");
    let letter = stack.get("/v1/dead-letters?limit=1").await.unwrap();
    assert_eq!(letter["items"][0]["error"]["class"], "crash", "{letter}");
    assert!(stack.runs());
}

/// A workers' process does not outlive a controller that was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_worker_outlives_the_controller() {
    let service = "service: s
functions:
  hang:
    handler: hang.handler
    environment: { PID_FILE: \"${env:TEST_DIR}/pid\" }
    events: [{ topic: work }]
";
    let hang = "import os, time
def handler(event, context):
    with open(os.environ['PID_FILE'] + '.new', 'w') as f:
        f.write(str(os.getpid()))
    os.rename(os.environ['PID_FILE'] + '.new', os.environ['PID_FILE'])
    time.sleep(600)
";
    let mut stack = Stack::new(service, &[("hang.py", hang)]).unwrap();
    stack.start(None).await.unwrap();
    stack.publish("work", event("h", &json!({}))).await.unwrap();
    let deadline = tokio::time::Instant::now() + bellwire_integration_tests::stack::PATIENCE;
    let pid = loop {
        if let Ok(text) = std::fs::read_to_string(stack.path("pid")) {
            break text;
        }
        assert!(tokio::time::Instant::now() < deadline, "the handler never ran: {}", stack.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stack.kill().await;
    let gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists() || zombie(&pid);
    while !gone() {
        assert!(tokio::time::Instant::now() < deadline, "worker {pid} outlived its controller");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
