//! `functions list|show`.

use bellwire_schemas::api::{FunctionStatus, List};
use clap::{Args, Subcommand};

use super::status::function_table;
use crate::cli::Context;
use crate::cli::client::{Reply, segment};
use crate::cli::exit::{Answer, Exit};
use crate::cli::text::{Paint, Style, clean};
use crate::cli::times::count;

/// What to do with functions.
#[derive(Subcommand, Debug)]
pub enum FunctionsCommand {
    /// List functions.
    List,
    /// Show one.
    #[command(after_help = "Example:\n  bellwire functions show thumbnail")]
    Show(NameArgs),
}

/// One function.
#[derive(Args, Debug)]
pub struct NameArgs {
    /// Its name.
    #[arg(value_name = "FUNCTION")]
    name: String,
}

/// Runs the command.
pub async fn run(context: &Context, command: FunctionsCommand) -> Answer {
    let (client, out) = (context.client()?, &context.out);
    let args = match command {
        FunctionsCommand::List => {
            let found: Reply<List<FunctionStatus>> = client.get("/v1/functions", &[]).await?;
            if out.json {
                out.body(&found.body)?;
            } else {
                out.table(&function_table(&found.value.items), "no functions")?;
            }
            return Ok(Exit::Done);
        }
        FunctionsCommand::Show(args) => args,
    };
    let found: Reply<FunctionStatus> =
        client.get(&format!("/v1/functions/{}", segment(&args.name)), &[]).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    let function = &found.value;
    let state = out.style(Paint::state(&function.state), &function.state);
    out.line(format!(
        "{}   version {}   {state}",
        out.style(Style::Bold, &clean(function.name.as_str())),
        clean(&function.version)
    ))?;
    out.line(format!("  runs      {}", clean(&function.target)))?;
    let mut most = format!("at most {}", function.concurrency);
    if let Some(slots) = function.slots {
        most.push_str(&format!(" ({slots} of them on this controller now)"));
    }
    let workers = format!("{} busy, {} idle, {most}", function.busy, function.idle);
    out.line(format!("  workers   {workers}; {} invocations since start", count(function.invocations)))?;
    if let Some(error) = &function.error {
        out.line(format!("  {}", out.style(Style::Red, &clean(&error.headline()))))?;
        let stack = error.stack.iter().flat_map(|line| line.lines());
        stack.into_iter().try_for_each(|line| out.line(format!("  {}", clean(line))))?;
    }
    Ok(Exit::Done)
}
