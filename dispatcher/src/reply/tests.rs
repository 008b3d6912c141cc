use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_schemas::meta::to_map;
use bellwire_schemas::{Address, Event, Lane, Seq, SourceName, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use Verdict::{Behind, Delivered, Failed};

fn event(id: &str, key: Option<&str>, meta: Map<String, Value>) -> StoredEvent {
    StoredEvent {
        address: Address::new(Lane(1), Seq(1)),
        source: SourceName::new("x"),
        accepted_at: Timestamp::default(),
        key: key.map(Into::into),
        event: Arc::new(Event { id: id.into(), meta, ..Event::default() }),
    }
}

fn sqs(id: &str, key: Option<&str>) -> StoredEvent {
    event(&format!("ce-{id}"), key, to_map(&SqsMeta { message_id: id.into(), ..SqsMeta::default() }))
}

fn kafka(partition: i32, offset: i64, key: Option<&str>) -> StoredEvent {
    let meta = KafkaMeta { topic: "t".into(), partition, offset, ..KafkaMeta::default() };
    event(&format!("t/{partition}/{offset}"), key, to_map(&meta))
}

fn ask(answer: &str, events: &[StoredEvent], kind: &str, ordered: bool) -> Verdicts {
    verdicts(answer.as_bytes(), &events.iter().collect::<Vec<_>>(), Some(kind), ordered)
}

fn reports(identifiers: &[Value]) -> String {
    let entries: Vec<Value> = identifiers.iter().map(|id| json!({ "itemIdentifier": id })).collect();
    json!({ "statusCode": 200, "batchItemFailures": entries }).to_string()
}

#[test]
fn answers_without_a_report_deliver_everything() {
    let events = [sqs("a", None), sqs("b", None)];
    for answer in [
        "",
        "  ",
        "null",
        "{}",
        "[]",
        "\"\"",
        "17",
        "done",
        "\"batchItemFailures\"",
        "[{\"batchItemFailures\": 1}]",
        "{\"batchItemFailures\": null}",
        "{\"batchItemFailures\": []}",
        "{\"BatchItemFailures\": 1}",
        "{\"nested\": {\"batchItemFailures\": 1}}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": \"a\"}], \"batchItemFailures\": []}",
        "{ no json",
        "\u{feff}{}",
    ] {
        assert_eq!(ask(answer, &events, "sqs", true), Verdicts::All, "{answer}");
    }
}

#[test]
fn what_cannot_be_understood_fails_the_whole_batch() {
    let events = [sqs("a", None), sqs("123", None)];
    for answer in [
        "{\"batchItemFailures\": \"a\"}",
        "{\"batchItemFailures\": {}}",
        "{\"batchItemFailures\": {\"itemIdentifier\": \"a\"}}",
        "{\"batchItemFailures\": true}",
        "{\"batchItemFailures\": 0}",
        "{\"batchItemFailures\": [null]}",
        "{\"batchItemFailures\": [\"a\"]}",
        "{\"batchItemFailures\": [[\"a\"]]}",
        "{\"batchItemFailures\": [{}]}",
        "{\"batchItemFailures\": [{\"foo\": \"a\"}]}",
        "{\"batchItemFailures\": [{\"itemidentifier\": \"a\"}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": \"\"}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": null}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": 123}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": [\"a\"]}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": \"nowhere\"}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": \"a\"}, {\"itemIdentifier\": \"nowhere\"}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": {\"partition\": \"t-0\", \"offset\": 1}}]}",
        "{\"batchItemFailures\": [{\"itemIdentifier\": \"a\"}",
        "{\"batchItemFailures\": [], oops",
        "{\"batchItemFailures\": []} {}",
        "{oops \"batchItemFailures\": []}",
    ] {
        let Verdicts::Malformed(reason) = ask(answer, &events, "sqs", false) else { panic!("{answer}") };
        assert!(reason.contains("batchItemFailures"), "{answer}: {reason}");
    }
}

#[test]
fn messages_are_named_by_their_own_id_or_that_of_their_event() {
    let events = [sqs("a", None), sqs("b", None), sqs("c", None), sqs("a", None)];
    let each = |identifiers: &[Value], expected: [Verdict; 4]| {
        let said = ask(&reports(identifiers), &events, "sqs", false);
        assert_eq!(said, Verdicts::Each(expected.into()), "{identifiers:?}");
    };
    each(&[json!("b")], [Delivered, Failed, Delivered, Delivered]);
    each(&[json!("a")], [Failed, Delivered, Delivered, Failed]);
    each(&[json!("ce-c"), json!("c"), json!("b")], [Delivered, Failed, Failed, Delivered]);

    let rabbitmq = |id: &str, message_id: Option<&str>| {
        let mut meta = RabbitmqMeta { queue: "q".into(), vhost: "/".into(), ..RabbitmqMeta::default() };
        if let Some(message_id) = message_id {
            meta.properties.insert("messageId".into(), message_id.into());
        }
        event(id, None, to_map(&meta))
    };
    let events = [rabbitmq("1", Some("m")), rabbitmq("2", None), rabbitmq("3", None)];
    let said = ask(&reports(&[json!("m"), json!("3")]), &events, "rabbitmq", false);
    assert_eq!(said, Verdicts::Each(vec![Failed, Delivered, Failed]));

    // A single event is a batch of one.
    let one = [event("o-1", None, Map::new())];
    let said = ask(&reports(&[json!("o-1")]), &one, "topic", false);
    assert_eq!(said, Verdicts::Each(vec![Failed]));
}

#[test]
fn a_partition_resumes_at_its_first_reported_record() {
    let events =
        [kafka(0, 5, None), kafka(1, 5, None), kafka(0, 7, None), kafka(0, 6, None), kafka(1, 6, None)];
    let record = |partition: &str, offset: i64| json!({ "partition": partition, "offset": offset });
    let said = |identifiers: &[Value]| ask(&reports(identifiers), &events, "kafka", false);
    assert_eq!(
        said(&[record("t-0", 6)]),
        Verdicts::Each(vec![Delivered, Delivered, Behind, Failed, Delivered])
    );
    assert_eq!(
        said(&[record("t-0", 7), record("t-1", 5), record("t-0", 5)]),
        Verdicts::Each(vec![Failed, Failed, Behind, Behind, Behind])
    );
    // By the id of its event, a record stands for itself.
    assert_eq!(
        said(&[json!("t/0/5")]),
        Verdicts::Each(vec![Failed, Delivered, Delivered, Delivered, Delivered])
    );
    for unknown in [
        record("t-0", 8),
        record("t-2", 5),
        record("t", 5),
        json!({ "partition": "t-0" }),
        json!({ "partition": "t-0", "offset": "5" }),
        json!({ "partition": "t-0", "offset": 5.5 }),
        json!({ "partition": 0, "offset": 5 }),
        json!({}),
    ] {
        assert!(matches!(said(&[record("t-0", 5), unknown.clone()]), Verdicts::Malformed(_)), "{unknown}");
    }
}

#[test]
fn in_a_line_only_the_first_reported_has_failed() {
    let events = [
        sqs("a1", Some("a")),
        sqs("b1", Some("b")),
        sqs("a2", Some("a")),
        sqs("n1", None),
        sqs("a3", Some("a")),
        sqs("n2", None),
        sqs("b2", Some("b")),
    ];
    let answer = reports(&[json!("a3"), json!("a2"), json!("n1"), json!("n2")]);
    let said = ask(&answer, &events, "sqs", true);
    assert_eq!(said, Verdicts::Each(vec![Delivered, Delivered, Failed, Failed, Behind, Failed, Delivered]));
    let said = ask(&answer, &events, "sqs", false);
    assert_eq!(said, Verdicts::Each(vec![Delivered, Delivered, Failed, Failed, Failed, Failed, Delivered]));
    // Not reported, and still behind.
    let said = ask(&reports(&[json!("a1")]), &events, "sqs", true);
    assert_eq!(
        said,
        Verdicts::Each(vec![Failed, Delivered, Behind, Delivered, Behind, Delivered, Delivered])
    );
}

#[test]
fn a_fifo_function_that_stopped_has_failed_at_one_message() {
    let events = [sqs("a1", Some("a")), sqs("b1", Some("b")), sqs("a2", Some("a")), sqs("c1", Some("c"))];
    let said = |identifiers: &[&str], ordered| {
        let identifiers: Vec<Value> = identifiers.iter().map(|id| json!(id)).collect();
        ask(&reports(&identifiers), &events, "sqs", ordered)
    };
    assert_eq!(
        said(&["b1", "a2", "c1"], true),
        Verdicts::Each(vec![Delivered, Failed, Behind, Behind]),
        "from one on to the end"
    );
    assert_eq!(said(&["a1", "b1", "a2", "c1"], true), Verdicts::Each(vec![Failed, Behind, Behind, Behind]));
    assert_eq!(said(&["c1"], true), Verdicts::Each(vec![Delivered, Delivered, Delivered, Failed]));
    // It went on after the first failure, so each was tried.
    assert_eq!(said(&["a1", "b1", "c1"], true), Verdicts::Each(vec![Failed, Failed, Behind, Failed]));
    assert_eq!(said(&["b1", "a2", "c1"], false), Verdicts::Each(vec![Delivered, Failed, Failed, Failed]));
}

#[test]
fn hostile_answers_cost_no_more_than_their_size() {
    let events: Vec<StoredEvent> = (0..2_000).map(|n| sqs(&(n % 10).to_string(), Some("k"))).collect();
    let size = 6 << 20;
    let entry = "{\"itemIdentifier\":\"7\"},";
    let answers = [
        format!(
            "{{\"batchItemFailures\":[{}{{\"itemIdentifier\":\"8\"}}]}}",
            entry.repeat(size / entry.len())
        ),
        format!("{{\"batchItemFailures\":[{{\"itemIdentifier\":{}", "[".repeat(size)),
        format!("{{\"a\":{}", "[".repeat(size)),
        format!("{{\"a\":\"{}", "batchItemFailure".repeat(size / 16)),
        format!("{{\"batchItemFailures\":[{{\"itemIdentifier\":\"{}\"}}]}}", "é".repeat(size / 2)),
        format!("{{\"batchItemFailures\":\"{}\"}}", "é".repeat(size / 2)),
    ];
    for answer in answers {
        let before = Instant::now();
        if let Verdicts::Malformed(reason) = ask(&answer, &events, "sqs", true) {
            assert!(reason.len() < 1_000, "{}", reason.len());
        }
        assert!(before.elapsed() < Duration::from_secs(20));
    }
}

proptest! {
    #[test]
    fn whatever_is_answered_there_is_a_verdict_for_each_event(
        answer in proptest::collection::vec(any::<u8>(), 0..200),
        reported in proptest::collection::vec(0..6_usize, 0..8),
        keys in proptest::collection::vec(0..3_usize, 6),
        ordered: bool,
    ) {
        let events: Vec<StoredEvent> = (0..6)
            .map(|n| sqs(&n.to_string(), ["a", "b"].get(keys[n]).copied()))
            .collect();
        let all: Vec<&StoredEvent> = events.iter().collect();
        let _ = verdicts(&answer, &all, Some("sqs"), ordered);
        let named: Vec<Value> = reported.iter().map(|n| json!(n.to_string())).collect();
        match verdicts(reports(&named).as_bytes(), &all, Some("sqs"), ordered) {
            Verdicts::All => prop_assert!(reported.is_empty()),
            Verdicts::Malformed(reason) => prop_assert!(false, "{reason}"),
            Verdicts::Each(each) => {
                let first = reported.iter().min().copied().unwrap_or_default();
                let stopped = ordered && (first..6).all(|n| reported.contains(&n));
                for (n, verdict) in each.iter().enumerate() {
                    let line = |other: usize| ordered && keys[n] < 2 && keys[other] == keys[n];
                    let behind = stopped && n > first || (0..n).any(|other| line(other) && reported.contains(&other));
                    let expected = match (behind, reported.contains(&n)) {
                        (true, _) => Behind,
                        (false, true) => Failed,
                        (false, false) => Delivered,
                    };
                    prop_assert_eq!(*verdict, expected);
                }
            }
        }
    }
}
