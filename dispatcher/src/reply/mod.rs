//! What a function's answer says about each event that it received: AWS Lambda's partial batch response. Pure.
//!
//! Asked for every answer, also of an invocation with one event; a function that names nothing has delivered everything.
//! `read.rs` finds the identifiers in the answer, this file finds the events that they name. What becomes of a reported
//! event is not decided here.
//!
//! Sources: the Lambda developer guide on reporting batch item failures (Amazon SQS, Kinesis, DynamoDB, Kafka), and the
//! answers of AWS that the shared corpus has.

mod read;

use std::collections::{BTreeSet, HashMap, HashSet};

use bellwire_ledger::StoredEvent;
use bellwire_schemas::meta::{KafkaMeta, RabbitmqMeta, SqsMeta, from_map};
use serde_json::Value;

use crate::shape::partition;
use read::Identifier;

/// What an answer says about the events of its invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdicts {
    /// All were delivered.
    All,
    /// Some were not: what holds for each, in the order in which they were given.
    Each(Vec<Verdict>),
    /// It means to report failures but cannot be understood, so that the invocation has failed with all its events.
    Malformed(
        /// What is wrong with it, for the author of the function.
        String,
    ),
}

/// What an answer says about one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The function has dealt with it.
    Delivered,
    /// The function reported it.
    Failed,
    /// Not delivered through no fault of its own: one before it in its line was reported.
    Behind,
}

/// Reads the answer to an invocation with these events, which stand in the order of their lines. `kind` is the word of
/// their source; with `ordered`, events of one key are a line.
///
/// An event is named by its identifier in Lambda's event: `messageId` for `sqs`, `{"partition": "topic-0", "offset": 7}`
/// for `kafka`. For `rabbitmq`, where Lambda has none, it is the property `messageId`. Every event is also known by its
/// CloudEvents id. Records of Kafka that come after a reported one of their partition are not delivered, as on AWS; of a
/// FIFO queue's batch that is reported from one message on to its end, only that message has failed.
pub fn verdicts(answer: &[u8], events: &[&StoredEvent], kind: Option<&str>, ordered: bool) -> Verdicts {
    let reported: BTreeSet<Identifier> = match read::failures(answer) {
        Ok(reported) => reported.into_iter().collect(),
        Err(reason) => return Verdicts::Malformed(reason),
    };
    if reported.is_empty() {
        return Verdicts::All;
    }
    let names = Names::of(events, kind);
    let mut each = vec![Verdict::Delivered; events.len()];
    for identifier in &reported {
        let Some(places) = names.find(identifier) else {
            return Verdicts::Malformed(unknown(identifier, kind));
        };
        for &place in places {
            each[place] = Verdict::Failed;
        }
    }
    names.hold_partitions(&reported, &mut each);
    if ordered {
        if kind == Some("sqs") {
            hold_untried(&mut each);
        }
        hold_keys(events, &mut each);
    }
    Verdicts::Each(each)
}

/// By what a function can name the events of a batch. One identifier may stand for several: the same message twice.
#[derive(Default)]
struct Names {
    own: HashMap<String, Vec<usize>>,
    ids: HashMap<String, Vec<usize>>,
    records: HashMap<(String, i64), Vec<usize>>,
}

impl Names {
    fn of(events: &[&StoredEvent], kind: Option<&str>) -> Self {
        let mut names = Self::default();
        for (place, stored) in events.iter().enumerate() {
            let event = &stored.event;
            names.ids.entry(event.id.clone()).or_default().push(place);
            let own = match kind {
                Some("sqs") => from_map(&event.meta).map(|meta: SqsMeta| meta.message_id),
                Some("rabbitmq") => from_map(&event.meta).and_then(|meta: RabbitmqMeta| {
                    meta.properties.get("messageId").and_then(Value::as_str).map(str::to_owned)
                }),
                Some("kafka") => {
                    if let Some(meta) = from_map::<KafkaMeta>(&event.meta) {
                        let record = (partition(&meta), meta.offset);
                        names.records.entry(record).or_default().push(place);
                    }
                    None
                }
                _ => None,
            };
            if let Some(own) = own {
                names.own.entry(own).or_default().push(place);
            }
        }
        names
    }

    fn find(&self, identifier: &Identifier) -> Option<&[usize]> {
        let places = match identifier {
            Identifier::Text(text) => self.own.get(text).or_else(|| self.ids.get(text)),
            Identifier::Record { partition, offset } => self.records.get(&(partition.clone(), *offset)),
        };
        places.map(Vec::as_slice)
    }

    /// A partition resumes at its first reported record: those after it are delivered again, reported or not.
    fn hold_partitions(&self, reported: &BTreeSet<Identifier>, each: &mut [Verdict]) {
        let mut first: HashMap<&str, i64> = HashMap::new();
        for identifier in reported {
            if let Identifier::Record { partition, offset } = identifier {
                first.entry(partition).and_modify(|first| *first = (*first).min(*offset)).or_insert(*offset);
            }
        }
        for ((partition, offset), places) in &self.records {
            if first.get(partition.as_str()).is_some_and(|first| offset > first) {
                for &place in places {
                    each[place] = Verdict::Behind;
                }
            }
        }
    }
}

/// Lambda's guide asks functions of FIFO queues to stop at the first failure and to report all the rest. Where all of it is
/// reported, that is what happened as far as anybody can tell: what was perhaps not tried must not use up its attempts.
fn hold_untried(each: &mut [Verdict]) {
    let first = each.iter().position(|verdict| *verdict == Verdict::Failed).unwrap_or(each.len());
    let rest = each.get_mut(first + 1..).unwrap_or_default();
    if rest.iter().all(|verdict| *verdict == Verdict::Failed) {
        rest.fill(Verdict::Behind);
    }
}

/// Only the head of a line can have failed: what comes after it in the line waits, whatever was said about it.
fn hold_keys(events: &[&StoredEvent], each: &mut [Verdict]) {
    let mut held: HashSet<&str> = HashSet::new();
    for (stored, verdict) in events.iter().zip(each) {
        let Some(key) = stored.key.as_deref() else { continue };
        if held.contains(key) {
            *verdict = Verdict::Behind;
        } else if *verdict != Verdict::Delivered {
            held.insert(key);
        }
    }
}

fn unknown(identifier: &Identifier, kind: Option<&str>) -> String {
    let expected = match kind {
        Some("sqs") => "the `messageId` of a record, or the id of its event",
        Some("kafka") => {
            "`{\"partition\": \"<topic>-<partition>\", \"offset\": <offset>}` of a record, or the id of its event"
        }
        Some("rabbitmq") => "the `messageId` property of a message, or the id of its event",
        _ => "the id of an event",
    };
    let named = read::shown(&identifier.to_string());
    format!("`batchItemFailures` names {named}, which is not in the batch; expected is {expected}")
}

#[cfg(test)]
mod tests;
