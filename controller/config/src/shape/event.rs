//! Entries of `events:`: one kind key says where from, its siblings say how.

use std::collections::BTreeMap;

use bellwire_schemas::Span;
use schemars::JsonSchema;
use serde::Deserialize;

use super::words::{Duration, Name, Rate, StartPoint};
use super::{
    Anything, Batch, Debounce, Kafka, OrderingWord, Rabbitmq, Retry, S3Inline, Schedule, Sending,
    SingletonWord, Sqs, Topic, Webhook, broker, many, policy, source,
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
    /// How many events one invocation receives: a number, or a map. By default 10 for `sqs`, 100 for `kafka` and
    /// `rabbitmq`, else 1, as for every entry with `input`.
    #[serde(default)]
    #[schemars(schema_with = "policy::batch", extend("examples" = [100, { "size": 500, "window": "200ms" }]))]
    pub batch: Option<Batch>,
    /// `key`: at most one delivery of a key is in flight, the others of that key wait in their order; `none`: events
    /// are delivered as they come, side by side. By default `key` for `kafka` and for FIFO queues of `sqs`, unless
    /// the source says `key: none`; else `none`. An event without a key waits for nobody.
    pub ordering: Option<OrderingWord>,
    /// When a failed delivery is tried again, and when it is given up.
    #[schemars(extend("default" = {}))]
    pub retry: Retry,
    /// Older deliveries end as expired, at least `1s`; by default none do.
    #[schemars(with = "Option<Duration>")]
    pub max_age: Option<Span>,
    /// Most invocations at once for this entry; by default the function's.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
    /// Most deliveries per second, minute or hour: `100/s`, `60/m`, `5/h`; several controllers share it. The others
    /// wait, none is dropped. By default as many as there are.
    #[schemars(extend("examples" = ["100/s", "60/m"]))]
    pub rate: Option<Rate>,
    /// Of a burst of events of one key, only the last is delivered: how long no other may have come, or a map. The
    /// others end as filtered, reason `debounced`; events without a key count as one key. By default every event is
    /// delivered.
    #[serde(default)]
    #[schemars(schema_with = "policy::debounce", extend("examples" = ["5s", { "wait": "5s", "max_wait": "1m" }]))]
    pub debounce: Option<Debounce>,
    /// What happens to an event while another of its key runs or waits for its retry: `skip` ends it as filtered,
    /// `cancel` gives the other one up; events without a key count as one key. By default both are delivered.
    pub singleton: Option<SingletonWord>,
    /// Where a new binding begins in the ledger.
    #[schemars(extend("default" = "now"))]
    pub start: StartPoint,
    /// Constant JSON that the function receives instead of the event; one event makes one invocation then.
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
