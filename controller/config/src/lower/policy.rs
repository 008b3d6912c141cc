//! How an entry is delivered: what needs two keys at once, or the source.

use std::time::Duration;

use bellwire_schemas::service::{
    Batch, Debounce, KeyRule, Ordering, Rate, Singleton, SourceKind, SourceSpec,
};
use bellwire_schemas::{ByteSize, Exhausted, RetryPolicy, Span};

use super::brokers;
use crate::context::Context;
use crate::diagnostic::Code;
use crate::shape::words::Rate as RateText;
use crate::shape::{
    Attempts, Debounce as DebounceShape, EventDefaults, ExhaustedWord, OrderingWord, Retry, SingletonWord,
};
use crate::tree::At;

/// Longest `batch.window` (AWS Lambda, `MaximumBatchingWindowInSeconds`: up to 300).
const MAX_WINDOW: Duration = Duration::from_secs(300);

/// Smallest `batch.bytes`: below, hardly an event finds company.
const MIN_BYTES: ByteSize = ByteSize(1 << 10);

/// Bounds of `debounce`: shorter than the first is a batch's work, longer than the second a schedule's.
const DEBOUNCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 86_400));

/// Shortest `max_age`: with less, events would end as expired before anybody could have tried them.
const MIN_AGE: Duration = Duration::from_secs(1);

/// What can be said about an entry without its source.
pub(super) struct Policy {
    pub retry: RetryPolicy,
    pub max_age: Option<Duration>,
    pub batch: Batch,
    pub rate: Option<Rate>,
    pub debounce: Option<Debounce>,
    pub singleton: Option<Singleton>,
}

/// Lowers everything but the order.
pub(super) fn lower(event: &EventDefaults, at: &At<'_>, cx: &mut Context<'_>) -> Policy {
    Policy {
        retry: retry(&event.retry, at, cx),
        max_age: event.max_age.map(|span| max_age(span, &at.key("max_age"), cx)),
        batch: batch(event, at, cx),
        rate: event.rate.as_ref().and_then(rate),
        debounce: event.debounce.as_ref().map(|d| debounce(d, &at.key("debounce"), cx)),
        singleton: event.singleton.map(|word| match word {
            SingletonWord::Skip => Singleton::Skip,
            SingletonWord::Cancel => Singleton::Cancel,
        }),
    }
}

/// The order of an entry's deliveries, which needs a key at the source, and what needs an order.
pub(super) fn ordering(
    event: &EventDefaults,
    source: Option<&SourceSpec>,
    at: &At<'_>,
    cx: &mut Context<'_>,
) -> Ordering {
    if event.ordering == Some(OrderingWord::Key) {
        if let Some((message, help)) = source.and_then(keyless) {
            let at = at.key("ordering");
            cx.error(Code::Conflict, at.node.at, &at.within, message).help = Some(help);
        }
        return Ordering::Key;
    }
    if event.retry.exhausted == ExhaustedWord::BlockKey {
        let at = at.key("retry").key("exhausted");
        let message = "`exhausted: block-key` needs `ordering: key`".to_owned();
        cx.error(Code::Conflict, at.node.at, &at.within, message).help = Some(
            "without it, no event waits for another of its key: write `ordering: key`, or leave `exhausted` out"
                .into(),
        );
    }
    Ordering::None
}

/// Why the events of a source have no key, and what to do about it.
fn keyless(source: &SourceSpec) -> Option<(String, String)> {
    let word = source.kind.word();
    let field = format!("say which field holds it, at the source: `{word}: {{ key: data.order_id, … }}`");
    let (why, help) = match (&source.key, &source.kind) {
        (KeyRule::None, _) => (format!("`{}` says `key: none`", source.name), field),
        (KeyRule::Default, SourceKind::Schedule(_)) => {
            (format!("{word} has none"), "with `concurrency: 1` its runs do not overlap".into())
        }
        (KeyRule::Default, SourceKind::Rabbitmq(_)) => (format!("{word} has none"), field),
        (KeyRule::Default, SourceKind::Sqs(spec)) if !brokers::is_fifo(&spec.queue.queue) => {
            ("a queue that is not FIFO has none".to_owned(), field)
        }
        _ => return None,
    };
    Some((format!("`ordering: key` needs a key, and {why}"), help))
}

fn batch(event: &EventDefaults, at: &At<'_>, cx: &mut Context<'_>) -> Batch {
    let Some(shape) = &event.batch else { return Batch::default() };
    let at = at.key("batch");
    let batch = Batch {
        size: shape.size.unwrap_or(1),
        bytes: shape.bytes,
        window: shape.window.0,
        bisect: shape.bisect,
    };
    if batch.bytes < MIN_BYTES || batch.bytes > Batch::BYTES {
        let at = at.key("bytes");
        let message = format!("`bytes` is at least {MIN_BYTES} and at most {}", Batch::BYTES);
        cx.error(Code::BadValue, at.node.at, &at.within, message).help =
            Some("the upper bound is Lambda's, for what one invocation receives".into());
    }
    if batch.window > MAX_WINDOW {
        let at = at.key("window");
        let message = format!("`window` is at most {}", Span(MAX_WINDOW));
        cx.error(Code::BadValue, at.node.at, &at.within, message);
    }
    if batch.size > 1 && event.input.is_some() {
        let at = at.key("size");
        let message = "`input` stands for one event, and this batch may hold more".to_owned();
        cx.error(Code::Conflict, at.node.at, &at.within, message).help =
            Some("a batch of them would be one invocation with one `input`: write `batch: 1`".into());
    }
    batch
}

/// The pattern lets nothing else through than a number, `/` and a unit.
fn rate(text: &RateText) -> Option<Rate> {
    let (events, unit) = text.0.split_once('/')?;
    let per = match unit {
        "s" => 1,
        "m" => 60,
        _ => 3600,
    };
    Some(Rate { events: events.parse().ok()?, per: Duration::from_secs(per) })
}

fn debounce(shape: &DebounceShape, at: &At<'_>, cx: &mut Context<'_>) -> Debounce {
    let debounce = Debounce { wait: shape.wait.0, max_wait: shape.max_wait.map(|span| span.0) };
    let (least, most) = DEBOUNCE;
    if debounce.wait < least || debounce.wait > most {
        let at = at.key("wait");
        let message = format!("`wait` is at least {} and at most {}", Span(least), Span(most));
        cx.error(Code::BadValue, at.node.at, &at.within, message);
    } else if debounce.max_wait.is_some_and(|max_wait| max_wait < debounce.wait || max_wait > most) {
        let at = at.key("max_wait");
        let message = format!("`max_wait` is at least `wait`, {}, and at most {}", shape.wait, Span(most));
        cx.error(Code::Conflict, at.node.at, &at.within, message);
    }
    debounce
}

fn max_age(span: Span, at: &At<'_>, cx: &mut Context<'_>) -> Duration {
    if span.0 < MIN_AGE {
        let message = format!("`max_age` is at least {}", Span(MIN_AGE));
        cx.error(Code::BadValue, at.node.at, &at.within, message).help =
            Some("with less, every event would end as expired; leave it out, and none does".into());
    }
    span.0
}

fn retry(retry: &Retry, at: &At<'_>, cx: &mut Context<'_>) -> RetryPolicy {
    let (min_delay, max_delay) = (retry.min_delay.0, retry.max_delay.0);
    if min_delay.is_zero() || max_delay < min_delay {
        let at = at.key("retry");
        let at = if at.node.entry("min_delay").is_some_and(|e| e.value.at != at.node.at) {
            at.key("min_delay")
        } else {
            at.key("max_delay")
        };
        let message = "`retry` waits from `min_delay`, more than 0s, up to `max_delay`".to_owned();
        cx.error(Code::Conflict, at.node.at, &at.within, message).help =
            Some(format!("here they are {} and {}", retry.min_delay, retry.max_delay));
    }
    RetryPolicy {
        attempts: match retry.attempts {
            Attempts::Count(count) => Some(count),
            Attempts::Word(_) => None,
        },
        min_delay,
        max_delay,
        non_retryable: retry.non_retryable.iter().map(|name| name.0.clone()).collect(),
        exhausted: match retry.exhausted {
            ExhaustedWord::SkipEvent => Exhausted::SkipEvent,
            ExhaustedWord::BlockKey => Exhausted::BlockKey,
        },
    }
}
