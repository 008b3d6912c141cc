//! Messages that nobody can use are put aside with their bytes, and what comes after them is served.

use serde_json::Value;

use super::world::{SQLITE, World, declared, place};

async fn poison(kind: &'static str) {
    let place = place(kind).await;
    let service = format!(
        "service: oracle
limits: {{ event_size: 100KB }}
sources:
  in: {{ {} }}
functions:
  note:
    handler: note.handler
    format: json
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\", WHO: \"${{env:WHO}}\" }}
    events: [{{ source: in, batch: 1, retry: {{ attempts: 3, min_delay: 10ms, max_delay: 50ms }} }}]
",
        declared(&place, "decode: json")
    );
    let mut world = World::of(&service, &place, &[SQLITE.into()]);
    let (deep, large) =
        ("[".repeat(50_000), format!("{{\"id\": \"large\", \"x\": \"{}\"}}", "x".repeat(150_000)));
    // SQS takes text only.
    let undecodable: &[u8] = if kind == "sqs" { b"{\"id\": " } else { b"\xff\xfe\x00{" };
    let messages: [&[u8]; 3] = [undecodable, deep.as_bytes(), large.as_bytes()];
    for (number, message) in messages.iter().enumerate() {
        place.send(&format!("bad-{number}"), *message).await.unwrap();
    }
    // Without a key, as with Kafka's null key.
    place.send("", r#"{"id": "keyless-0"}"#).await.unwrap();
    let mut oracle = place.produce("good", 500, 50).unwrap().all().await.unwrap();
    oracle.acknowledged.insert("keyless-0".into());
    world.cluster.start_all().await.unwrap();
    world.count(&oracle, 0).await;
    let aside = world.first().get("/v1/quarantined?limit=100").await.unwrap();
    let aside = aside["items"].as_array().unwrap().clone();
    assert_eq!(aside.len(), 3, "{aside:?}");
    for message in messages {
        assert!(aside.iter().any(|item| bytes(item) == message), "{} bytes are not kept", message.len());
    }
    for item in &aside {
        assert!(!item["reason"].as_str().unwrap().is_empty(), "{item}");
    }
}

fn bytes(item: &Value) -> Vec<u8> {
    if let Some(text) = item["text"].as_str() {
        return text.into();
    }
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(item["base64"].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka() {
    poison("kafka").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq() {
    poison("rabbitmq").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqs() {
    poison("sqs").await;
}
