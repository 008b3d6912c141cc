//! `sources list|show`.

use bellwire_schemas::api::{List, SourceStatus};
use clap::{Args, Subcommand};

use super::status::source_table;
use crate::cli::Context;
use crate::cli::client::{Reply, segment};
use crate::cli::exit::{Answer, Exit};
use crate::cli::text::{Paint, Style, clean};
use crate::cli::times::count;

/// What to do with sources.
#[derive(Subcommand, Debug)]
pub enum SourcesCommand {
    /// List sources.
    List,
    /// Show one.
    #[command(after_help = "Example:\n  bellwire sources show s3.photos")]
    Show(NameArgs),
}

/// One source.
#[derive(Args, Debug)]
pub struct NameArgs {
    /// Its name, such as s3.photos.
    #[arg(value_name = "SOURCE")]
    name: String,
}

/// Runs the command.
pub async fn run(context: &Context, command: SourcesCommand) -> Answer {
    let (client, out) = (context.client()?, &context.out);
    let args = match command {
        SourcesCommand::List => {
            let found: Reply<List<SourceStatus>> = client.get("/v1/sources", &[]).await?;
            if out.json {
                out.body(&found.body)?;
            } else {
                out.table(&source_table(&found.value.items, &out.times()), "no sources")?;
            }
            return Ok(Exit::Done);
        }
        SourcesCommand::Show(args) => args,
    };
    let found: Reply<SourceStatus> = client.get(&format!("/v1/sources/{}", segment(&args.name)), &[]).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    let source = &found.value;
    let state = out.style(Paint::state(&source.state), &source.state);
    let why = source.reason.as_ref().map(|r| format!(": {}", clean(r))).unwrap_or_default();
    let since = source.since.map(|at| format!(" since {}", out.times().at(at))).unwrap_or_default();
    out.line(format!(
        "{}   {}   {state}{since}{why}",
        out.style(Style::Bold, &clean(source.name.as_str())),
        clean(&source.kind)
    ))?;
    let last = source.last_at.map_or_else(|| "never".into(), |at| out.times().at(at));
    let rows = [
        ("entrance", out.times().told(&source.entrance)),
        ("accepted", format!("{}, last {last}", count(source.accepted))),
        (
            "besides",
            format!(
                "{} duplicate, {} quarantined, {} refused and {} restarts since start",
                count(source.duplicate),
                count(source.quarantined),
                count(source.refused),
                count(source.restarts)
            ),
        ),
    ];
    rows.iter().try_for_each(|(name, value)| out.line(format!("  {name:<9} {}", clean(value))))?;
    out.note(&format!("try it: bellwire send {} --sample", source.name));
    Ok(Exit::Done)
}
