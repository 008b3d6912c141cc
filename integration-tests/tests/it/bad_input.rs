//! Bad input of every kind: a clear answer, the good events beside it unharmed.

use bellwire_integration_tests::Stack;
use bellwire_integration_tests::stack::cli;
use serde_json::json;

use crate::{NOTING, noting_service};

async fn stack() -> Stack {
    let yaml = noting_service(2)
        + "      - webhook: { path: /signed, verify: github, secret: \"${file:secret}\" }
  photo:
    handler: note.handler
    environment: { NOTES: \"${env:TEST_DIR}/notes\" }
    events: [{ s3: photos }]
";
    let mut stack = Stack::new(&yaml, &[("note.py", NOTING), ("secret", "s3cr3t")]).unwrap();
    let private = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    std::fs::set_permissions(stack.path("secret"), private).unwrap();
    stack.start(None).await.unwrap();
    stack
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_clear_answers() {
    let mut stack = stack().await;
    let bearer = format!("Bearer {}", stack.token);
    let auth = ("authorization", bearer.as_str());
    let json_type = ("content-type", "application/json");
    let (status, body) = stack.send("/hooks/nowhere", &[], "{}").await.unwrap();
    assert_eq!((status, body["code"].as_str()), (404, Some("not-found")), "{body}");
    let (status, body) =
        stack.send("/hooks/signed", &[("x-hub-signature-256", "sha256=00")], "{}").await.unwrap();
    assert_eq!(status, 401, "{body}");
    let (status, body) = stack.send("/hooks/signed", &[], "{}").await.unwrap();
    assert_eq!(status, 401, "{body}");
    let (status, body) = stack.send("/topics/work", &[json_type], "{}").await.unwrap();
    assert_eq!((status, body["code"].as_str()), (401, Some("unauthorized")), "{body}");
    let (status, body) = stack.send("/topics/nobody-knows", &[auth], "{}").await.unwrap();
    assert_eq!(status, 404, "{body}");
    let (status, body) = stack.send("/topics/work", &[auth, json_type], vec![b'x'; 17 << 20]).await.unwrap();
    assert_eq!((status, body["code"].as_str()), (413, Some("body-too-large")), "{body}");
    let (status, body) = stack.send("/topics/work", &[auth], vec![b'x'; 2 << 20]).await.unwrap();
    assert_eq!((status, body["items"][0]["code"].as_str()), (413, Some("event-too-large")), "{body}");
    let (status, body) = stack.publish("work", "{\"specversion\":\"1.0\"}").await.unwrap();
    assert_eq!(status, 400, "a CloudEvent without id, source and type: {body}");
    let (status, body) = stack.send("/s3", &[auth], "not json").await.unwrap();
    assert_eq!(status, 400, "{body}");
    assert!(stack.runs());
    let event =
        json!({"specversion": "1.0", "id": "good", "source": "/t", "type": "t", "data": {}}).to_string();
    assert_eq!(stack.publish("work", event).await.unwrap().0, 202);
    stack.settled().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_json_is_kept_and_delivered_or_refused_never_fatal() {
    let mut stack = stack().await;
    let bearer = format!("Bearer {}", stack.token);
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for (path, kind) in [
        ("/topics/work", "application/json"),
        ("/topics/work", "application/cloudevents+json"),
        ("/s3", "application/json"),
    ] {
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        let (status, body) = stack.send(path, &headers, deep.clone()).await.unwrap();
        assert!((200..500).contains(&status), "{path} {kind}: {status} {body}");
    }
    assert!(stack.runs());
    stack.get("/v1/status").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_unknown_buckets_are_quarantined() {
    let stack = stack().await;
    let bearer = format!("Bearer {}", stack.token);
    let record = |bucket: &str| {
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventTime": "2026-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": "a+b.jpg", "sequencer": "01"}}})
    };
    let body = json!({"Records": [record("photos"), record("others")]}).to_string();
    let (status, answer) = stack.send("/s3", &[("authorization", &bearer)], body).await.unwrap();
    assert_eq!((status, answer["accepted"].as_u64()), (202, Some(1)), "{answer}");
    assert_eq!(answer["items"][1]["status"], "quarantined", "{answer}");
    let kept = stack.get("/v1/quarantined").await.unwrap();
    assert!(kept["items"][0]["text"].as_str().unwrap().contains("others"), "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_door_asks_for_a_token_everywhere() {
    let stack = stack().await;
    let paths = [
        "/v1/status",
        "/v1/events",
        "/v1/live",
        "/metrics",
        "/",
        "/v1/nothing",
        "/v1/events/ready",
        "/e/internal",
    ];
    for path in paths {
        let answer = stack.http.get(format!("{}{path}", stack.admin)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{path}");
    }
    for path in ["/healthz/live", "/healthz/ready"] {
        let answer = stack.http.get(format!("{}{path}", stack.admin)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
    }
    let request = stack.http.get(format!("{}/v1/status", stack.admin)).bearer_auth(&stack.token);
    let rebound = request.header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status().as_u16(), 403);
    let log = stack.log();
    assert!(!log.contains(&stack.token) && !log.contains("s3cr3t"), "a secret is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "service: x\nfunctions:\n  f:\n    handler: f.handler\n    tiemout: 3s\n    events:\n      - topic: t\n        batchSize: 500\n";
    std::fs::write(folder.path().join("bellwire.yaml"), yaml).unwrap();
    std::fs::write(folder.path().join("f.py"), "def handler(e, c): pass\n").unwrap();
    for command in [&["check"][..], &["run", "-f", "bellwire.yaml"], &["dev"]] {
        let (code, out, err) = cli(folder.path(), command).await.unwrap();
        let text = out + &err;
        assert_eq!(code, 1, "{command:?}: {text}");
        assert!(text.contains("bellwire.yaml:5:5") && text.contains("timeout"), "{command:?}: {text}");
        assert!(text.contains("bellwire.yaml:8:9") && text.contains("batch"), "{command:?}: {text}");
    }
    let (code, _, err) = cli(folder.path(), &["run", "-f", "absent.yaml"]).await.unwrap();
    assert!(code != 0 && err.contains("absent.yaml"), "{code} {err}");
}
