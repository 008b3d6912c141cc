//! Kafka, RabbitMQ and SQS: addresses, logins and certificates, judged and read. The same for sources and
//! destinations.

use std::collections::BTreeMap;

use bellwire_schemas::Timestamp;
use bellwire_schemas::brokers::{
    KafkaCluster, KafkaSource, LostPositions, QueueType, RabbitmqDeclare, RabbitmqSource, Sasl,
    SaslMechanism, SqsQueue, SqsSource, StartingPosition, Tls, TlsFiles,
};
use bellwire_schemas::service::{Secret, SourceKind};

use super::url;
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::shape::words::Brokers;
use crate::shape::{
    Kafka, LostWord, MechanismWord, Prefetch, Queue, QueueWord, Rabbitmq, Sasl as SaslShape, Tls as TlsShape,
    TlsFiles as FilesShape,
};
use crate::tree::{At, join};

/// What a PEM text begins with (RFC 7468, section 2).
const PEM: &str = "-----BEGIN ";

/// Judges a `kafka` source; `group` is its group where the file names none.
pub(super) fn kafka(spec: &Kafka, group: String, at: &At<'_>, cx: &mut Context<'_>) -> Option<SourceKind> {
    let topics: Vec<String> = spec.topic.iter().map(|topic| topic.0.clone()).collect();
    if let Some(twice) = (1..topics.len()).find(|i| topics[..*i].contains(&topics[*i])) {
        let at = at.key("topic").item(twice);
        cx.error(Code::Conflict, at.node.at, &at.within, "this topic is listed twice".into());
        return None;
    }
    let position = match spec.starting_position.0.as_str() {
        "latest" => Some(StartingPosition::Latest),
        "earliest" => Some(StartingPosition::Earliest),
        time => match Timestamp::parse(time) {
            Ok(time) => Some(StartingPosition::At(time)),
            Err(e) => {
                let at = at.key("starting_position");
                cx.error(Code::BadValue, at.node.at, &at.within, e);
                None
            }
        },
    };
    let mut cluster = cluster(&spec.bootstrap_servers, spec.sasl.as_ref(), &spec.tls, at, cx)?;
    cluster.librdkafka = librdkafka(at);
    Some(SourceKind::Kafka(KafkaSource {
        cluster,
        topics,
        group_id: spec.group_id.as_ref().map_or(group, |group| group.0.clone()),
        starting_position: position?,
        lost_positions: match spec.lost_positions {
            LostWord::Halt => LostPositions::Halt,
            LostWord::Skip => LostPositions::Skip,
        },
    }))
}

/// Judges a `rabbitmq` source.
pub(super) fn rabbitmq(spec: &Rabbitmq, at: &At<'_>, cx: &mut Context<'_>) -> Option<SourceKind> {
    let (url, tls) = amqp(spec.tls.as_ref(), at, cx)?;
    if let Some(declare) = &spec.declare
        && declare.exchange.is_none()
        && !declare.routing_keys.is_empty()
    {
        let at = at.key("declare").key("routing_keys");
        cx.error(Code::Conflict, at.key, &at.within, "`routing_keys` belong to an `exchange`".into()).help =
            Some("without one the queue is reached by its name alone: take them out".into());
        return None;
    }
    Some(SourceKind::Rabbitmq(RabbitmqSource {
        url,
        queue: spec.queue.0.clone(),
        prefetch: match spec.prefetch {
            Prefetch::Count(count) => Some(count),
            Prefetch::Word(_) => None,
        },
        tls,
        declare: spec.declare.as_ref().map(|declare| RabbitmqDeclare {
            queue_type: match declare.queue_type {
                QueueWord::Quorum => QueueType::Quorum,
                QueueWord::Classic => QueueType::Classic,
            },
            exchange: declare.exchange.as_ref().map(|exchange| exchange.0.clone()),
            routing_keys: declare.routing_keys.iter().map(|key| key.0.clone()).collect(),
        }),
    }))
}

/// Judges an `sqs` source.
pub(super) fn sqs(queue: &Queue, at: &At<'_>, cx: &mut Context<'_>) -> Option<SourceKind> {
    sqs_queue(queue, at, cx).map(|queue| SourceKind::Sqs(SqsSource { queue }))
}

/// Judges a queue of SQS.
pub(super) fn sqs_queue(queue: &Queue, at: &At<'_>, cx: &mut Context<'_>) -> Option<SqsQueue> {
    if let (Some(said), Some(known)) = (&queue.region, region_of(&queue.queue.0))
        && said.0 != known
    {
        let at = at.key("region");
        let message = format!("the queue is in `{}`, as its name says", shown(known));
        cx.error(Code::Conflict, at.node.at, &at.within, message).help = Some("take `region` out".into());
        return None;
    }
    Some(SqsQueue {
        queue: queue.queue.0.clone(),
        endpoint: queue.endpoint.as_ref().map(|endpoint| endpoint.0.clone()),
        region: queue.region.as_ref().map(|region| region.0.clone()),
    })
}

/// The name of a queue: the end of its URL or ARN.
pub(super) fn queue_name(queue: &str) -> &str {
    queue.rsplit(['/', ':']).next().unwrap_or(queue)
}

/// Whether a queue is one of those that keep the order of a message group: their names end so, by SQS's own rule.
pub(crate) fn is_fifo(queue: &str) -> bool {
    queue.ends_with(".fifo")
}

/// The region that an ARN, or a URL of AWS (`https://sqs.<region>.amazonaws.com/…`), names.
fn region_of(queue: &str) -> Option<&str> {
    if let Some(arn) = queue.strip_prefix("arn:") {
        return arn.split(':').nth(2);
    }
    let host = super::host_of(queue);
    host.strip_prefix("sqs.")?.split_once(".amazonaws.com").map(|(region, _)| region)
}

/// Judges how a Kafka cluster is reached.
pub(super) fn cluster(
    servers: &[Brokers],
    sasl: Option<&SaslShape>,
    tls: &TlsShape,
    at: &At<'_>,
    cx: &mut Context<'_>,
) -> Option<KafkaCluster> {
    let tls = match tls {
        TlsShape::Word(false) => Tls::Off,
        TlsShape::Word(true) => Tls::On(TlsFiles::default()),
        TlsShape::Files(files) => Tls::On(tls_files(files, at, cx)?),
    };
    Some(KafkaCluster {
        bootstrap_servers: servers.iter().flat_map(|s| s.0.split(',')).map(str::to_owned).collect(),
        sasl: sasl.map(|sasl| Sasl {
            mechanism: match sasl.mechanism {
                MechanismWord::Plain => SaslMechanism::Plain,
                MechanismWord::ScramSha256 => SaslMechanism::ScramSha256,
                MechanismWord::ScramSha512 => SaslMechanism::ScramSha512,
            },
            username: sasl.username.0.clone(),
            password: Secret::new(&*sasl.password.0),
        }),
        tls,
        librdkafka: BTreeMap::new(),
    })
}

/// Judges `url` and `tls` of a RabbitMQ server.
pub(super) fn amqp(files: Option<&FilesShape>, at: &At<'_>, cx: &mut Context<'_>) -> Option<(Secret, Tls)> {
    let (url, encrypted) = url::amqp(at, cx)?;
    let Some(files) = files else {
        return Some((url, if encrypted { Tls::On(TlsFiles::default()) } else { Tls::Off }));
    };
    if !encrypted {
        let at = at.key("tls");
        cx.error(Code::Conflict, at.key, &at.within, "`tls` belongs to an `amqps` URL".into()).help =
            Some("write `amqps://…` in `url`, or take `tls` out".into());
        return None;
    }
    tls_files(files, at, cx).map(|files| (url, Tls::On(files)))
}

/// Reads the certificates of the `tls` of a map.
fn tls_files(files: &FilesShape, at: &At<'_>, cx: &mut Context<'_>) -> Option<TlsFiles> {
    let at = at.key("tls");
    let pair = [("cert", files.cert.is_some()), ("key", files.key.is_some())];
    let said = |key: &str, cx: &Context<'_>| cx.dropped(&join(&at.path, key));
    if let [(there, true), (absent, false)] | [(absent, false), (there, true)] = pair {
        if !said(absent, cx) {
            let place = at.key(there);
            let message = format!("`{there}` without `{absent}` is half a pair");
            cx.error(Code::MissingKey, place.key, &at.path, message).help =
                Some(format!("write both, or take `{there}` out"));
        }
        return None;
    }
    let ca = files.ca.as_ref().map(|text| pem(&text.0, &at.key("ca"), cx));
    let cert = files.cert.as_ref().map(|text| pem(&text.0, &at.key("cert"), cx));
    let key = files.key.as_ref().map(|text| private_key(&text.0, &at.key("key"), cx));
    // An inner `None` is an error that was said.
    Some(TlsFiles { ca: all(ca)?, cert: all(cert)?, key: all(key)? })
}

fn all<T>(found: Option<Option<T>>) -> Option<Option<T>> {
    match found {
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
        None => Some(None),
    }
}

/// A certificate as PEM text, or the file that holds it.
fn pem(text: &str, at: &At<'_>, cx: &mut Context<'_>) -> Option<String> {
    if text.contains(PEM) {
        return Some(text.to_owned());
    }
    let full = cx.resolve(text);
    let message = match cx.env.read_file(&full) {
        Ok(found) => {
            cx.read.insert(full);
            match String::from_utf8(found.bytes) {
                Ok(text) if text.contains(PEM) => return Some(text),
                _ => format!("the file `{}` is no certificate in PEM", shown(text)),
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            format!("the file `{}` is not there", shown(text))
        }
        Err(e) => format!("the file `{}` cannot be read: {}", shown(text), e.kind()),
    };
    cx.error(Code::BadValue, at.node.at, &at.within, message).help =
        Some("write a path relative to this file, or the PEM text itself".into());
    None
}

fn private_key(text: &str, at: &At<'_>, cx: &mut Context<'_>) -> Option<Secret> {
    if text.contains(PEM) {
        return Some(Secret::new(text));
    }
    cx.error(Code::BadValue, at.key, &at.within, "`key` is no private key in PEM".into()).help =
        Some("write a reference to its text: `${file:client.key}`".into());
    None
}

/// The settings as they are written: `1.10` stays `1.10`.
fn librdkafka(at: &At<'_>) -> BTreeMap<String, String> {
    let map = at.node.get("librdkafka").map(crate::tree::Node::entries).unwrap_or_default();
    map.iter().map(|entry| (entry.key.clone(), super::functions::variable(&entry.value))).collect()
}
