//! Functions: what is called.

use std::collections::BTreeMap;

use bellwire_schemas::{ByteSize, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::words::{Duration, Endpoint, HeaderName, SecretText, Size, Text, VariableName, VariableText};
use super::{Event, short};

/// One function: exactly one of `handler`, `command` and `url`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["handler"]}, {"required": ["command"]}, {"required": ["url"]}]))]
pub(crate) struct Function {
    /// `dir/module.function`, as in Lambda: a Python or Node.js function on warm workers.
    pub handler: Option<Text>,
    /// A program that speaks the Lambda Runtime API: a line, split at spaces and quotes without a shell, or a list.
    pub command: Option<Command>,
    /// An HTTP endpoint that receives each event.
    pub url: Option<Endpoint>,
    /// Where its events come from, and how they are delivered. Without any it is only called by `invoke`.
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(flatten)]
    pub settings: FunctionDefaults,
}

/// A program with its arguments.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Command {
    /// Split at spaces and quotes.
    Line(Text),
    /// Taken as it is.
    Words(#[schemars(length(min = 1))] Vec<Text>),
}

/// Settings that `defaults.function` may hold for all functions.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct FunctionDefaults {
    /// `python3` or `nodejs`; the Lambda ids `python3.12`, `nodejs22.x` and so on demand that version. By default
    /// what the handler's file says.
    pub runtime: Option<Text>,
    /// The folder with the code; by default the folder of the handler's file, else of this file.
    pub code: Option<Text>,
    /// Deadline of one invocation, at most 12h.
    #[schemars(with = "Duration", extend("default" = "30s"))]
    pub timeout: Span,
    /// Hard limit of resident memory per worker.
    #[schemars(with = "Size", extend("default" = "1024MB"))]
    pub memory: ByteSize,
    /// Exact maximum of invocations at once, all controllers together. 10, or 50 for a `url`.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
    /// Workers kept ready: a number, or a map.
    #[schemars(schema_with = "warm", extend("default" = 0))]
    pub warm: Warm,
    /// The whole environment of the workers; they inherit nothing.
    #[serde(default, rename = "environment")]
    _environment: BTreeMap<VariableName, VariableText>,
    /// The shape of the event: `lambda` is AWS's exact JSON, `json` only `data`. `lambda`, or `cloudevents` for a
    /// `url`.
    pub format: Option<FormatWord>,
    /// Settings of the calls to a `url`.
    pub request: Option<Request>,
}

/// Workers kept ready.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Warm {
    /// How many are kept in any case.
    #[schemars(range(min = 0, max = 1000), extend("default" = 0))]
    pub min: u32,
    /// How long others stay without work.
    #[schemars(with = "Duration", extend("default" = "10m"))]
    pub idle: Span,
}

#[derive(JsonSchema)]
#[schemars(inline, extend("minimum" = 0, "maximum" = 1000))]
struct WarmCount(#[allow(dead_code, reason = "describes the short form of Warm")] u32);

fn warm(g: &mut SchemaGenerator) -> Schema {
    short::<WarmCount, Warm>(g, "min")
}

/// Shapes of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FormatWord {
    Lambda,
    Cloudevents,
    CloudeventsStructured,
    CloudeventsBatch,
    Json,
}

/// Settings of calls to an HTTP endpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct Request {
    /// Headers added to each request.
    #[serde(default)]
    pub headers: BTreeMap<HeaderName, VariableText>,
    /// Signs each request by Standard Webhooks.
    pub signing_secret: Option<SecretText>,
    /// The `Authorization` of each request: exactly one way.
    pub auth: Option<Auth>,
}

/// Credentials of an HTTP endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["bearer"]}, {"required": ["basic"]}]))]
pub(crate) struct Auth {
    /// `Authorization: Bearer` and this token.
    pub bearer: Option<SecretText>,
    /// `Authorization: Basic`, given as `user:password`.
    pub basic: Option<SecretText>,
}
