//! How an entry of `events:` is delivered: batches, order, retries, bursts.

use bellwire_schemas::{ByteSize, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::short;
use super::words::{Duration, Size, Text};

/// How many events one invocation receives. A batch is what is there: nothing waits for it to fill unless `window`
/// says so.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Batch {
    /// Most events; by default 10 for `sqs`, 100 for `kafka` and `rabbitmq`, else 1.
    #[schemars(range(min = 1, max = 10_000))]
    pub size: Option<u32>,
    /// Most bytes of events, from 1KB to 6MB, as Lambda allows; a single larger event goes alone.
    #[schemars(with = "Size", extend("default" = "6MB"))]
    pub bytes: ByteSize,
    /// How long new events that do not fill a batch wait for more, at most 5m; `0s` never waits. What failed does not
    /// wait for it.
    #[schemars(with = "Duration", extend("default" = "0s"))]
    pub window: Span,
    /// A batch that fails as a whole is halved until the bad event is alone, which uses up no attempt.
    #[schemars(extend("default" = true))]
    pub bisect: bool,
}

pub(super) fn batch(g: &mut SchemaGenerator) -> Schema {
    let full = g.subschema_for::<Batch>();
    json_schema!({
        "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 10_000 }, full], "x-short": "size"
    })
}

/// Orders of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderingWord {
    Key,
    None,
}

/// Waiting for the end of a burst.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Debounce {
    /// An event is delivered when none of its key has come for so long: from 1s to 7d.
    #[schemars(with = "Duration")]
    pub wait: Span,
    /// And at the latest so long after the first of the burst, at most 7d; by default a burst may last for ever.
    #[schemars(with = "Option<Duration>")]
    pub max_wait: Option<Span>,
}

pub(super) fn debounce(g: &mut SchemaGenerator) -> Schema {
    short::<Duration, Debounce>(g, "wait")
}

/// What happens to an event while another of its key is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SingletonWord {
    Skip,
    Cancel,
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
    /// What follows the last attempt: `skip-event` keeps it as a dead letter and goes on; `block-key` keeps it owed,
    /// and everything of its key behind it, until somebody cancels or redrives it; it needs `ordering: key`.
    #[schemars(extend("default" = "skip-event"))]
    pub exhausted: ExhaustedWord,
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
pub(crate) enum ExhaustedWord {
    SkipEvent,
    BlockKey,
}
