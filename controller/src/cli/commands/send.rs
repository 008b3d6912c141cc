//! `send`: events by hand, through the source's own door.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use bellwire_schemas::api::{SendItem, SendRequest, SendResult};
use clap::Args;
use serde_json::Value;

use crate::cli::Context;
use crate::cli::client::{Client, Reply, segment};
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::out::Out;
use crate::cli::progress::Progress;
use crate::cli::text::{Paint, clean};
use crate::cli::times::count;

/// The most events of one request; the API's own bound.
const PER_REQUEST: u32 = 1_000;
/// Sends up to this number are listed one by one.
const LISTED: usize = 10;
/// The largest body that is read from a file; the API refuses events far below it.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Flags of `send`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bellwire send s3.photos --sample\n  bellwire send topic.greetings --data '{\"name\":\"Ada\"}'\n  \
    bellwire send webhook.github --file push.json\n  bellwire send schedule.report --sample      (a tick by hand)\n\n\
    Exit code 1: nothing was stored."
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["data", "file", "sample"]))]
pub struct SendArgs {
    /// The source: topic.greetings, webhook.github, s3.photos, schedule.report.
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The body.
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// The body, from a file; - is stdin.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A realistic body of the source's kind.
    #[arg(long)]
    sample: bool,
    /// Media type of the body [default: told from the body: CloudEvents, JSON or plain text].
    #[arg(long, value_name = "TYPE", conflicts_with = "sample")]
    content_type: Option<String>,
    /// How many.
    #[arg(short = 'n', long = "number", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    number: u32,
}

/// Runs the command.
pub async fn run(context: &Context, args: SendArgs) -> Answer {
    let data = match &args.file {
        Some(path) => Some(read_text(path)?),
        None => args.data.clone(),
    };
    let content_type = args.content_type.or_else(|| data.as_deref().and_then(media_type).map(String::from));
    let request = SendRequest { data, content_type, sample: None, count: None };
    let client = context.client()?;
    let path = format!("/v1/sources/{}/sends", segment(&args.source));
    if args.number <= PER_REQUEST {
        let sent = send(&client, &path, &request, args.sample.then_some(0), args.number).await?;
        return report(&context.out, &sent.value, Some(&sent.body));
    }
    let whole = send_many(context, &client, &path, &request, args.sample, args.number).await?;
    report(&context.out, &whole, None)
}

async fn send(
    client: &Client,
    path: &str,
    request: &SendRequest,
    sample: Option<u32>,
    number: u32,
) -> Result<Reply<SendResult>, Failure> {
    let count = (number > 1).then_some(number);
    client.post(path, &SendRequest { sample, count, ..request.clone() }).await
}

async fn send_many(
    context: &Context,
    client: &Client,
    path: &str,
    request: &SendRequest,
    sample: bool,
    number: u32,
) -> Result<SendResult, Failure> {
    let out = &context.out;
    let mut progress = Progress::new(out, "send".into(), out.now());
    let mut whole = SendResult { accepted: 0, items: Vec::new() };
    let mut done = 0;
    while done < number {
        let step = (number - done).min(PER_REQUEST);
        let sent = send(client, path, request, sample.then_some(done), step).await?;
        done += step;
        whole.accepted += sent.value.accepted;
        whole.items.extend(sent.value.items);
        let line = serde_json::to_vec(&serde_json::json!({"done": done, "total": number}))?;
        progress.show(done.into(), number.into(), out.now(), &line)?;
    }
    progress.clear();
    Ok(whole)
}

/// What a body is when nobody says: a CloudEvent, a batch of them, plain text; `None` for other JSON, the default.
pub(in crate::cli) fn media_type(body: &str) -> Option<&'static str> {
    let is_event =
        |value: &Value| ["specversion", "id", "source", "type"].iter().all(|name| value[*name].is_string());
    match serde_json::from_str::<Value>(body) {
        Err(_) => Some("text/plain"),
        Ok(Value::Array(items)) if !items.is_empty() && items.iter().all(is_event) => {
            Some(bellwire_schemas::cloudevents::BATCH)
        }
        Ok(value) if is_event(&value) => Some(bellwire_schemas::cloudevents::STRUCTURED),
        Ok(_) => None,
    }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    read(path).map_err(|e| Failure::usage(format!("read {}: {e}", path.display())))
}

/// Reads a text file or stdin, bounded.
pub(super) fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let size = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?
    } else {
        std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?
    };
    if u64::try_from(size).is_ok_and(|size| size > MAX_FILE_BYTES) {
        return Err(std::io::Error::other("larger than 16 MB"));
    }
    Ok(text)
}

fn report(out: &Out, result: &SendResult, body: Option<&[u8]>) -> Answer {
    match body {
        Some(body) if out.json => out.body(body)?,
        None if out.json => out.value(result)?,
        _ => words(&result.items, out.paint).iter().try_for_each(|line| out.line(line))?,
    }
    let stored = |item: &SendItem| item.status == "accepted" || item.status == "duplicate";
    if let Some(address) = result.items.iter().find_map(|item| item.address) {
        out.note(&format!("what became of it: bellwire explain {address}"));
    }
    Ok(if result.items.iter().any(stored) { Exit::Done } else { Exit::No })
}

fn words(items: &[SendItem], paint: Paint) -> Vec<String> {
    if items.is_empty() {
        return vec!["the source took the request, but it held no event".into()];
    }
    if items.len() <= LISTED {
        return items.iter().map(|item| one(item, paint)).collect();
    }
    let mut counts: BTreeMap<&str, (u64, Vec<&SendItem>)> = BTreeMap::new();
    for item in items {
        let entry = counts.entry(&item.status).or_default();
        entry.0 += 1;
        entry.1.push(item);
    }
    let line = |(status, (number, of)): (&str, (u64, Vec<&SendItem>))| {
        let address = |item: Option<&&SendItem>| item.and_then(|i| i.address).map(|a| a.to_string());
        let range = match (address(of.first()), address(of.last())) {
            (Some(first), Some(last)) => format!("  {first} … {last}"),
            _ => of
                .first()
                .and_then(|i| i.code.clone())
                .map(|c| format!("  {}", clean(&c)))
                .unwrap_or_default(),
        };
        format!("{} {}{range}", paint.style(Paint::state(status), &clean(status)), count(number))
    };
    counts.into_iter().map(line).collect()
}

fn one(item: &SendItem, paint: Paint) -> String {
    let mut text = paint.style(Paint::state(&item.status), &clean(&item.status)).into_owned();
    text.extend(item.address.map(|a| format!("  {a}")));
    text.extend(item.id.as_ref().map(|id| format!("  id {}", clean(id))));
    text.extend(item.code.as_ref().map(|code| format!("  {}", clean(code))));
    text.extend(item.detail.as_ref().map(|detail| format!(": {}", clean(detail))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(status: &str, address: Option<&str>, code: Option<&str>) -> SendItem {
        SendItem {
            status: status.into(),
            id: address.map(|_| "e1".into()),
            address: address.map(|a| a.parse().unwrap()),
            code: code.map(Into::into),
            detail: code.map(|_| "too large".into()),
        }
    }

    #[test]
    fn a_body_says_what_it_is() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        for (body, expected) in [
            (event.to_string(), Some("application/cloudevents+json")),
            (format!("[{event},{event}]"), Some("application/cloudevents-batch+json")),
            (format!("[{event},3]"), None),
            (r#"{"id":"1"}"#.into(), None),
            ("[]".into(), None),
            ("hello".into(), Some("text/plain")),
        ] {
            assert_eq!(media_type(&body), expected, "{body}");
        }
    }

    #[test]
    fn few_items_are_listed_many_are_counted() {
        let few = [item("accepted", Some("1-7"), None), item("refused", None, Some("event-too-large"))];
        assert_eq!(
            words(&few, Paint(false)),
            ["accepted  1-7  id e1", "refused  event-too-large: too large"]
        );
        let mut many: Vec<_> = (1..=20).map(|i| item("accepted", Some(&format!("1-{i}")), None)).collect();
        many.push(item("refused", None, Some("event-too-large")));
        assert_eq!(words(&many, Paint(false)), ["accepted 20  1-1 … 1-20", "refused 1  event-too-large"]);
    }
}
