//! The kinds of source and of outlet, one line each, and the table of entrances they make.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bellwire_ledger::Ledger;
use bellwire_schemas::service::{SourceKind, SourceSpec, Verify};
use bellwire_schemas::{Clock, SourceName};

use crate::pressure::Share;
use crate::{Connector, Door, object_store, timer, topic, webhook};

/// Path prefix of webhooks.
pub(crate) const HOOKS: &str = "/hooks";
/// Path prefix of topics.
pub(crate) const TOPICS: &str = "/topics";
/// Path of object-store notifications.
pub(crate) const S3: &str = "/s3";

/// What a source opens.
pub(crate) enum Opened {
    /// A door of its own.
    Door { path: String, auth: Auth, door: Arc<dyn Door> },
    /// A share of the object-store door.
    Bucket,
    /// A connector that is asked.
    Pull(Arc<dyn Pull>),
    /// Nothing: its events are made inside, or come in another source's messages.
    Inside,
}

/// A source that is asked for messages, ready to be connected.
pub(crate) trait Pull: Send + Sync + 'static {
    /// Makes a connector; it reaches out when it is first asked.
    fn connect(&self, around: &Around) -> Box<dyn Connector>;

    /// The timer, for a schedule.
    fn timer(&self) -> Option<&timer::Timer> {
        None
    }
}

/// What a connector finds around it.
#[derive(Clone)]
pub(crate) struct Around {
    /// Where positions are kept.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The time.
    pub(crate) clock: Clock,
    /// This controller's name, the same after a restart and unlike any other controller's.
    #[allow(dead_code, reason = "for connectors that are members of a group")]
    pub(crate) controller: String,
    /// How much may be buffered.
    #[allow(dead_code, reason = "for connectors that read ahead")]
    pub(crate) share: Share,
}

/// Who checks a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// The door itself, by signature.
    Door,
    /// The HTTP server, by a token with the role `publish`.
    Token,
}

/// Opens a source; the line of its kind says how.
pub(crate) fn open(spec: &Arc<SourceSpec>) -> Result<Opened, String> {
    match &spec.kind {
        SourceKind::Topic { topic } => topic::open(spec, topic),
        SourceKind::Webhook(webhook) => webhook::open(spec, webhook),
        SourceKind::S3 { via: None, .. } => Ok(Opened::Bucket),
        SourceKind::S3 { via: Some(_), .. } => Ok(Opened::Inside),
        SourceKind::Schedule(schedule) => timer::open(spec, schedule),
        #[cfg(feature = "kafka")]
        SourceKind::Kafka(kafka) => crate::kafka::open(spec, kafka),
        #[cfg(feature = "rabbitmq")]
        SourceKind::Rabbitmq(rabbitmq) => crate::rabbitmq::open(spec, rabbitmq),
        #[cfg(feature = "sqs")]
        SourceKind::Sqs(sqs) => crate::sqs::open(spec, sqs),
        #[allow(unreachable_patterns, reason = "kinds whose feature is on have a line above")]
        SourceKind::Kafka(_) | SourceKind::Rabbitmq(_) | SourceKind::Sqs(_) => Err(format!(
            "this program was built without `{}`: build it with its default features",
            spec.kind.word()
        )),
        SourceKind::Outbox => Ok(Opened::Inside),
    }
}

/// All sources of a configuration, opened.
#[derive(Default)]
pub(crate) struct Table {
    /// The sources in the order of the configuration.
    pub(crate) sources: Vec<Arc<SourceSpec>>,
    /// Doors by path.
    pub(crate) entrances: HashMap<String, Entrance>,
    /// Sources that are asked.
    pub(crate) pulls: BTreeMap<SourceName, Arc<dyn Pull>>,
    /// Buckets whose notifications come in the messages of those.
    pub(crate) carried: object_store::Carried,
}

/// A door and what is known of it.
#[derive(Clone)]
pub(crate) struct Entrance {
    /// The source, or the path of a door that several share.
    pub(crate) name: String,
    pub(crate) auth: Auth,
    pub(crate) door: Arc<dyn Door>,
}

impl Table {
    /// Opens all sources; all that is wrong comes at once. A source that is named twice alike is one source.
    pub(crate) fn open(specs: Vec<SourceSpec>) -> Result<Self, Vec<String>> {
        let mut table = Self::default();
        for spec in specs {
            if !table.sources.iter().any(|other| **other == spec) {
                table.sources.push(Arc::new(spec));
            }
        }
        let mut wrong = Vec::new();
        let mut buckets = Vec::new();
        for (index, spec) in table.sources.iter().enumerate() {
            if table.sources[..index].iter().any(|other| other.name == spec.name) {
                wrong.push(format!("source `{}` is declared twice, differently", spec.name));
                continue;
            }
            match open(spec) {
                Ok(Opened::Door { path, auth, door }) => {
                    let entrance = Entrance { name: spec.name.to_string(), auth, door };
                    if let Some(other) = table.entrances.insert(path.clone(), entrance) {
                        wrong.push(format!(
                            "sources `{}` and `{}` share the path {path}",
                            other.name, spec.name
                        ));
                    }
                }
                Ok(Opened::Bucket) => buckets.push(spec.clone()),
                Ok(Opened::Inside) => {}
                Ok(Opened::Pull(pull)) => {
                    table.pulls.insert(spec.name.clone(), pull);
                }
                Err(error) => wrong.push(format!("source `{}`: {error}", spec.name)),
            }
        }
        match object_store::Carried::new(&table.sources) {
            Ok(carried) => table.carried = carried,
            Err(errors) => wrong.extend(errors),
        }
        if !buckets.is_empty() {
            let door = Arc::new(object_store::StoreDoor::new(&buckets));
            table.entrances.insert(S3.into(), Entrance { name: S3.into(), auth: Auth::Token, door });
        }
        if wrong.is_empty() { Ok(table) } else { Err(wrong) }
    }

    /// The door at a path; a trailing slash is forgiven.
    pub(crate) fn entrance(&self, path: &str) -> Option<&Entrance> {
        self.entrances.get(path).or_else(|| self.entrances.get(path.strip_suffix('/')?))
    }

    /// The timer of a schedule.
    pub(crate) fn timer(&self, name: &SourceName) -> Option<&timer::Timer> {
        self.pulls.get(name)?.timer()
    }

    /// A source by name.
    pub(crate) fn source(&self, name: &SourceName) -> Option<&Arc<SourceSpec>> {
        self.sources.iter().find(|spec| spec.name == *name)
    }
}

/// Where events of a source enter, for people.
pub(crate) fn entrance_of(spec: &SourceSpec) -> String {
    match &spec.kind {
        SourceKind::Topic { topic } => format!("POST {TOPICS}/{topic}"),
        SourceKind::Webhook(webhook) => format!("POST {HOOKS}{}{}", webhook.path, proof_of(&webhook.verify)),
        SourceKind::S3 { via: None, .. } => format!("POST {S3}"),
        SourceKind::S3 { via: Some(carrier), .. } => format!("notifications in {carrier}"),
        SourceKind::Schedule(_) => "schedule".to_owned(),
        SourceKind::Kafka(kafka) => format!("topic {}", kafka.topics.join(", ")),
        SourceKind::Rabbitmq(rabbitmq) => format!("queue {}", rabbitmq.queue),
        SourceKind::Sqs(sqs) => format!("queue {}", sqs.queue.queue),
        SourceKind::Outbox => "on_success, on_failure".to_owned(),
    }
}

/// What a webhook's sender has to prove, in the words of the configuration.
fn proof_of(verify: &Verify) -> &'static str {
    match verify {
        Verify::Github => "   signed: github",
        Verify::Stripe => "   signed: stripe",
        Verify::Slack => "   signed: slack",
        Verify::StandardWebhooks => "   signed: standard-webhooks",
        Verify::Hmac(_) => "   signed: hmac",
        Verify::Token => "   token",
        Verify::None => "",
    }
}
