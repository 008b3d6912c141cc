//! What goes over the wire, seen from native workers and from a bare socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bellwire_schemas::service::Target;
use bellwire_schemas::{Clock, FailureClass};
use bellwire_workers::emit::Outbox;
use bellwire_workers::pool::logs::Logs;
use bellwire_workers::runtime_api::desk::Desk;
use bellwire_workers::runtime_api::event::Event;
use bellwire_workers::runtime_api::server;
use http::HeaderValue;
use serde_json::json;
use tokio::net::TcpListener;

use crate::native::Client;
use crate::support::{Stage, invocation, until};
use bellwire_schemas::Timestamp;
use bellwire_workers::{Consent, Invoker as _};

#[tokio::test]
async fn next_carries_the_headers_that_clients_insist_on() {
    let stage = Stage::new();
    stage.apply(&stage.native("headers")).await;
    let mut call = invocation("{\"a\" :  1}");
    call.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".into());
    let result = stage.workers.invoke(call.clone()).await;
    let head = String::from_utf8(result.answer.unwrap().payload.to_vec()).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    for line in [
        "content-type: application/json",
        "content-length: 10",
        &format!("lambda-runtime-aws-request-id: {}", call.request_id),
        "lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:000000000000:function:f",
        "lambda-runtime-trace-id: root=1-4bf92f35-77b34da6a3ce929d0e0e4736;parent=00f067aa0ba902b7;sampled=0",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    assert!(head.contains("\r\nlambda-runtime-deadline-ms: 1"), "{head}");
    let plain = stage.call("{}").await.answer.unwrap().payload;
    assert!(!String::from_utf8_lossy(&plain).contains("trace-id"));
}

/// A worker had to start, and meanwhile the caller lost the right to the event: nobody gets it, and the worker is free.
#[tokio::test]
async fn consent_is_asked_when_the_event_is_handed_over() {
    let stage = Stage::new();
    stage.apply(&stage.native("echo")).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let mut call = invocation("\"mine\"");
    call.consent = Consent::new({
        let asked = Arc::clone(&asked);
        move || asked.fetch_add(1, Ordering::SeqCst) > 0
    });
    let refused = stage.workers.invoke(call.clone()).await;
    assert_eq!(refused.answer.unwrap_err().kind, "Invocation.Withdrawn");
    assert_eq!(stage.workers.status()[0].invocations, 0, "nothing was tried");
    assert_eq!(stage.workers.invoke(call).await.answer.unwrap().payload, "\"mine\"");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn payloads_pass_byte_for_byte() {
    let stage = Stage::new();
    stage.apply(&stage.native("echo")).await;
    let big = format!("\"{}\"", "é".repeat(500_000));
    for payload in ["{\"a\" :  1e400}\n", "", &big] {
        assert_eq!(stage.call(payload).await.answer.unwrap().payload, payload);
    }
}

#[tokio::test]
async fn chunked_and_streamed_answers_are_put_together() {
    let stage = Stage::new();
    stage.apply(&stage.native("chunked")).await;
    assert_eq!(stage.ok("[1, 2]").await, json!([1, 2]));
    stage.apply(&stage.native("midstream")).await;
    let (error, _) = stage.fails("[1]", FailureClass::Function, "Broken").await;
    assert_eq!(error.message, "no");
}

#[tokio::test]
async fn an_answer_that_breaks_off_fails() {
    let stage = Stage::new();
    stage.apply(&stage.native("truncated")).await;
    stage.fails("{}", FailureClass::BadResponse, "Runtime.TruncatedResponse").await;
}

#[tokio::test]
async fn a_bootstrap_in_shell_works() {
    let stage = Stage::new();
    let script = r#"#!/bin/sh
echo "from $_HANDLER" >&2
exec python3 - <<'END'
import http.client, os
while True:
    def call(*args):
        c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
        c.request(*args)
        r = c.getresponse()
        return r.headers, r.read()
    headers, body = call("GET", "/2018-06-01/runtime/invocation/next")
    id = headers["Lambda-Runtime-Aws-Request-Id"].replace("-", "%2D")
    call("POST", "/2018-06-01/runtime/invocation/" + id + "/response", body)
END
"#;
    stage.write("bootstrap", script);
    let file = stage.code().join("bootstrap");
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    stage.apply(&stage.spec(Target::Command(vec!["./bootstrap".into()]))).await;
    let result = stage.call("[3]").await;
    assert_eq!((&*result.answer.unwrap().payload, result.logs), (&b"[3]"[..], vec!["from f".to_owned()]));
    assert_eq!(stage.ok("4").await, 4);
}

/// A desk behind a real port, without a process.
async fn desk() -> (Arc<Desk>, String) {
    let (output, _input) = std::io::pipe().unwrap();
    let desk =
        Arc::new(Desk::new(Logs::new(output.into()).unwrap(), Outbox::new(1_000, Clock::system()), |_| {}));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = desk.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(server::serve(stream, served.clone()));
        }
    });
    (desk, address)
}

/// Runs a blocking client.
async fn client<T: Send + 'static>(address: &str, run: impl FnOnce(&mut Client) -> T + Send + 'static) -> T {
    let address = address.to_owned();
    tokio::task::spawn_blocking(move || run(&mut Client::connect(&address))).await.unwrap()
}

fn event(id: &str) -> Event {
    let call = bellwire_workers::Invocation { request_id: id.into(), ..invocation("{}") };
    Event::new(&call, Timestamp::from_millis(1), &HeaderValue::from_static("arn"))
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_and_bodies_of_refusals() {
    let (desk, address) = desk().await;
    let statuses = client(&address, |c| {
        let mut all = vec![c.get("nothing").0, c.post("invocation/next", "content-length: 0", b"")];
        all.push(c.post("invocation/a/response", "content-length: 1", b"1"));
        all
    })
    .await;
    assert_eq!(statuses, [404, 405, 400]);
    let poll = tokio::spawn({
        let address = address.clone();
        async move { client(&address, |c| c.get("invocation/next").0).await }
    });
    until(async || desk.is_waiting().then_some(())).await;
    let mut ending = desk.hand_over(event("a b")).unwrap();
    assert_eq!(poll.await.unwrap(), 200);
    let statuses = client(&address, |c| {
        let mut all = vec![c.get("invocation/next").0, c.post("init/error", "content-length: 0", b"")];
        all.push(c.post("invocation/b/response", "content-length: 1", b"1"));
        let mode = "content-length: 1\r\nlambda-runtime-function-response-mode: odd";
        all.push(c.post("invocation/a%20b/response", mode, b"1"));
        all.push(c.post("invocation/a%20b/response", "content-length: 1", b"1"));
        all.push(c.post("invocation/a%20b/response", "content-length: 1", b"2"));
        all
    })
    .await;
    assert_eq!(statuses, [200, 403, 400, 400, 202, 403]);
    assert_eq!(ending.try_recv().unwrap().answer.unwrap().payload, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_error_cause_in_a_header_is_read() {
    let (desk, address) = desk().await;
    let poll = tokio::spawn({
        let address = address.clone();
        async move { client(&address, |c| c.get("invocation/next").0).await }
    });
    until(async || desk.is_waiting().then_some(())).await;
    let ending = desk.hand_over(event("a")).unwrap();
    poll.await.unwrap();
    let status = client(&address, |c| {
        let cause = "x".repeat(1024 * 1024);
        let head = format!(
            "content-length: 18\r\nlambda-runtime-function-error-type: E\r\n\
             lambda-runtime-function-xray-error-cause: {cause}"
        );
        c.post("invocation/a/error", &head, br#"{"errorType": "E"}"#)
    })
    .await;
    assert_eq!(status, 202);
    assert_eq!(ending.await.unwrap().answer.unwrap_err().kind, "E");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_start_ends_the_worker() {
    let (desk, address) = desk().await;
    let statuses = client(&address, |c| {
        let body = br#"{"errorType": "Broken", "errorMessage": "no"}"#;
        let length = format!("content-length: {}", body.len());
        [c.post("init/error", &length, body), c.post("init/error", &length, body), c.get("invocation/next").0]
    })
    .await;
    assert_eq!(statuses, [202, 403, 410]);
    assert_eq!(desk.init_error().unwrap().kind, "Broken");
}
