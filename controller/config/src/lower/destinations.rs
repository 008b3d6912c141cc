//! Where results go. A destination, and a function that is called with results, is a pair that nobody wrote: a source
//! into which bindings send (the outbox), and a binding that delivers from there like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwire_schemas::brokers::{
    Destination, KafkaDestination, RabbitmqDestination, Sending, SendingPayload,
};
use bellwire_schemas::service::{
    Batch, BindingSpec, Decode, DedupRule, Format, FunctionSpec, KeyRule, Ordering, RequestSpec, Service,
    SourceKind, SourceSpec, Start, Target, Warm,
};
use bellwire_schemas::{BindingName, ByteSize, FunctionName, RetryPolicy, SourceName};

use super::bindings::Lowered;
use super::brokers;
use super::sources::{Sources, plain};
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::hints::nearest;
use crate::shape::words::Name;
use crate::shape::{File, KafkaOut, PayloadWord, Queue, RabbitmqOut, Sending as Shape};
use crate::tree::{At, Node};

/// Deadline of sending one message: as long as a function has by default.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages on their way to one destination at once: what a `url` has by default.
const SENDS_AT_ONCE: u32 = 50;

/// The second half of the binding's identity.
const OUTBOX: &str = "outbox";

/// The destinations of a file, and the pairs that they and called functions need.
#[derive(Default)]
pub(super) struct Destinations {
    /// By name, with the line where each was first written.
    known: BTreeMap<String, (Destination, usize)>,
    /// Names under `destinations:` as written; of those that are not known, an error was said.
    declared: BTreeSet<String>,
    sources: Vec<SourceSpec>,
    functions: Vec<FunctionSpec>,
    bindings: Vec<BindingSpec>,
}

impl Destinations {
    /// Takes in what stands under `destinations:`.
    pub fn declare(&mut self, file: &File, top: &At<'_>, declared: &BTreeSet<String>, cx: &mut Context<'_>) {
        self.declared.clone_from(declared);
        let destinations = top.key("destinations");
        for entry in top.node.get("destinations").map(Node::entries).unwrap_or_default() {
            let Some(spec) = file.destinations.get(&Name(entry.key.clone())) else { continue };
            let at = destinations.entry(entry);
            if let Some((_, found)) = outside(&spec.kafka, &spec.rabbitmq, &spec.sqs, &at, cx) {
                self.add(&entry.key, found, &at, cx);
            }
        }
    }

    /// What a binding sends, to be called when every source and binding is known; `None` after an error.
    pub fn sending(
        &mut self,
        key: &str,
        shape: &Shape,
        from: &Lowered<'_, '_>,
        known: (&File, &Service),
        sources: &mut Sources<'_>,
        cx: &mut Context<'_>,
    ) -> Option<Sending> {
        let at = from.at.key(key);
        let to = self.place(shape, &at, known, sources, cx)?;
        if to == from.spec.source && from.spec.filter.is_empty() {
            let message = format!("`{key}` sends to the topic that this entry reads");
            cx.error(Code::Conflict, at.key, &at.within, message).help =
                Some("each event would make another, without end: send to another topic".into());
            return None;
        }
        let payload = match shape.payload {
            PayloadWord::Record => SendingPayload::Record,
            PayloadWord::Result => SendingPayload::Result,
        };
        Some(Sending { to, payload })
    }

    /// Adds the pairs to a service.
    pub fn finish(self, service: &mut Service) {
        service.sources.extend(self.sources);
        service.functions.extend(self.functions);
        service.bindings.extend(self.bindings);
    }

    fn place(
        &mut self,
        shape: &Shape,
        at: &At<'_>,
        (file, service): (&File, &Service),
        sources: &mut Sources<'_>,
        cx: &mut Context<'_>,
    ) -> Option<SourceName> {
        if let Some(topic) = &shape.topic {
            return Some(sources.topic(&topic.0));
        }
        if let Some(name) = &shape.destination {
            if self.known.contains_key(&name.0) {
                return Some(outbox_of_destination(&name.0));
            }
            if !self.declared.contains(&name.0) {
                let known: Vec<&str> = self.declared.iter().map(String::as_str).collect();
                absent("destination", &name.0, &known, "name it under `destinations:`", at, cx);
            }
            return None;
        }
        if let Some(name) = &shape.function {
            let known: Vec<&str> = file.functions.keys().map(|f| f.0.as_str()).collect();
            if known.contains(&name.0.as_str()) {
                return self.called(&name.0, service, at, cx);
            }
            absent("function", &name.0, &known, "it has to stand in this file", at, cx);
            return None;
        }
        let (name, found) = outside(&shape.kafka, &shape.rabbitmq, &shape.sqs, at, cx)?;
        self.add(&name, found, at, cx)
    }

    /// Adds a destination, or finds the equal one that is there.
    fn add(
        &mut self,
        name: &str,
        found: Destination,
        at: &At<'_>,
        cx: &mut Context<'_>,
    ) -> Option<SourceName> {
        let source = outbox_of_destination(name);
        if let Some((known, line)) = self.known.get(name) {
            if *known == found {
                return Some(source);
            }
            let message =
                format!("this differs from the destination `{name}` in line {line}, and has the same name");
            cx.error(Code::Conflict, at.key, &at.within, message).help =
                Some("name it under `destinations:`".into());
            return None;
        }
        self.known.insert(name.to_owned(), (found.clone(), at.key.line));
        let function = FunctionName::new(source.as_str());
        self.functions.push(FunctionSpec {
            name: function.clone(),
            target: Target::Destination(Box::new(found)),
            code: cx.base.clone(),
            timeout: SEND_TIMEOUT,
            memory: ByteSize(0),
            concurrency: SENDS_AT_ONCE,
            warm: Warm { min: 0, idle: Duration::ZERO },
            environment: BTreeMap::new(),
            format: Format::Json,
            request: RequestSpec::default(),
        });
        // What a broker is away for ends some time: a result is never given up for it.
        let retry = RetryPolicy { attempts: None, ..RetryPolicy::default() };
        self.pair(&source, function, retry);
        Some(source)
    }

    /// The outbox of a function that is called with results.
    fn called(
        &mut self,
        name: &str,
        service: &Service,
        at: &At<'_>,
        cx: &mut Context<'_>,
    ) -> Option<SourceName> {
        let source = SourceName::new(format!("function.{name}"));
        if self.sources.iter().any(|s| s.name == source) {
            return Some(source);
        }
        let function = FunctionName::new(name);
        let binding = binding_name(&function);
        if service.bindings.iter().any(|b| b.name == binding) {
            let message =
                format!("`{name}` has an entry called `{OUTBOX}`, which is the name of what is sent to it");
            cx.error(Code::Conflict, at.key, &at.within, message).help =
                Some("give that entry another `name:`".into());
            return None;
        }
        // A function can fail for good, as with any event: the documented default, then a dead letter.
        self.pair(&source, function, RetryPolicy::default());
        Some(source)
    }

    fn pair(&mut self, source: &SourceName, function: FunctionName, retry: RetryPolicy) {
        self.sources.push(SourceSpec {
            name: source.clone(),
            kind: SourceKind::Outbox,
            key: KeyRule::Default,
            dedup: DedupRule::Default,
            decode: Decode::Auto,
            enabled: true,
        });
        self.bindings.push(BindingSpec {
            name: binding_name(&function),
            function,
            source: source.clone(),
            filter: Vec::new(),
            retry,
            max_age: None,
            concurrency: None,
            // All that was ever sent here is for this binding.
            start: Start::Earliest,
            input: None,
            on_success: None,
            on_failure: None,
            batch: Batch::default(),
            ordering: Ordering::None,
            rate: None,
            debounce: None,
            singleton: None,
            enabled: true,
        });
    }
}

fn binding_name(function: &FunctionName) -> BindingName {
    BindingName::new(format!("{function}:{OUTBOX}"))
}

fn outbox_of_destination(name: &str) -> SourceName {
    SourceName::new(format!("destination.{name}"))
}

/// A place outside, and how it is called where it stands inline; `None` after an error.
fn outside(
    kafka: &Option<KafkaOut>,
    rabbitmq: &Option<RabbitmqOut>,
    sqs: &Option<Queue>,
    at: &At<'_>,
    cx: &mut Context<'_>,
) -> Option<(String, Destination)> {
    if let Some(spec) = kafka {
        let at = at.key("kafka");
        let cluster = brokers::cluster(&spec.bootstrap_servers, spec.sasl.as_ref(), &spec.tls, &at, cx)?;
        let key = spec.key.as_ref().map(|path| path.0.clone());
        let topic = spec.topic.0.clone();
        let name = format!("kafka.{topic}");
        return Some((name, Destination::Kafka(KafkaDestination { cluster, topic, key })));
    }
    if let Some(spec) = rabbitmq {
        let at = at.key("rabbitmq");
        let (exchange, routing_key) = (spec.exchange.0.clone(), spec.routing_key.0.clone());
        if exchange.is_empty() && routing_key.is_empty() {
            let message = "an `exchange` or a `routing_key` is needed".to_owned();
            cx.error(Code::MissingKey, at.key, &at.path, message).help =
                Some("with a `routing_key` alone, it goes to the queue of that name".into());
            return None;
        }
        let (url, tls) = brokers::amqp(spec.tls.as_ref(), &at, cx)?;
        let name = format!("rabbitmq.{}", plain(if exchange.is_empty() { &routing_key } else { &exchange }));
        return Some((name, Destination::Rabbitmq(RabbitmqDestination { url, exchange, routing_key, tls })));
    }
    let queue = brokers::sqs_queue(sqs.as_ref()?, &at.key("sqs"), cx)?;
    Some((format!("sqs.{}", brokers::queue_name(&queue.queue)), Destination::Sqs(queue)))
}

fn absent(what: &str, name: &str, known: &[&str], otherwise: &str, at: &At<'_>, cx: &mut Context<'_>) {
    let at = at.key(what);
    let help =
        nearest(name, known).map_or_else(|| otherwise.to_owned(), |near| format!("did you mean `{near}`?"));
    let message = format!("there is no {what} `{}`", shown(name));
    cx.error(Code::BadValue, at.node.at, &at.within, message).help = Some(help);
}
