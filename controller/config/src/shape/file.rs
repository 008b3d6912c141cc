//! The top of the file, and the part about this process.

use std::collections::BTreeMap;

use bellwire_schemas::{ByteSize, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::event::EventDefaults;
use super::function::FunctionDefaults;
use super::words::{DoorAddress, Duration, FunctionId, Name, SecretText, Size, Text};
use super::{Destination, Function, Source, short};

/// One service: where events come from, what is called for them, and, for `dev` and `run`, how this process runs.
/// Top-level keys that start with `x-` are ignored and make a home for anchors.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "bellwire.yaml")]
pub(crate) struct File {
    /// The service's name: prefix in logs and metrics.
    pub service: Name,
    /// The tenant; workers, tokens and quotas never cross it.
    #[schemars(extend("default" = "default"))]
    pub namespace: Name,
    /// What holds for every function and every entry of `events:` that does not say otherwise. The nearer value
    /// wins; only `environment` is merged.
    #[serde(rename = "defaults")]
    _defaults: Option<Defaults>,
    /// Where events come from, by name. A source used in one place only may be written inline there.
    #[serde(default)]
    pub sources: BTreeMap<Name, Source>,
    /// Where results go outside, by name. A destination used in one place only may be written inline there.
    #[serde(default)]
    pub destinations: BTreeMap<Name, Destination>,
    /// What is called, by name.
    #[serde(default)]
    pub functions: BTreeMap<FunctionId, Function>,
    /// Where events and outcomes are kept: a URL, or a map with more settings.
    #[schemars(schema_with = "ledger", extend("default" = "sqlite:.bellwire/ledger.db"))]
    pub ledger: Ledger,
    /// The two doors: one for the world, one for the operator.
    #[schemars(extend("default" = {}))]
    pub listen: Listen,
    /// What bounds memory.
    #[schemars(extend("default" = {}))]
    pub limits: Limits,
    /// Who may do what.
    #[schemars(extend("default" = {}))]
    pub security: Security,
    /// What is logged, and how. Metrics are always on, at `/metrics` of the admin door.
    #[schemars(extend("default" = {}))]
    pub telemetry: Telemetry,
}

/// Values for all functions and all entries of `events:`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Defaults {
    /// For every function: any of its keys but `handler`, `command`, `url` and `events`.
    #[serde(rename = "function")]
    _function: Option<FunctionDefaults>,
    /// For every entry of `events:`: any of its keys but where it comes from and `name`.
    #[serde(rename = "event")]
    _event: Option<EventDefaults>,
}

/// Settings of the ledger.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Ledger {
    /// `sqlite:` and a path, or `postgres://user@host/database`, which several controllers may share. Parameters of the
    /// latter: `schema` (default `bellwire`), `sslmode`, `sslrootcert`. Outside `dev`, a password is a reference.
    pub url: Text,
    /// How long events are kept after nobody owes them.
    #[schemars(with = "Duration", extend("default" = "7d"))]
    pub retention: Span,
    /// Size at which sources pause; nothing is dropped.
    #[schemars(with = "Size", extend("default" = "20GB"))]
    pub max_size: ByteSize,
    /// Number of lanes, fixed when the ledger is created: 8 in Postgres, always 1 in SQLite. Controllers share them out,
    /// so there should be several for each.
    #[schemars(range(min = 1, max = 1024))]
    pub lanes: Option<u16>,
}

fn ledger(g: &mut SchemaGenerator) -> Schema {
    short::<Text, Ledger>(g, "url")
}

/// Addresses of the two doors.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Listen {
    /// The door for events: webhooks, object-store notifications, topics.
    #[schemars(extend("default" = "127.0.0.1:7070"))]
    pub ingress: DoorAddress,
    /// The door for the operator: API, health, metrics.
    #[schemars(extend("default" = "127.0.0.1:7071"))]
    pub admin: DoorAddress,
    /// `off`: says aloud that a door off loopback speaks plain HTTP, behind a proxy that encrypts.
    pub tls: Option<TlsOff>,
}

/// The only value there is so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TlsOff {
    /// Plain HTTP.
    Off,
}

/// Bounds of memory.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Limits {
    /// Largest event accepted. SQS and Kafka agree on 1 MB.
    #[schemars(with = "Size", extend("default" = "1MB"))]
    pub event_size: ByteSize,
    /// What events in flight may hold before sources pause.
    #[schemars(with = "Size", extend("default" = "256MB"))]
    pub memory: ByteSize,
}

/// Who may do what.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Security {
    /// Tokens of the API, by name. Without any, one admin token is made at start, and no door opens off loopback.
    #[serde(default)]
    pub tokens: BTreeMap<Name, Token>,
    /// How strictly workers are kept apart.
    #[serde(rename = "isolation")]
    #[schemars(extend("default" = "best-effort"))]
    _isolation: Isolation,
    /// Hosts and networks that a `url:` function may call although their addresses are private. `dev` allows all.
    #[schemars(extend("default" = []))]
    pub allow_private_urls: Vec<Text>,
}

/// One token of the API.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Token {
    /// What it may do: `publish` sends events, `read` looks, `operate` also redrives, replays and pauses.
    pub role: RoleWord,
    /// The token itself.
    pub secret: SecretText,
}

/// Roles of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleWord {
    Read,
    Operate,
    Admin,
    Publish,
}

/// How strictly workers are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Isolation {
    BestEffort,
}

/// What is logged, and how.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Telemetry {
    /// The format of log lines.
    #[schemars(extend("default" = "text"))]
    pub logs: Logs,
    /// The least important level that is logged.
    #[schemars(extend("default" = "info"))]
    pub level: Level,
}

/// Formats of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Logs {
    Text,
    Json,
}

/// Levels of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// The word of the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
