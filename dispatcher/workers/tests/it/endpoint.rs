//! HTTP endpoints, against a small server of the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwire_schemas::FailureClass;
use bellwire_schemas::service::{Auth, Secret, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Stage, invocation};
use bellwire_workers::Invoker as _;

/// Answers every request with these bytes and keeps what it was sent.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn server(answer: impl Into<Vec<u8>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (kept, answer) = (seen.clone(), answer.into());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (kept, answer) = (kept.clone(), answer.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    kept.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
                    if answer.is_empty() || stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server { url, seen }
}

fn reply(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn stage(url: &str) -> Stage {
    let stage = Stage::with(|config| config.dev = true);
    let mut spec = stage.spec(Target::Url(url.into()));
    spec.timeout = Duration::from_secs(1);
    spec.concurrency = 50;
    stage.apply(&spec).await;
    stage
}

#[tokio::test]
async fn a_request_carries_headers_credentials_and_signature() {
    let server = server(reply("200 OK\r\ncontent-type: text/plain", "fine")).await;
    let stage = Stage::new();
    let mut spec = stage.spec(Target::Url(server.url.clone()));
    spec.request.allow_private = true;
    spec.request.headers = BTreeMap::from([("x-team".into(), Secret::new("a b"))]);
    spec.request.auth = Some(Auth::Basic(Secret::new("user:pw")));
    spec.request.signing_secret = Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    stage.apply(&spec).await;
    let mut call = invocation("{\"a\":1}");
    call.content_type = "application/cloudevents+json".into();
    call.headers = vec![("ce-id".into(), "7".into())];
    call.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    let result = stage.workers.invoke(call).await;
    let answer = result.answer.unwrap();
    assert_eq!((&*answer.payload, answer.content_type.as_deref()), (&b"fine"[..], Some("text/plain")));
    let seen = server.seen.lock().unwrap().concat();
    for part in [
        "POST /hook HTTP/1.1\r\n",
        "content-type: application/cloudevents+json\r\n",
        "ce-id: 7\r\n",
        "x-team: a b\r\n",
        "authorization: Basic dXNlcjpwdw==\r\n",
        "idempotency-key: 1-42@f:s3.photos\r\n",
        "webhook-id: 1-42@f:s3_photos\r\n",
        "webhook-signature: v1,",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "\r\n\r\n{\"a\":1}",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
}

#[tokio::test]
async fn refusals_are_errors_and_throttling_is_not() {
    for (head, class, kind, pause) in [
        ("500 Oops", FailureClass::Function, "HTTP.500", None),
        ("404 Not Found", FailureClass::Function, "HTTP.404", None),
        ("302 Found\r\nlocation: http://169.254.169.254/", FailureClass::Function, "HTTP.302", None),
        ("429 Slow\r\nretry-after: 7", FailureClass::Throttled, "HTTP.429", Some(7)),
        ("503 Busy\r\nretry-after: 3", FailureClass::Throttled, "HTTP.503", Some(3)),
        ("503 Busy", FailureClass::Function, "HTTP.503", None),
    ] {
        let server = server(reply(head, "why")).await;
        let stage = stage(&server.url).await;
        let (error, result) = stage.fails("{}", class, kind).await;
        assert_eq!(result.retry_after, pause.map(Duration::from_secs), "{head}");
        assert!(error.message.contains(if head.starts_with("302") { "169.254" } else { "why" }), "{error:?}");
        assert_eq!(server.seen.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_cannot_be_reached_says_why() {
    let unreachable = FailureClass::Unreachable;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    stage(&format!("http://{free}/")).await.fails("{}", unreachable, "HTTP.Unreachable").await;
    stage("http://no-such-host.invalid/").await.fails("{}", unreachable, "HTTP.Unreachable").await;
    let closing = server("").await;
    stage(&closing.url).await.fails("{}", unreachable, "HTTP.Unreachable").await;
    let broken = server("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nfull").await;
    assert_eq!(stage(&broken.url).await.call("{}").await.answer.unwrap().payload, "ful");
    let plain = server("this is not tls").await;
    let secure = plain.url.replace("http:", "https:");
    stage(&secure).await.fails("{}", unreachable, "HTTP.Unreachable").await;
}

#[tokio::test]
async fn a_silent_endpoint_ends_at_the_deadline() {
    let slow = server("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1").await;
    stage(&slow.url).await.fails("{}", FailureClass::Timeout, "Sandbox.Timedout").await;
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = server(reply("200 OK", &"x".repeat(7_000_000))).await;
    let stage = stage(&server.url).await;
    stage.fails("{}", FailureClass::BadResponse, "Function.ResponseSizeTooLarge").await;
}

#[tokio::test]
async fn private_addresses_are_refused_unless_allowed() {
    let server = server(reply("200 OK", "secret")).await;
    let port = server.url.split(':').nth(2).unwrap();
    let stage = Stage::new();
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        stage.apply(&stage.spec(Target::Url(format!("http://{host}:{port}")))).await;
        stage.fails("{}", FailureClass::Unreachable, "HTTP.AddressRefused").await;
    }
    assert!(server.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn settings_that_cannot_be_sent_are_refused_at_apply() {
    let stage = Stage::new();
    let mut spec = stage.spec(Target::Url("http://example.com/".into()));
    spec.request.headers = BTreeMap::from([("bad name".into(), Secret::new("x"))]);
    for spec in
        [spec, stage.spec(Target::Url("ftp://example.com".into())), stage.spec(Target::Url("no url".into()))]
    {
        assert!(stage.workers.apply(vec![spec]).await.is_err());
    }
}
