//! Entries of `events:`: one kind key says where from, its siblings say how.

use std::collections::BTreeMap;

use bellwire_schemas::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::words::{Duration, Name, StartPoint, Text};
use super::{
    Anything, Kafka, Rabbitmq, S3Inline, Schedule, Sending, Sqs, Topic, Webhook, broker, many, source,
};

/// One binding of a function: exactly one of `source`, `kafka`, `rabbitmq`, `sqs`, `s3`, `schedule`, `webhook` and
/// `topic`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [
    {"required": ["source"]}, {"required": ["kafka"]}, {"required": ["rabbitmq"]}, {"required": ["sqs"]},
    {"required": ["s3"]}, {"required": ["schedule"]}, {"required": ["webhook"]}, {"required": ["topic"]}
]))]
pub(crate) struct Event {
    /// A source of `sources:`, by name.
    pub source: Option<Name>,
    /// Records of a Kafka topic, inline.
    pub kafka: Option<Kafka>,
    /// Messages of a RabbitMQ queue, inline.
    pub rabbitmq: Option<Rabbitmq>,
    /// Messages of an SQS queue, inline: its URL or ARN, or a map.
    #[serde(default)]
    #[schemars(schema_with = "broker::sqs")]
    pub sqs: Option<Sqs>,
    /// Object-store notifications, inline: a bucket, or a map.
    #[serde(default)]
    #[schemars(schema_with = "source::s3_inline")]
    pub s3: Option<S3Inline>,
    /// Timers, inline: an expression, or a map.
    #[serde(default)]
    #[schemars(schema_with = "source::schedule")]
    pub schedule: Option<Schedule>,
    /// An HTTP door, inline.
    pub webhook: Option<Webhook>,
    /// Our own bus, inline: a topic's name, or a map.
    #[serde(default)]
    #[schemars(schema_with = "source::topic")]
    pub topic: Option<Topic>,
    /// The second half of the binding's identity `<function>:<name>`; by default the source's name.
    pub name: Option<Name>,
    #[serde(flatten)]
    pub policy: EventDefaults,
}

/// Delivery settings that `defaults.event` may hold for all entries.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct EventDefaults {
    /// EventBridge pattern over the envelope; of a list, any may match. By default everything.
    #[serde(default)]
    #[schemars(schema_with = "many::<Filter>")]
    pub filter: Vec<Filter>,
    /// Events per invocation.
    #[serde(rename = "batch")]
    #[schemars(range(min = 1, max = 1), extend("default" = 1))]
    _batch: u32,
    /// `none`: events are delivered as they come, side by side.
    #[serde(rename = "ordering")]
    #[schemars(extend("default" = "none"))]
    _ordering: Ordering,
    /// When a failed delivery is tried again, and when it is given up.
    #[schemars(extend("default" = {}))]
    pub retry: Retry,
    /// Older deliveries end as expired; by default none do.
    #[schemars(with = "Option<Duration>")]
    pub max_age: Option<Span>,
    /// Most invocations at once for this entry; by default the function's.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
    /// Where a new binding begins in the ledger.
    #[schemars(extend("default" = "now"))]
    pub start: StartPoint,
    /// Constant JSON that the function receives instead of the event.
    #[schemars(extend("not" = { "type": "string", "pattern": "^ *\\{%" }))]
    pub input: Option<Anything>,
    /// What is sent, and where to, when a delivery succeeded.
    pub on_success: Option<Sending>,
    /// What is sent, and where to, when a delivery was given up. The dead letter is kept all the same.
    pub on_failure: Option<Sending>,
    /// `false`: paused, the position is kept, `start` is ignored.
    #[schemars(extend("default" = true))]
    pub enabled: bool,
}

/// An EventBridge pattern.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-noun" = "a pattern such as `{ type: [github.push] }`"))]
pub(crate) struct Filter(pub BTreeMap<String, Anything>);

/// Orders of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ordering {
    None,
}

/// When a failed delivery is tried again: waits double from `min_delay` to `max_delay`, with full jitter.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Retry {
    /// Attempts in all, the first included; or `unlimited`. An outage burns none.
    #[schemars(schema_with = "attempts", extend("default" = 10))]
    pub attempts: Attempts,
    /// Upper bound of the wait before the second attempt.
    #[schemars(with = "Duration", extend("default" = "1s"))]
    pub min_delay: Span,
    /// Upper bound that doubling stops at.
    #[schemars(with = "Duration", extend("default" = "5m"))]
    pub max_delay: Span,
    /// Error names that end the delivery at once, such as `ValidationError`.
    #[schemars(extend("default" = []))]
    pub non_retryable: Vec<Text>,
    /// What follows the last attempt: `skip-event` keeps it as a dead letter and goes on.
    #[serde(rename = "exhausted")]
    #[schemars(extend("default" = "skip-event"))]
    _exhausted: Exhausted,
}

/// A number of attempts.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Attempts {
    Count(u32),
    Word(Unlimited),
}

/// Attempts without end.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unlimited {
    Unlimited,
}

fn attempts(g: &mut SchemaGenerator) -> Schema {
    let word = g.subschema_for::<Unlimited>();
    json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 1_000_000 }, word] })
}

/// What follows the last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Exhausted {
    SkipEvent,
}
