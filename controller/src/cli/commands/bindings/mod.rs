//! `bindings list|show|pause|resume`. `detail.rs` is how one binding looks.

mod detail;

use bellwire_schemas::api::{BindingDetail, BindingStatus, List, PauseRequest};
use clap::{Args, Subcommand};

use super::status::binding_table;
use crate::cli::Context;
use crate::cli::client::{Reply, segment};
use crate::cli::exit::{Answer, Exit};

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
    let (verb, found): (Verb, Reply<BindingDetail>) = match command {
        BindingsCommand::List => {
            let found: Reply<List<BindingStatus>> = client.get("/v1/bindings", &[]).await?;
            if out.json {
                out.body(&found.body)?;
            } else {
                out.table(&binding_table(&found.value.items, &out.times()), "no bindings")?;
            }
            return Ok(Exit::Done);
        }
        BindingsCommand::Show(args) => (Verb::Show, client.get(&path(&args.name), &[]).await?),
        BindingsCommand::Pause(args) => {
            let request = PauseRequest { reason: args.reason };
            (Verb::Pause, client.post(&format!("{}/pause", path(&args.which.name)), &request).await?)
        }
        BindingsCommand::Resume(args) => {
            let path = format!("{}/resume", path(&args.name));
            (Verb::Resume, client.post(&path, &PauseRequest::default()).await?)
        }
    };
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    let (binding, times) = (&found.value, out.times());
    let lines = match verb {
        Verb::Show => detail::whole(binding, &times, out.paint),
        Verb::Pause => detail::paused(binding, &times, out.paint),
        Verb::Resume => detail::resumed(binding, &times, out.paint),
    };
    lines.iter().try_for_each(|line| out.line(line))?;
    if let Some(remark) = detail::remark(&binding.status) {
        out.note(&remark);
    }
    Ok(Exit::Done)
}

/// What was asked.
#[derive(Clone, Copy)]
enum Verb {
    Show,
    Pause,
    Resume,
}
