//! Values that are text with a rule: names, units, paths.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

macro_rules! word {
    ($(#[doc = $doc:literal])* $name:ident, $noun:literal, $pattern:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
        #[schemars(extend("pattern" = $pattern, "x-noun" = $noun))]
        pub(crate) struct $name(pub String);

        impl $name {
            /// The pattern, and how a message calls what follows it.
            #[allow(dead_code, reason = "only the words that are map keys are asked")]
            pub const RULE: (&str, &str) = ($pattern, $noun);
        }
    };
}

/// The rules of map keys, which the schema holds without their names.
pub(crate) const KEY_RULES: [(&str, &str); 5] =
    [Name::RULE, FunctionId::RULE, VariableName::RULE, HeaderName::RULE, LibrdkafkaKey::RULE];

word! {
    /// A name of lower-case letters, digits and hyphens, at most 63 characters.
    Name, "a name of lower-case letters, digits and `-`, such as `orders`", "^[a-z][a-z0-9-]{0,62}$"
}
word! {
    /// The name of a function: letters, digits, `-` and `_`, at most 63 characters.
    FunctionId, "a name of letters, digits, `-` and `_`, such as `price`", "^[A-Za-z][A-Za-z0-9_-]{0,62}$"
}
word! {
    /// A duration with its unit: `ms`, `s`, `m`, `h` or `d`.
    Duration, "a duration with its unit, such as `30s`", "^[0-9]{1,9}(ms|s|m|h|d)$"
}
word! {
    /// A size with its unit: `B`, `KB`, `MB`, `GB` or `TB`; 1 KB is 1,024 B.
    Size, "a size with its unit, such as `1MB`", "^[0-9]{1,7}(B|KB|MB|GB|TB)$"
}
word! {
    /// So many in a time: `100/s`, `60/m` or `5/h`; at least one.
    Rate, "a rate such as `100/s`, `60/m` or `5/h`", "^[1-9][0-9]{0,8}/(s|m|h)$"
}
word! {
    /// A bucket's name.
    Bucket, "a bucket's name", "^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$"
}
word! {
    /// A topic's name: letters, digits, `.`, `-` and `_`.
    TopicName, "a topic's name, such as `greetings`", "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
}
word! {
    /// A path with its leading slash, such as `/github`; the door puts `/hooks` before it.
    HookPath, "a path such as `/github`", "^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,62}){1,8}$"
}
word! {
    /// A dotted path into the envelope, such as `data.order_id`.
    EnvelopePath, "a path into the envelope, such as `data.order_id`", "^[A-Za-z_][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+)*$"
}
word! {
    /// A moment in RFC 3339, such as `2026-01-31T07:00:00Z`.
    Moment, "a time such as `2026-01-31T07:00:00Z`",
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
}
word! {
    /// Where a new binding begins: `now`, `earliest`, a time in RFC 3339, or an address such as `1-42`.
    StartPoint, "`now`, `earliest`, a time such as `2026-01-31T07:00:00Z`, or an address such as `1-42`",
    "^(now|earliest|[0-9]{1,5}-[0-9]{1,19}|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,18}([Zz]|[+-][0-9]{2}:[0-9]{2}))$"
}
word! {
    /// The name of an environment variable.
    VariableName, "a variable's name, such as `DB_URL`", "^[A-Za-z_][A-Za-z0-9_]*$"
}
word! {
    /// The name of an HTTP header.
    HeaderName, "a header's name, such as `X-Team`", "^[A-Za-z0-9!#$%&'*+.^_|~-]+$"
}
word! {
    /// An object event: `ObjectCreated:Put`, with or without `s3:` before it; a `*` at the end stands for all of a kind.
    ObjectEvent, "an object event such as `s3:ObjectCreated:*`", "^(s3:)?[A-Za-z]+:([A-Za-z:]+[*]?|[*])$"
}
word! {
    /// `host:port` of a Kafka broker, or several joined by commas, as other tools write them.
    Brokers, "a broker's address such as `kafka-1:9092`",
    "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}(,([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5})*$"
}
word! {
    /// The name of a Kafka topic.
    KafkaTopic, "the name of a Kafka topic, such as `orders`", "^[A-Za-z0-9._-]{1,249}$"
}
word! {
    /// Where reading begins: `latest`, `earliest`, or a time in RFC 3339.
    StartingPoint, "`latest`, `earliest`, or a time such as `2026-01-31T07:00:00Z`",
    "^(latest|earliest|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,18}([Zz]|[+-][0-9]{2}:[0-9]{2}))$"
}
word! {
    /// The name of a setting of librdkafka.
    LibrdkafkaKey, "the name of a setting of librdkafka, such as `fetch.max.bytes`", "^[a-z][a-z0-9._]{0,127}$"
}
word! {
    /// The name of a queue or exchange of RabbitMQ.
    AmqpName, "a name of at most 255 characters", "^[^\\x00-\\x1f]{1,255}$"
}
word! {
    /// Where a RabbitMQ server is: `amqp://user:password@host/vhost`, or `amqps://…` for TLS.
    AmqpUrl, "a URL such as `amqp://user:${env:NAME}@host/vhost`, or a reference to one", "^[^\\x00]+$"
}
word! {
    /// The URL or ARN of an SQS queue.
    QueueRef, "the URL or ARN of a queue",
    "^(https?://[^ @?#]+/[A-Za-z0-9_-]{1,80}([.]fifo)?|arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,80}([.]fifo)?)$"
}
word! {
    /// A region of AWS.
    Region, "a region such as `eu-central-1`", "^[a-z0-9-]{2,32}$"
}
word! {
    /// How notifications arrive: `webhook`, or the name of a source whose messages carry them.
    Via, "`webhook`, or the name of a `kafka`, `rabbitmq` or `sqs` source", "^[a-z][a-z0-9-]{0,62}$"
}
word! {
    /// An address to listen on: host and port.
    DoorAddress, "an address such as `127.0.0.1:7070`", "^([A-Za-z0-9.-]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$"
}
word! {
    /// An HTTP endpoint.
    Endpoint, "a URL such as `https://app.example.com/hook`", "^https?://[^ ]+$"
}
word! {
    /// Text that is not empty.
    Text, "text", "^[^\\x00]+$"
}
word! {
    /// Text, perhaps empty.
    AnyText, "text", "^[^\\x00]*$"
}

/// A secret. Write a reference, not the value: `${env:NAME}` or `${file:path}`, without a default outside `dev`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("minLength" = 1, "x-noun" = "text, best as a reference such as `${env:NAME}`", "x-secret" = true))]
pub(crate) struct SecretText(pub String);

/// Text, a number, `true` or `false`: what a variable can hold. It arrives as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariableText;

impl<'de> Deserialize<'de> for VariableText {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // The value is taken from the tree, where `1.10` is still `1.10`.
        serde::de::IgnoredAny::deserialize(d).map(|_| Self)
    }
}

impl JsonSchema for VariableText {
    fn schema_name() -> Cow<'static, str> {
        "VariableText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean"],
            "description": "Text, a number, `true` or `false`: it arrives as it is written.",
            "x-noun": "text or a number",
        })
    }
}
