//! The pool itself: reuse, limits, replacement, leaks.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use bellwire_schemas::FailureClass;
use bellwire_schemas::service::{Target, Warm};
use bellwire_workers::Invoker as _;
use serde_json::json;

use crate::support::{Stage, gone, invocation, until};

const PID: &str =
    "import os\nopen('.inits', 'a').write('x')\ndef handler(event, context): return os.getpid()\n";
/// Answers its pid once the file named by the event exists.
const WAIT: &str = "
import os, time
def handler(event, context):
    open('in-%d' % os.getpid(), 'w').close()
    while not os.path.exists(event): time.sleep(0.005)
    return [os.getpid(), 'OLD']
";

fn entered(stage: &Stage) -> usize {
    let names = fs::read_dir(stage.code()).unwrap().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("in-")).count()
}

#[tokio::test]
async fn a_worker_is_initialised_once_and_used_again() {
    let stage = Stage::new();
    stage.apply(&stage.python(PID)).await;
    let first = stage.ok("{}").await;
    for _ in 0..20 {
        assert_eq!(stage.ok("{}").await, first);
    }
    assert_eq!(fs::read_to_string(stage.code().join(".inits")).unwrap(), "x");
    let status = stage.status();
    assert_eq!((status.invocations, status.failures, status.busy), (21, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_exact() {
    let stage = Stage::new();
    let mut spec = stage.python(WAIT);
    spec.concurrency = 3;
    stage.apply(&spec).await;
    let calls = async {
        let calls = (0..7).map(|_| stage.call("\"go\""));
        let mut pids = HashSet::new();
        for result in join_all(calls).await {
            pids.insert(result.answer.unwrap().payload);
        }
        pids.len()
    };
    let check = async {
        until(async || (entered(&stage) == 3).then_some(())).await;
        let status = stage.status();
        assert_eq!((status.busy, status.waiting, status.starting), (3, 4, 0));
        stage.write("go", "");
    };
    assert_eq!(tokio::join!(calls, check).0, 3);
    assert_eq!(entered(&stage), 3);
}

#[tokio::test]
async fn idle_workers_go_and_kept_ones_stay_ready() {
    let stage = Stage::new();
    let mut spec = stage.python(PID);
    spec.concurrency = 2;
    spec.warm = Warm { min: 2, idle: Duration::from_millis(100) };
    stage.apply(&spec).await;
    stage.until(|status| status.idle == 2).await;
    assert!(stage.call("{}").await.init.is_none());
    spec.warm.min = 0;
    assert!(!stage.apply(&spec).await);
    stage.until(|status| status.idle == 0).await;
    let pid = stage.ok("{}").await.as_u64().unwrap();
    gone(pid).await;
}

#[tokio::test]
async fn a_kept_worker_that_is_killed_is_replaced() {
    let stage = Stage::new();
    let mut spec = stage.python(PID);
    spec.warm.min = 1;
    stage.apply(&spec).await;
    let pid = stage.ok("{}").await.as_u64().unwrap();
    stage.until(|status| status.idle == 1).await;
    kill(pid);
    gone(pid).await;
    until(async || Some(stage.ok("{}").await).filter(|now| *now != json!(pid))).await;
    stage.until(|status| status.idle == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_code_takes_over_while_the_old_version_still_runs() {
    let stage = Stage::new();
    let mut spec = stage.python(WAIT);
    spec.concurrency = 2;
    stage.apply(&spec).await;
    assert!(!stage.apply(&spec).await);
    let old = stage.call("\"go\"");
    let new = async {
        until(async || (entered(&stage) == 1).then_some(())).await;
        stage.write("new.py", "def handler(event, context): return 'NEW'\n");
        spec.target = Target::Python { handler: "new.handler".into(), version: None };
        assert!(stage.apply(&spec).await);
        assert_eq!(stage.ok("0").await, "NEW");
        stage.write("go", "");
    };
    let (old, ()) = tokio::join!(old, new);
    let (payload, version) = (old.answer.unwrap().payload, old.version);
    let old: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(old[1], "OLD");
    assert_ne!(version, stage.status().version);
    gone(old[0].as_u64().unwrap()).await;
    assert_eq!(stage.ok("0").await, "NEW");
}

#[tokio::test]
async fn a_removed_function_is_unknown_and_its_workers_go() {
    let stage = Stage::new();
    stage.apply(&stage.python(PID)).await;
    let pid = stage.ok("{}").await.as_u64().unwrap();
    let applied = stage.workers.apply(Vec::new()).await.unwrap();
    assert!(applied.len() == 1 && applied[0].changed && applied[0].version.is_empty());
    gone(pid).await;
    stage.fails("{}", FailureClass::CannotStart, "Function.Unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_running_invocations_end_and_leaves_nothing() {
    let stage = Stage::new();
    stage.apply(&stage.python(WAIT)).await;
    let stop = async {
        until(async || (entered(&stage) == 1).then_some(())).await;
        tokio::join!(stage.workers.shutdown(Duration::from_secs(10)), async {
            stage.fails("0", FailureClass::CannotStart, "Controller.Stopping").await;
            stage.write("go", "");
        });
    };
    let (result, ()) = tokio::join!(stage.call("\"go\""), stop);
    let answer: serde_json::Value = serde_json::from_slice(&result.answer.unwrap().payload).unwrap();
    gone(answer[0].as_u64().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_that_nobody_waits_for_kills_its_worker() {
    let stage = Stage::new();
    stage.apply(&stage.python(WAIT)).await;
    tokio::select! {
        _ = stage.call("\"never\"") => panic!("answered"),
        () = until(async || (entered(&stage) == 1).then_some(())) => {}
    }
    stage.until(|status| status.busy == 0).await;
    stage.write("go", "");
    stage.ok("\"go\"").await;
    assert_eq!(entered(&stage), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_that_is_dropped_before_its_start_leaves_no_trace() {
    let stage = Stage::new();
    stage.apply(&stage.python(PID)).await;
    tokio::select! {
        _ = stage.call("{}") => panic!("answered"),
        () = until(async || (stage.status().starting == 1).then_some(())) => {}
    }
    stage.until(|status| status.idle == 1).await;
    let result = stage.call("{}").await;
    assert_eq!((result.worker.as_str(), result.init), ("1", None));
    assert_eq!(stage.status().invocations, 1);
}

#[tokio::test]
async fn too_much_memory_is_a_crash_that_names_the_limit() {
    let stage = Stage::new();
    let source = "import time\ndef handler(event, context):\n    x = b'x' * 300000000\n    time.sleep(600)\n";
    let mut spec = stage.python(source);
    spec.memory = bellwire_schemas::ByteSize(200 << 20);
    stage.apply(&spec).await;
    let (error, _) = stage.fails("{}", FailureClass::Crash, "Runtime.OutOfMemory").await;
    assert!(error.message.contains("200MB"), "{error:?}");
}

#[tokio::test]
async fn missing_code_and_programs_cannot_start() {
    let stage = Stage::new();
    let kind = "Runtime.InvalidEntrypoint";
    stage.apply(&stage.spec(Target::Command(vec!["no-such-program".into()]))).await;
    let (error, _) = stage.fails("{}", FailureClass::CannotStart, kind).await;
    assert!(error.message.contains("no-such-program"), "{error:?}");
    let mut spec = stage.python(PID);
    spec.code = "/no/such/folder".into();
    stage.apply(&spec).await;
    stage.fails("{}", FailureClass::CannotStart, kind).await;
}

#[tokio::test]
async fn a_thousand_invocations_leak_nothing() {
    let stage = Stage::new();
    stage.apply(&stage.native("echo")).await;
    stage.ok("1").await;
    let before = fds();
    for n in 0..1_000 {
        assert_eq!(stage.ok(&n.to_string()).await, n);
    }
    assert!(fds() <= before + 2, "{before} {}", fds());
    assert_eq!(stage.status().invocations, 1_001);
}

#[tokio::test]
async fn dead_workers_leave_no_files_open() {
    let stage = Stage::new();
    stage.apply(&stage.python("import os\ndef handler(event, context): os._exit(1)\n")).await;
    stage.fails("0", FailureClass::Crash, "Runtime.ExitError").await;
    let before = fds();
    for _ in 0..20 {
        stage.fails("0", FailureClass::Crash, "Runtime.ExitError").await;
    }
    until(async || (fds() <= before + 8).then_some(())).await;
}

/// Other tests of this process open files too, so bounds on this are loose where tests share a process.
fn fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn kill(pid: u64) {
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

async fn join_all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in &mut waiting {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        let all = waiting.iter().all(|(_, done)| done.is_some());
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

#[tokio::test]
async fn an_invocation_of_nothing_is_unknown() {
    let stage = Stage::new();
    let result = stage.workers.invoke(invocation("{}")).await;
    assert_eq!(result.answer.unwrap_err().kind, "Function.Unknown");
}
