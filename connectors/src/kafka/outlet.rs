//! Results out to a topic: CloudEvents in binary mode (Kafka protocol binding 1.0), confirmed by all replicas in sync.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellwire_schemas::brokers::KafkaDestination;
use bellwire_schemas::cloudevents::is_attribute_name;
use bellwire_schemas::outlet::{Outgoing, Outlet, OutletError};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;

use super::{config, poller};
use crate::rules::at_path;

/// How long a message may wait for room in librdkafka's queue.
const ROOM: Duration = Duration::from_secs(5);
/// Bounds a send from outside: `message.timeout.ms` may have been set to more.
const LONGEST: Duration = Duration::from_secs(60);

/// Opens a topic; the first message connects.
///
/// # Errors
/// When librdkafka does not take the settings.
pub fn open(destination: &KafkaDestination) -> Result<Arc<dyn Outlet>, String> {
    let config = config::producer(&destination.cluster)?;
    Ok(Arc::new(KafkaOutlet { destination: destination.clone(), config, producer: Mutex::new(None) }))
}

type Producer = FutureProducer<Voice>;

struct KafkaOutlet {
    destination: KafkaDestination,
    config: ClientConfig,
    /// Made when first needed, and anew after a failure that librdkafka calls fatal.
    producer: Mutex<Option<Producer>>,
}

struct Voice;

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        poller::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason);
    }
}

impl KafkaOutlet {
    fn producer(&self) -> Result<Producer, OutletError> {
        let mut producer = self.producer.lock().expect("no code panics while it holds this lock");
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        let made = FutureProducer::from_config_and_context(&self.config, Voice)
            .map_err(|error| OutletError::Refused(format!("librdkafka makes no producer: {error}")))?;
        Ok(producer.insert(made).clone())
    }

    /// Ends a producer that is of no use any more. That may take a while, so it happens elsewhere.
    fn forget(&self) {
        let old = self.producer.lock().expect("no code panics while it holds this lock").take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(old)));
        }
    }

    fn failure(&self, error: &KafkaError) -> OutletError {
        let topic = &self.destination.topic;
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::Fatal) || code == Some(RDKafkaErrorCode::OutOfOrderSequenceNumber) {
            self.forget();
        }
        let text = format!("topic {topic}: {error}");
        if code.is_some_and(is_final) { OutletError::Refused(text) } else { OutletError::Unavailable(text) }
    }
}

impl Drop for KafkaOutlet {
    fn drop(&mut self) {
        self.forget();
    }
}

#[async_trait]
impl Outlet for KafkaOutlet {
    async fn send(&self, message: &Outgoing) -> Result<String, OutletError> {
        let producer = self.producer()?;
        let key = key(&self.destination, message);
        let mut record = FutureRecord::to(&self.destination.topic).headers(headers(message));
        record.payload = message.event.data.as_deref();
        record.key = key.as_deref();
        let sent = tokio::time::timeout(LONGEST, producer.send::<str, [u8], _>(record, ROOM)).await;
        match sent {
            Ok(Ok(kept)) => Ok(format!("{}/{}@{}", self.destination.topic, kept.partition, kept.offset)),
            Ok(Err((error, _))) => Err(self.failure(&error)),
            Err(_) => Err(OutletError::Unavailable(format!(
                "topic {}: no answer within {} s",
                self.destination.topic,
                LONGEST.as_secs()
            ))),
        }
    }
}

/// What the broker will not change its mind about.
fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
    )
}

/// The record's key: what the destination's path finds, else the ordering key.
fn key(destination: &KafkaDestination, message: &Outgoing) -> Option<String> {
    match &destination.key {
        Some(path) => at_path(&message.event.envelope(), path),
        None => message.key.clone(),
    }
}

/// The attributes as `ce_` headers, the media type as `content-type`.
fn headers(message: &Outgoing) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (name, value) in message.event.attributes() {
        let text = match value {
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        if name == "datacontenttype" {
            headers = headers.insert(Header { key: "content-type", value: Some(&text) });
        } else if is_attribute_name(&name) {
            headers = headers.insert(Header { key: &format!("ce_{name}"), value: Some(&text) });
        }
    }
    if message.event.datacontenttype.is_none() && message.event.data_json().is_some() {
        headers = headers.insert(Header { key: "content-type", value: Some("application/json") });
    }
    headers
}
