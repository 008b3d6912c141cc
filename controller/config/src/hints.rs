//! What a wrong key or value probably meant: words of other products, words of later releases, typing errors.

use crate::tree::{Kind, Node};

/// Keys of the surface that this release refuses: definition, key, what to do meanwhile.
const LATER_KEYS: &[(&str, &str, &str)] = &[
    ("", "workflows", "until then functions call each other through a `topic`"),
    ("Source", "http", "until then `webhook` takes requests, without an answer from the function"),
    ("Event", "http", "until then `webhook` takes requests, without an answer from the function"),
    ("Sending", "workflow", "until then a `function` or a `topic` can go on with it"),
    ("Function", "build", "until then install into a `.venv` or `node_modules` beside the code"),
    ("Function", "network", ""),
    ("Function", "rollout", ""),
    ("Telemetry", "otlp", "metrics are at `/metrics` of the admin door"),
    ("Limits", "namespaces", ""),
    ("Token", "namespaces", "a token holds for the one namespace of this controller"),
    ("Auth", "oauth", "until then there are `bearer` and `basic`"),
];

/// Words of other products: definitions, the word without `_` and `-` in lower case, what to write, where it is from.
/// `{v}` is the value, `{v+1}` one more.
const FOREIGN: &[(&[&str], &str, &str, &str)] = &[
    (&[""], "provider", "`defaults: { function: … }`", "serverless.yml"),
    (&[""], "custom", "keys that start with `x-`", "serverless.yml"),
    (&[""], "stepfunctions", "`workflows`, not supported yet", "serverless.yml"),
    (&[""], "frameworkversion", "nothing", "serverless.yml"),
    (&[""], "resources", "nothing: resources are made elsewhere", "serverless.yml, SAM"),
    (&[""], "plugins", "nothing", "serverless.yml"),
    (&[""], "package", "`code` at the function", "serverless.yml"),
    (&[""], "globals", "`defaults: { function: … }`", "SAM"),
    (&[""], "name", "`service: {v}`", "other tools"),
    (FUNCTION, "memorysize", "`memory: {v}MB`", "serverless.yml, SAM"),
    (FUNCTION, "codeuri", "`code: {v}`", "SAM"),
    (FUNCTION, "env", "`environment`", "other tools"),
    (FUNCTION, "reservedconcurrency", "`concurrency: {v}`", "serverless.yml"),
    (FUNCTION, "reservedconcurrentexecutions", "`concurrency: {v}`", "SAM"),
    (FUNCTION, "provisionedconcurrency", "`warm: {v}`", "serverless.yml"),
    (FUNCTION, "deploymentpreference", "`rollout`, not supported yet", "SAM"),
    (FUNCTION, "layers", "nothing: put the files into `code`", "Lambda"),
    (FUNCTION, "role", "nothing: there is no IAM here", "Lambda"),
    (FUNCTION, "vpc", "nothing: a worker has its host's network", "Lambda"),
    (FUNCTION, "deadletterconfig", NO_DLQ, "Lambda"),
    (FUNCTION, "destinations", "`on_success` and `on_failure` at each entry of `events:`", "serverless.yml"),
    (FUNCTION, "eventinvokeconfig", "`on_success` and `on_failure` at each entry of `events:`", "SAM"),
    (FUNCTION, "ephemeralstoragesize", "nothing", "serverless.yml"),
    (FUNCTION, "numworkers", "nothing: `concurrency` is enough", "nuclio"),
    (EVENT, "batchsize", "`batch: {v}`", "serverless.yml: batchSize"),
    (EVENT, "maximumbatchingwindow", "`batch: { window: {v}s }`", "serverless.yml"),
    (EVENT, "maximumbatchingwindowinseconds", "`batch: { window: {v}s }`", "Lambda"),
    (EVENT, "bisectbatchonfunctionerror", "`batch: { bisect: {v} }`", "Lambda"),
    (EVENT, "functionresponsetype", "nothing: `batchItemFailures` is always honoured", "serverless.yml"),
    (EVENT, "functionresponsetypes", "nothing: `batchItemFailures` is always honoured", "SAM"),
    (EVENT, "batchwindow", "`batch: { window: {v} }`", "nuclio, other tools"),
    (EVENT, "batchevents", "`batch: { size: …, window: … }`", "Inngest"),
    (EVENT, "throttle", "`rate: 100/s`", "Inngest"),
    (EVENT, "ratelimit", "`rate: 100/s`: what is over it waits", "other tools"),
    (EVENT, "invocationratelimitpersecond", "`rate: {v}/s`", "EventBridge"),
    (EVENT, "order", "`ordering: key`", "other tools"),
    (EVENT, "ordered", "`ordering: key`", "other tools"),
    (EVENT, "filterpatterns", "`filter`", "serverless.yml"),
    (EVENT, "filtercriteria", "`filter`", "SAM"),
    (EVENT, "eventpattern", "`filter`", "EventBridge"),
    (EVENT, "pattern", "`filter`", "SAM"),
    (EVENT, "maximumretryattempts", "`retry: { attempts: {v+1} }`: the first try counts here", "Lambda"),
    (EVENT, "maximumeventage", "`max_age: {v}s`", "Lambda"),
    (EVENT, "maximumeventageinseconds", "`max_age: {v}s`", "Lambda"),
    (EVENT, "maximumrecordageinseconds", "`max_age: {v}s`", "Lambda"),
    (EVENT, "maximumconcurrency", "`concurrency: {v}`", "Lambda"),
    (EVENT, "scalingconfig", "`concurrency`", "Lambda"),
    (EVENT, "parallelizationfactor", PARALLEL, "Lambda"),
    (EVENT, "provisionedpollerconfig", "nothing: pollers follow the work", "Lambda"),
    (EVENT, "visibilitytimeout", "nothing: it is extended while it must be", "SQS"),
    (EVENT, "workerallocationmode", PARALLEL, "nuclio"),
    (EVENT, "numworkers", PARALLEL, "nuclio"),
    (EVENT, "startingposition", "`start: earliest`, `now` or a time", "Lambda"),
    (EVENT, "destinations", "`on_success` and `on_failure`", "Lambda"),
    (EVENT, "destinationconfig", "`on_success` and `on_failure`", "Lambda"),
    (EVENT, "deadlettersink", NO_DLQ, "Knative"),
    (EVENT, "deadletterconfig", NO_DLQ, "SAM"),
    (EVENT, "delivery", "`retry`", "Knative"),
    (EVENT, "httpapi", "`webhook: { path: …, verify: … }`", "serverless.yml"),
    (EVENT, "eventbridge", "`topic`", "serverless.yml"),
    (EVENT, "sns", "`topic`", "serverless.yml"),
    (EVENT, "stream", "`kafka`", "serverless.yml"),
    (EVENT, "msk", "`kafka: { bootstrap_servers: […], topic: … }`", "serverless.yml"),
    (EVENT, "selfmanagedkafka", "`kafka: { bootstrap_servers: […], topic: … }`", "SAM"),
    (EVENT, "mq", "`rabbitmq: { url: …, queue: … }`", "SAM"),
    (EVENT, "cron", "`schedule: {v}`", "other tools"),
    (&["EventDefaults"], "name", EACH_EVENT, "no default can name it"),
    (&["FunctionDefaults"], "events", EACH_FUNCTION, "a binding has one function"),
    (&["FunctionDefaults"], "handler", EACH_FUNCTION, "it says what one function is"),
    (&["FunctionDefaults"], "command", EACH_FUNCTION, "it says what one function is"),
    (&["FunctionDefaults"], "url", EACH_FUNCTION, "it says what one function is"),
    (&["EventDefaults"], "source", EACH_EVENT, "it says where one binding reads"),
    (&["EventDefaults"], "kafka", EACH_EVENT, "it says where one binding reads"),
    (&["EventDefaults"], "rabbitmq", EACH_EVENT, "it says where one binding reads"),
    (&["EventDefaults"], "sqs", EACH_EVENT, "it says where one binding reads"),
    (&["EventDefaults"], "s3", EACH_EVENT, "it says where one binding reads"),
    (&["EventDefaults"], "schedule", EACH_EVENT, "it says where one binding reads"),
    (&["EventDefaults"], "webhook", EACH_EVENT, "it says where one binding reads"),
    (&["EventDefaults"], "topic", EACH_EVENT, "it says where one binding reads"),
    (KAFKA, "brokers", "`bootstrap_servers`", "other tools"),
    (KAFKA, "arn", "`bootstrap_servers`: the brokers' addresses", "serverless.yml"),
    (KAFKA, "stream", "`bootstrap_servers`: the brokers' addresses", "SAM"),
    (KAFKA, "topics", "`topic: {v}`", "SAM"),
    (KAFKA, "consumergroupid", "`group_id: {v}`", "Lambda"),
    (KAFKA, "consumergroup", "`group_id: {v}`", "other tools"),
    (KAFKA, "group", "`group_id: {v}`", "other tools"),
    (KAFKA, "autooffsetreset", "`starting_position: {v}`", "Kafka"),
    (KAFKA, "startingpositiontimestamp", "`starting_position` and a time", "Lambda"),
    (
        KAFKA,
        "accessconfigurations",
        "`sasl: { mechanism: …, username: …, password: … }` and `tls`",
        "serverless.yml",
    ),
    (
        KAFKA,
        "sourceaccessconfigurations",
        "`sasl: { mechanism: …, username: …, password: … }` and `tls`",
        "SAM",
    ),
    (KAFKA, "saslmechanism", "`sasl: { mechanism: {v} }`", "other tools"),
    (KAFKA, "securityprotocol", "`sasl` and `tls`", "Kafka"),
    (KAFKA, "ssl", "`tls: {v}`", "other tools"),
    (RABBITMQ, "queues", "`queue`, one for each source", "SAM"),
    (RABBITMQ, "virtualhost", "the path of `url`: `amqp://…/{v}`", "SAM"),
    (RABBITMQ, "vhost", "the path of `url`: `amqp://…/{v}`", "other tools"),
    (RABBITMQ, "arn", "`url`", "serverless.yml"),
    (RABBITMQ, "broker", "`url`", "SAM"),
    (RABBITMQ, "host", "`url: amqp://user:${env:NAME}@{v}/vhost`", "other tools"),
    (RABBITMQ, "prefetchcount", "`prefetch: {v}`", "other tools"),
    (RABBITMQ, "basicauthusernamepassword", "`url: amqp://user:${env:NAME}@host/vhost`", "Lambda"),
    (RABBITMQ, "accessconfigurations", "`url: amqp://user:${env:NAME}@host/vhost`", "serverless.yml"),
    (RABBITMQ, "sourceaccessconfigurations", "`url: amqp://user:${env:NAME}@host/vhost`", "SAM"),
    (SQS, "arn", "`queue: {v}`", "serverless.yml"),
    (SQS, "url", "`queue: {v}`", "other tools"),
    (SQS, "queueurl", "`queue: {v}`", "AWS"),
    (SQS, "queuearn", "`queue: {v}`", "AWS"),
    (SQS, "queuename", "`queue`: its URL or ARN", "AWS"),
    (SQS, "endpointurl", "`endpoint: {v}`", "AWS"),
    (SQS, "visibilitytimeout", "nothing: it is extended while it must be", "SQS"),
    (SQS, "waittimeseconds", "nothing: polls are long", "SQS"),
    (&["Sending"], "type", "`{v}: …`", "serverless.yml"),
    (&["Sending"], "arn", "`sqs: {v}`", "serverless.yml"),
    (&["Sending"], "queue", "`sqs: {v}`", "other tools"),
    (&["Sending"], "s3", "`function`, `topic`, `destination`, `kafka`, `rabbitmq` or `sqs`", "Lambda"),
    (&["Sending"], "sns", "`topic`", "Lambda"),
    (&["TlsFiles"], "cacert", "`ca: {v}`", "other tools"),
    (&["TlsFiles"], "rootca", "`ca: {v}`", "other tools"),
    (&["Schedule"], "rate", "`expression: {v}`", "serverless.yml"),
    (&["Schedule"], "cron", "`expression: {v}`", "other tools"),
    (&["Schedule"], "scheduleexpression", "`expression: {v}`", "EventBridge Scheduler"),
    (&["Schedule"], "scheduleexpressiontimezone", "`timezone: {v}`", "EventBridge Scheduler"),
    (&["Schedule"], "flexibletimewindow", "`jitter`", "EventBridge Scheduler"),
    (&["S3", "S3Inline"], "rules", "`prefix` and `suffix`", "serverless.yml"),
    (&["S3", "S3Inline"], "events", "`event`", "SAM"),
    (&["S3", "S3Inline"], "existing", "nothing", "serverless.yml"),
    (BATCH, "batchsize", "`size: {v}`", "serverless.yml"),
    (BATCH, "maxsize", "`size: {v}`", "Inngest"),
    (BATCH, "maxbytes", "`bytes: {v}`", "other tools"),
    (BATCH, "maximumbatchingwindow", "`window: {v}s`", "serverless.yml"),
    (BATCH, "maximumbatchingwindowinseconds", "`window: {v}s`", "Lambda"),
    (BATCH, "timeout", "`window: {v}`", "Inngest"),
    (BATCH, "bisectbatchonfunctionerror", "`bisect: {v}`", "Lambda"),
    (&["Debounce"], "period", "`wait: {v}`", "Inngest"),
    (&["Debounce"], "timeout", "`max_wait: {v}`", "Inngest"),
    (&["Debounce"], "key", "`key` at the source", "Inngest"),
    (&["Retry"], "maximumretryattempts", "`attempts: {v+1}`: the first try counts here", "Lambda"),
    (&["Retry"], "maxattempts", "`attempts: {v}`", "Temporal, Step Functions"),
    (&["Retry"], "maximumattempts", "`attempts: {v}`", "Temporal"),
    (&["Retry"], "retry", "`attempts: {v+1}`: the first try counts here", "Knative"),
    (&["Retry"], "backoffdelay", "`min_delay`", "Knative"),
    (&["Retry"], "initialinterval", "`min_delay: {v}`", "Restate, Temporal"),
    (&["Retry"], "maxinterval", "`max_delay: {v}`", "Restate"),
    (&["Retry"], "maximuminterval", "`max_delay: {v}`", "Temporal"),
    (&["Retry"], "backoffpolicy", "nothing: waits double, with jitter", "Knative"),
    (&["Retry"], "backoffcoefficient", "nothing: waits double, with jitter", "Temporal"),
    (&["Retry"], "nonretryableerrortypes", "`non_retryable`", "Temporal"),
];

const EACH_FUNCTION: &str = "to stand at the function itself";
const EACH_EVENT: &str = "to stand at the entry of `events:` itself";
const FUNCTION: &[&str] = &["Function", "FunctionDefaults"];
const EVENT: &[&str] =
    &["Event", "EventDefaults", "Kafka", "Rabbitmq", "Sqs", "S3", "S3Inline", "Schedule", "Webhook", "Topic"];
const KAFKA: &[&str] = &["Kafka", "KafkaOut"];
const RABBITMQ: &[&str] = &["Rabbitmq", "RabbitmqOut"];
const SQS: &[&str] = &["Sqs", "Queue"];
/// Kinds of source, under which a delivery setting has no place.
const SOURCE_KINDS: &[&str] = &["Kafka", "Rabbitmq", "Sqs", "S3", "S3Inline", "Schedule", "Webhook", "Topic"];
const BATCH: &[&str] = &["Batch"];
const PARALLEL: &str = "nothing: all keys run side by side, as far as `concurrency` lets them";
const NO_DLQ: &str = "nothing: dead letters are always kept";

/// Keys that stand beside the kind key and are often written under it.
const POLICY: &[&str] = &[
    "filter",
    "batch",
    "ordering",
    "retry",
    "max_age",
    "concurrency",
    "rate",
    "debounce",
    "singleton",
    "input",
    "name",
    "on_success",
    "on_failure",
];

/// What to do instead of a key that this release refuses; `None` when it is not one of those.
pub(crate) fn later_key(definition: &str, key: &str) -> Option<&'static str> {
    let definition = match definition {
        "EventDefaults" => "Event",
        "FunctionDefaults" => "Function",
        other => other,
    };
    LATER_KEYS.iter().find(|(d, k, _)| *d == definition && *k == key).map(|(_, _, help)| *help)
}

/// The keys that this release refuses, for the reference page: definition and key.
pub(crate) fn later_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    LATER_KEYS.iter().map(|(definition, key, _)| (*definition, *key))
}

/// Whether a value belongs to the surface but not to this release: how it is called, and what to do meanwhile.
pub(crate) fn later_value(key: &str, within: &str, node: &Node) -> Option<(String, &'static str)> {
    let text = node.text();
    let written = |text: &str| format!("`{key}: {}`", crate::diagnostic::shown(text));
    match (key, &node.kind, text) {
        ("isolation", _, Some("required")) => Some((written("required"), "`best-effort` is what there is")),
        ("tls", Kind::Map(_), _) if within == "listen" => Some((
            "`tls` with a certificate".into(),
            "put a proxy that encrypts before the door, and say so with `tls: off`",
        )),
        ("input", _, Some(text)) if text.trim_start().starts_with("{%") => {
            Some(("`input` as JSONata".into(), "write constant JSON"))
        }
        _ => None,
    }
}

/// What an unknown key probably meant.
pub(crate) fn unknown_key(definition: &str, key: &str, value: &Node, known: &[&str]) -> Option<String> {
    let bare: String = key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect();
    if let Some(same) = known.iter().find(|k| k.replace('_', "") == bare) {
        return Some(format!("here it is `{same}`"));
    }
    if let Some((_, _, instead, origin)) =
        FOREIGN.iter().find(|(d, w, _, _)| *w == bare && d.contains(&definition))
    {
        let instead = fill(instead, value);
        let start = if instead.starts_with('`') { "here it is" } else { "here it needs" };
        return Some(format!("{start} {instead} ({origin})"));
    }
    if SOURCE_KINDS.contains(&definition) && POLICY.contains(&key) {
        return Some(format!("`{key}` stands beside the kind key, not under it: one level to the left"));
    }
    nearest(key, known).map(|word| format!("did you mean `{word}`?"))
}

/// What a value of another product is here.
pub(crate) fn foreign_value(text: &str) -> Option<&'static str> {
    match text {
        "TRIM_HORIZON" | "smallest" | "beginning" => Some("write `earliest`"),
        "LATEST" | "largest" | "end" => Some("write `latest`"),
        "AT_TIMESTAMP" => Some("write the time itself, such as `2026-01-31T07:00:00Z`"),
        _ => None,
    }
}

/// The word nearest to what was written, when it is near enough to be a typing error.
pub(crate) fn nearest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    let lower = text.to_lowercase();
    let far = (text.chars().count() / 3).clamp(1, 3);
    words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, &word.to_lowercase()), *word))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

fn fill(template: &str, value: &Node) -> String {
    let Some(scalar) = value.scalar() else { return template.replace(": {v}", "").replace(": {v+1}", "") };
    let more = scalar.value.as_i64().map_or_else(
        || "…".to_owned(),
        |n| {
            if n < 0 { "unlimited".to_owned() } else { n.saturating_add(1).to_string() }
        },
    );
    template.replace("{v+1}", &more).replace("{v}", &crate::diagnostic::shown(&scalar.raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_near_and_other_words_are_not() {
        assert_eq!(nearest("retyr", &["retry", "rate"]), Some("retry"));
        assert_eq!(nearest("Timeout", &["timeout"]), Some("timeout"));
        assert_eq!(nearest("banana", &["retry", "name"]), None);
    }
}
