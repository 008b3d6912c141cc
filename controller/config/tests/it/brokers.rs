//! Kafka, RabbitMQ, SQS and destinations: what becomes of a right file.

use std::time::Duration;

use bellwire_config::{Loaded, Mode, expand};
use bellwire_schemas::brokers::{
    Destination, LostPositions, QueueType, SaslMechanism, SendingPayload, StartingPosition, Tls,
};
use bellwire_schemas::service::{BindingSpec, KeyRule, Service, SourceKind, SourceSpec, Start, Target};
use serde_json::json;

use crate::world::World;

fn brokers(mode: Mode) -> Loaded {
    let text = std::fs::read_to_string("examples/brokers.yaml").unwrap();
    World::usual().parse(&text, mode).unwrap_or_else(|report| panic!("{report}"))
}

fn source<'s>(service: &'s Service, name: &str) -> &'s SourceSpec {
    service.sources.iter().find(|s| s.name.as_str() == name).unwrap_or_else(|| panic!("no source {name}"))
}

fn binding<'s>(service: &'s Service, name: &str) -> &'s BindingSpec {
    service.bindings.iter().find(|b| b.name.as_str() == name).unwrap_or_else(|| panic!("no binding {name}"))
}

#[test]
fn brokers_are_resolved() {
    let loaded = brokers(Mode::Run);
    assert!(loaded.warnings.is_empty(), "{}", loaded.render_warnings(false));
    let service = &loaded.services[0];
    let orders = source(service, "orders");
    assert_eq!(orders.key, KeyRule::Partition);
    let SourceKind::Kafka(kafka) = &orders.kind else { panic!("{orders:?}") };
    assert_eq!(kafka.cluster.bootstrap_servers, ["kafka-1:9092", "kafka-2:9092", "[::1]:9093"]);
    assert_eq!((kafka.topics.len(), kafka.group_id.as_str()), (2, "pricing"));
    let StartingPosition::At(time) = kafka.starting_position else { panic!("{kafka:?}") };
    assert_eq!(time.to_string(), "2026-01-31T07:00:00.000Z");
    assert_eq!(kafka.lost_positions, LostPositions::Skip);
    let sasl = kafka.cluster.sasl.as_ref().unwrap();
    assert_eq!((sasl.mechanism, sasl.password.expose()), (SaslMechanism::ScramSha512, "from-a-variable"));
    let Tls::On(files) = &kafka.cluster.tls else { panic!() };
    assert!(files.ca.as_ref().unwrap().contains("root") && files.cert.as_ref().unwrap().contains("own"));
    assert!(files.key.as_ref().unwrap().expose().contains("PRIVATE KEY"));
    assert_eq!(kafka.cluster.librdkafka["fetch.message.max.bytes"], "1048576");
    assert!(loaded.files.iter().any(|f| f.ends_with("certs/ca.pem")), "watched: {:?}", loaded.files);

    let SourceKind::Rabbitmq(rabbit) = &source(service, "shipping").kind else { panic!() };
    assert_eq!(rabbit.url.expose(), "amqps://ship:from-a-variable@mq.example.com/shop");
    assert_eq!((rabbit.queue.as_str(), rabbit.prefetch), ("shipping", Some(50)));
    let declare = rabbit.declare.as_ref().unwrap();
    assert_eq!((declare.queue_type, declare.routing_keys.len()), (QueueType::Classic, 2));
    assert!(matches!(&rabbit.tls, Tls::On(files) if files.ca.is_some() && files.key.is_none()));

    let SourceKind::Sqs(sqs) = &source(service, "local").kind else { panic!() };
    assert_eq!(sqs.queue.endpoint.as_deref(), Some("http://127.0.0.1:4566"));
    let via = SourceKind::S3 { bucket: "invoices".into(), via: Some("uploads".into()) };
    assert_eq!(source(service, "invoices").kind, via);
}

#[test]
fn inline_sources_are_named_by_what_they_read() {
    let loaded = brokers(Mode::Run);
    let service = &loaded.services[0];
    let SourceKind::Kafka(returns) = &source(service, "kafka.returns").kind else { panic!() };
    assert_eq!(returns.group_id, "bellwire.shop.kafka.returns");
    assert_eq!((returns.starting_position, &returns.cluster.tls), (StartingPosition::Latest, &Tls::Off));
    let bindings: Vec<_> = service.bindings.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(
        bindings,
        [
            "price:orders",
            "price:invoices",
            "price:kafka.returns",
            "ship:shipping",
            "ship:rabbitmq.late-shipping",
            "ship:sqs.jobs",
            "ship:sqs.more.fifo",
            "ship:s3.parcels",
            "ship:topic.order-problems",
            "destination.audit:outbox",
            "destination.back:outbox",
            "destination.reports:outbox",
            "ship:outbox",
            "destination.kafka.refunds:outbox",
            "destination.sqs.problems:outbox",
            "destination.rabbitmq.ship-problems:outbox",
        ]
    );
    let parcels = binding(service, "ship:s3.parcels");
    assert_eq!(parcels.filter, [json!({ "subject": [{ "suffix": ".pdf" }] })]);
}

#[test]
fn results_go_into_outboxes_that_are_delivered_without_end() {
    let loaded = brokers(Mode::Run);
    let service = &loaded.services[0];
    let sent = |name: &str| {
        let binding = binding(service, name);
        let one = |s: &Option<bellwire_schemas::brokers::Sending>| {
            s.as_ref().map(|s| (s.to.as_str().to_owned(), s.payload))
        };
        (one(&binding.on_success), one(&binding.on_failure))
    };
    let (record, result) = (SendingPayload::Record, SendingPayload::Result);
    assert_eq!(
        sent("price:orders"),
        (Some(("destination.audit".into(), record)), Some(("topic.order-problems".into(), result)))
    );
    assert_eq!(
        sent("price:invoices"),
        (Some(("function.ship".into(), result)), Some(("function.ship".into(), record)))
    );
    assert_eq!(sent("price:kafka.returns").1, Some(("destination.sqs.problems".into(), record)));
    assert_eq!(sent("ship:sqs.jobs"), (None, None));

    let audit = service.functions.iter().find(|f| f.name.as_str() == "destination.audit").unwrap();
    let Target::Destination(destination) = &audit.target else { panic!("{audit:?}") };
    let Destination::Kafka(kafka) = destination.as_ref() else { panic!("{destination:?}") };
    assert_eq!((kafka.topic.as_str(), kafka.cluster.tls != Tls::Off), ("order-audit", true));
    assert_eq!(kafka.key.as_deref(), Some("data.requestContext.functionArn"));
    assert_eq!(source(service, "destination.audit").kind, SourceKind::Outbox);
    let outbox = binding(service, "destination.audit:outbox");
    assert_eq!(
        (outbox.source.as_str(), outbox.function.as_str()),
        ("destination.audit", "destination.audit")
    );
    assert_eq!((outbox.retry.attempts, outbox.retry.max_delay), (None, Duration::from_secs(300)));
    assert_eq!(outbox.start, Start::Earliest);
    assert_eq!(binding(service, "ship:outbox").retry.attempts, Some(10), "a function can fail for good");
}

#[test]
fn a_topic_that_only_results_go_to_is_a_source() {
    let text = "service: a\nfunctions:\n  f: { url: https://a/, events: [{ topic: in, on_success: { topic: out } }] }\n";
    let loaded = World::usual().parse(text, Mode::Run).unwrap();
    let service = &loaded.services[0];
    assert_eq!(source(service, "topic.out").kind, SourceKind::Topic { topic: "out".into() });
    let named = format!("{text}sources: {{ results: {{ topic: out }} }}\n");
    let loaded = World::usual().parse(&named, Mode::Run).unwrap();
    let binding = binding(&loaded.services[0], "f:topic.in").clone();
    assert_eq!(binding.on_success.unwrap().to.as_str(), "results");
    assert_eq!(loaded.services[0].sources.len(), 2);
}

#[test]
fn nothing_secret_of_a_broker_is_shown() {
    let text = "service: a\nsources:\n  q: { rabbitmq: { url: \"amqp://me:hunter2@mq/\", queue: q } }\n  \
                k: { kafka: { bootstrap_servers: \"k:1\", topic: t, sasl: { mechanism: plain, username: u, \
                password: hunter2 } } }\n";
    let loaded = World::usual().parse(text, Mode::Dev).unwrap();
    let said = format!("{}{}{:?}", expand(&loaded), loaded.render_warnings(false), loaded.services);
    assert!(!said.contains("hunter2"), "{said}");
    let broken = format!("{text}  r: {{ rabbitmq: {{ url: \"amqp://me:hunter2@mq/\", queu: q }} }}\n");
    let report = World::usual().parse(&broken, Mode::Run).unwrap_err();
    assert!(!report.render(false).contains("hunter2"), "{report}");
}
