//! Where reading begins: the ledger's position above all, else what the source says, and what to do when the broker
//! no longer has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_ledger::PositionAdvance;
use bellwire_schemas::brokers::{LostPositions, StartingPosition};
use bytes::Bytes;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;

use super::client::KafkaConnector;
use super::part::{Begin, Entry, Loss, Place, Stage};
use super::poller::Client;
use super::position::{Mark, parse_topic, shard, topic_shard, topic_text};
use super::state::Shared;
use crate::contract::{Batch, ConnectorError, Content, Parcel};

/// How long a question to the broker may take.
const ANSWER: Duration = Duration::from_secs(5);
/// When a question is put again that the broker did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A position that seems to be in range after all is tried this often before it counts as lost.
const TRIES: u8 = 3;

/// What became of a question where to read.
enum Decision {
    Begin(Begin),
    Halt(String),
    /// The broker did not answer.
    Later(String),
}

impl KafkaConnector {
    /// Decides for all partitions that need it. A topic that was never seen is written down first: the batch to be
    /// committed for that is returned.
    pub(super) async fn resolve(
        &mut self,
        shared: &Arc<Shared>,
        client: &Arc<Client>,
    ) -> Result<Option<Batch>, ConnectorError> {
        let undecided = shared.lock().undecided(Instant::now());
        let topics: BTreeSet<Arc<str>> = undecided.iter().map(|(place, ..)| place.topic.clone()).collect();
        if let Some(batch) = self.found(shared, client, &topics).await? {
            return Ok(Some(batch));
        }
        let mut silent = None;
        for (place, epoch, stage) in undecided {
            let decision = match (&silent, stage) {
                (Some(why), _) => Decision::Later(String::clone(why)),
                (None, Stage::Lost(loss)) => self.lost(shared, client, &place, epoch, loss).await,
                (None, _) => self.locate(client, &place).await?,
            };
            let mut state = shared.lock();
            match decision {
                Decision::Begin(begin) => state.begin(&place, epoch, begin),
                Decision::Halt(why) => state.halt(&place, epoch, why),
                Decision::Later(why) => {
                    if let Some(part) = state.part(&place, epoch) {
                        part.not_before = Some(Instant::now() + ASK_AGAIN);
                    }
                    drop(state);
                    shared.complain(format!("{place}: {why}"));
                    silent = Some(why);
                }
            }
        }
        Ok(None)
    }

    /// How many partitions each topic had when it was first seen.
    async fn found(
        &mut self,
        shared: &Shared,
        client: &Arc<Client>,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<Option<Batch>, ConnectorError> {
        let mut positions = Vec::new();
        let mut news = Vec::new();
        for topic in topics {
            if self.founded.contains_key(&**topic) {
                continue;
            }
            let shard = topic_shard(self.setup.spec.name.as_str(), topic);
            if let Some(position) = self.around.ledger.position(&shard).await.map_err(unavailable)? {
                let count = parse_topic(&position.value).ok_or_else(|| {
                    ConnectorError::Unavailable(format!("`{}` at `{shard}` cannot be read", position.value))
                })?;
                self.founded.insert(topic.to_string(), count);
                continue;
            }
            let name = topic.clone();
            let metadata = ask(client, move |client| client.fetch_metadata(Some(&name), ANSWER)).await;
            let metadata = metadata.map_err(ConnectorError::Unavailable)?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            positions.push(PositionAdvance { shard, expected: 0, value: topic_text(count) });
            news.push((topic.to_string(), count));
        }
        if positions.is_empty() {
            return Ok(None);
        }
        let receipt = shared.lock().receipt();
        self.founding = Some((receipt, news));
        Ok(Some(Batch { receipt, parcels: Vec::new(), positions }))
    }

    /// Where a partition is read that just became ours.
    async fn locate(&self, client: &Arc<Client>, place: &Place) -> Result<Decision, ConnectorError> {
        let shard = shard(self.setup.spec.name.as_str(), &place.topic, place.partition);
        if let Some(position) = self.around.ledger.position(&shard).await.map_err(unavailable)? {
            let Some(mark) = Mark::parse(&position.value) else {
                return Ok(Decision::Halt(format!("the position `{}` cannot be read", position.value)));
            };
            // One record earlier, to see whether it is still the one that was read.
            let witness = Some(mark).filter(|mark| mark.witness.is_some() && mark.next > 0);
            let from = Offset::Offset(if witness.is_some() { mark.next - 1 } else { mark.next });
            return Ok(Decision::Begin(Begin {
                version: position.version,
                from,
                next: mark.next,
                witness,
                entry: None,
            }));
        }
        let known = self.founded.get(&*place.topic).is_some_and(|count| place.partition < *count);
        let wish = if known { self.setup.kafka.starting_position } else { StartingPosition::Earliest };
        Ok(match wish {
            StartingPosition::Earliest => {
                let from = Offset::Beginning;
                Decision::Begin(Begin { version: 0, from, next: 0, witness: None, entry: None })
            }
            StartingPosition::Latest => match watermarks(client, place).await {
                Ok((_, high)) => Decision::Begin(fresh(high)),
                Err(why) => Decision::Later(why),
            },
            StartingPosition::At(time) => match first_at(client, place, time.millis()).await {
                Ok(offset) => Decision::Begin(fresh(offset)),
                Err(why) => Decision::Later(why),
            },
        })
    }

    /// What happens to a partition whose position the broker no longer has.
    async fn lost(
        &self,
        shared: &Shared,
        client: &Arc<Client>,
        place: &Place,
        epoch: u64,
        loss: Loss,
    ) -> Decision {
        let (low, high) = match watermarks(client, place).await {
            Ok(found) => found,
            Err(why) => return Decision::Later(why),
        };
        let (next, version, tries) = {
            let mut state = shared.lock();
            let Some(part) = state.part(place, epoch) else { return Decision::Later("given up".into()) };
            part.tries += 1;
            (part.next, part.version, part.tries)
        };
        if loss == Loss::OutOfRange && (low..=high).contains(&next) && tries <= TRIES {
            let from = Offset::Offset(next);
            return Decision::Begin(Begin { version, from, next, witness: None, entry: None });
        }
        let what = match loss {
            Loss::Remade => format!(
                "record {} is not the one that was read there: the topic seems to be made anew (the broker has {low} to {})",
                next - 1,
                high - 1
            ),
            Loss::OutOfRange if next < low => {
                format!(
                    "the position is {next}, but the broker's oldest record is {low}: {} are gone",
                    low - next
                )
            }
            Loss::OutOfRange => format!(
                "the position is {next}, but the broker's log ends at {high}: it lost records, or the topic was made anew"
            ),
        };
        match self.setup.kafka.lost_positions {
            LostPositions::Halt => {
                Decision::Halt(format!("{what}; set `lost_positions: skip` to go on at the oldest record"))
            }
            LostPositions::Skip => {
                tracing::error!(partition = %place, %what, "records were lost; reading goes on at the oldest");
                let entry = Some(self.gap(place, &what, (next, low, high)));
                let from = Offset::Offset(low);
                Decision::Begin(Begin { version, from, next: low, witness: None, entry })
            }
        }
    }

    /// A gap, kept in quarantine by the commit that moves the position over it.
    fn gap(&self, place: &Place, what: &str, (next, low, high): (i64, i64, i64)) -> Entry {
        let last = if low > next { low - 1 } else { next };
        let meta = json!({
            "topic": *place.topic, "partition": place.partition, "position": next,
            "first_lost": next, "last_lost": last, "broker_first": low, "broker_end": high,
        });
        let content = Content::Quarantine {
            reason: format!("records of {place} are lost, {next} to {last}: {what}"),
            bytes: Bytes::new(),
            meta: meta.to_string(),
        };
        let parcel = Some(Parcel { source: self.setup.spec.clone(), content });
        Entry { mark: Mark { next: low, witness: None }, parcel, bytes: 512 }
    }
}

/// A beginning that is written down before any record is.
fn fresh(next: i64) -> Begin {
    let entry = Some(Entry { mark: Mark { next, witness: None }, parcel: None, bytes: 0 });
    Begin { version: 0, from: Offset::Offset(next), next, witness: None, entry }
}

async fn watermarks(client: &Arc<Client>, place: &Place) -> Result<(i64, i64), String> {
    let place = place.clone();
    ask(client, move |client| client.fetch_watermarks(&place.topic, place.partition, ANSWER)).await
}

/// The first offset of a time or later; the end when there is none.
async fn first_at(client: &Arc<Client>, place: &Place, millis: i64) -> Result<i64, String> {
    let asked = place.clone();
    let found = ask(client, move |client| {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&asked.topic, asked.partition, Offset::Offset(millis.max(0)))?;
        let found = client.offsets_for_times(times, ANSWER)?;
        Ok(found.elements().first().map(|element| element.offset()))
    });
    match found.await? {
        Some(Offset::Offset(offset)) => Ok(offset),
        Some(Offset::End) => Ok(watermarks(client, place).await?.1),
        other => Err(format!("the broker does not say where this time is ({other:?})")),
    }
}

/// Puts a question that blocks.
pub(super) async fn ask<T: Send + 'static>(
    client: &Arc<Client>,
    question: impl FnOnce(&Client) -> KafkaResult<T> + Send + 'static,
) -> Result<T, String> {
    let client = client.clone();
    match tokio::task::spawn_blocking(move || question(&client)).await {
        Ok(answer) => answer.map_err(|error| format!("kafka does not answer: {error}")),
        Err(error) => Err(format!("a question to kafka broke down: {error}")),
    }
}

fn unavailable(error: bellwire_ledger::Error) -> ConnectorError {
    ConnectorError::Unavailable(error.to_string())
}
