//! Batches end to end: AWS's own batch utility for Python runs unmodified, functions report failures by hand, and a batch
//! that fails as a whole is halved until the bad event is alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bellwire_integration_tests::brokers::Place;
use bellwire_integration_tests::stack::PATIENCE;
use bellwire_integration_tests::{Oracle, Stack};
use bellwire_test_servers::python::{package, python};
use bellwire_test_servers::{Database, shared};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::brokers::world::{SQLITE, World, address, declared, place};

/// Attempts of an event that always fails.
const ATTEMPTS: u64 = 3;

/// What all handlers here begin with: one line for each event that is dealt with, and how large its batch was.
const NOTES: &str = r#"
import base64, json, os

NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(body, group, size):
    outcome = "raised" if body["poison"] else "ok"
    os.write(NOTES, f"{body['id']} {outcome} {group} {size}\n".encode())
    if body["poison"]:
        raise ValueError("not today")
"#;

/// The utility as its guide shows it; `PROCESSOR` is replaced.
const POWERTOOLS_SQS: &str = r#"
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor, EventType, SqsFifoPartialProcessor, process_partial_response)

processor = PROCESSOR
size = 0


def record_handler(record):
    note(record.json_body, record.attributes.message_group_id, size)


def handler(event, context):
    global size
    size = len(event["Records"])
    return process_partial_response(event=event, record_handler=record_handler, processor=processor, context=context)
"#;

const POWERTOOLS_KAFKA: &str = r#"
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

processor = BatchProcessor(event_type=EventType.Kafka)


def handler(event, context):
    size = sum(map(len, event["records"].values()))

    def record_handler(record):
        note(json.loads(base64.b64decode(record.value)), record.partition, size)

    return process_partial_response(event=event, record_handler=record_handler, processor=processor, context=context)
"#;

/// Stops at the first failure of each partition, as Lambda's guide has it.
const BY_HAND_KAFKA: &str = r#"
def handler(event, context):
    size, failures = sum(map(len, event["records"].values())), []
    for place, records in event["records"].items():
        for record in records:
            try:
                note(json.loads(base64.b64decode(record["value"])), place, size)
            except ValueError:
                failures.append({"itemIdentifier": {"partition": place, "offset": record["offset"]}})
                break
    return {"batchItemFailures": failures}
"#;

/// Which events were dealt with, in order: the number in the id, its group, the size of its batch.
struct Seen {
    number: usize,
    good: bool,
    group: String,
    size: usize,
}

fn seen(notes: &Path) -> Vec<Seen> {
    let text = std::fs::read_to_string(notes).unwrap_or_default();
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        Seen {
            number: words[0].rsplit_once('-').unwrap().1.parse().unwrap(),
            good: words[1] == "ok",
            group: words[2].into(),
            size: words[3].parse().unwrap(),
        }
    };
    text.lines().map(read).collect()
}

/// The command of a worker with the batch utility: the official runtime client where the test command has made it.
fn runtime() -> String {
    match std::env::var("AWSLAMBDARIC_PYTHON") {
        Ok(python) => format!("command: [{}, -m, awslambdaric, app.handler], code: .", json!(python)),
        Err(_) => "handler: app.handler".into(),
    }
}

/// A controller over a broker's place, with a handler that has the batch utility at hand.
fn world(place: &Place, runtime: &str, app: &str) -> World {
    world_on(&[SQLITE.into()], place, runtime, app)
}

/// The same with a controller for each ledger URL.
fn world_on(ledgers: &[String], place: &Place, runtime: &str, app: &str) -> World {
    python().unwrap();
    let packages = package("aws_lambda_powertools").unwrap();
    let service = format!(
        "service: batches
sources:
  in: {{ {} }}
functions:
  work:
    {{ {runtime}, concurrency: 4, environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\", PYTHONPATH: {}, POWERTOOLS_SERVICE_NAME: work }},
      events: [{{ source: in, retry: {{ attempts: {ATTEMPTS}, min_delay: 10ms, max_delay: 50ms }} }}] }}
",
        declared(place, ""),
        json!(packages.parent().unwrap()),
    );
    let world = World::of(&service, place, ledgers);
    for member in &world.cluster.members {
        std::fs::write(member.path("app.py"), format!("{NOTES}{app}")).unwrap();
    }
    world
}

/// Every good event was dealt with, every poisonous one is a dead letter after all its attempts, and nothing else is.
/// Tells how often each event was dealt with.
async fn accounted(world: &World, oracle: &Oracle) -> (Vec<Seen>, BTreeMap<usize, usize>) {
    world.stores(oracle.acknowledged.len()).await;
    world.cluster.settled().await.unwrap();
    let number = |id: &String| id.rsplit_once('-').unwrap().1.parse::<usize>().unwrap();
    let sent: BTreeSet<usize> = oracle.acknowledged.iter().map(number).collect();
    // As the producing client makes them.
    let poison = |number: &usize| number % 50 == 7;
    let seen = seen(&world.cluster.notes());
    let mut times: BTreeMap<usize, usize> = BTreeMap::new();
    for one in &seen {
        assert_eq!(one.good, !poison(&one.number));
        *times.entry(one.number).or_default() += 1;
    }
    assert_eq!(times.keys().copied().collect::<BTreeSet<_>>(), sent, "{}", world.cluster.logs());
    for (number, times) in times.iter().filter(|(number, _)| poison(number)) {
        assert!(*times as u64 >= ATTEMPTS, "{number} was tried {times} times");
    }
    let dead = world.first().pages("/v1/dead-letters?limit=1000").await.unwrap();
    assert_eq!(dead.len(), sent.iter().filter(|number| poison(number)).count(), "{dead:?}");
    for letter in &dead {
        assert_eq!(letter["attempts"], ATTEMPTS, "{letter}");
    }
    let (code, out, err) = world.first().cli(&["verify"]).await.unwrap();
    assert_eq!(code, 0, "bellwire verify: {out}\n{err}");
    (seen, times)
}

fn good_ones_ran_once(times: &BTreeMap<usize, usize>) {
    let twice: Vec<_> = times.iter().filter(|(number, times)| *number % 50 != 7 && **times > 1).collect();
    assert_eq!(twice, Vec::new(), "good events were delivered again");
}

fn batches_were_made(seen: &[Seen], at_most: usize) {
    let largest = seen.iter().map(|one| one.size).max().unwrap_or_default();
    assert!((2..=at_most).contains(&largest), "the largest batch had {largest} events");
}

/// `BatchProcessor` over a standard queue: poisonous messages fail alone, their company is delivered once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_batch_utility_reports_messages_of_a_queue() {
    let place = place("sqs").await;
    let app = POWERTOOLS_SQS.replace("PROCESSOR", "BatchProcessor(event_type=EventType.SQS)");
    let mut world = world(&place, &runtime(), &app);
    let oracle = place.produce("s", 1_000, 300).unwrap().all().await.unwrap();
    world.cluster.start_all().await.unwrap();
    let (seen, times) = accounted(&world, &oracle).await;
    good_ones_ran_once(&times);
    batches_were_made(&seen, 10);
}

/// `SqsFifoPartialProcessor` in both its modes: each group keeps its order, over failures and retries, and what was only
/// skipped is not charged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_batch_utility_keeps_the_order_of_groups() {
    for processor in ["SqsFifoPartialProcessor()", "SqsFifoPartialProcessor(skip_group_on_error=True)"] {
        let name = format!("{}.fifo", shared::unique("t"));
        let place = Place::make("sqs", &address("sqs"), &name).await.unwrap();
        let app = POWERTOOLS_SQS.replace("PROCESSOR", processor);
        let mut world = world(&place, "handler: app.handler", &app);
        let oracle = place.produce("f", 1_000, 300).unwrap().all().await.unwrap();
        world.cluster.start_all().await.unwrap();
        let (seen, times) = accounted(&world, &oracle).await;
        good_ones_ran_once(&times);
        batches_were_made(&seen, 10);
        groups_kept_their_order(seen.iter());
    }
}

fn groups_kept_their_order<'a>(seen: impl Iterator<Item = &'a Seen>) {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for one in seen {
        assert_ne!(one.group, "None");
        let before = last.insert(&one.group, one.number).unwrap_or_default();
        assert!(before <= one.number, "{before} came before {} in its group", one.number);
    }
}

/// Controllers are killed amid batches in turn, again and again: nothing is lost, and no message of a group is tried for
/// the first time before those ahead of it.
async fn kills_amid_batches(ledgers: &[String]) {
    let name = format!("{}.fifo", shared::unique("t"));
    let place = Place::make("sqs", &address("sqs"), &name).await.unwrap();
    let app = POWERTOOLS_SQS.replace("PROCESSOR", "SqsFifoPartialProcessor(skip_group_on_error=True)");
    let mut world = world_on(ledgers, &place, "handler: app.handler", &app);
    let oracle = place.produce("x", 1_000, 500).unwrap().all().await.unwrap();
    world.cluster.start_all().await.unwrap();
    for (round, noted) in [60, 140, 220].into_iter().enumerate() {
        let deadline = Instant::now() + PATIENCE;
        while seen(&world.cluster.notes()).len() < noted {
            assert!(Instant::now() < deadline, "fewer than {noted} calls\n{}", world.cluster.logs());
            sleep(Duration::from_millis(5)).await;
        }
        let victim = round % ledgers.len();
        world.cluster.kill(victim).await;
        world.cluster.start(victim, None).await.unwrap();
    }
    let (seen, _) = accounted(&world, &oracle).await;
    let mut known = BTreeSet::new();
    groups_kept_their_order(seen.iter().filter(|one| known.insert(one.number)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_amid_batches_lose_nothing_and_keep_the_order() {
    kills_amid_batches(&[SQLITE.into()]).await;
}

/// Two controllers over one Postgres: each kill hands lanes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_overs_amid_batches_lose_nothing_and_keep_the_order() {
    let database = Database::create().unwrap();
    kills_amid_batches(&[database.url(), database.url()]).await;
}

/// Offsets reported by hand: a partition goes on behind its bad record, and no good record is delivered twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_reported_by_partition_and_offset() {
    let place = place("kafka").await;
    let mut world = world(&place, "handler: app.handler", BY_HAND_KAFKA);
    let oracle = place.produce("k", 10_000, 400).unwrap().all().await.unwrap();
    world.cluster.start_all().await.unwrap();
    let (seen, times) = accounted(&world, &oracle).await;
    good_ones_ran_once(&times);
    batches_were_made(&seen, 100);
}

/// The batch utility goes on behind a bad record and reports it by offset: as on AWS, what comes after it in its partition
/// is delivered again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_batch_utility_reports_records() {
    let place = place("kafka").await;
    let mut world = world(&place, &runtime(), POWERTOOLS_KAFKA);
    let oracle = place.produce("p", 10_000, 400).unwrap().all().await.unwrap();
    world.cluster.start_all().await.unwrap();
    let (seen, _) = accounted(&world, &oracle).await;
    batches_were_made(&seen, 100);
}

/// Publishes so many events to the topic `work` in one request; number 7 is poisonous.
async fn publish(stack: &Stack, count: usize) {
    let event = |n: usize| {
        json!({
            "specversion": "1.0", "id": format!("e-{n}"), "source": "/t", "type": "t",
            "data": { "id": format!("e-{n}"), "poison": n == 7 },
        })
    };
    let events: Value = (0..count).map(event).collect();
    let bearer = format!("Bearer {}", stack.token);
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/cloudevents-batch+json")];
    let (status, answer) = stack.send("/topics/work", &headers, events.to_string()).await.unwrap();
    assert_eq!(status, 202, "{answer}");
}

async fn topic(handler: &str) -> Stack {
    let service = format!(
        "service: batches
functions:
  work:
    handler: app.handler
    concurrency: 1
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\" }}
    events: [{{ topic: work, batch: {{ size: 20, window: 100ms }}, retry: {{ attempts: {ATTEMPTS}, min_delay: 10ms, max_delay: 50ms }} }}]
"
    );
    let app = format!("{NOTES}{handler}");
    let mut stack = Stack::new(&service, &[("app.py", app.as_str())]).unwrap();
    stack.start(None).await.unwrap();
    stack
}

async fn one_died(stack: &Stack) {
    stack.settled().await.unwrap();
    assert_eq!(stack.dead_ids().await.unwrap(), BTreeSet::from(["e-7".to_owned()]));
    let dead = stack.pages("/v1/dead-letters?limit=10").await.unwrap();
    assert_eq!(dead[0]["attempts"], ATTEMPTS, "{}", dead[0]);
}

/// Any source: a list of CloudEvents, of which some are reported by their ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_topic_are_reported_by_id() {
    let stack = topic(
        "
def handler(event, context):
    failures = []
    for one in event:
        try:
            note(one['data'], '-', len(event))
        except ValueError:
            failures.append({'itemIdentifier': one['id']})
    return {'batchItemFailures': failures}
",
    )
    .await;
    publish(&stack, 100).await;
    one_died(&stack).await;
    let seen = seen(&stack.path("notes"));
    batches_were_made(&seen, 20);
    let good = seen.iter().filter(|one| one.good).count();
    assert_eq!((good, seen.len() - good), (99, ATTEMPTS as usize));
}

/// A handler that knows nothing of reports: its batch is halved until the bad event is alone, which costs nobody an attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_batch_is_halved() {
    let stack = topic(
        "
def handler(event, context):
    for one in event:
        if one['data']['poison']:
            note(one['data'], '-', len(event))
    for one in event:
        note(one['data'], '-', len(event))
",
    )
    .await;
    publish(&stack, 100).await;
    one_died(&stack).await;
    let seen = seen(&stack.path("notes"));
    batches_were_made(&seen, 20);
    let mut good: Vec<usize> = seen.iter().filter(|one| one.good).map(|one| one.number).collect();
    good.sort_unstable();
    assert_eq!(good, (0..100).filter(|n| *n != 7).collect::<Vec<_>>(), "each good one once");
    let raised: Vec<usize> = seen.iter().filter(|one| !one.good).map(|one| one.size).collect();
    assert_eq!(raised.iter().filter(|size| **size == 1).count(), ATTEMPTS as usize, "{raised:?}");
    // 20, 10, 5, 3 or 2, 2: once each.
    assert!(raised.len() <= 5 + ATTEMPTS as usize, "{raised:?}");
}
