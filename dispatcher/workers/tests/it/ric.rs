//! The official Python client, unmodified. Needs `AWSLAMBDARIC_PYTHON`, the interpreter of an environment that has it.

use bellwire_schemas::FailureClass;
use bellwire_schemas::service::Target;
use serde_json::json;

use crate::support::Stage;

const SOURCE: &str = "
import os, sys, time
print('starting')
def fail(depth):
    if depth: fail(depth - 1)
    raise ValueError('n' * 60000)
def handler(event, context):
    print('got', event)
    if event == 'error': raise KeyError('k')
    if event == 'deep': fail(400)
    if event == 'exit': os._exit(3)
    if event == 'large': return 'x' * 7000000
    if event == 'bytes': return b'raw'
    if event == 'flood': print('y' * 1000000)
    return {'pid': os.getpid(), 'left': context.get_remaining_time_in_millis() > 1000, 'got': event}
";

fn stage(source: &str) -> Option<(Stage, bellwire_schemas::service::FunctionSpec)> {
    let Ok(python) = std::env::var("AWSLAMBDARIC_PYTHON") else {
        assert!(std::env::var("CONFORMANCE_REQUIRED").is_err(), "AWSLAMBDARIC_PYTHON must be set");
        println!("skipped: AWSLAMBDARIC_PYTHON is not set");
        return None;
    };
    let stage = Stage::new();
    stage.write("app.py", source);
    let command = [&python, "-m", "awslambdaric", "app.handler"].map(|word| word.to_string());
    let spec = stage.spec(Target::Command(command.to_vec()));
    Some((stage, spec))
}

#[tokio::test]
async fn the_official_python_client_runs_unmodified() {
    let Some((stage, spec)) = stage(SOURCE) else { return };
    stage.apply(&spec).await;
    let first = stage.call("\"é\"").await;
    assert_eq!(first.logs, ["starting", "got é"]);
    let first: serde_json::Value = serde_json::from_slice(&first.answer.unwrap().payload).unwrap();
    assert_eq!((&first["left"], &first["got"]), (&json!(true), &json!("é")));
    let (error, _) = stage.fails("\"error\"", FailureClass::Function, "KeyError").await;
    assert!(error.stack.iter().any(|line| line.contains("app.py")), "{error:?}");
    stage.fails("\"deep\"", FailureClass::Function, "ValueError").await;
    let raw = stage.call("\"bytes\"").await.answer.unwrap();
    assert_eq!((&*raw.payload, raw.content_type.as_deref()), (&b"raw"[..], Some("application/unknown")));
    stage.ok("\"flood\"").await;
    assert_eq!(stage.ok("0").await["pid"], first["pid"]);
    stage.fails("\"large\"", FailureClass::BadResponse, "Function.ResponseSizeTooLarge").await;
    stage.ok("0").await;
    stage.fails("\"exit\"", FailureClass::Crash, "Runtime.ExitError").await;
    assert_ne!(stage.ok("0").await["pid"], first["pid"]);
}

#[tokio::test]
async fn the_official_python_client_reports_a_bad_start() {
    let Some((stage, spec)) = stage("import not_there\n") else { return };
    stage.apply(&spec).await;
    let (error, _) = stage.fails("0", FailureClass::CannotStart, "Runtime.ImportModuleError").await;
    assert!(error.message.contains("not_there"), "{error:?}");
}
