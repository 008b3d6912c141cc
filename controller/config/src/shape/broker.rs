//! Brokers: the sources that read from Kafka, RabbitMQ and SQS, and what logging in to them takes.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::source::Common;
use super::words::{
    AmqpName, AmqpUrl, Brokers, Endpoint, KafkaTopic, LibrdkafkaKey, QueueRef, Region, SecretText,
    StartingPoint, Text, VariableText,
};
use super::{many, short};

/// Records of Kafka topics. Positions are kept in the ledger, with the events: nothing is lost or doubled.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Kafka {
    /// `host:port` of some of the brokers; one or a list.
    #[schemars(schema_with = "many::<Brokers>")]
    pub bootstrap_servers: Vec<Brokers>,
    /// What is read; one or a list. Inline, several topics need a name under `sources:`.
    #[schemars(schema_with = "many::<KafkaTopic>")]
    pub topic: Vec<KafkaTopic>,
    /// The consumer group; by default `bellwire.<namespace>.<source>`.
    pub group_id: Option<Text>,
    /// Where reading begins in partitions that the ledger has no position of: `latest`, `earliest` or a time.
    /// Partitions that are found later always begin at their first record.
    #[schemars(extend("default" = "latest"))]
    pub starting_position: StartingPoint,
    /// How to log in; by default no login.
    pub sasl: Option<Sasl>,
    /// `true`: encrypted, the servers' certificates are checked against the system's roots; or a map.
    #[serde(default)]
    #[schemars(schema_with = "tls", extend("default" = false))]
    pub tls: Tls,
    /// What happens when the ledger's position is no longer in the partition: `halt` waits, visibly, until somebody
    /// decides; `skip` goes on at the earliest record and records the gap.
    #[schemars(extend("default" = "halt"))]
    pub lost_positions: LostWord,
    /// Settings of librdkafka, passed through as they are. Those that Bellwire depends on are refused.
    #[serde(default, rename = "librdkafka")]
    _librdkafka: BTreeMap<LibrdkafkaKey, VariableText>,
    #[serde(flatten)]
    pub common: Common,
}

/// A login by SASL.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Sasl {
    /// Which mechanism; `plain` shows the password to the broker, so it wants `tls`.
    pub mechanism: MechanismWord,
    /// Who.
    pub username: Text,
    /// The password.
    pub password: SecretText,
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum MechanismWord {
    #[serde(rename = "plain")]
    Plain,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// Encryption: a truth value, or certificates.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Tls {
    Word(bool),
    Files(TlsFiles),
}

impl Default for Tls {
    fn default() -> Self {
        Self::Word(false)
    }
}

/// Encryption with certificates of one's own. Without `ca`, the system's roots are trusted.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct TlsFiles {
    /// Whom to trust: a PEM file, or its text.
    pub ca: Option<Text>,
    /// Our certificate, for servers that ask for one: a PEM file, or its text.
    pub cert: Option<Text>,
    /// The private key of `cert`, as PEM text: `${file:client.key}`.
    pub key: Option<SecretText>,
}

pub(super) fn tls(g: &mut SchemaGenerator) -> Schema {
    let files = g.subschema_for::<TlsFiles>();
    json_schema!({ "anyOf": [{ "type": "boolean" }, files] })
}

/// What happens when a position is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LostWord {
    Halt,
    Skip,
}

/// Messages of a RabbitMQ queue, acknowledged once they are in the ledger.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Rabbitmq {
    /// `amqp://user:password@host/vhost` or `amqps://…`. Outside `dev`, the password is a reference, or the whole URL
    /// is.
    #[serde(rename = "url")]
    _url: AmqpUrl,
    /// The queue.
    pub queue: AmqpName,
    /// Messages that the broker hands over ahead; `auto` follows what the ledger takes.
    #[schemars(schema_with = "prefetch", extend("default" = "auto"))]
    pub prefetch: Prefetch,
    /// Certificates for an `amqps` URL.
    pub tls: Option<TlsFiles>,
    /// What is declared before reading. Without it the queue must exist.
    pub declare: Option<Declare>,
    #[serde(flatten)]
    pub common: Common,
}

/// Messages handed over ahead.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Prefetch {
    Count(u16),
    Word(Auto),
}

/// Chosen by us.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Auto {
    Auto,
}

fn prefetch(g: &mut SchemaGenerator) -> Schema {
    let word = g.subschema_for::<Auto>();
    json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65_535 }, word] })
}

/// A durable queue that is made when it is absent, and where it is bound.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Declare {
    /// `quorum` queues are replicated, `classic` ones live on one node.
    #[serde(rename = "type")]
    #[schemars(extend("default" = "quorum"))]
    pub queue_type: QueueWord,
    /// An exchange that exists, to which the queue is bound.
    pub exchange: Option<AmqpName>,
    /// Routing keys of the bindings; none means one binding with an empty key.
    #[schemars(extend("default" = []))]
    pub routing_keys: Vec<Text>,
}

/// Types of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QueueWord {
    Quorum,
    Classic,
}

/// Messages of an SQS queue, deleted once they are in the ledger. Credentials come from where AWS's own tools look
/// for them; pollers and visibility are chosen by us.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Sqs {
    #[serde(flatten)]
    pub queue: Queue,
    #[serde(flatten)]
    pub common: Common,
}

/// A queue of SQS, or of a server that speaks like it.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Queue {
    /// The queue's URL or ARN.
    pub queue: QueueRef,
    /// The service's URL, when it is not what the queue's URL or the region says.
    pub endpoint: Option<Endpoint>,
    /// The region; by default what the queue's URL or ARN says, else what AWS's own tools would take.
    pub region: Option<Region>,
}

pub(super) fn sqs(g: &mut SchemaGenerator) -> Schema {
    short::<QueueRef, Sqs>(g, "queue")
}

pub(super) fn queue(g: &mut SchemaGenerator) -> Schema {
    short::<QueueRef, Queue>(g, "queue")
}
