//! `replay`: recorded events delivered again; counted first, followed until they are handed over.

use bellwire_schemas::api::{List, ReplayPlan, ReplayRequest, ReplayView};
use bellwire_schemas::{BindingName, ReplayId, Timestamp};
use clap::{Args, Subcommand};
use tokio::time::{MissedTickBehavior, interval};

use super::dead_letters::{WriteArgs, confirm};
use crate::cli::Context;
use crate::cli::client::{Client, Reply, segment};
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::later::not_yet;
use crate::cli::out::Out;
use crate::cli::progress::{POLL, Progress};
use crate::cli::text::{Paint, Table, clean};
use crate::cli::times::count;

/// Flags of `replay`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    after_help = "Examples:\n  bellwire replay --binding price:orders --since 24h --state dead --dry-run\n  \
    bellwire replay 1-3 1-4 --to thumbnail:s3.photos\n  bellwire replay list\n\n\
    Ctrl-C detaches, the replay goes on. Exit code 1: nothing matched."
)]
pub struct ReplayArgs {
    #[command(subcommand)]
    command: Option<ReplayCommand>,
    #[command(flatten)]
    write: WriteArgs,
    /// The binding that receives them [default: the selector's, or the only one of the source].
    #[arg(long, value_name = "BINDING")]
    to: Option<String>,
    /// A name that makes running it twice safe.
    #[arg(long, value_name = "NAME")]
    replay_id: Option<String>,
}

/// What to do with replays.
#[derive(Subcommand, Debug)]
pub enum ReplayCommand {
    /// List replays.
    List,
    /// Show one.
    Show(IdArgs),
    /// Hold one back; what was handed over is still delivered.
    Pause(IdArgs),
    /// Go on with a paused one.
    Resume(IdArgs),
    /// End one; what was handed over is still delivered.
    Cancel(IdArgs),
}

/// One replay.
#[derive(Args, Debug)]
pub struct IdArgs {
    /// Its name, such as r-17.
    #[arg(value_name = "REPLAY")]
    id: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: ReplayArgs) -> Answer {
    match &args.command {
        None => start(context, &args).await,
        Some(ReplayCommand::List) => list(context).await,
        Some(ReplayCommand::Show(which)) => {
            let path = format!("/v1/replays/{}", segment(&which.id));
            print(&context.out, &context.client()?.get(&path, &[]).await?)
        }
        Some(ReplayCommand::Pause(which)) => change(context, &which.id, "pause").await,
        Some(ReplayCommand::Resume(which)) => change(context, &which.id, "resume").await,
        Some(ReplayCommand::Cancel(which)) => change(context, &which.id, "cancel").await,
    }
}

async fn change(context: &Context, id: &str, verb: &str) -> Answer {
    let path = format!("/v1/replays/{}/{verb}", segment(id));
    print(&context.out, &context.client()?.post(&path, &serde_json::json!({})).await?)
}

async fn list(context: &Context) -> Answer {
    let out = &context.out;
    let found: Reply<List<ReplayView>> = context.client()?.get("/v1/replays", &[]).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    out.table(&table(out, &found.value.items), "no replays")?;
    Ok(Exit::Done)
}

fn print(out: &Out, found: &Reply<ReplayView>) -> Answer {
    if out.json {
        out.body(&found.body)?;
    } else {
        out.table(&table(out, std::slice::from_ref(&found.value)), "")?;
    }
    Ok(Exit::Done)
}

fn table(out: &Out, replays: &[ReplayView]) -> Table {
    let times = out.times();
    let mut table = Table::new(&["REPLAY", "STATE", ">DONE", ">TOTAL", "BINDING", "CREATED", "BY"]);
    for replay in replays {
        let plain = [
            replay.id.to_string(),
            replay.state.clone(),
            count(replay.enqueued),
            count(replay.total),
            replay.binding.to_string(),
            times.short(replay.created_at),
            replay.by.clone(),
        ];
        let state = Paint::state(&replay.state);
        let mut column = 0;
        table.styled(plain.map(|cell| {
            column += 1;
            (cell, if column == 2 { state } else { crate::cli::text::Style::Plain })
        }));
    }
    table
}

async fn start(context: &Context, args: &ReplayArgs) -> Answer {
    let out = &context.out;
    if args.to.as_ref().is_some_and(|to| to.contains('@')) {
        return Err(not_yet("--to BINDING@VERSION"));
    }
    let selector = args.write.selector.resolve_write(args.write.all, out.now())?;
    let client = context.client()?;
    let mut request = ReplayRequest {
        selector,
        to: args.to.as_ref().map(BindingName::new),
        all: args.write.all,
        dry_run: true,
        id: args.replay_id.as_ref().map(ReplayId::new),
    };
    let plan: Reply<ReplayPlan> = client.post("/v1/replays", &request).await?;
    if args.write.dry_run || plan.value.total == 0 {
        return report_plan(out, &plan);
    }
    if !confirm(out, plan.value.total, "repeat", args.write.yes)? {
        out.note("nothing was changed");
        return Ok(Exit::No);
    }
    request.dry_run = false;
    let replay: Reply<ReplayView> = client.post("/v1/replays", &request).await?;
    follow(context, &client, replay).await
}

fn report_plan(out: &Out, plan: &Reply<ReplayPlan>) -> Answer {
    let exit = if plan.value.total == 0 { Exit::No } else { Exit::Done };
    if out.json {
        out.body(&plan.body)?;
        return Ok(exit);
    }
    let plan = &plan.value;
    if plan.total == 0 {
        out.line(format!(
            "nothing matches: no event would be delivered to {}",
            clean(plan.binding.as_str())
        ))?;
        return Ok(exit);
    }
    let events = if plan.total == 1 { "1 event".into() } else { format!("{} events", count(plan.total)) };
    let keys = match plan.keys {
        0 => String::new(),
        1 => " (1 key)".into(),
        keys => format!(" ({} keys)", count(keys)),
    };
    out.line(format!("would deliver {events}{keys} to {}", clean(plan.binding.as_str())))?;
    if let (Some(oldest), Some(newest)) = (plan.oldest, plan.newest) {
        out.line(format!("  oldest {oldest}  newest {newest}"))?;
    }
    out.note(
        "run it: the same without --dry-run (name it with --replay-id to be safe against running it twice)",
    );
    Ok(exit)
}

/// Shows how far the replay is until everything is handed to its binding, or it stops.
async fn follow(context: &Context, client: &Client, started: Reply<ReplayView>) -> Answer {
    let out = &context.out;
    let id = started.value.id.clone();
    let path = format!("/v1/replays/{}", segment(id.as_str()));
    context.on_interrupt(Some(format!(
        "replay {id} goes on: `bellwire replay show {id}`, `bellwire replay cancel {id}`"
    )));
    let mut progress = Progress::new(out, format!("replay {id}"), out.now());
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut current = started;
    loop {
        let now: Timestamp = out.now();
        if current.value.state != "running" {
            break;
        }
        progress.show(current.value.enqueued, current.value.total, now, &current.body)?;
        poll.tick().await;
        current = client.get(&path, &[]).await?;
    }
    progress.clear();
    context.on_interrupt(None);
    finish(out, &current)
}

fn finish(out: &Out, current: &Reply<ReplayView>) -> Result<Exit, Failure> {
    let replay = &current.value;
    if out.json {
        out.body(&current.body)?;
    } else {
        let (done, total) = (count(replay.enqueued), count(replay.total));
        let binding = clean(replay.binding.as_str());
        out.line(format!(
            "replay {}: {}, {done} of {total} handed to {binding}",
            replay.id,
            clean(&replay.state)
        ))?;
        out.note(&format!(
            "what became of them: bellwire events list --binding {binding} --state dead; bellwire status"
        ));
    }
    Ok(if replay.state == "cancelled" { Exit::No } else { Exit::Done })
}
