//! `events list|show|tail`: what was accepted.

use bellwire_schemas::api::{EventDetail, EventView, List};
use clap::{Args, Subcommand, ValueEnum};

use super::tail;
use crate::cli::Context;
use crate::cli::client::{Reply, segment};
use crate::cli::exit::{Answer, Exit};
use crate::cli::out::Out;
use crate::cli::selector::{SelectorArgs, query};
use crate::cli::text::{Style, Table, clean};
use crate::cli::times::size;

/// What to do with events.
#[derive(Subcommand, Debug)]
pub enum EventsCommand {
    /// List events, newest first.
    #[command(after_help = "Examples:\n  bellwire events list --source s3.photos --since 2h\n  \
        bellwire events list --binding thumbnail:s3.photos --state dead\n  \
        bellwire events list --limit 100000 --order asc --json > events.json")]
    List(ListArgs),
    /// Show one event, whole.
    #[command(after_help = "Example:\n  bellwire events show 1-3")]
    Show(WhichArgs),
    /// Follow events and deliveries live, until Ctrl-C.
    #[command(
        after_help = "Examples:\n  bellwire events tail --source s3.photos\n  bellwire events tail --json | jq ."
    )]
    Tail(SelectorArgs),
}

/// Flags of lists.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub(super) selector: SelectorArgs,
    #[command(flatten)]
    pub(super) page: PageArgs,
    /// Newest first (desc) or oldest first (asc).
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    order: Order,
}

/// How much of a list.
#[derive(Args, Debug)]
pub struct PageArgs {
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

impl PageArgs {
    /// The number of items wanted.
    pub fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Newest first.
    #[default]
    Desc,
    /// Oldest first.
    Asc,
}

/// One event.
#[derive(Args, Debug)]
pub struct WhichArgs {
    /// Its address, such as 1-3, or its CloudEvents id.
    #[arg(value_name = "ADDRESS|ID")]
    pub(super) which: String,
    /// The source, where an id is not unique.
    #[arg(long, value_name = "SOURCE")]
    pub(super) source: Option<String>,
}

impl WhichArgs {
    /// The query part of a request about this event.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        self.source.iter().map(|s| ("source", s.clone())).collect()
    }
}

/// Runs the command.
pub async fn run(context: &Context, command: EventsCommand) -> Answer {
    match command {
        EventsCommand::List(args) => list(context, &args).await,
        EventsCommand::Show(args) => show(context, &args).await,
        EventsCommand::Tail(selector) => tail::run(context, &selector).await,
    }
}

async fn list(context: &Context, args: &ListArgs) -> Answer {
    let out = &context.out;
    let mut pairs = query(&args.selector.resolve(out.now())?);
    if args.order == Order::Asc {
        pairs.push(("order", "asc".into()));
    }
    let found: Reply<List<EventView>> =
        context.client()?.list("/v1/events", &pairs, args.page.limit()).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    let times = out.times();
    let mut table = Table::new(&["ADDRESS", "ACCEPTED", "SOURCE", "TYPE", "SUBJECT", ">SIZE", "ID"]);
    for event in &found.value.items {
        table.row([
            event.address.to_string(),
            times.short(event.accepted_at),
            event.source.to_string(),
            event.kind.clone(),
            event.subject.clone().unwrap_or_default(),
            size(event.data_bytes),
            event.id.clone(),
        ]);
    }
    out.table(&table, "no event matches")?;
    more(out, &found.value);
    Ok(Exit::Done)
}

/// Says that a list was cut.
pub(super) fn more<T>(out: &Out, list: &List<T>) {
    if list.next.is_some() && !list.items.is_empty() {
        out.note(&format!(
            "… there are more than these {}: --limit, or choose more narrowly",
            list.items.len()
        ));
    }
}

async fn show(context: &Context, args: &WhichArgs) -> Answer {
    let out = &context.out;
    let path = format!("/v1/events/{}", segment(&args.which));
    let found: Reply<EventDetail> = context.client()?.get(&path, &args.query()).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    detail(out, &found.value)?;
    let address = found.value.event.address;
    out.note(&format!("\nwhat became of it: bellwire explain {address}"));
    Ok(Exit::Done)
}

/// Prints one event, whole.
pub(super) fn detail(out: &Out, detail: &EventDetail) -> Result<(), crate::cli::exit::Failure> {
    let event = &detail.event;
    let accepted = out.times().at(event.accepted_at);
    let head = format!(
        "{}  {}   accepted {accepted}",
        out.style(Style::Bold, &event.address.to_string()),
        clean(event.source.as_str())
    );
    out.line(head)?;
    let key = event.key.iter().map(|key| ("ordering key".to_string(), key.clone()));
    let attributes = detail
        .attributes
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), String::from)));
    for (name, value) in key.chain(attributes) {
        out.line(format!("  {:<16} {}", clean(&name), clean(&value)))?;
    }
    for (name, value) in &detail.meta {
        out.line(format!("  meta.{:<11} {}", clean(name), clean(&value.to_string())))?;
    }
    match (&detail.data, &detail.data_base64) {
        (Some(serde_json::Value::String(text)), _) => {
            out.line(format!("data, {} of text:", size(event.data_bytes)))?;
            text.lines().try_for_each(|line| out.line(format!("  {}", clean(line))))
        }
        (Some(json), _) => {
            out.line(format!("data, {} of JSON:", size(event.data_bytes)))?;
            let pretty = serde_json::to_string_pretty(json)?;
            pretty.lines().try_for_each(|line| out.line(format!("  {}", clean(line))))
        }
        (None, Some(base64)) => {
            out.line(format!("data, {} of bytes, base64:", size(event.data_bytes)))?;
            out.line(format!("  {}", clean(base64)))
        }
        (None, None) => out.line("no data"),
    }
}
