//! The file's shape: these types are the one source of truth. Their doc comments and attributes become the JSON
//! Schema, the reference page and the structural check; serde reads the checked tree into them.
//!
//! Three private schema words carry what JSON Schema has no word for, and are cut from the published one:
//! `x-noun` (how a message calls the value), `x-short` (a scalar stands for a map with this one key), `x-many`
//! (one value stands for a list of one) and `x-secret`. Read `file.rs` first.

mod broker;
mod destination;
mod event;
mod file;
mod function;
mod policy;
mod source;
pub(crate) mod words;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

pub(crate) use broker::{
    Kafka, LostWord, MechanismWord, Prefetch, Queue, QueueWord, Rabbitmq, Sasl, Sqs, Tls, TlsFiles,
};
pub(crate) use destination::{Destination, KafkaOut, PayloadWord, RabbitmqOut, Sending};
pub(crate) use event::{Event, EventDefaults};
pub(crate) use file::{File, Ledger, Level, Logs, RoleWord};
pub(crate) use function::{Command, FormatWord, Function, Request};
pub(crate) use policy::{Attempts, Batch, Debounce, ExhaustedWord, OrderingWord, Retry, SingletonWord};
pub(crate) use source::{
    Common, DecodeWord, Dedup, Hmac, HmacAlgorithmWord, HmacEncodingWord, MissedWord, S3, S3Inline, Schedule,
    Source, Topic, Verify, VerifyWord, Webhook,
};

/// A map that may be written as the value of its one important key.
fn short<S: JsonSchema, F: JsonSchema>(g: &mut SchemaGenerator, key: &str) -> Schema {
    let (scalar, full) = (g.subschema_for::<S>(), g.subschema_for::<F>());
    json_schema!({ "anyOf": [scalar, full], "x-short": key })
}

/// A list that may be written as its one item.
fn many<T: JsonSchema>(g: &mut SchemaGenerator) -> Schema {
    let item = g.subschema_for::<T>();
    json_schema!({ "anyOf": [item.clone(), { "type": "array", "items": item, "minItems": 1 }], "x-many": true })
}

/// A JSON value that is not judged by the schema.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Anything(pub Value);

impl JsonSchema for Anything {
    fn schema_name() -> Cow<'static, str> {
        "Anything".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-noun": "any value" })
    }
}
