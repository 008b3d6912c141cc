use bellwire_ledger::Error;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

fn cluster(topics: &[(&str, i32)]) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_comes_once_though_appends_fail_and_their_outcome_is_unknown() {
    let cluster = cluster(&[("a", 2), ("b", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    produce(&bootstrap, "a", 0, 500).await;
    ledger.fail_next_append(Error::Unavailable("down".into()));
    let running = Running::start(&ledger, "one", spec(kafka(&bootstrap, &["a", "b"]))).await;
    until_stored(&ledger, 100).await;
    ledger.commit_then_fail_append(Error::Unavailable("cut".into()));
    produce(&bootstrap, "b", 500, 500).await;
    once_and_in_order(&until_stored(&ledger, 1_000).await, 1_000);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_where_the_ledger_says_whatever_the_broker_was_told() {
    let cluster = cluster(&[("a", 2)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    let source = spec(kafka(&bootstrap, &["a"]));
    produce(&bootstrap, "a", 0, 100).await;
    let running = Running::start(&ledger, "one", source.clone()).await;
    until_stored(&ledger, 100).await;
    running.stop().await;
    produce(&bootstrap, "a", 100, 100).await;
    // A group that the broker knows nothing of: only the ledger knows.
    let SourceKind::Kafka(mut other) = source.kind.clone() else { panic!() };
    other.group_id = "another".into();
    let running =
        Running::start(&ledger, "one", SourceSpec { kind: SourceKind::Kafka(other), ..source }).await;
    once_and_in_order(&until_stored(&ledger, 200).await, 200);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_read_the_same_partitions_store_each_record_once() {
    let cluster = cluster(&[("a", 2)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    // Two groups, so both read everything, and every position is fought for.
    let one = Running::start(&ledger, "one", spec(kafka(&bootstrap, &["a"]))).await;
    let two = Running::start(&ledger, "two", spec(kafka(&bootstrap, &["a"]))).await;
    for round in 0..5 {
        produce(&bootstrap, "a", round * 200, 200).await;
    }
    until_stored(&ledger, 1_000).await;
    one.stop().await;
    produce(&bootstrap, "a", 1_000, 100).await;
    once_and_in_order(&until_stored(&ledger, 1_100).await, 1_100);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_out_of_range_halts_its_partition_only() {
    let cluster = cluster(&[("a", 1), ("b", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    produce(&bootstrap, "a", 0, 10).await;
    produce(&bootstrap, "b", 0, 10).await;
    set_position(&ledger, "kafka.t/a", "partitions 1").await;
    set_position(&ledger, "kafka.t/a/0", "1000").await;
    let running = Running::start(&ledger, "one", spec(kafka(&bootstrap, &["a", "b"]))).await;
    until("a complaint", async || running.reason().contains("a/0 halted")).await;
    let reason = running.reason();
    assert!(reason.contains("position is 1000") && reason.contains("ends at 10"), "{reason}");
    assert!(reason.contains("lost_positions: skip"), "{reason}");
    let events = until_stored(&ledger, 10).await;
    assert!(events.iter().all(|stored| stored.event.source == "kafka:b"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_out_of_range_is_skipped_on_request_and_the_gap_is_kept() {
    let cluster = cluster(&[("a", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    produce(&bootstrap, "a", 0, 10).await;
    set_position(&ledger, "kafka.t/a", "partitions 1").await;
    set_position(&ledger, "kafka.t/a/0", "1000").await;
    let source = KafkaSource { lost_positions: LostPositions::Skip, ..kafka(&bootstrap, &["a"]) };
    let running = Running::start(&ledger, "one", spec(source)).await;
    once_and_in_order(&until_stored(&ledger, 10).await, 10);
    let kept = ledger.quarantined(None, 10).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].reason.contains("records of a/0 are lost"), "{kept:?}");
    assert!(kept[0].meta.contains("\"first_lost\":1000"), "{kept:?}");
    let position = ledger.position("kafka.t/a/0").await.unwrap().unwrap();
    assert!(position.value.starts_with("10 "), "{position:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_neither_read_again_nor_passed_over_in_silence() {
    let cluster = cluster(&[("a", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    produce(&bootstrap, "a", 0, 10).await;
    set_position(&ledger, "kafka.t/a", "partitions 1").await;
    // The record before the position was of another time.
    set_position(&ledger, "kafka.t/a/0", "5 1234").await;
    let source = kafka(&bootstrap, &["a"]);
    let running = Running::start(&ledger, "one", spec(source.clone())).await;
    until("a complaint", async || running.reason().contains("made anew")).await;
    assert_eq!(stored(&ledger).await.len(), 0);
    let skip = KafkaSource { lost_positions: LostPositions::Skip, ..source };
    running.intake.apply(vec![spec(skip)]).await.unwrap();
    once_and_in_order(&until_stored(&ledger, 10).await, 10);
    assert_eq!(ledger.quarantined(None, 10).await.unwrap().len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_begins_now_and_survives_a_stop_before_the_first_record() {
    let cluster = cluster(&[("a", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    produce(&bootstrap, "a", 0, 7).await;
    let source = KafkaSource { starting_position: StartingPosition::Latest, ..kafka(&bootstrap, &["a"]) };
    let running = Running::start(&ledger, "one", spec(source.clone())).await;
    until("a position", async || ledger.position("kafka.t/a/0").await.unwrap().is_some()).await;
    running.stop().await;
    assert_eq!(ledger.position("kafka.t/a/0").await.unwrap().unwrap().value, "7");
    produce(&bootstrap, "a", 7, 3).await;
    let running = Running::start(&ledger, "one", spec(source)).await;
    let events = until_stored(&ledger, 3).await;
    assert_eq!(events[0].event.id, "a/0/7");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_found_later_are_read_from_their_first_record() {
    let cluster = cluster(&[("a", 2)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    produce(&bootstrap, "a", 0, 20).await;
    // When the topic was first seen it had no partition at all, so to speak: both are new.
    set_position(&ledger, "kafka.t/a", "partitions 0").await;
    let source = KafkaSource { starting_position: StartingPosition::Latest, ..kafka(&bootstrap, &["a"]) };
    let running = Running::start(&ledger, "one", spec(source)).await;
    once_and_in_order(&until_stored(&ledger, 20).await, 20);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_broker_are_survived() {
    let cluster = cluster(&[("a", 2)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    use RDKafkaRespErr::*;
    let retriable = [RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT];
    cluster.request_errors(RDKafkaApiKey::Fetch, &retriable);
    cluster.request_errors(
        RDKafkaApiKey::Heartbeat,
        &[RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE],
    );
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION; 3]);
    let running = Running::start(&ledger, "one", spec(kafka(&bootstrap, &["a"]))).await;
    produce(&bootstrap, "a", 0, 300).await;
    until_stored(&ledger, 300).await;
    cluster.broker_down(1).unwrap();
    cluster.broker_up(1).unwrap();
    produce(&bootstrap, "a", 300, 300).await;
    once_and_in_order(&until_stored(&ledger, 600).await, 600);
    running.stop().await;
}

/// Every fetch is refused for no reason that librdkafka would tell of: the broker has records, and none comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_get_on_is_noticed_and_connected_anew() {
    let cluster = cluster(&[("a", 2)]);
    let bootstrap = cluster.bootstrap_servers();
    let ledger = ModelLedger::new(1);
    let limits = Limits { stall_after: Duration::from_secs(4), ..Limits::default() };
    let running = Running::within(limits, &ledger, "one", spec(kafka(&bootstrap, &["a"]))).await;
    produce(&bootstrap, "a", 0, 10).await;
    until_stored(&ledger, 10).await;
    use RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 10_000]);
    produce(&bootstrap, "a", 10, 20).await;
    until("a stall", async || running.intake.status()[0].state == "stalled").await;
    let reason = running.reason();
    assert!(reason.starts_with("20 messages wait upstream, but none came for 4 s"), "{reason}");
    cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    until_stored(&ledger, 30).await;
    until("all is well", async || running.intake.status()[0].state == "ok").await;
    assert!(running.intake.status()[0].restarts >= 1);
    once_and_in_order(&stored(&ledger).await, 30);
    running.stop().await;
}

#[test]
fn settings_that_promises_rest_on_are_refused() {
    for (name, says) in [
        ("enable.auto.commit", "is set by bellwire"),
        ("group.id", "is set by bellwire"),
        ("no.such.setting", "does not take the setting"),
    ] {
        let mut source = kafka("localhost:9", &["a"]);
        source.cluster.librdkafka.insert(name.into(), "true".into());
        let Err(error) = crate::kafka::open(&Arc::new(spec(source.clone())), &source) else {
            panic!("{name}")
        };
        assert!(error.contains(name) && error.contains(says), "{error}");
    }
}
