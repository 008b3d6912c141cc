//! Sources, named and inline: one register, in which equal definitions are one source.

use std::collections::{BTreeMap, BTreeSet};

use bellwire_schemas::SourceName;
use bellwire_schemas::service::{Decode, DedupRule, KeyRule, SourceKind, SourceSpec};

use super::{brokers, kinds};
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::hints::nearest;
use crate::shape::words::Name;
use crate::shape::{Common, DecodeWord, Dedup, File, S3, Source};
use crate::tree::{At, Node};

/// All sources of a file.
pub(super) struct Sources<'d> {
    list: Vec<SourceSpec>,
    /// Place in the list, and the line where it was first written.
    names: BTreeMap<String, (usize, usize)>,
    /// Which source takes the arrivals of a bucket, path or topic.
    doors: BTreeMap<(&'static str, String), SourceName>,
    declared: &'d BTreeSet<String>,
    /// The word of each kind under `sources:`, for those that carry notifications.
    kinds: BTreeMap<String, &'static str>,
    namespace: String,
    /// Names that another error took out: nothing more is said about them.
    broken: BTreeSet<String>,
}

impl<'d> Sources<'d> {
    /// Nothing yet. `declared` are the names under `sources:` as written.
    pub fn new(file: &File, declared: &'d BTreeSet<String>) -> Self {
        let kinds = file.sources.iter().map(|(name, source)| (name.0.clone(), word(source))).collect();
        Self {
            kinds,
            namespace: file.namespace.0.clone(),
            list: Vec::new(),
            names: BTreeMap::new(),
            doors: BTreeMap::new(),
            declared,
            broken: BTreeSet::new(),
        }
    }

    /// Takes in what stands under `sources:`.
    pub fn declare(&mut self, file: &File, top: &At<'_>, cx: &mut Context<'_>) {
        let sources = top.key("sources");
        for entry in top.node.get("sources").map(Node::entries).unwrap_or_default() {
            let name = Name(entry.key.clone());
            let Some(source) = file.sources.get(&name) else { continue };
            let at = sources.entry(entry);
            let found = if let Some(spec) = &source.kafka {
                let group = self.group(&name.0);
                brokers::kafka(spec, group, &at.key("kafka"), cx).map(|kind| (kind, &spec.common))
            } else if let Some(spec) = &source.rabbitmq {
                brokers::rabbitmq(spec, &at.key("rabbitmq"), cx).map(|kind| (kind, &spec.common))
            } else if let Some(spec) = &source.sqs {
                brokers::sqs(&spec.queue, &at.key("sqs"), cx).map(|kind| (kind, &spec.common))
            } else if let Some(s3) = &source.s3 {
                self.bucket(s3, &at.key("s3"), cx).map(|kind| (kind, &s3.common))
            } else if let Some(spec) = &source.schedule {
                kinds::schedule(spec, &at.key("schedule"), cx).map(|kind| (kind, &spec.common))
            } else if let Some(spec) = &source.webhook {
                kinds::webhook(spec, &at.key("webhook"), cx).map(|kind| (kind, &spec.common))
            } else {
                source.topic.as_ref().map(|t| (SourceKind::Topic { topic: t.name.0.clone() }, &t.common))
            };
            match found {
                Some((kind, common)) => {
                    self.add(&name.0, kind, common, &at, cx);
                }
                None => {
                    self.broken.insert(name.0.clone());
                }
            }
        }
    }

    /// Adds a source, or finds the equal one that is there; `None` after an error.
    pub fn add(
        &mut self,
        name: &str,
        kind: SourceKind,
        common: &Common,
        at: &At<'_>,
        cx: &mut Context<'_>,
    ) -> Option<SourceName> {
        let spec = SourceSpec {
            name: SourceName::new(name),
            key: key_rule(common, &kind, at, cx),
            kind,
            dedup: dedup_rule(common),
            decode: match common.decode {
                DecodeWord::Auto => Decode::Auto,
                DecodeWord::Json => Decode::Json,
                DecodeWord::Bytes => Decode::Bytes,
            },
            enabled: common.enabled,
        };
        if let Some((index, line)) = self.names.get(name) {
            if self.list[*index] == spec {
                return Some(spec.name);
            }
            let message =
                format!("this differs from the source `{name}` in line {line}, and has the same name");
            cx.error(Code::Conflict, at.key, &at.within, message).help =
                Some("name it under `sources:`".into());
            return None;
        }
        for door in doors(&spec.kind) {
            if let Some(other) = self.doors.get(&door) {
                let message = format!("this is the same {} as the source `{other}`", door.0);
                let help = if self.declared.contains(other.as_str()) {
                    format!("several bindings can read one source: write `source: {other}`")
                } else {
                    "several bindings can read one source: name it once under `sources:`".into()
                };
                cx.error(Code::Conflict, at.key, &at.within, message).help = Some(help);
                return None;
            }
            self.doors.insert(door, spec.name.clone());
        }
        self.names.insert(name.to_owned(), (self.list.len(), at.key.line));
        self.list.push(spec.clone());
        Some(spec.name)
    }

    /// The source that `source: <name>` means; `None` after an error, or where the source itself was refused.
    pub fn named(&self, name: &str, at: &At<'_>, cx: &mut Context<'_>) -> Option<SourceName> {
        if self.names.contains_key(name) && self.declared.contains(name) {
            return Some(SourceName::new(name));
        }
        if !self.broken.contains(name) && !self.declared.contains(name) {
            let known: Vec<&str> = self.declared.iter().map(String::as_str).collect();
            let help = nearest(name, &known).map_or_else(
                || {
                    format!(
                        "name it under `sources:`; there {}",
                        if known.is_empty() {
                            "is nothing yet".into()
                        } else {
                            format!("are {}", known.join(", "))
                        }
                    )
                },
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("there is no source `{}`", shown(name));
            cx.error(Code::BadValue, at.node.at, &at.within, message).help = Some(help);
        }
        None
    }

    /// What a source of this register is.
    pub fn spec(&self, name: &SourceName) -> Option<&SourceSpec> {
        self.names.get(name.as_str()).and_then(|(index, _)| self.list.get(*index))
    }

    /// The source of a topic of our own bus: the one that is there, or a new one.
    pub fn topic(&mut self, topic: &str) -> SourceName {
        let door = ("topic", topic.to_owned());
        if let Some(source) = self.doors.get(&door) {
            return source.clone();
        }
        let name = SourceName::new(format!("topic.{topic}"));
        self.doors.insert(door, name.clone());
        self.list.push(SourceSpec {
            name: name.clone(),
            kind: SourceKind::Topic { topic: topic.to_owned() },
            key: KeyRule::Default,
            dedup: DedupRule::Default,
            decode: Decode::Auto,
            enabled: true,
        });
        name
    }

    /// The consumer group of a source whose file names none.
    pub fn group(&self, source: &str) -> String {
        format!("bellwire.{}.{source}", self.namespace)
    }

    /// Judges a bucket: by which way its notifications arrive. `None` after an error, or where the carrier was refused.
    pub fn bucket(&self, spec: &S3, at: &At<'_>, cx: &mut Context<'_>) -> Option<SourceKind> {
        let bucket = spec.bucket.0.clone();
        let via = spec.via.0.as_str();
        if via == "webhook" {
            return Some(SourceKind::S3 { bucket, via: None });
        }
        let at = at.key("via");
        match self.kinds.get(via) {
            Some(&("kafka" | "rabbitmq" | "sqs")) => {
                return Some(SourceKind::S3 { bucket, via: Some(SourceName::new(via)) });
            }
            Some(other) => {
                let message =
                    format!("`{via}` is a `{other}` source, whose events are no messages of a broker");
                cx.error(Code::Conflict, at.node.at, &at.within, message).help = Some(
                    "notifications come by `webhook`, or in a `kafka`, `rabbitmq` or `sqs` source".into(),
                );
            }
            None if self.declared.contains(via) => {}
            None => {
                let carries = |(name, kind): (&'_ String, &&str)| {
                    matches!(*kind, "kafka" | "rabbitmq" | "sqs").then(|| name.clone())
                };
                let carriers: Vec<String> = self.kinds.iter().filter_map(carries).collect();
                let mut words: Vec<&str> = carriers.iter().map(String::as_str).collect();
                words.push("webhook");
                let help = nearest(via, &words).map_or_else(
                    || {
                        "name a `kafka`, `rabbitmq` or `sqs` source under `sources:`, or write `webhook`"
                            .into()
                    },
                    |near| format!("did you mean `{near}`?"),
                );
                let message = format!("there is no source `{}`", shown(via));
                cx.error(Code::BadValue, at.node.at, &at.within, message).help = Some(help);
            }
        }
        None
    }

    pub fn finish(self) -> Vec<SourceSpec> {
        self.list
    }
}

/// What arrivals a source takes, where no other source can take them too. Two readers of one queue, or of one topic in
/// one group, would share its messages between them.
fn doors(kind: &SourceKind) -> Vec<(&'static str, String)> {
    match kind {
        SourceKind::S3 { bucket, via: None } => vec![("bucket", bucket.clone())],
        SourceKind::S3 { bucket, via: Some(via) } => vec![("bucket", format!("{bucket} via {via}"))],
        SourceKind::Webhook(spec) => vec![("path", spec.path.clone())],
        SourceKind::Topic { topic } => vec![("topic", topic.clone())],
        SourceKind::Kafka(spec) => {
            let mut servers = spec.cluster.bootstrap_servers.clone();
            servers.sort();
            let place = format!("{} {}", servers.join(","), spec.group_id);
            spec.topics.iter().map(|topic| ("topic and group", format!("{place} {topic}"))).collect()
        }
        SourceKind::Rabbitmq(spec) => vec![("queue", format!("{} {}", spec.url.expose(), spec.queue))],
        SourceKind::Sqs(spec) => {
            vec![(
                "queue",
                format!("{} {}", spec.queue.endpoint.as_deref().unwrap_or_default(), spec.queue.queue),
            )]
        }
        SourceKind::Schedule(_) | SourceKind::Outbox => Vec::new(),
    }
}

/// The kind of a source as the file calls it.
fn word(source: &Source) -> &'static str {
    let there = [
        ("kafka", source.kafka.is_some()),
        ("rabbitmq", source.rabbitmq.is_some()),
        ("sqs", source.sqs.is_some()),
        ("s3", source.s3.is_some()),
        ("schedule", source.schedule.is_some()),
        ("webhook", source.webhook.is_some()),
    ];
    there.iter().find(|(_, there)| *there).map_or("topic", |(word, _)| word)
}

/// `/github/main` is the source `webhook.github-main`.
pub(super) fn webhook_name(path: &str) -> String {
    let word = path.trim_start_matches('/').to_lowercase();
    let word: String = word.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("webhook.{word}")
}

/// The name of something outside as a part of a name of ours.
pub(super) fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

fn key_rule(common: &Common, kind: &SourceKind, at: &At<'_>, cx: &mut Context<'_>) -> KeyRule {
    match &common.key {
        None => KeyRule::Default,
        Some(path) if path.0 == "none" => KeyRule::None,
        Some(path) if path.0 == "partition" => {
            if !matches!(kind, SourceKind::Kafka(_)) {
                let word = kind.word();
                let at = if at.node.entry(word).is_some() { at.key(word).key("key") } else { at.key("key") };
                let message = format!("`key: partition` is for `kafka`: a `{word}` source has no partitions");
                cx.error(Code::BadValue, at.node.at, &at.within, message).help =
                    Some("write a path into the envelope such as `data.order_id`, or `none`".into());
            }
            KeyRule::Partition
        }
        Some(path) => KeyRule::Path(path.0.clone()),
    }
}

fn dedup_rule(common: &Common) -> DedupRule {
    match &common.dedup {
        Some(Dedup::Off(false)) => DedupRule::Off,
        Some(Dedup::Key(rule)) => DedupRule::Path { path: rule.key.0.clone(), window: rule.window.0 },
        None | Some(Dedup::Off(true)) => DedupRule::Default,
    }
}
