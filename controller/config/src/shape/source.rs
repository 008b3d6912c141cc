//! Sources: one kind key each.

use bellwire_schemas::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::words::{
    AnyText, Bucket, Duration, EnvelopePath, HeaderName, HookPath, Moment, ObjectEvent, SecretText, Text,
    TopicName, Via,
};
use super::{Kafka, Rabbitmq, Sqs, broker, many, short};

/// A named source: exactly one kind key.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [
    {"required": ["kafka"]}, {"required": ["rabbitmq"]}, {"required": ["sqs"]}, {"required": ["s3"]},
    {"required": ["schedule"]}, {"required": ["webhook"]}, {"required": ["topic"]}
]))]
pub(crate) struct Source {
    /// Records of Kafka topics.
    pub kafka: Option<Kafka>,
    /// Messages of a RabbitMQ queue.
    pub rabbitmq: Option<Rabbitmq>,
    /// Messages of an SQS queue: its URL or ARN, or a map.
    #[serde(default)]
    #[schemars(schema_with = "broker::sqs")]
    pub sqs: Option<Sqs>,
    /// Object-store notifications (AWS S3, MinIO, RustFS, Ceph), posted to `/s3` or read out of another source: a
    /// bucket, or a map.
    #[serde(default)]
    #[schemars(schema_with = "s3")]
    pub s3: Option<S3>,
    /// Timers: an expression, or a map.
    #[serde(default)]
    #[schemars(schema_with = "schedule")]
    pub schedule: Option<Schedule>,
    /// An HTTP door at `/hooks` and a path.
    pub webhook: Option<Webhook>,
    /// Our own bus, filled at `POST /topics/<name>`: its name, or a map.
    #[serde(default)]
    #[schemars(schema_with = "topic")]
    pub topic: Option<Topic>,
}

pub(super) fn s3(g: &mut SchemaGenerator) -> Schema {
    short::<Bucket, S3>(g, "bucket")
}

pub(super) fn s3_inline(g: &mut SchemaGenerator) -> Schema {
    short::<Bucket, S3Inline>(g, "bucket")
}

pub(super) fn schedule(g: &mut SchemaGenerator) -> Schema {
    short::<Text, Schedule>(g, "expression")
}

pub(super) fn topic(g: &mut SchemaGenerator) -> Schema {
    short::<TopicName, Topic>(g, "name")
}

/// What every kind of source has.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Common {
    /// The ordering key: a path into the envelope such as `data.order_id`, or `none`; for `kafka` also `partition`,
    /// Lambda's order. By default what the kind has: the record's key, the FIFO group, the object key, CloudEvents
    /// `partitionkey`; none for `rabbitmq` and `schedule`.
    pub key: Option<EnvelopePath>,
    /// `false`: every arrival is an event; or where the dedup key comes from. By default what the kind has:
    /// object version and sequencer, the provider's delivery id, `message-id` of RabbitMQ, the deduplication or
    /// message id of SQS, the tick, the event id; none for `kafka`, whose positions are in the ledger.
    #[serde(default)]
    #[schemars(schema_with = "dedup")]
    pub dedup: Option<Dedup>,
    /// What is done with the payload: `auto` reads JSON when it parses and never fails, `json` quarantines what
    /// does not parse, `bytes` never parses.
    #[schemars(extend("default" = "auto"))]
    pub decode: DecodeWord,
    /// `false`: intake stops, the position is kept.
    #[schemars(extend("default" = true))]
    pub enabled: bool,
}

/// Where the dedup key comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Dedup {
    Off(bool),
    Key(DedupKey),
}

/// A dedup key of one's own.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct DedupKey {
    /// A path into the envelope, such as `data.order_id`.
    pub key: EnvelopePath,
    /// How long a key is remembered.
    #[schemars(with = "Duration", extend("default" = "24h"))]
    pub window: Span,
}

fn dedup(g: &mut SchemaGenerator) -> Schema {
    let key = g.subschema_for::<DedupKey>();
    json_schema!({ "anyOf": [{ "type": "boolean", "enum": [false], "x-noun": "`false`" }, key] })
}

/// What intake does with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DecodeWord {
    Auto,
    Json,
    Bytes,
}

/// Object-store notifications.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct S3 {
    /// The bucket whose notifications belong to this source.
    pub bucket: Bucket,
    /// How the notifications arrive: `webhook` is the ingress path `/s3`; the name of a `kafka`, `rabbitmq` or `sqs`
    /// source means in its messages. What is no notification of this bucket stays an event of that source.
    #[schemars(extend("default" = "webhook"))]
    pub via: Via,
    #[serde(flatten)]
    pub common: Common,
}

/// Object-store notifications. `event`, `prefix` and `suffix` are a filter in short words, for inline sources only.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct S3Inline {
    #[serde(flatten)]
    pub s3: S3,
    /// Only these events, such as `s3:ObjectCreated:*`; one or a list.
    #[serde(default)]
    #[schemars(schema_with = "many::<ObjectEvent>")]
    pub event: Vec<ObjectEvent>,
    /// Only objects whose key begins so; one or a list.
    #[serde(default)]
    #[schemars(schema_with = "many::<Text>")]
    pub prefix: Vec<Text>,
    /// Only objects whose key ends so; one or a list.
    #[serde(default)]
    #[schemars(schema_with = "many::<Text>")]
    pub suffix: Vec<Text>,
}

/// Timers.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Schedule {
    /// `rate(5 minutes)`, `cron(0 7 ? * MON-FRI *)` as AWS writes it, `0 7 * * 1-5`, or `at(2026-01-31T07:00:00)`;
    /// one or a list.
    #[schemars(schema_with = "many::<Text>")]
    pub expression: Vec<Text>,
    /// IANA time zone. A local time that the clock change skips runs once at the first valid moment after it; a
    /// repeated one runs once.
    #[schemars(extend("default" = "UTC"))]
    pub timezone: Text,
    /// What happens to ticks that fell into a time without a controller.
    #[schemars(extend("default" = "last"))]
    pub missed: MissedWord,
    /// A tick comes up to this much later, always the same for one schedule and tick.
    #[schemars(with = "Duration", extend("default" = "0s"))]
    pub jitter: Span,
    /// No tick before.
    pub start: Option<Moment>,
    /// No tick after.
    pub end: Option<Moment>,
    #[serde(flatten)]
    pub common: Common,
}

/// What happens to ticks that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MissedWord {
    Last,
    None,
    All,
}

/// An HTTP door of its own.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Webhook {
    /// The path under `/hooks`.
    pub path: HookPath,
    /// How a request proves where it comes from. There is no default: an open door must be visible in review.
    #[schemars(schema_with = "verify")]
    pub verify: Verify,
    /// The secret it is checked against; a list while it is rotated.
    #[serde(default)]
    #[schemars(schema_with = "many::<SecretText>")]
    pub secret: Vec<SecretText>,
    /// How old a signed timestamp may be.
    #[schemars(with = "Duration", extend("default" = "5m"))]
    pub tolerance: Span,
    #[serde(flatten)]
    pub common: Common,
}

/// How a request is verified.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Verify {
    Word(VerifyWord),
    Hmac { hmac: Hmac },
}

/// Known ways of verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VerifyWord {
    Github,
    Stripe,
    Slack,
    StandardWebhooks,
    Token,
    None,
}

fn verify(g: &mut SchemaGenerator) -> Schema {
    let (word, hmac) = (g.subschema_for::<VerifyWord>(), g.subschema_for::<HmacMap>());
    json_schema!({ "anyOf": [word, hmac] })
}

/// A signature of one's own.
#[derive(JsonSchema)]
struct HmacMap {
    /// An HMAC of the body in a header.
    #[allow(dead_code, reason = "describes the shape; serde reads it as a variant of Verify")]
    hmac: Hmac,
}

/// An HMAC of the body in a header.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Hmac {
    /// The header that carries it.
    pub header: HeaderName,
    /// The hash.
    #[schemars(extend("default" = "sha256"))]
    pub algorithm: HmacAlgorithmWord,
    /// How it is written.
    #[schemars(extend("default" = "hex"))]
    pub encoding: HmacEncodingWord,
    /// Text before it, such as `sha256=`.
    #[schemars(extend("default" = ""))]
    pub prefix: AnyText,
}

/// Hash functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HmacAlgorithmWord {
    Sha1,
    Sha256,
    Sha512,
}

/// Ways to write a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HmacEncodingWord {
    Hex,
    Base64,
}

/// Our own bus.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Topic {
    /// The topic's name.
    pub name: TopicName,
    #[serde(flatten)]
    pub common: Common,
}
