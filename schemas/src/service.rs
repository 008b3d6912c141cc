//! What the user declared, resolved: references replaced, defaults filled in, names checked.
//!
//! The configuration crate turns `bellwire.yaml` into these; connectors and the dispatcher read nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::brokers::{Destination, KafkaSource, RabbitmqSource, Sending, SqsSource};
pub use crate::policy::{Batch, Debounce, Ordering, Rate, Singleton};
use crate::{Address, BindingName, ByteSize, FunctionName, LedgerUrl, RetryPolicy, SourceName, Timestamp};

/// A value that came from a reference, or must not be shown: prints as `***` everywhere.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One service file: what runs.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its name: prefix in logs and metrics.
    pub name: String,
    /// The tenant.
    pub namespace: String,
    /// Where events come from.
    pub sources: Vec<SourceSpec>,
    /// What is called.
    pub functions: Vec<FunctionSpec>,
    /// What is owed to whom.
    pub bindings: Vec<BindingSpec>,
}

/// One configured origin of events.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSpec {
    /// Its identity.
    pub name: SourceName,
    /// What it is.
    pub kind: SourceKind,
    /// The ordering key; `Default` is what the kind has by itself.
    pub key: KeyRule,
    /// The dedup key; `Default` is what the kind has by itself.
    pub dedup: DedupRule,
    /// What is done with the payload at intake.
    pub decode: Decode,
    /// False: no intake, the position is kept.
    pub enabled: bool,
}

/// Where an event's ordering key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum KeyRule {
    /// The kind's own: object key, `partitionkey`.
    #[default]
    Default,
    /// No key at all.
    None,
    /// The partition (`kafka` only): the order in which AWS Lambda works.
    Partition,
    /// A dotted path into the envelope, such as `data.order_id`.
    Path(String),
}

/// Where an event's dedup key comes from, and how long it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DedupRule {
    /// The kind's own (delivery id, object version, tick, event id) for 24 hours.
    #[default]
    Default,
    /// None: every arrival is an event.
    Off,
    /// A dotted path into the envelope.
    Path {
        /// The path.
        path: String,
        /// How long a key is remembered.
        window: Duration,
    },
}

/// What intake does with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Decode {
    /// JSON when it parses, else bytes; never fails.
    #[default]
    Auto,
    /// Must parse as JSON, else the message is quarantined.
    Json,
    /// Never parsed.
    Bytes,
}

/// The kinds of source, with their own settings.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Object-store notifications.
    S3 {
        /// The bucket whose records belong to this source.
        bucket: String,
        /// The source whose messages carry the notifications; `None`: they are posted to `/s3`.
        via: Option<SourceName>,
    },
    /// Records of Kafka topics.
    Kafka(KafkaSource),
    /// Messages of a RabbitMQ queue.
    Rabbitmq(RabbitmqSource),
    /// Messages of an SQS queue.
    Sqs(SqsSource),
    /// Timers.
    Schedule(ScheduleSpec),
    /// An HTTP door of its own at `/hooks/<path>`.
    Webhook(WebhookSpec),
    /// Our own bus, filled at `/topics/<name>`.
    Topic {
        /// The topic's name.
        topic: String,
    },
    /// What bindings send by `on_success` and `on_failure` to a function or a destination; nothing enters from
    /// outside.
    Outbox,
}

impl SourceKind {
    /// The kind's word in the configuration: `s3`, `schedule`, `kafka` and so on.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::S3 { .. } => "s3",
            Self::Schedule(_) => "schedule",
            Self::Webhook(_) => "webhook",
            Self::Topic { .. } => "topic",
            Self::Kafka(_) => "kafka",
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Sqs(_) => "sqs",
            Self::Outbox => "outbox",
        }
    }
}

/// A `schedule` source.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleSpec {
    /// One or more expressions: `cron(…)`, 5/6-field cron, `rate(…)`, `at(…)`; checked.
    pub expressions: Vec<String>,
    /// IANA time zone, checked.
    pub timezone: String,
    /// What happens to ticks that fell into a time without a controller.
    pub missed: Missed,
    /// A tick is emitted up to this much later, by a fixed hash of schedule and tick.
    pub jitter: Duration,
    /// No tick before.
    pub start: Option<Timestamp>,
    /// No tick after.
    pub end: Option<Timestamp>,
}

/// The missed-run policy of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Missed {
    /// Forget them.
    None,
    /// Run the last one.
    #[default]
    Last,
    /// Run all, oldest first.
    All,
}

/// A `webhook` source.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookSpec {
    /// The path under `/hooks`, with its leading slash.
    pub path: String,
    /// How a request proves where it comes from.
    pub verify: Verify,
    /// The accepted secrets: several during a rotation.
    pub secrets: Vec<Secret>,
    /// How old a signed timestamp may be.
    pub tolerance: Duration,
}

/// How a webhook request is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// `X-Hub-Signature-256`.
    Github,
    /// `Stripe-Signature`.
    Stripe,
    /// `X-Slack-Signature`.
    Slack,
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature` (Standard Webhooks 1.0).
    StandardWebhooks,
    /// An HMAC of the body in a header.
    Hmac(HmacRule),
    /// `Authorization: Bearer <secret>`.
    Token,
    /// Nobody asks: an open door.
    None,
}

/// A generic HMAC signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacRule {
    /// The header that carries the signature.
    pub header: String,
    /// The hash.
    pub algorithm: HmacAlgorithm,
    /// How the signature is written.
    pub encoding: HmacEncoding,
    /// Text before the signature, such as `sha256=`.
    pub prefix: String,
}

/// Hash functions of a generic HMAC signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HmacAlgorithm {
    /// SHA-1, for senders that know nothing better.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Encodings of a generic HMAC signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HmacEncoding {
    /// Lower- or upper-case hexadecimal.
    #[default]
    Hex,
    /// Standard base64.
    Base64,
}

/// One function.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionSpec {
    /// Its name.
    pub name: FunctionName,
    /// What is run or called.
    pub target: Target,
    /// The folder with the code: working directory and `LAMBDA_TASK_ROOT`; absolute.
    pub code: PathBuf,
    /// Deadline of one invocation.
    pub timeout: Duration,
    /// Hard limit of a worker's memory.
    pub memory: ByteSize,
    /// Exact maximum of invocations at once.
    pub concurrency: u32,
    /// Workers kept ready.
    pub warm: Warm,
    /// The whole environment that the user gives; values are never shown.
    pub environment: BTreeMap<String, Secret>,
    /// The shape of the event it receives.
    pub format: Format,
    /// Settings of calls to a `url`.
    pub request: RequestSpec,
}

/// What a function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Python handler `module.function` (dots or slashes in the module), run by the bundled bootstrap.
    Python {
        /// Relative to the code folder, such as `app/price.handler`.
        handler: String,
        /// The demanded version, such as `3.12`, or any.
        version: Option<String>,
    },
    /// A Node.js handler `file.function`, run by the bundled bootstrap.
    Node {
        /// Relative to the code folder, such as `src/index.handler`.
        handler: String,
        /// The demanded major version, such as `22`, or any.
        version: Option<String>,
    },
    /// A program that speaks the Lambda Runtime API.
    Command(Vec<String>),
    /// An HTTP endpoint.
    Url(String),
    /// A broker that results go out to: nothing runs, a message is sent.
    Destination(Box<Destination>),
}

/// Workers kept ready without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// How many are kept in any case.
    pub min: u32,
    /// How long others stay without work.
    pub idle: Duration,
}

/// The shape in which a function receives its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// AWS Lambda's exact JSON for the source's kind.
    Lambda,
    /// CloudEvents: structured for workers, binary for endpoints.
    Cloudevents,
    /// CloudEvents structured mode.
    CloudeventsStructured,
    /// CloudEvents batch format.
    CloudeventsBatch,
    /// Only `data`.
    Json,
}

/// Settings of calls to an HTTP endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSpec {
    /// Headers added to each request; values are never shown.
    pub headers: BTreeMap<String, Secret>,
    /// Signs each request by Standard Webhooks.
    pub signing_secret: Option<Secret>,
    /// `Authorization` of each request.
    pub auth: Option<Auth>,
    /// Whether addresses that are not public may be called (always in `dev`; else listed hosts only).
    pub allow_private: bool,
}

/// Credentials of an HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// `Authorization: Basic …`, given as `user:password`.
    Basic(Secret),
}

/// One binding: source + filter + target + delivery policy.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingSpec {
    /// `<target>:<source or name>`.
    pub name: BindingName,
    /// The function it calls.
    pub function: FunctionName,
    /// The source it reads.
    pub source: SourceName,
    /// EventBridge patterns, any may match; empty means everything. Checked.
    pub filter: Vec<Value>,
    /// Retries.
    pub retry: RetryPolicy,
    /// Older deliveries end as expired.
    pub max_age: Option<Duration>,
    /// Cap of this binding, below the function's.
    pub concurrency: Option<u32>,
    /// Where a new binding begins.
    pub start: Start,
    /// Constant input instead of the event.
    pub input: Option<Value>,
    /// What is sent when a delivery succeeded.
    pub on_success: Option<Sending>,
    /// What is sent when a delivery was given up.
    pub on_failure: Option<Sending>,
    /// How many events one invocation receives.
    pub batch: Batch,
    /// Whether deliveries of one key wait for each other.
    pub ordering: Ordering,
    /// Most deliveries per time; the others wait.
    pub rate: Option<Rate>,
    /// Of a burst of events of one key, only the last is delivered.
    pub debounce: Option<Debounce>,
    /// What happens to an event while another of its key is being worked on.
    pub singleton: Option<Singleton>,
    /// False: paused, position kept.
    pub enabled: bool,
}

/// Where a new binding begins in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the next event.
    #[default]
    Now,
    /// With the oldest event kept.
    Earliest,
    /// With the first event accepted at or after this time.
    At(Timestamp),
    /// With this address (its lane; other lanes begin now).
    Address(Address),
}

/// How this process runs: the controller part of the file.
#[derive(Clone, Debug)]
pub struct ControllerSpec {
    /// Where the ledger is.
    pub ledger: LedgerSpec,
    /// Address of the ingress door.
    pub ingress: String,
    /// Address of the admin door.
    pub admin: String,
    /// `listen.tls: off` was said: a door off loopback may speak plain HTTP, behind a proxy that encrypts.
    pub plain_http: bool,
    /// Largest event accepted.
    pub event_size: ByteSize,
    /// Buffers before sources pause.
    pub memory: ByteSize,
    /// Tokens of the admin door; empty means one is made at start.
    pub tokens: Vec<TokenSpec>,
    /// Hosts or networks that `url:` targets may reach although they are private.
    pub allow_private_urls: Vec<String>,
    /// Log format: JSON lines instead of text.
    pub logs_json: bool,
    /// Log level: `error warn info debug trace`.
    pub log_level: String,
}

/// The ledger's settings.
#[derive(Clone, Debug)]
pub struct LedgerSpec {
    /// `sqlite:<path>` or `postgres://…`; paths are absolute after loading.
    pub url: LedgerUrl,
    /// How long events are kept after nobody owes them.
    pub retention: Duration,
    /// Size at which sources pause.
    pub max_size: Option<ByteSize>,
    /// Number of lanes, fixed at creation.
    pub lanes: u16,
}

/// A token of the API.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// Its name, shown in the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The token itself.
    pub secret: Secret,
}

/// What a token may do; each role includes those before it, except that `publish` only sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Send events to topics.
    Publish,
    /// Read everything.
    Read,
    /// Read, send, invoke, redrive, replay, pause.
    Operate,
    /// Everything.
    Admin,
}
