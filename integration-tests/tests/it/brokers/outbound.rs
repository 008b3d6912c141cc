//! Results go out to each kind of broker and are read back by its public client.

use bellwire_integration_tests::brokers::Place;
use serde_json::{Value, json};

use super::world::{SQLITE, World, place};

const EVENTS: usize = 20;

async fn outbound(kind: &'static str) {
    let place = place(kind).await;
    let name = json!(place.name);
    let destination = match kind {
        "kafka" => format!("kafka: {{ bootstrap_servers: [{}], topic: {name} }}", json!(place.address)),
        "rabbitmq" => format!("rabbitmq: {{ url: \"${{env:AMQP_URL}}\", routing_key: {name} }}"),
        _ => format!("sqs: {{ queue: {name}, endpoint: {}, region: us-east-1 }}", json!(place.address)),
    };
    let service = format!(
        "service: outbound
destinations:
  out: {{ {destination} }}
functions:
  note:
    handler: note.handler
    format: json
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\", WHO: \"${{env:WHO}}\" }}
    events: [{{ topic: work, on_success: {{ destination: out, payload: result }} }}]
"
    );
    let mut world = World::of(&service, &place, &[SQLITE.into()]);
    world.cluster.start_all().await.unwrap();
    for number in 0..EVENTS {
        let id = format!("o-{number}");
        let event = json!({"specversion": "1.0", "id": id, "source": "/t", "type": "t", "data": {"id": id}});
        let (status, answer) = world.first().publish("work", event.to_string()).await.unwrap();
        assert_eq!(status, 202, "{answer}");
    }
    let mut seen: Vec<String> = read(&place, &world).await;
    seen.sort();
    let mut expected: Vec<String> = (0..EVENTS).map(|n| format!("o-{n}")).collect();
    expected.sort();
    assert_eq!(seen, expected, "each result once: nothing failed");
    world.cluster.settled().await.unwrap();
    let (code, out, err) = world.first().cli(&["verify"]).await.unwrap();
    assert_eq!(code, 0, "{out}\n{err}");
}

async fn read(place: &Place, world: &World) -> Vec<String> {
    let messages = place.read(EVENTS).await;
    let messages = messages.unwrap_or_else(|error| panic!("{error:#}\n{}", world.cluster.logs()));
    let id = |text: &String| {
        let value: Value = serde_json::from_str(text).unwrap();
        value["seen"].as_str().unwrap_or_else(|| panic!("a result: {value}")).to_string()
    };
    messages.iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka() {
    outbound("kafka").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq() {
    outbound("rabbitmq").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqs() {
    outbound("sqs").await;
}
