//! `bindings list|show|pause|resume`.

use bellwire_schemas::api::{BindingStatus, List, PauseRequest};
use clap::{Args, Subcommand};

use super::status::{binding_table, why};
use crate::cli::Context;
use crate::cli::client::{Reply, segment};
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::out::Out;
use crate::cli::text::{Paint, Style, clean};
use crate::cli::times::count;

/// What to do with bindings.
#[derive(Subcommand, Debug)]
pub enum BindingsCommand {
    /// List bindings.
    List,
    /// Show one.
    #[command(after_help = "Example:\n  bellwire bindings show thumbnail:s3.photos")]
    Show(NameArgs),
    /// Start nothing more; the position is kept.
    #[command(after_help = "Example:\n  bellwire bindings pause audit:orders --reason 'db migration'")]
    Pause(PauseArgs),
    /// Go on where it stood.
    #[command(after_help = "Example:\n  bellwire bindings resume audit:orders")]
    Resume(NameArgs),
}

/// One binding.
#[derive(Args, Debug)]
pub struct NameArgs {
    /// Its name, such as thumbnail:s3.photos.
    #[arg(value_name = "BINDING")]
    name: String,
}

/// Flags of `pause`.
#[derive(Args, Debug)]
pub struct PauseArgs {
    #[command(flatten)]
    which: NameArgs,
    /// Why, for the others.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Runs the command.
pub async fn run(context: &Context, command: BindingsCommand) -> Answer {
    let (client, out) = (context.client()?, &context.out);
    let path = |name: &str| format!("/v1/bindings/{}", segment(name));
    let found: Reply<BindingStatus> = match command {
        BindingsCommand::List => {
            let found: Reply<List<BindingStatus>> = client.get("/v1/bindings", &[]).await?;
            if out.json {
                out.body(&found.body)?;
            } else {
                out.table(&binding_table(&found.value.items, &out.times()), "no bindings")?;
            }
            return Ok(Exit::Done);
        }
        BindingsCommand::Show(args) => client.get(&path(&args.name), &[]).await?,
        BindingsCommand::Pause(args) => {
            let request = PauseRequest { reason: args.reason };
            client.post(&format!("{}/pause", path(&args.which.name)), &request).await?
        }
        BindingsCommand::Resume(args) => {
            client.post(&format!("{}/resume", path(&args.name)), &PauseRequest::default()).await?
        }
    };
    if out.json {
        out.body(&found.body)?
    } else {
        show(out, &found.value)?
    }
    Ok(Exit::Done)
}

fn show(out: &Out, binding: &BindingStatus) -> Result<(), Failure> {
    let state = out.style(Paint::state(&binding.state), &binding.state);
    let why = match why(binding, &out.times()) {
        why if why.is_empty() => why,
        why => format!(": {}", clean(&why)),
    };
    out.line(format!("{}   {state}{why}", out.style(Style::Bold, &clean(binding.name.as_str()))))?;
    let oldest = binding
        .oldest_owed_at
        .map(|at| format!(", oldest accepted {}", out.times().at(at)))
        .unwrap_or_default();
    let owed = binding.waiting + binding.retrying;
    let rows = [
        ("source", binding.source.to_string()),
        ("function", binding.function.to_string()),
        ("revision", binding.revision.to_string()),
        (
            "owed",
            format!(
                "{} ({} waiting, {} retrying, {} running){oldest}",
                count(owed),
                count(binding.waiting),
                count(binding.retrying),
                count(binding.running)
            ),
        ),
        (
            "ended",
            format!(
                "{} delivered, {} filtered, {} expired, {} dead, {} discarded",
                count(binding.delivered),
                count(binding.filtered),
                count(binding.expired),
                count(binding.dead),
                count(binding.discarded)
            ),
        ),
    ];
    rows.iter().try_for_each(|(name, value)| out.line(format!("  {name:<9} {}", clean(value))))?;
    if binding.state == "paused" {
        out.note(&format!("go on: bellwire bindings resume {}", binding.name));
    } else if binding.dead > 0 {
        out.note(&format!("why: bellwire dead-letters groups --binding {}", binding.name));
    }
    Ok(())
}
