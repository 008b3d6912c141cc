//! `dead-letters list|show|groups|redrive|discard`: what was given up.

use bellwire_schemas::api::{Changed, DeadLetterAction, DeadLetterGroup, DeadLetterView, List};
use clap::{Args, Subcommand};

use super::ASK_ABOVE;
use super::events::{PageArgs, detail, more};
use crate::cli::Context;
use crate::cli::client::{Reply, segment};
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::live::own_output;
use crate::cli::out::Out;
use crate::cli::selector::{Place, SelectorArgs, query};
use crate::cli::text::{Style, Table, clean};
use crate::cli::times::{Times, count, duration};

/// What to do with dead letters.
#[derive(Subcommand, Debug)]
pub enum DeadLettersCommand {
    /// List dead letters, newest first.
    #[command(
        after_help = "Example:\n  bellwire dead-letters list --binding thumbnail:s3.photos --since 24h"
    )]
    List(ListArgs),
    /// Show one: the error with its stack, what the function printed, the event.
    #[command(
        after_help = "Examples:\n  bellwire dead-letters show 1-3\n  bellwire dead-letters show 1-3@thumbnail:s3.photos"
    )]
    Show(ShowArgs),
    /// Group dead letters by error.
    #[command(after_help = "Example:\n  bellwire dead-letters groups --binding price:orders")]
    Groups(ListArgs),
    /// Try again, with all attempts; what blocks its key (`exhausted: block-key`), too.
    #[command(
        after_help = "Examples:\n  bellwire dead-letters redrive 1-3\n  bellwire dead-letters redrive --error e41c --yes\n\n\
        Exit code 1: nothing matched."
    )]
    Redrive(RedriveArgs),
    /// Give up for good; the reason is logged.
    #[command(after_help = "Example:\n  bellwire dead-letters discard --error e41c --reason 'test data'\n\n\
        Exit code 1: nothing matched.")]
    Discard(DiscardArgs),
}

/// Flags of `list` and `groups`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    page: PageArgs,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Its address, with the binding where several gave the event up.
    #[arg(value_name = "ADDRESS[@BINDING]")]
    place: Place,
}

/// Flags of `redrive`.
#[derive(Args, Debug)]
pub struct RedriveArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Why, for the log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Flags of `discard`.
#[derive(Args, Debug)]
pub struct DiscardArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Why: it is logged with your token's name.
    #[arg(long, value_name = "TEXT", required = true)]
    reason: String,
}

/// Flags of writes over a selector.
#[derive(Args, Debug)]
pub struct WriteArgs {
    #[command(flatten)]
    pub(super) selector: SelectorArgs,
    /// All of them.
    #[arg(long)]
    pub(super) all: bool,
    /// Only count.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask, however many there are.
    #[arg(long, short)]
    pub(super) yes: bool,
}

/// Runs the command.
pub async fn run(context: &Context, command: DeadLettersCommand) -> Answer {
    match command {
        DeadLettersCommand::List(args) => list(context, &args).await,
        DeadLettersCommand::Show(args) => show(context, &args).await,
        DeadLettersCommand::Groups(args) => groups(context, &args).await,
        DeadLettersCommand::Redrive(args) => write(context, "redrive", &args.write, args.reason).await,
        DeadLettersCommand::Discard(args) => write(context, "discard", &args.write, args.reason).await,
    }
}

/// Conditions that no dead letter list understands are refused, never passed over.
fn check(selector: &SelectorArgs) -> Result<(), Failure> {
    if selector.state.as_deref().is_some_and(|state| state != "dead") {
        return Err(Failure::usage("every dead letter is in the state `dead`: drop --state"));
    }
    Ok(())
}

async fn list(context: &Context, args: &ListArgs) -> Answer {
    let out = &context.out;
    check(&args.selector)?;
    let pairs = query(&args.selector.resolve(out.now())?);
    let found: Reply<List<DeadLetterView>> =
        context.client()?.list("/v1/dead-letters", &pairs, args.page.limit()).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    let times = out.times();
    let mut table = Table::new(&["ADDRESS", "BINDING", ">TRIES", "DIED", "GROUP", "SUBJECT", "ERROR"]);
    for dead in &found.value.items {
        table.row([
            dead.address.to_string(),
            dead.binding.to_string(),
            dead.attempts.to_string(),
            times.short(dead.died_at),
            dead.group.clone(),
            dead.subject.clone().unwrap_or_default(),
            dead.error.headline(),
        ]);
    }
    out.table(&table, "no dead letters")?;
    more(out, &found.value);
    Ok(Exit::Done)
}

async fn groups(context: &Context, args: &ListArgs) -> Answer {
    let out = &context.out;
    check(&args.selector)?;
    let mut pairs = query(&args.selector.resolve(out.now())?);
    pairs.push(("limit", args.page.limit().min(1_000).to_string()));
    let found: Reply<List<DeadLetterGroup>> =
        context.client()?.get("/v1/dead-letters/groups", &pairs).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    out.table(&group_table(&found.value.items, &out.times()), "no dead letters")?;
    if let Some(first) = found.value.items.first() {
        out.note(&format!(
            "  show: dead-letters show {0}   again: dead-letters redrive --error {1}   \
             give up: dead-letters discard --error {1} --reason …",
            first.example, first.group
        ));
    }
    Ok(Exit::Done)
}

fn group_table(groups: &[DeadLetterGroup], times: &Times) -> Table {
    let mut table = Table::new(&["GROUP", ">COUNT", "FIRST", "LAST", "BINDING", "EXAMPLE", "ERROR"]);
    for group in groups {
        table.row([
            group.group.clone(),
            count(group.count),
            times.short(group.first_at),
            times.short(group.last_at),
            group.binding.to_string(),
            group.example.to_string(),
            group.error.clone(),
        ]);
    }
    table
}

async fn show(context: &Context, args: &ShowArgs) -> Answer {
    let out = &context.out;
    let which = match &args.place.binding {
        Some(binding) => format!("{}@{binding}", args.place.address),
        None => args.place.address.to_string(),
    };
    let path = format!("/v1/dead-letters/{}", segment(&which));
    let found: Reply<DeadLetterView> = context.client()?.get(&path, &[]).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    let dead = &found.value;
    render(out, dead)?;
    out.note(&format!(
        "\nafter the fix: bellwire dead-letters redrive {0}@{1}\ngive up:       bellwire dead-letters discard {0}@{1} --reason …",
        dead.address, dead.binding
    ));
    Ok(Exit::Done)
}

fn render(out: &Out, dead: &DeadLetterView) -> Result<(), Failure> {
    let times = out.times();
    let tries = if dead.attempts == 1 { "1 try".into() } else { format!("{} tries", dead.attempts) };
    let over = duration(dead.died_at.since(dead.first_at));
    let who = format!("{}@{}", dead.address, dead.binding);
    out.line(format!(
        "{}   dead after {tries} over {over}, gave up {}   group {}",
        out.style(Style::Bold, &clean(&who)),
        times.at(dead.died_at),
        clean(&dead.group)
    ))?;
    out.line(format!("  {}", out.style(Style::Red, &clean(&dead.error.headline()))))?;
    let rest = dead.error.message.lines().skip(1);
    let stack = dead.error.stack.iter().flat_map(|line| line.lines());
    rest.chain(stack).try_for_each(|line| out.line(format!("  {}", clean(line))))?;
    let printed = own_output(&dead.logs, Some(&dead.error));
    if !printed.is_empty() {
        out.line("printed in the last try:")?;
        printed.iter().try_for_each(|line| out.line(format!("  │ {}", clean(line))))?;
    }
    if let Some(event) = &dead.event {
        out.line("event:")?;
        detail(out, event)?;
    }
    Ok(())
}

async fn write(context: &Context, verb: &str, args: &WriteArgs, reason: String) -> Answer {
    let out = &context.out;
    check(&args.selector)?;
    let selector = args.selector.resolve_write(args.all, out.now())?;
    let client = context.client()?;
    let path = format!("/v1/dead-letters/{verb}");
    let mut action = DeadLetterAction { selector, all: args.all, reason, dry_run: true };
    let counted: Reply<Changed> = client.post(&path, &action).await?;
    let nouns = ("dead letter", "dead letters");
    if args.dry_run || counted.value.count == 0 {
        return report(out, &counted, &format!("would {verb}"), nouns);
    }
    if !confirm(out, counted.value.count, verb, args.yes)? {
        out.note("nothing was changed");
        return Ok(Exit::No);
    }
    action.dry_run = false;
    let changed: Reply<Changed> = client.post(&path, &action).await?;
    report(out, &changed, if verb == "redrive" { "redriven" } else { "discarded" }, nouns)
}

/// Says how many a write changed; one that changed nothing ends with the answer no.
pub(super) fn report(out: &Out, changed: &Reply<Changed>, what: &str, (one, many): (&str, &str)) -> Answer {
    let number = changed.value.count;
    if out.json {
        out.body(&changed.body)?;
    } else if number == 0 {
        out.line("nothing matched")?;
    } else {
        let noun = if number == 1 { one } else { many };
        out.line(format!("{what}: {} {noun}{}", count(number), later(&changed.value)))?;
    }
    Ok(if number == 0 { Exit::No } else { Exit::Done })
}

/// Which of the cancelled ones end later, and when.
fn later(changed: &Changed) -> String {
    let of = |number: u64, one: &str, many: &str| match number {
        0 => String::new(),
        1 => format!("; 1 {one}"),
        number => format!("; {} {many}", count(number)),
    };
    of(changed.paused, "of a paused binding ends when it goes on", "of a paused binding end when it goes on")
        + &of(
            changed.inactive,
            "of a binding that the configuration has no more leaves its accounts with its event, by retention",
            "of a binding that the configuration has no more leave its accounts with their events, by retention",
        )
}

/// Asks before a write over many deliveries; where nobody can answer, `--yes` must have been said.
pub(super) fn confirm(out: &Out, number: u64, verb: &str, yes: bool) -> Result<bool, Failure> {
    if yes || number <= ASK_ABOVE {
        return Ok(true);
    }
    let number = count(number);
    if !out.can_ask() {
        let message = format!("this would {verb} {number} deliveries: more than {ASK_ABOVE} need --yes");
        return Err(Failure::usage(message).help("nothing was changed"));
    }
    out.ask(&format!("{verb} {number} deliveries?"))
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::cli::text::Paint;

    #[test]
    fn what_ends_later_is_said() {
        let changed = |paused, inactive| Changed { count: 9, paused, inactive, ..Changed::default() };
        assert_eq!(later(&changed(0, 0)), "");
        assert_eq!(later(&changed(1, 0)), "; 1 of a paused binding ends when it goes on");
        let both = "; 1,200 of a paused binding end when it goes on; 2 of a binding that the configuration has no more \
            leave its accounts with their events, by retention";
        assert_eq!(later(&changed(1_200, 2)), both);
    }

    #[test]
    fn groups_look_as_the_manual_shows_them() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let group = |group: &str, count, first, last, error: &str, example: &str| DeadLetterGroup {
            group: group.into(),
            count,
            first_at: at(first),
            last_at: at(last),
            error: error.into(),
            binding: "price:orders".into(),
            example: example.parse().unwrap(),
        };
        let groups = [
            group(
                "e41c",
                1_038,
                "2026-03-02T10:02:00Z",
                "2026-03-02T10:33:51Z",
                "ValidationError: total missing",
                "3-90011",
            ),
            group(
                "07bd",
                2,
                "2026-02-28T09:00:00Z",
                "2026-03-01T09:00:00Z",
                "OutOfMemory: over 1024MB",
                "1-88120",
            ),
        ];
        let times = Times { now: at("2026-03-02T12:00:00Z"), zone: TimeZone::UTC, iso: false };
        let expected = "\
GROUP  COUNT  FIRST     LAST      BINDING       EXAMPLE  ERROR
e41c   1,038  10:02:00  10:33:51  price:orders  3-90011  ValidationError: total missing
07bd       2  2 d ago   27 h ago  price:orders  1-88120  OutOfMemory: over 1024MB";
        assert_eq!(group_table(&groups, &times).lines(Paint(false), None).join("\n"), expected);
    }
}
