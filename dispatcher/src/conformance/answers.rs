//! What an answer says about a batch of its source.
//!
//! A case is `{source, response, outcome}`; the outcome is that of the whole batch. Which events were in it the corpus
//! does not say, so the judge takes two whose ids are their own.

use bellwire_ledger::StoredEvent;
use bellwire_schemas::Event;
pub use bellwire_schemas::Verdict;
use bellwire_schemas::meta::{KafkaMeta, RabbitmqMeta, SqsMeta, to_map};
use serde_json::{Map, Value};

use super::stored;
use crate::reply::{self, Verdicts, verdicts};

/// The group a case is counted in: its source.
pub fn group(case: &Value) -> String {
    case["source"].as_str().unwrap_or("other").to_owned()
}

/// Judges a case. Sources that are not built give a batch of events that are known by their ids only, which is what
/// Lambda knows of theirs.
pub fn judge(case: &Value) -> Verdict {
    let Some(response) = case.get("response") else {
        return Verdict::Skipped { reason: "the case has no response".into() };
    };
    let expected = case["outcome"].as_str().unwrap_or_default();
    if !["all-succeeded", "all-failed"].contains(&expected) {
        return Verdict::Skipped { reason: "the outcome is not one of the whole batch".into() };
    }
    let source = group(case);
    let batch: Vec<StoredEvent> = (1..=2).map(|place| stored(place, event(&source, place))).collect();
    let events: Vec<&StoredEvent> = batch.iter().collect();
    let actual = match verdicts(response.to_string().as_bytes(), &events, Some(&source), false) {
        Verdicts::All => "all-succeeded",
        Verdicts::Malformed(_) => "all-failed",
        Verdicts::Each(each) if each.iter().all(|one| *one != reply::Verdict::Delivered) => "all-failed",
        Verdicts::Each(_) => "some-failed",
    };
    if actual == expected {
        Verdict::Passed
    } else {
        Verdict::Failed { expected: expected.into(), actual: actual.into() }
    }
}

fn event(source: &str, place: u64) -> Event {
    let message_id = format!("059f36b4-87a3-44ab-83d2-66197568020{place}");
    let meta = match source {
        "sqs" => to_map(&SqsMeta { message_id, ..SqsMeta::default() }),
        "kafka" => {
            to_map(&KafkaMeta { topic: "topic".into(), offset: place.cast_signed(), ..KafkaMeta::default() })
        }
        "rabbitmq" => to_map(&RabbitmqMeta { queue: "queue".into(), ..RabbitmqMeta::default() }),
        _ => Map::new(),
    };
    Event {
        id: format!("event-{place}"),
        source: "sample".into(),
        kind: "sample".into(),
        meta,
        ..Event::default()
    }
}
