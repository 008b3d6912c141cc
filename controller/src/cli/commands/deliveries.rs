//! `deliveries list|cancel`: what is owed, one by one.

use std::time::Duration;

use bellwire_schemas::api::{CancelRequest, Changed, DeliveryView, List};
use clap::{Args, Subcommand};

use super::dead_letters::{WriteArgs, confirm, report};
use super::events::{PageArgs, more};
use crate::cli::Context;
use crate::cli::client::{Client, Reply};
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::selector::{SelectorArgs, query};
use crate::cli::text::{Paint, Style, Table};
use crate::cli::times::Times;

/// What is due later than this is told by its date.
const FAR: Duration = Duration::from_secs(86_400);

/// What to do with deliveries.
#[derive(Subcommand, Debug)]
pub enum DeliveriesCommand {
    /// List what is owed: retries, redrives, replays, what is parked behind its key, delayed, debounced, or runs. What no
    /// attempt was made of yet is counted by `bindings show`, and listed by address; of a binding that the configuration has
    /// no more it is listed, too.
    #[command(after_help = "Examples:\n  bellwire deliveries list --binding price:orders --state parked\n  \
        bellwire deliveries list --state running\n  bellwire deliveries list 1-3")]
    List(ListArgs),
    /// Give up what is owed: it ends as discarded, and its key goes on. Takes what runs, and what no attempt was made of,
    /// too.
    #[command(
        after_help = "Examples:\n  bellwire deliveries cancel 1-3@thumbnail:s3.photos --reason 'wrong bucket'\n  \
        bellwire deliveries cancel 1-3 --reason 'wrong bucket'      every binding that still owes it\n  \
        bellwire deliveries cancel --binding price:orders --key 8812 --reason 'closed' --yes\n\n\
        An attempt that runs is broken off; if it ends before that, its end counts. What waits in a paused binding ends when \
        that goes on. Exit code 1: nothing matched."
    )]
    Cancel(CancelArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    page: PageArgs,
}

/// Flags of `cancel`.
#[derive(Args, Debug)]
pub struct CancelArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Why: it is logged with your token's name.
    #[arg(long, value_name = "TEXT", required = true)]
    reason: String,
}

/// Runs the command.
pub async fn run(context: &Context, command: DeliveriesCommand) -> Answer {
    match command {
        DeliveriesCommand::List(args) => list(context, &args).await,
        DeliveriesCommand::Cancel(args) => cancel(context, args).await,
    }
}

/// Conditions that hold for no delivery that is owed are refused, never passed over.
fn check(selector: &SelectorArgs) -> Result<(), Failure> {
    match selector.state.as_deref() {
        Some(state @ ("delivered" | "filtered" | "expired" | "dead" | "discarded")) => {
            Err(Failure::usage(format!("what is {state} is not owed any more"))
                .help(format!("bellwire events list --state {state}")))
        }
        _ => Ok(()),
    }
}

async fn list(context: &Context, args: &ListArgs) -> Answer {
    let out = &context.out;
    check(&args.selector)?;
    let pairs = query(&args.selector.resolve(out.now())?);
    let found: Reply<List<DeliveryView>> =
        context.client()?.list("/v1/deliveries", &pairs, args.page.limit()).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    out.table(&table(&found.value.items, &out.times()), "nothing is owed but what waits behind a cursor")?;
    more(out, &found.value);
    Ok(Exit::Done)
}

fn table(deliveries: &[DeliveryView], times: &Times) -> Table {
    let mut table =
        Table::new(&["ADDRESS", "BINDING", "STATE", "REASON", ">TRIES", "NEXT", "KEY", "ACCEPTED", "ERROR"]);
    for delivery in deliveries {
        let plain = |text: String| (text, Style::Plain);
        let next = match delivery.next_attempt_at {
            Some(at) if at <= times.now => "now".into(),
            Some(at) if at.since(times.now) >= FAR => times.due(at),
            Some(at) => times.distance(at),
            None => String::new(),
        };
        table.styled([
            (delivery.address.to_string(), Style::Bold),
            plain(delivery.binding.to_string()),
            (delivery.state.clone(), Paint::state(&delivery.state)),
            plain(delivery.reason.clone().unwrap_or_default()),
            plain(delivery.attempts.to_string()),
            plain(next),
            plain(delivery.key.clone().unwrap_or_default()),
            plain(times.short(delivery.accepted_at)),
            plain(delivery.error.as_ref().map(|error| error.headline()).unwrap_or_default()),
        ]);
    }
    table
}

async fn cancel(context: &Context, args: CancelArgs) -> Answer {
    let (out, write) = (&context.out, args.write);
    check(&write.selector)?;
    let selector = write.selector.resolve_write(write.all, out.now())?;
    let client = context.client()?;
    let mut request =
        CancelRequest { selector, all: write.all, reason: args.reason, dry_run: true, after: None };
    let counted = send(&client, request.clone()).await?;
    let nouns = ("delivery", "deliveries");
    if write.dry_run || counted.value.count == 0 {
        return report(out, &counted, "would cancel", nouns);
    }
    if !confirm(out, counted.value.count, "cancel", write.yes)? {
        out.note("nothing was changed");
        return Ok(Exit::No);
    }
    request.dry_run = false;
    report(out, &send(&client, request).await?, "cancelled", nouns)
}

/// Asks as often as the answers say that there is more, and adds them up.
async fn send(client: &Client, mut request: CancelRequest) -> Result<Reply<Changed>, Failure> {
    let mut sum: Reply<Changed> = client.post("/v1/deliveries/cancel", &request).await?;
    while let Some(next) = sum.value.next.take() {
        request.after = Some(next);
        let more: Reply<Changed> = client.post("/v1/deliveries/cancel", &request).await?;
        sum.value.count += more.value.count;
        sum.value.paused += more.value.paused;
        sum.value.inactive += more.value.inactive;
        sum.value.next = more.value.next;
        sum.body = serde_json::to_vec(&sum.value)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::Timestamp;
    use clap::Parser;
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(subcommand)]
        command: DeliveriesCommand,
    }

    fn parse(line: &str) -> Result<DeliveriesCommand, clap::Error> {
        Only::try_parse_from(std::iter::once("x").chain(line.split(' '))).map(|only| only.command)
    }

    #[test]
    fn what_is_owed_stands_in_columns() {
        let row = |more: serde_json::Value| -> DeliveryView {
            let mut whole = json!({
                "address": "3-104301", "binding": "price:orders", "source": "orders", "type": "t", "id": "i",
                "key": "8812", "state": "parked", "reason": "key-parked", "attempts": 0,
                "accepted_at": "2026-03-02T11:59:00Z", "next_attempt_at": null, "error": null
            });
            whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(whole).unwrap()
        };
        let error = json!({"class": "timeout", "type": "Timeout", "message": "after 30 s"});
        let rows = [
            row(json!({
                "address": "3-104233", "state": "retrying", "reason": "retry", "attempts": 4, "error": error,
                "next_attempt_at": "2026-03-02T12:00:06Z"
            })),
            row(json!({})),
        ];
        let times =
            Times { now: Timestamp::parse("2026-03-02T12:00:00Z").unwrap(), zone: TimeZone::UTC, iso: false };
        let expected = [
            "ADDRESS   BINDING       STATE     REASON      TRIES  NEXT    KEY   ACCEPTED  ERROR",
            "3-104233  price:orders  retrying  retry           4  in 6 s  8812  11:59:00  Timeout: after 30 s",
            "3-104301  price:orders  parked    key-parked      0          8812  11:59:00",
        ];
        assert_eq!(table(&rows, &times).lines(Paint(false), None), expected);
    }

    #[test]
    fn what_cannot_be_owed_is_refused() {
        assert!(parse("cancel 1-3").is_err(), "a reason is needed");
        assert!(parse("cancel 1-3@f:a --reason x --yes --dry-run").is_ok());
        for (line, right) in [
            ("list --state parked", true),
            ("list --state running", true),
            ("list --state dead", false),
            ("list --error e41c", true),
        ] {
            let DeliveriesCommand::List(args) = parse(line).unwrap() else { panic!("{line}") };
            assert_eq!(check(&args.selector).is_ok(), right, "{line}");
        }
    }
}
