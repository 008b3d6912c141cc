//! How many records wait at the brokers: asked while nothing comes.
//!
//! The end of a partition is asked of its broker; what librdkafka remembers of it came with the last fetch, and is of
//! no use when fetching is what has stopped. How far reading has come is what librdkafka fetches next: markers of
//! transactions, aborted records and compacted ones are passed over there without a record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use serde::Deserialize;

use super::client::KafkaConnector;
use super::part::Place;
use super::poller::Client;
use super::resolve::ask;
use crate::contract::ConnectorError;

/// How long the question may take for all partitions together.
const ANSWER: Duration = Duration::from_secs(5);

impl KafkaConnector {
    /// Records that wait in the partitions that are read; `None` when there are none, or not all could be asked.
    pub(super) async fn lag(&self) -> Result<Option<u64>, ConnectorError> {
        let Some((shared, client)) = self.session() else { return Ok(None) };
        let places = shared.lock().reading();
        if places.is_empty() {
            return Ok(None);
        }
        let waits = ask(&client, move |client| count(client, &places)).await;
        waits.map_err(ConnectorError::Unavailable)
    }
}

fn count(client: &Client, places: &[(Place, i64)]) -> rdkafka::error::KafkaResult<Option<u64>> {
    let end = Instant::now() + ANSWER;
    let mut waits = 0;
    for (place, next) in places {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Some(waits).filter(|waits| *waits > 0));
        }
        let (_, high) = client.fetch_watermarks(&place.topic, place.partition, left)?;
        waits += u64::try_from(high - next).unwrap_or(0);
    }
    Ok(Some(waits))
}

/// What we need of librdkafka's statistics (its STATISTICS.md).
#[derive(Debug, Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    /// What is fetched next; below zero where that is no offset.
    next_offset: i64,
}

/// What librdkafka fetches next, by partition, out of its statistics; nothing when they cannot be read.
pub(super) fn fetched(statistics: &[u8]) -> Vec<(Place, i64)> {
    let Ok(Statistics { topics }) = serde_json::from_slice(statistics) else { return Vec::new() };
    let of = |(name, topic): (String, Topic)| {
        let name: std::sync::Arc<str> = name.into();
        let place = move |partition| Place { topic: name.clone(), partition };
        topic.partitions.into_iter().map(move |(number, found)| (place(number), found.next_offset))
    };
    topics.into_iter().flat_map(of).filter(|(_, next)| *next >= 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_say_what_is_fetched_next() {
        let text = r#"{"name":"x","topics":{"a":{"topic":"a","partitions":{"0":{"next_offset":7,"hi_offset":9},
            "-1":{"next_offset":-1001}}},"b":{}}}"#;
        assert_eq!(fetched(text.as_bytes()), [(Place { topic: "a".into(), partition: 0 }, 7)]);
        assert_eq!(fetched(b"no json"), []);
    }
}
