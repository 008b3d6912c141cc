//! The thread that polls librdkafka, always: heartbeats, rebalances and fetching never wait for the ledger.
//!
//! librdkafka is told to read a partition only once the ledger's position is known, so nothing is ever fetched from
//! where the broker thinks we are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Timestamp};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::Setup;
use super::envelope::{self, Record, RecordTime};
use super::lag;
use super::part::{Entry, Place, Start};
use super::position::Mark;
use super::state::Shared;
use crate::{Content, Parcel};

/// Longest wait for librdkafka when nothing comes; an order waits no longer than this.
const POLL: Duration = Duration::from_millis(50);
/// Records that are taken over at once.
const GULP: usize = 512;
/// How long room is waited for before the brokers are held back: pausing throws away what was fetched ahead.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// How often the broker is told how far we are.
const HINT_EVERY: Duration = Duration::from_secs(1);
/// How long a revocation waits for the batch in flight. The group waits for us as long, at most `max.poll.interval.ms`.
const DRAIN: Duration = Duration::from_secs(5);

/// librdkafka's consumer with our ears on it.
pub(super) type Client = BaseConsumer<Ears>;

/// Hears what librdkafka has to say.
pub(super) struct Ears {
    shared: Arc<Shared>,
}

/// Makes the consumer and its thread, which ends when the shared state says so.
///
/// # Errors
/// When librdkafka cannot make a client out of the settings, or no thread can be started.
pub(super) fn start(
    config: &ClientConfig,
    setup: Arc<Setup>,
    shared: Arc<Shared>,
) -> Result<Arc<Client>, String> {
    let client = BaseConsumer::from_config_and_context(config, Ears { shared: shared.clone() })
        .map_err(|error| format!("librdkafka makes no consumer: {error}"))?;
    let topics: Vec<&str> = setup.kafka.topics.iter().map(String::as_str).collect();
    client.subscribe(&topics).map_err(|error| format!("subscribing to {topics:?} failed: {error}"))?;
    let client = Arc::new(client);
    let theirs = client.clone();
    let run = move || {
        let ended = catch_unwind(AssertUnwindSafe(|| Poller::new(&theirs, &setup, &shared).run()));
        if ended.is_err() {
            shared.break_down("the thread that reads from kafka broke down".into());
        }
        leave(theirs);
    };
    std::thread::Builder::new()
        .name("kafka".into())
        .spawn(run)
        .map_err(|error| format!("no thread for kafka: {error}"))?;
    Ok(client)
}

/// Leaving the group takes a moment, or much longer when the broker is gone: this thread has the time, so it is the
/// last to let go.
fn leave(mut client: Arc<Client>) {
    while let Err(shared) = Arc::try_unwrap(client) {
        client = shared;
        std::thread::sleep(POLL);
    }
}

struct Poller<'a> {
    client: &'a Client,
    setup: &'a Setup,
    shared: &'a Shared,
    paused: bool,
    /// Since when there is no room.
    full_since: Option<Instant>,
    hinted: Instant,
    last: Option<Place>,
}

impl<'a> Poller<'a> {
    fn new(client: &'a Client, setup: &'a Setup, shared: &'a Shared) -> Self {
        Self { client, setup, shared, paused: false, full_since: None, hinted: Instant::now(), last: None }
    }

    fn run(mut self) {
        let mut records = Vec::with_capacity(GULP);
        loop {
            let mut state = self.shared.lock();
            if state.stopping || state.broken().is_some() {
                return;
            }
            let (starts, stops) = state.orders();
            let (full, room) = (state.is_full(), state.has_room());
            drop(state);
            self.obey(&starts, &stops);
            if full && !self.paused {
                let since = *self.full_since.get_or_insert_with(Instant::now);
                if since.elapsed() < PAUSE_AFTER {
                    self.shared.wait_for_room(POLL);
                    continue;
                }
            }
            self.full_since = None;
            self.dam(full, room);
            if self.hinted.elapsed() >= HINT_EVERY {
                self.hinted = Instant::now();
                let hints = self.shared.lock().hints(None);
                hint(self.client, &hints);
            }
            let mut wait = POLL;
            while records.len() < GULP {
                match self.client.poll(wait) {
                    Some(Ok(message)) => records.push(self.take(&message)),
                    Some(Err(error)) => self.note(&error),
                    None => break,
                }
                wait = Duration::ZERO;
            }
            self.shared.accept(&mut records);
        }
    }

    /// Begins and ends readings.
    fn obey(&self, starts: &[Start], stops: &[Place]) {
        for place in stops {
            let assigned = self.shared.lock().assigned.remove(place);
            if assigned
                && let Err(error) = self.client.incremental_unassign(&list([(place, Offset::Invalid)]))
            {
                self.shared.break_down(format!("librdkafka does not leave {place}: {error}"));
            }
        }
        for start in starts {
            let place = &start.place;
            let mut result = Ok(());
            if self.shared.lock().assigned.remove(place) {
                result = self.client.incremental_unassign(&list([(place, Offset::Invalid)]));
            }
            let result = result.and_then(|()| self.client.incremental_assign(&list([(place, start.from)])));
            if let Err(error) = result {
                return self.shared.break_down(format!("librdkafka does not begin {place}: {error}"));
            }
            if self.paused {
                self.pause([place].into_iter());
            }
            let mut state = self.shared.lock();
            state.assigned.insert(place.clone());
            state.started(start);
        }
    }

    /// Holds the brokers back while as much waits as may.
    fn dam(&mut self, full: bool, room: bool) {
        if self.paused == full || self.paused && !room {
            return;
        }
        let assigned = self.shared.lock().assigned.clone();
        if full {
            self.pause(assigned.iter());
        } else {
            let places = list(assigned.iter().map(|place| (place, Offset::Invalid)));
            if let Err(error) = self.client.resume(&places) {
                return self.shared.break_down(format!("librdkafka does not go on: {error}"));
            }
        }
        self.paused = full;
    }

    fn pause<'p>(&self, places: impl Iterator<Item = &'p Place>) {
        if let Err(error) = self.client.pause(&list(places.map(|place| (place, Offset::Invalid)))) {
            self.shared.break_down(format!("librdkafka does not pause: {error}"));
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> (Place, i64, Entry) {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let place = match &self.last {
            Some(last) if last.partition == partition && *last.topic == *topic => last.clone(),
            _ => self.last.insert(Place { topic: topic.into(), partition }).clone(),
        };
        let time = match message.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(millis) => Some(RecordTime::Created(millis)),
            Timestamp::LogAppendTime(millis) => Some(RecordTime::Appended(millis)),
        };
        let value = message.payload().map(Bytes::copy_from_slice);
        let (mut headers, mut size, mut bad) =
            (Vec::new(), 256 + value.as_ref().map_or(0, Bytes::len), false);
        if let Some(all) = message.headers() {
            for index in 0..all.count() {
                // The binding panics on a header's name that is not UTF-8.
                match catch_unwind(AssertUnwindSafe(|| all.try_get(index))) {
                    Ok(Some(header)) => {
                        size += header.key.len() + header.value.map_or(0, <[u8]>::len);
                        headers.push((header.key, header.value));
                    }
                    Ok(None) => {}
                    Err(_) => bad = true,
                }
            }
        }
        let key = message.key();
        size += key.map_or(0, <[u8]>::len);
        let record = Record { topic, partition, offset, time, key, value, headers };
        let content = if bad {
            let meta = bellwire_schemas::meta::to_map(&envelope::meta(&record, &self.setup.bootstrap));
            let reason = format!("record {topic}/{partition}/{offset} has a header whose name is not UTF-8");
            let bytes = record.value.unwrap_or_default();
            Content::Quarantine { reason, bytes, meta: serde_json::Value::Object(meta).to_string() }
        } else {
            envelope::content(record, &self.setup.bootstrap, &self.setup.spec.key)
        };
        let mark = Mark { next: offset + 1, witness: time.map(RecordTime::millis) };
        let parcel = Some(Parcel { source: self.setup.spec.clone(), content });
        (place, offset, Entry { mark, parcel, bytes: size })
    }

    fn note(&self, error: &KafkaError) {
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.shared.suspect(),
            KafkaError::MessageConsumptionFatal(code) => {
                self.shared.break_down(format!("kafka has shut this consumer out: {code}"));
            }
            // One broker of several, or for a moment; when all are gone librdkafka says so.
            KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure) => {}
            error => self.shared.complain(format!("kafka: {error}")),
        }
    }
}

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.shared.fetched(lag::fetched(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if !matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset)) {
            tracing::warn!(target: "librdkafka", %error, reason);
        }
        let passing = [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AutoOffsetReset];
        if !code.is_some_and(|code| passing.contains(&code)) {
            self.shared.complain(format!("kafka: {reason}"));
        }
    }
}

/// Passes on what librdkafka logs.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

impl ConsumerContext for Ears {
    fn rebalance(&self, client: &BaseConsumer<Self>, what: RDKafkaRespErr, list_of: &mut TopicPartitionList) {
        let places: Vec<Place> = list_of
            .elements()
            .iter()
            .map(|element| Place { topic: element.topic().into(), partition: element.partition() })
            .collect();
        let result = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            tracing::info!(partitions = places.len(), "kafka partitions are assigned");
            self.shared.claim(places);
            // The answer that the group waits for. What is read is added once the ledger's positions are known.
            client.incremental_assign(&TopicPartitionList::new())
        } else {
            self.revoke(client, &places)
        };
        if let Err(error) = result
            && let Err(error) = client.unassign().map_err(|_| error)
        {
            self.shared.break_down(format!("librdkafka does not rebalance: {error}"));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Only lag tools look at it.
            tracing::debug!(%error, "the broker was not told how far we are");
        }
    }
}

impl Ears {
    /// Drains, then gives up: the batch in flight ends first, so that whoever reads on sees its positions.
    fn revoke(&self, client: &Client, places: &[Place]) -> KafkaResult<()> {
        let lost = client.assignment_lost();
        tracing::info!(partitions = places.len(), lost, "kafka partitions are revoked");
        self.shared.drain(places, if lost { Duration::ZERO } else { DRAIN });
        let hints = self.shared.lock().hints(Some(places));
        if !lost {
            hint(client, &hints);
        }
        let read = self.shared.lock().give_up(places);
        client.incremental_unassign(&list(read.iter().map(|place| (place, Offset::Invalid))))
    }
}

/// Tells the broker how far we are, for tools that show lag; nothing depends on it.
fn hint(client: &Client, positions: &[(Place, i64)]) {
    if positions.is_empty() {
        return;
    }
    let offsets = list(positions.iter().map(|(place, next)| (place, Offset::Offset(*next))));
    if let Err(error) = client.commit(&offsets, CommitMode::Async) {
        tracing::debug!(%error, "the broker was not told how far we are");
    }
}

fn list<'a>(places: impl IntoIterator<Item = (&'a Place, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (place, offset) in places {
        if list.add_partition_offset(&place.topic, place.partition, offset).is_err() {
            // Only a topic's name with NUL or an offset below zero is refused; neither gets this far.
            list.add_partition(&place.topic, place.partition);
        }
    }
    list
}
