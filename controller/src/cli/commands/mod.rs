//! One file per command: its flags, what it asks the controller, how the answer looks.

pub mod bindings;
pub mod check;
pub mod dead_letters;
pub mod deliveries;
pub mod events;
pub mod explain;
pub mod functions;
pub mod init;
pub mod invoke;
pub mod replay;
pub mod send;
pub mod serve;
pub mod sources;
pub mod status;
pub mod tail;
pub mod verify;

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use super::Context;
use super::args::Cli;
use super::exit::{Answer, Exit};

/// Deliveries above which a write asks first.
pub const ASK_ABOVE: u64 = 100;

/// Flags of `completions`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  bellwire completions bash > ~/.local/share/bash-completion/completions/bellwire"
)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bellwire", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(Exit::Done)
}

/// Prints the version.
pub fn version(context: &Context) -> Answer {
    let version = env!("CARGO_PKG_VERSION");
    if context.out.json {
        context.out.value(&json!({"version": version}))?;
    } else {
        context.out.line(format!("bellwire {version}"))?;
    }
    Ok(Exit::Done)
}
