//! Brokers as the user declared them: the sources that read from them, and the destinations that results go to.
//!
//! Addresses, certificates and credentials are resolved; nothing here was checked against a server.

use std::collections::BTreeMap;

use crate::service::Secret;
use crate::{SourceName, Timestamp};

/// How a Kafka cluster is reached; the same for sources and destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaCluster {
    /// `host:port` of some of its brokers.
    pub bootstrap_servers: Vec<String>,
    /// How to log in; `None`: no login.
    pub sasl: Option<Sasl>,
    /// Encryption.
    pub tls: Tls,
    /// Settings of librdkafka, passed through as they are; those that Bellwire depends on are refused when the source
    /// is opened.
    pub librdkafka: BTreeMap<String, String>,
}

/// A login by SASL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// Which mechanism.
    pub mechanism: SaslMechanism,
    /// Who.
    pub username: String,
    /// The proof.
    pub password: Secret,
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// `PLAIN`: only over TLS, or in a trusted network.
    Plain,
    /// `SCRAM-SHA-256`.
    ScramSha256,
    /// `SCRAM-SHA-512`.
    ScramSha512,
}

impl SaslMechanism {
    /// The name in the protocol, as in RFC 4422: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub const fn protocol_name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Encryption of a broker connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// None.
    #[default]
    Off,
    /// On; the server's certificate is checked against the system's roots, or against `ca`.
    On(TlsFiles),
}

/// Certificates, as PEM text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whom to trust instead of the system's roots.
    pub ca: Option<String>,
    /// Our own certificate, for servers that ask for one; comes with `key`.
    pub cert: Option<String>,
    /// Its private key.
    pub key: Option<Secret>,
}

/// A `kafka` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSource {
    /// Where.
    pub cluster: KafkaCluster,
    /// What is read; at least one.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group_id: String,
    /// Where reading begins in a partition that the ledger has no position of.
    pub starting_position: StartingPosition,
    /// What happens when the ledger's position is no longer in the partition.
    pub lost_positions: LostPositions,
}

/// Where reading begins. Partitions that are found later begin at their first record in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartingPosition {
    /// With what comes next.
    #[default]
    Latest,
    /// With the oldest record kept.
    Earliest,
    /// With the first record of this time or later.
    At(Timestamp),
}

/// What happens when the ledger's position is no longer in the partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostPositions {
    /// The partition halts, visibly, until somebody decides.
    #[default]
    Halt,
    /// Reading goes on at the earliest record; the gap is recorded.
    Skip,
}

/// A `rabbitmq` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitmqSource {
    /// `amqp(s)://user:password@host:port/vhost`.
    pub url: Secret,
    /// The queue.
    pub queue: String,
    /// Messages that the broker may hand over ahead; `None`: chosen by us.
    pub prefetch: Option<u16>,
    /// Certificates for `amqps`; `Off` with an `amqps` URL means the system's roots.
    pub tls: Tls,
    /// What is declared before reading; `None`: the queue must exist.
    pub declare: Option<RabbitmqDeclare>,
}

/// What a `rabbitmq` source declares: its queue, and where that is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitmqDeclare {
    /// The queue's type.
    pub queue_type: QueueType,
    /// An exchange that exists, to which the queue is bound.
    pub exchange: Option<String>,
    /// Routing keys of the bindings; empty with an exchange means one binding with an empty key.
    pub routing_keys: Vec<String>,
}

/// Types of durable queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated by Raft.
    #[default]
    Quorum,
    /// On one node.
    Classic,
}

/// An `sqs` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsSource {
    /// The queue.
    pub queue: SqsQueue,
}

/// A queue of SQS, or of a server that speaks like it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsQueue {
    /// Its URL or its ARN, as the user wrote it.
    pub queue: String,
    /// The service's URL, when it is not what the queue's URL or the region says.
    pub endpoint: Option<String>,
    /// The region, when neither the queue's URL nor its ARN names one.
    pub region: Option<String>,
}

/// Where results go out to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A Kafka topic.
    Kafka(KafkaDestination),
    /// A RabbitMQ exchange.
    Rabbitmq(RabbitmqDestination),
    /// An SQS queue.
    Sqs(SqsQueue),
}

impl Destination {
    /// The kind's word in the configuration: `kafka`, `rabbitmq`, `sqs`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Sqs(_) => "sqs",
        }
    }
}

/// A topic that results go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaDestination {
    /// Where.
    pub cluster: KafkaCluster,
    /// The topic.
    pub topic: String,
    /// A path into the envelope of what is sent (`data.requestContext.functionArn`) whose text becomes the record's
    /// key; `None`: the ordering key of the event that caused it, if it has one.
    pub key: Option<String>,
}

/// An exchange that results go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitmqDestination {
    /// `amqp(s)://user:password@host:port/vhost`.
    pub url: Secret,
    /// The exchange; empty means the default one, which routes by queue name.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Certificates for `amqps`.
    pub tls: Tls,
}

/// What a binding sends when a delivery ended: an event that is appended with the outcome, in the same commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The source under which it is stored: a topic, or the outbox of a function or destination.
    pub to: SourceName,
    /// What is sent.
    pub payload: SendingPayload,
}

/// What is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendingPayload {
    /// Lambda's destination record: request, response and their contexts.
    #[default]
    Record,
    /// The answer alone; on failure the error as Lambda's runtime reports it.
    Result,
}
