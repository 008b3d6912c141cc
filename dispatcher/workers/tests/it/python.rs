//! Python handlers on the bundled bootstrap.

use std::fs;
use std::time::Duration;

use bellwire_schemas::FailureClass;
use bellwire_schemas::service::Target;
use serde_json::json;

use crate::support::{Stage, gone, invocation};
use bellwire_workers::Invoker as _;

#[tokio::test]
async fn an_event_goes_in_and_an_answer_comes_out() {
    let stage = Stage::new();
    let source = "
import os
def handler(event, context):
    print('hello')
    return {'got': event, 'name': context.function_name, 'left': context.get_remaining_time_in_millis(),
            'arn': context.invoked_function_arn, 'id': context.aws_request_id, 'mb': context.memory_limit_in_mb,
            'trace': os.environ.get('_X_AMZN_TRACE_ID')}
";
    stage.apply(&stage.python(source)).await;
    let mut call = invocation(r#"{"a": "é"}"#);
    call.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    let result = stage.workers.invoke(call.clone()).await;
    let got: serde_json::Value = serde_json::from_slice(&result.answer.unwrap().payload).unwrap();
    assert_eq!(got["got"], json!({"a": "é"}));
    assert_eq!(
        (&got["name"], &got["mb"], &got["id"]),
        (&json!("f"), &json!("1024"), &json!(call.request_id))
    );
    assert_eq!(got["arn"], "arn:aws:lambda:us-east-1:000000000000:function:f");
    assert_eq!(got["trace"], "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1");
    assert!((15_000..=20_000).contains(&got["left"].as_u64().unwrap()), "{got}");
    assert_eq!(
        (result.logs, result.worker.as_str(), result.version.len()),
        (vec!["hello".to_owned()], "1", 8)
    );
    assert!(result.init.is_some() && stage.call("{}").await.init.is_none());
}

#[tokio::test]
async fn an_error_carries_type_message_and_stack() {
    let stage = Stage::new();
    stage.apply(&stage.python("def handler(event, context):\n    raise ValueError('disk says no')\n")).await;
    let (error, result) = stage.fails("{}", FailureClass::Function, "ValueError").await;
    assert_eq!(error.message, "disk says no");
    assert!(
        error.stack.iter().any(|line| line.contains("app.py") && line.contains("line 2")),
        "{:?}",
        error.stack
    );
    assert!(!error.stack.iter().any(|line| line.contains("bootstrap.py")), "{:?}", error.stack);
    assert!(result.logs.iter().any(|line| line.contains("ValueError: disk says no")));
    // The worker lives on.
    assert_eq!(stage.call("{}").await.worker, "1");
}

#[tokio::test]
async fn what_has_no_json_is_a_marshal_error() {
    let stage = Stage::new();
    let source = "
from decimal import Decimal
def handler(event, context):
    return {'bytes': b'x', 'set': {1}, 'decimal': {'n': Decimal('1.5'), 'i': Decimal('2')}}[event]
";
    stage.apply(&stage.python(source)).await;
    for bad in ["\"bytes\"", "\"set\""] {
        stage.fails(bad, FailureClass::Function, "Runtime.MarshalError").await;
    }
    assert_eq!(stage.ok("\"decimal\"").await, json!({"n": 1.5, "i": 2}));
    stage.fails("not json", FailureClass::Function, "Runtime.UnmarshalError").await;
}

#[tokio::test]
async fn a_hang_is_killed_with_its_children_and_replaced() {
    let stage = Stage::new();
    let source = "
import os, subprocess, time
def handler(event, context):
    if event: return os.getpid()
    child = subprocess.Popen(['sleep', '600'])
    open('pids', 'w').write('%d %d' % (os.getpid(), child.pid))
    print('before')
    time.sleep(600)
";
    let mut spec = stage.python(source);
    spec.timeout = Duration::from_secs(1);
    stage.apply(&spec).await;
    let (error, result) = stage.fails("0", FailureClass::Timeout, "Sandbox.Timedout").await;
    assert!(error.message.contains("1.00 s") && result.duration >= Duration::from_secs(1), "{error:?}");
    assert_eq!(result.logs, ["before"]);
    let pids = fs::read_to_string(stage.code().join("pids")).unwrap();
    for pid in pids.split(' ') {
        gone(pid.parse().unwrap()).await;
    }
    assert_ne!(stage.ok("1").await.to_string(), pids.split(' ').next().unwrap());
}

#[tokio::test]
async fn a_worker_that_leaves_in_the_middle_is_a_crash_with_its_last_words() {
    let stage = Stage::new();
    let source = "
import os, sys
def handler(event, context):
    print('last words', file=sys.stderr)
    if event == 'sys': sys.exit(3)
    if event == 'kill': os.kill(os.getpid(), 9)
    os._exit(4)
";
    stage.apply(&stage.python(source)).await;
    for (how, words) in [("sys", "exited with status 3"), ("os", "status 4"), ("kill", "killed by signal 9")]
    {
        let (error, result) =
            stage.fails(&format!("\"{how}\""), FailureClass::Crash, "Runtime.ExitError").await;
        assert!(error.message.contains(words), "{error:?}");
        assert_eq!(
            (error.stack, result.logs),
            (vec!["last words".to_owned()], vec!["last words".to_owned()])
        );
    }
}

#[tokio::test]
async fn a_crash_at_import_is_remembered_and_not_tried_at_once() {
    let stage = Stage::new();
    let source = "open('starts', 'a').write('x')\nprint('importing')\nimport not_there\n";
    let spec = stage.python(source);
    stage.apply(&spec).await;
    let kind = "Runtime.ImportModuleError";
    let (error, result) = stage.fails("{}", FailureClass::CannotStart, kind).await;
    assert!(error.message.contains("not_there"), "{error:?}");
    assert!(error.stack.iter().any(|line| line.contains("app.py")), "{error:?}");
    assert!(result.logs.iter().any(|line| line == "importing"), "{:?}", result.logs);
    for _ in 0..50 {
        stage.fails("{}", FailureClass::CannotStart, kind).await;
    }
    assert_eq!(fs::read_to_string(stage.code().join("starts")).unwrap(), "x");
    assert!(matches!(stage.status().condition, bellwire_workers::Condition::CannotStart { .. }));
    // Changed code starts at once.
    stage.write("app.py", "def handler(event, context): return 1\n");
    assert!(stage.apply(&spec).await);
    assert_eq!(stage.ok("{}").await, 1);
    assert_eq!(stage.status().condition, bellwire_workers::Condition::Ok);
}

#[tokio::test]
async fn an_exit_at_import_and_other_bad_starts_say_what_is_wrong() {
    let stage = Stage::new();
    let check = async |source: &str, handler: &str, kind: &str, words: &str| {
        let mut spec = stage.python(source);
        spec.target = Target::Python { handler: handler.into(), version: None };
        stage.apply(&spec).await;
        let (error, _) = stage.fails("{}", FailureClass::CannotStart, kind).await;
        assert!(format!("{error:?}").contains(words), "{error:?}");
    };
    check("import sys; print('bye'); sys.exit(7)", "app.handler", "Runtime.ExitError", "bye").await;
    check("def handler(:", "app.handler", "Runtime.UserCodeSyntaxError", "app.py").await;
    check("x = 1", "app.handler", "Runtime.HandlerNotFound", "handler").await;
    check("1 / 0", "app.handler", "ZeroDivisionError", "app.py").await;
    check("x = 1", "handler", "Runtime.MalformedHandlerName", "module.function").await;
}

#[tokio::test]
async fn an_initialisation_without_end_is_killed() {
    let stage = Stage::with(|config| config.init_timeout = Duration::from_millis(300));
    stage.apply(&stage.python("import time; time.sleep(600)")).await;
    stage.fails("{}", FailureClass::CannotStart, "Sandbox.Timedout").await;
}

#[tokio::test]
async fn floods_of_output_are_cut_and_stop_nothing() {
    let stage = Stage::new();
    let source = "
def handler(event, context):
    if event == 'line': print('x' * 1000000, end='')
    if event == 'lines':
        for i in range(20000): print('line %030d of many' % i)
    return 'done'
";
    stage.apply(&stage.python(source)).await;
    for event in ["\"line\"", "\"lines\"", "\"line\""] {
        let result = stage.call(event).await;
        assert_eq!(&*result.answer.unwrap().payload, b"\"done\"");
        let bytes: usize = result.logs.iter().map(String::len).sum();
        assert!((60_000..=66_000).contains(&bytes), "{bytes}");
        assert_eq!(result.logs.last().unwrap(), "(output cut at 64 KiB)");
    }
    assert!(stage.call("0").await.logs.is_empty());
}

#[tokio::test]
async fn output_belongs_to_the_invocation_that_printed_it() {
    let stage = Stage::new();
    let source = "
import sys
print('while starting')
def handler(event, context):
    print('out %d' % event)
    print('err %d' % event, file=sys.stderr)
    sys.stdout.write('no end %d' % event)
    return event
";
    stage.apply(&stage.python(source)).await;
    for n in 0..200 {
        let mut wanted = vec![format!("out {n}"), format!("err {n}"), format!("no end {n}")];
        if n == 0 {
            wanted.insert(0, "while starting".to_owned());
        }
        assert_eq!(stage.call(&n.to_string()).await.logs, wanted);
    }
}

#[tokio::test]
async fn an_answer_of_7_mb_fails_and_the_worker_lives() {
    let stage = Stage::new();
    stage.apply(&stage.python("def handler(event, context): return 'x' * event\n")).await;
    let too_large = "Function.ResponseSizeTooLarge";
    let (_, result) = stage.fails("7000000", FailureClass::BadResponse, too_large).await;
    assert_eq!(stage.ok("6000000").await.as_str().unwrap().len(), 6_000_000);
    assert_eq!((stage.call("1").await.worker, result.worker), ("1".to_owned(), "1".to_owned()));
}

#[tokio::test]
async fn the_environment_is_explicit_and_nothing_leaks() {
    let stage = Stage::new();
    let mut spec = stage.python("import os\ndef handler(event, context): return dict(os.environ)\n");
    spec.environment.insert("MINE".into(), bellwire_schemas::service::Secret::new("1"));
    spec.environment.insert("TZ".into(), bellwire_schemas::service::Secret::new(":Asia/Kolkata"));
    spec.environment.insert("_HANDLER".into(), bellwire_schemas::service::Secret::new("other"));
    stage.apply(&spec).await;
    let got = stage.ok("{}").await;
    let names: Vec<&str> = got.as_object().unwrap().keys().map(String::as_str).collect();
    let allowed =
        ["HOME", "LANG", "LC_CTYPE", "LAMBDA_TASK_ROOT", "MINE", "PATH", "PYTHONPYCACHEPREFIX", "TZ"];
    for name in names {
        assert!(allowed.contains(&name) || name.starts_with("AWS_") || name == "_HANDLER", "{name}");
    }
    assert_eq!((&got["MINE"], &got["TZ"]), (&json!("1"), &json!(":Asia/Kolkata")));
    assert_ne!(got["HOME"], json!(std::env::var("HOME").unwrap_or_default()));
}

#[tokio::test]
async fn handlers_in_folders_and_virtual_environments_are_found() {
    let stage = Stage::new();
    stage.write(
        "app/price.py",
        "import other, sys\ndef handler(event, context): return [other.N, sys.prefix]\n",
    );
    stage.write("other.py", "N = 5\n");
    let made = std::process::Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(stage.code().join(".venv"))
        .status();
    assert!(made.unwrap().success());
    for handler in ["app/price.handler", "app.price.handler"] {
        stage.apply(&stage.spec(Target::Python { handler: handler.into(), version: None })).await;
        let got = stage.ok("{}").await;
        assert_eq!(got[0], 5);
        assert!(got[1].as_str().unwrap().ends_with("code/.venv"), "{got}");
    }
}

#[tokio::test]
async fn a_version_that_is_not_there_cannot_start() {
    let stage = Stage::new();
    let mut spec = stage.python("def handler(event, context): return 1\n");
    spec.target = Target::Python { handler: "app.handler".into(), version: Some("3.2".into()) };
    stage.apply(&spec).await;
    let (error, _) = stage.fails("{}", FailureClass::CannotStart, "Runtime.InvalidEntrypoint").await;
    assert!(error.message.starts_with("python 3.2 is needed, but "), "{error:?}");
}
