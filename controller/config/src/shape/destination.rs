//! Where results go: named destinations, and what `on_success` and `on_failure` of an entry say.

use schemars::JsonSchema;
use serde::Deserialize;

use super::broker::{self, Queue, Sasl, Tls, TlsFiles};
use super::many;
use super::words::{AmqpUrl, AnyText, Brokers, EnvelopePath, FunctionId, KafkaTopic, Name, TopicName};

/// A place outside that results go to: exactly one of `kafka`, `rabbitmq` and `sqs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["kafka"]}, {"required": ["rabbitmq"]}, {"required": ["sqs"]}]))]
pub(crate) struct Destination {
    /// A Kafka topic.
    pub kafka: Option<KafkaOut>,
    /// A RabbitMQ exchange.
    pub rabbitmq: Option<RabbitmqOut>,
    /// An SQS queue: its URL or ARN, or a map.
    #[serde(default)]
    #[schemars(schema_with = "broker::queue")]
    pub sqs: Option<Queue>,
}

/// A Kafka topic that results go to.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct KafkaOut {
    /// `host:port` of some of the brokers; one or a list.
    #[schemars(schema_with = "many::<Brokers>")]
    pub bootstrap_servers: Vec<Brokers>,
    /// The topic.
    pub topic: KafkaTopic,
    /// A path into the envelope of what is sent, whose text becomes the record's key; by default the ordering key of the
    /// event that caused it.
    pub key: Option<EnvelopePath>,
    /// How to log in; by default no login.
    pub sasl: Option<Sasl>,
    /// `true`: encrypted, the servers' certificates are checked against the system's roots; or a map.
    #[serde(default)]
    #[schemars(schema_with = "broker::tls", extend("default" = false))]
    pub tls: Tls,
}

/// A RabbitMQ exchange that results go to.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct RabbitmqOut {
    /// `amqp://user:password@host/vhost` or `amqps://…`. Outside `dev`, the password is a reference, or the whole URL
    /// is.
    #[serde(rename = "url")]
    _url: AmqpUrl,
    /// The exchange. Empty is the default one, which takes the routing key for a queue's name.
    #[schemars(extend("default" = ""))]
    pub exchange: AnyText,
    /// The routing key.
    #[schemars(extend("default" = ""))]
    pub routing_key: AnyText,
    /// Certificates for an `amqps` URL.
    pub tls: Option<TlsFiles>,
}

/// What is sent when a delivery ended, and where to: exactly one place. It is kept with the outcome in one commit,
/// and delivered from there at least once.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [
    {"required": ["function"]}, {"required": ["topic"]}, {"required": ["destination"]}, {"required": ["kafka"]},
    {"required": ["rabbitmq"]}, {"required": ["sqs"]}
]))]
pub(crate) struct Sending {
    /// A function of this file, which is called with it.
    pub function: Option<FunctionId>,
    /// A topic of our own bus.
    pub topic: Option<TopicName>,
    /// A destination of `destinations:`, by name.
    pub destination: Option<Name>,
    /// A Kafka topic, inline.
    pub kafka: Option<KafkaOut>,
    /// A RabbitMQ exchange, inline.
    pub rabbitmq: Option<RabbitmqOut>,
    /// An SQS queue, inline: its URL or ARN, or a map.
    #[serde(default)]
    #[schemars(schema_with = "broker::queue")]
    pub sqs: Option<Queue>,
    /// `record`: Lambda's destination record, with request and response; `result`: the answer alone, or the error.
    #[schemars(extend("default" = "record"))]
    pub payload: PayloadWord,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PayloadWord {
    Record,
    Result,
}
