//! Entries of `events:` to bindings: which source, which filter, which policy.

use std::collections::BTreeMap;

use bellwire_patterns::Pattern;
use bellwire_schemas::service::{BindingSpec, SourceKind, Start};
use bellwire_schemas::{BindingName, FunctionName, SourceName, Timestamp};
use serde_json::{Map, Value};

use super::sources::{self, Sources};
use super::{brokers, kinds, objects, policy};
use crate::context::Context;
use crate::diagnostic::Code;
use crate::shape::{Event, Function, S3Inline};
use crate::tree::{At, Node, Pos};

/// An entry with the place where it stands: what it sends is judged when all sources are known.
pub(super) struct Lowered<'n, 'f> {
    pub spec: BindingSpec,
    pub event: &'f Event,
    pub at: At<'n>,
}

/// Lowers the entries of one function.
pub(super) fn lower<'n, 'f>(
    function: &str,
    spec: &'f Function,
    at: &At<'n>,
    sources: &mut Sources<'_>,
    cx: &mut Context<'_>,
) -> Vec<Lowered<'n, 'f>> {
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = Vec::new();
    let events = at.key("events");
    for (i, event) in spec.events.iter().enumerate() {
        let at = events.item(i);
        let at = At { within: at.path.clone(), ..at };
        let filter = filter(event, &at, cx);
        let policy = policy::lower(&event.policy, &at, cx);
        let start = start(&event.policy.start.0, &at, cx);
        let Some((source, kind)) = source(function, event, &at, sources, cx) else { continue };
        let name = event.name.as_ref().map_or(source.as_str(), |name| &name.0).to_owned();
        if let Some(line) = taken.insert(name.clone(), kind.line) {
            let message = format!("`{function}` has an entry called `{name}` already, in line {line}");
            cx.error(Code::Conflict, kind, &at.path, message).help =
                Some("give this one a `name:` of its own: it becomes the binding's identity".into());
            continue;
        }
        let ordering = policy::ordering(&event.policy, sources.spec(&source), &at, cx);
        let spec = BindingSpec {
            name: BindingName::new(format!("{function}:{name}")),
            function: FunctionName::new(function),
            source,
            filter,
            retry: policy.retry,
            max_age: policy.max_age,
            concurrency: event.policy.concurrency,
            start,
            input: event.policy.input.as_ref().map(|input| input.0.clone()),
            on_success: None,
            on_failure: None,
            batch: policy.batch,
            ordering,
            rate: policy.rate,
            debounce: policy.debounce,
            singleton: policy.singleton,
            enabled: event.policy.enabled,
        };
        out.push(Lowered { spec, event, at });
    }
    out
}

/// The source of an entry, and where its kind key stands.
fn source(
    function: &str,
    event: &Event,
    at: &At<'_>,
    sources: &mut Sources<'_>,
    cx: &mut Context<'_>,
) -> Option<(SourceName, Pos)> {
    if let Some(name) = &event.source {
        let at = at.key("source");
        return sources.named(&name.0, &at, cx).map(|source| (source, at.key));
    }
    let (word, name, kind, common) = if let Some(spec) = &event.kafka {
        let [topic] = spec.topic.as_slice() else {
            let at = at.key("kafka").key("topic");
            cx.error(Code::Conflict, at.key, &at.within, "several topics need a name".into()).help =
                Some("name it under `sources:` and write `source: <name>` here".into());
            return None;
        };
        let name = format!("kafka.{}", topic.0);
        let kind = brokers::kafka(spec, sources.group(&name), &at.key("kafka"), cx)?;
        ("kafka", name, kind, &spec.common)
    } else if let Some(spec) = &event.rabbitmq {
        let kind = brokers::rabbitmq(spec, &at.key("rabbitmq"), cx)?;
        ("rabbitmq", format!("rabbitmq.{}", sources::plain(&spec.queue.0)), kind, &spec.common)
    } else if let Some(spec) = &event.sqs {
        let kind = brokers::sqs(&spec.queue, &at.key("sqs"), cx)?;
        ("sqs", format!("sqs.{}", brokers::queue_name(&spec.queue.queue.0)), kind, &spec.common)
    } else if let Some(s3) = &event.s3 {
        let kind = sources.bucket(&s3.s3, &at.key("s3"), cx)?;
        ("s3", format!("s3.{}", s3.s3.bucket.0), kind, &s3.s3.common)
    } else if let Some(spec) = &event.schedule {
        let kind = kinds::schedule(spec, &at.key("schedule"), cx)?;
        ("schedule", format!("schedule.{function}"), kind, &spec.common)
    } else if let Some(spec) = &event.webhook {
        let kind = kinds::webhook(spec, &at.key("webhook"), cx)?;
        ("webhook", sources::webhook_name(&spec.path.0), kind, &spec.common)
    } else {
        let spec = event.topic.as_ref()?;
        let topic = spec.name.0.clone();
        ("topic", format!("topic.{topic}"), SourceKind::Topic { topic }, &spec.common)
    };
    let at = at.key(word);
    sources.add(&name, kind, common, &at, cx).map(|source| (source, at.key))
}

/// The patterns of an entry: those written, each together with the short words of an inline `s3`.
fn filter(event: &Event, at: &At<'_>, cx: &mut Context<'_>) -> Vec<Value> {
    let written = at.key("filter");
    let words = |list: &[crate::shape::words::Text]| list.iter().map(|t| t.0.clone()).collect::<Vec<_>>();
    let short = event.s3.as_ref().map(|s3: &S3Inline| {
        let events: Vec<String> = s3.event.iter().map(|e| e.0.clone()).collect();
        objects::condition(&events, &words(&s3.prefix), &words(&s3.suffix))
    });
    let short = short.unwrap_or_default();
    if event.policy.filter.is_empty() {
        return check_short(short, at, cx).into_iter().collect();
    }
    let mut out = Vec::new();
    for (i, filter) in event.policy.filter.iter().enumerate() {
        let at = if written.node.items().is_empty() { written.clone() } else { written.item(i) };
        let mut pattern: Map<String, Value> =
            filter.0.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect();
        if let Err(e) = Pattern::from_value(&Value::Object(pattern.clone())) {
            let place = pointed(at.node, &e.pointer);
            cx.error(Code::BadValue, place, &at.path, format!("this filter is no pattern: {}", e.message));
            continue;
        }
        if let Some(key) = short.keys().find(|key| pattern.contains_key(*key)) {
            let key_at = at.node.entry(key).map_or(at.key, |e| e.at);
            let message = format!("`filter` and the words under `s3` both ask for `{key}`");
            cx.error(Code::Conflict, key_at, &at.path, message).help =
                Some("say all of it in `filter`, or all of it with `event`, `prefix` and `suffix`".into());
            continue;
        }
        pattern.extend(short.clone());
        out.push(Value::Object(pattern));
    }
    out
}

fn check_short(short: Map<String, Value>, at: &At<'_>, cx: &mut Context<'_>) -> Option<Value> {
    if short.is_empty() {
        return None;
    }
    let pattern = Value::Object(short);
    if let Err(e) = Pattern::from_value(&pattern) {
        let at = at.key("s3");
        cx.error(Code::BadValue, at.key, &at.within, format!("these words make no filter: {}", e.message));
    }
    Some(pattern)
}

/// The place that a JSON pointer into a pattern means, or the nearest one around it.
fn pointed(node: &Node, pointer: &str) -> Pos {
    let mut node = node;
    let mut place = node.at;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if let Some(entry) = node.entry(&step) {
            place = entry.at;
            node = &entry.value;
        } else if let Some(item) = step.parse().ok().and_then(|i: usize| node.items().get(i)) {
            place = item.at;
            node = item;
        } else {
            break;
        }
    }
    place
}

fn start(text: &str, at: &At<'_>, cx: &mut Context<'_>) -> Start {
    let parsed = match text {
        "now" => Ok(Start::Now),
        "earliest" => Ok(Start::Earliest),
        // Dates have two hyphens, addresses one.
        text if text.matches('-').count() == 1 => text.parse().map(Start::Address),
        text => Timestamp::parse(text).map(Start::At),
    };
    parsed.unwrap_or_else(|e| {
        let at = at.key("start");
        cx.error(Code::BadValue, at.node.at, &at.within, e);
        Start::Now
    })
}
