//! The command line as a user meets it: exit codes, answers, files left behind.

use std::os::unix::fs::PermissionsExt;

use bellwire_integration_tests::Stack;
use bellwire_integration_tests::stack::cli;
use serde_json::{Value, json};

use crate::{NOTING, noting_service};

async fn stack() -> Stack {
    let mut stack = Stack::new(&noting_service(2), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    stack
}

fn event(id: &str, data: &Value) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": data}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_say_what_happened() {
    let empty = tempfile::tempdir().unwrap();
    let run = |args: &'static [&'static str]| cli(empty.path(), args);
    assert_eq!(run(&["version"]).await.unwrap().0, 0);
    assert_eq!(run(&["--help"]).await.unwrap().0, 0);
    assert_eq!(run(&["status", "--nonsense"]).await.unwrap().0, 2);
    assert_eq!(run(&["frobnicate"]).await.unwrap().0, 2);
    let (code, _, err) = run(&["status", "--url", "http://127.0.0.1:9"]).await.unwrap();
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("no controller at 127.0.0.1:9") && err.contains("bellwire dev"), "{err}");
    let (code, _, err) = run(&["status", "--url", "http://example.com"]).await.unwrap();
    assert!(code == 2 && err.contains("https"), "{code} {err}");
    let (code, _, err) = run(&["plan"]).await.unwrap();
    assert!(code == 2 && err.contains("not supported yet"), "{code} {err}");
    let (code, out, _) = run(&["schema"]).await.unwrap();
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && schema["properties"]["functions"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_starts_from_init() {
    let empty = tempfile::tempdir().unwrap();
    let (code, out, err) = cli(empty.path(), &["init", "mine"]).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = cli(&empty.path().join("mine"), &["check"]).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = cli(empty.path(), &["init", "mine"]).await.unwrap();
    assert!(code != 0 && err.contains("bellwire.yaml"), "files are never overwritten: {code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_sent_listed_explained() {
    let stack = stack().await;
    let (code, out, err) =
        stack.cli(&["send", "topic.work", "--data", &event("first", &json!({}))]).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("1-1"), "{out}");
    stack.settled().await.unwrap();
    let (code, out, _) = stack.cli(&["events", "list", "--json"]).await.unwrap();
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, list["items"][0]["id"].as_str()), (0, Some("first")), "{out}");
    let (code, out, _) = stack.cli(&["explain", "1-1"]).await.unwrap();
    assert!(code == 0 && out.contains("note:topic.work") && out.contains("delivered"), "{out}");
    let (code, out, _) = stack.cli(&["explain", "first", "--json"]).await.unwrap();
    let explained: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, explained["deliveries"][0]["state"].as_str()), (0, Some("delivered")), "{out}");
    let (code, out, err) = stack.cli(&["explain", "never", "--source", "topic.work"]).await.unwrap();
    assert!(code == 1 && (out.clone() + &err).contains("never seen"), "{code} {out}{err}");
    let (code, out, _) = stack.cli(&["status"]).await.unwrap();
    assert!(code == 0 && out.contains("note:topic.work"), "{out}");
    let (code, out, _) = stack.cli(&["verify"]).await.unwrap();
    assert!(code == 0 && out.contains("accounted"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_redriven_and_discarded() {
    let stack = stack().await;
    for id in ["p1", "p2"] {
        stack.publish("work", event(id, &json!({"poison": true}))).await.unwrap();
    }
    stack.until("/v1/dead-letters", |v| v["items"].as_array().is_some_and(|i| i.len() == 2)).await.unwrap();
    let (code, out, _) = stack.cli(&["dead-letters", "groups"]).await.unwrap();
    assert!(code == 0 && out.contains("ValueError"), "{out}");
    let (code, out, _) = stack.cli(&["dead-letters", "show", "1-1"]).await.unwrap();
    assert!(code == 0 && out.contains("not today") && out.contains("note.py"), "{out}");
    let (code, _, err) = stack.cli(&["dead-letters", "redrive"]).await.unwrap();
    assert_eq!(code, 2, "a write without a selector: {err}");
    let (code, out, err) = stack.cli(&["dead-letters", "redrive", "1-1"]).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    stack.settled().await.unwrap();
    let (code, _, err) = stack.cli(&["dead-letters", "discard", "1-2"]).await.unwrap();
    assert!(code == 2 && err.contains("reason"), "{code} {err}");
    let (code, out, err) = stack.cli(&["dead-letters", "discard", "1-2", "--reason", "test"]).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, _) = stack.cli(&["dead-letters", "discard", "1-2", "--reason", "test"]).await.unwrap();
    assert_eq!(code, 1, "nothing matched");
    let (_, out, _) = stack.cli(&["explain", "1-2"]).await.unwrap();
    assert!(out.contains("discarded"), "{out}");
    let (code, out, _) = stack.cli(&["verify"]).await.unwrap();
    assert_eq!(code, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_is_read_without_its_controller() {
    let mut stack = stack().await;
    stack.publish("work", event("kept", &json!({}))).await.unwrap();
    stack.publish("work", event("bad", &json!({"poison": true}))).await.unwrap();
    stack.settled().await.unwrap();
    stack.kill().await;
    let ledger = ["--ledger", "sqlite:.bellwire/ledger.db"];
    let ask = async |args: &[&str]| stack.cli(&[args, &ledger].concat()).await.unwrap();
    let (code, out, err) = ask(&["explain", "kept"]).await;
    assert!(code == 0 && out.contains("delivered"), "{code} {out}{err}");
    let (code, out, err) = ask(&["dead-letters", "list"]).await;
    assert!(code == 0 && out.contains("ValueError"), "{code} {out}{err}");
    let (code, out, err) = ask(&["events", "list", "--json"]).await;
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (0, Some(2)), "{out}{err}");
    let (code, out, err) = ask(&["verify"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = ask(&["dead-letters", "redrive", "--all"]).await;
    assert!(code != 0 && !err.is_empty(), "nothing is written without a controller: {code} {err}");
    let (code, _, err) = stack.cli(&["events", "list", "--ledger", "sqlite:absent.db"]).await.unwrap();
    assert!(code == 3 && err.contains("absent.db"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_refused_with_its_own_code() {
    let stack = stack().await;
    let file = stack.path(".bellwire/controller.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap().replace(&stack.token, "bw_wrong");
    std::fs::write(&file, text).unwrap();
    let (code, _, err) = stack.cli(&["status"]).await.unwrap();
    assert_eq!(code, 4, "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_controller_on_the_same_ledger_is_refused() {
    let stack = stack().await;
    let args = ["run", "-f", "bellwire.yaml", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let (code, _, err) = cli_with_test_dir(&stack, &args).await;
    assert!(code != 0 && err.contains("ledger.db"), "{code} {err}");
    stack.get("/v1/status").await.unwrap();
}

async fn cli_with_test_dir(stack: &Stack, args: &[&str]) -> (i32, String, String) {
    let output = tokio::process::Command::new(bellwire_integration_tests::stack::program())
        .args(args)
        .current_dir(stack.folder.path())
        .env("TEST_DIR", stack.folder.path())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(bellwire_integration_tests::stack::PATIENCE, output).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
