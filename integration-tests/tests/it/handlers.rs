//! Handlers of every temper: each has a clear outcome, none takes the controller along.

use bellwire_integration_tests::Stack;
use serde_json::{Value, json};

const SERVICE: &str = "service: tempers
defaults:
  event: { retry: { attempts: 2, min_delay: 10ms, max_delay: 20ms } }
functions:
  hangs:   { handler: tempers.hangs, timeout: 1s, events: [{ topic: hangs }] }
  crashes: { handler: tempers.crashes, events: [{ topic: crashes }] }
  raises:  { handler: tempers.raises, events: [{ topic: raises }] }
  chatty:  { handler: tempers.chatty, events: [{ topic: chatty }] }
  huge:    { handler: tempers.huge, events: [{ topic: huge }] }
  exits:   { handler: exits.handler, events: [{ topic: exits }] }
  fine:    { handler: tempers.fine, events: [{ topic: fine }] }
  node:    { handler: node.handler, events: [{ topic: node }] }
";

const TEMPERS: &str = r#"
import os, time


def hangs(event, context):
    time.sleep(600)


def crashes(event, context):
    os._exit(3)


def raises(event, context):
    raise ValueError("this is the message")


def chatty(event, context):
    print("x" * 1_000_000)
    return "quiet"


def huge(event, context):
    return "x" * 7_000_000


def fine(event, context):
    return {"id": event["id"], "left_ms": context.get_remaining_time_in_millis() > 0}
"#;

const EXITS: &str = "import sys\nprint('about to leave')\nsys.exit(7)\n";
const NODE: &str =
    "exports.handler = async (event, context) => ({ id: event.id, request: context.awsRequestId.length });\n";

async fn stack() -> Stack {
    let files = [("tempers.py", TEMPERS), ("exits.py", EXITS), ("node.js", NODE)];
    let mut stack = Stack::new(SERVICE, &files).unwrap();
    stack.start(None).await.unwrap();
    stack
}

async fn dead_letter(stack: &Stack, topic: &str) -> Value {
    let body =
        json!({"specversion": "1.0", "id": topic, "source": "/t", "type": "t", "data": {}}).to_string();
    let (status, answer) = stack.publish(topic, body).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    let path = format!("/v1/dead-letters?binding={topic}:topic.{topic}");
    let letters = stack.until(&path, |v| v["items"].as_array().is_some_and(|i| !i.is_empty())).await.unwrap();
    assert_eq!(letters["items"][0]["attempts"], 2, "{letters}");
    letters["items"][0]["error"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_has_a_clear_outcome() {
    let mut stack = stack().await;
    let error = dead_letter(&stack, "raises").await;
    assert_eq!(
        (error["class"].as_str(), error["type"].as_str()),
        (Some("function"), Some("ValueError")),
        "{error}"
    );
    assert_eq!(error["message"], "this is the message");
    assert!(error["stack"].to_string().contains("tempers.py"), "{error}");
    let error = dead_letter(&stack, "hangs").await;
    assert_eq!(error["class"], "timeout", "{error}");
    let error = dead_letter(&stack, "crashes").await;
    assert_eq!(error["class"], "crash", "{error}");
    assert!(error["message"].as_str().unwrap().contains('3'), "the exit code is named: {error}");
    let error = dead_letter(&stack, "huge").await;
    assert_eq!(error["type"], "Function.ResponseSizeTooLarge", "{error}");
    assert!(stack.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_cannot_start_waits_without_burning_attempts() {
    let mut stack = stack().await;
    let body = json!({"specversion": "1.0", "id": "x", "source": "/t", "type": "t"}).to_string();
    let (_, answer) = stack.publish("exits", body).await.unwrap();
    let address = answer["items"][0]["address"].as_str().unwrap().to_string();
    let path = format!("/v1/events/{address}/explanation");
    let explained =
        stack.until(&path, |v| v["deliveries"][0]["reason"] == "function-cannot-start").await.unwrap();
    assert_eq!(explained["deliveries"][0]["state"], "waiting", "{explained}");
    let letters = stack.get("/v1/dead-letters").await.unwrap();
    assert_eq!(letters["items"], json!([]));
    let status = stack.get("/v1/status").await.unwrap();
    assert!(status["problems"].to_string().contains("exits"), "{}", status["problems"]);
    assert!(stack.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_functions_answer_beside_bad_ones() {
    let stack = stack().await;
    let call = |name: &str| format!("/v1/functions/{name}/invocations");
    let event = json!({"event": {"id": "42"}});
    let fine = stack.post(&call("fine"), &event).await.unwrap();
    assert_eq!((&fine["ok"], &fine["result"]["id"]), (&json!(true), &json!("42")), "{fine}");
    assert_eq!(fine["result"]["left_ms"], true);
    let node = stack.post(&call("node"), &event).await.unwrap();
    assert_eq!((&node["result"]["id"], &node["result"]["request"]), (&json!("42"), &json!(36)), "{node}");
    let chatty = stack.post(&call("chatty"), &event).await.unwrap();
    assert_eq!(chatty["result"], "quiet", "{chatty}");
    let printed: usize = chatty["logs"].as_array().unwrap().iter().map(|l| l.as_str().unwrap().len()).sum();
    assert!((1_000..100_000).contains(&printed), "a cut of the megabyte is kept: {printed}");
}

/// A handler unchanged from AWS, run by the official client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_client_runs_a_handler() {
    let Some(python) = std::env::var("AWSLAMBDARIC_PYTHON").ok() else {
        assert!(std::env::var_os("CONFORMANCE_REQUIRED").is_none(), "AWSLAMBDARIC_PYTHON is not set");
        println!("skipped: AWSLAMBDARIC_PYTHON names no python with awslambdaric");
        return;
    };
    let service = format!(
        "service: official
functions:
  greet:
    command: [\"{python}\", -m, awslambdaric, app.handler]
    code: .
    events: [{{ topic: greetings }}]
"
    );
    let app = "import json
def handler(event, context):
    return {'statusCode': 200, 'body': json.dumps({'name': event['data']['name'], 'id': context.aws_request_id})}
";
    let mut stack = Stack::new(&service, &[("app.py", app)]).unwrap();
    stack.start(None).await.unwrap();
    let event = json!({"event": {"data": {"name": "Ada"}}});
    let answer = stack.post("/v1/functions/greet/invocations", &event).await.unwrap();
    assert_eq!(answer["result"]["statusCode"], 200, "{answer}\n{}", stack.log());
    assert!(answer["result"]["body"].as_str().unwrap().contains("Ada"));
    let body = json!({"specversion": "1.0", "id": "1", "source": "/t", "type": "t", "data": {"name": "Bo"}})
        .to_string();
    stack.publish("greetings", body).await.unwrap();
    let status = stack.until("/v1/status", |s| s["bindings"][0]["delivered"] == 1).await.unwrap();
    assert_eq!(status["bindings"][0]["name"], "greet:topic.greetings");
}
