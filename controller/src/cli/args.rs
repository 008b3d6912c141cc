//! The tree of commands and the flags that all of them share; the flags of one command lie in its own file.

use clap::{Args, Parser, Subcommand};

use super::commands::{
    CompletionsArgs, bindings, check, dead_letters, deliveries, events, explain, functions, init, invoke,
    replay, send, serve, sources, verify,
};
use super::out::{Color, TimeFormat};

const EXAMPLES: &str = "\
First steps:
  bellwire init mine && cd mine && bellwire dev       a service of eight lines, running
  bellwire dev examples/thumbnails --samples          an example with events that arrive, fail and are explained

Why was my event not delivered?
  bellwire explain 1-4

Exit codes: 0 yes, 1 no, 2 wrong flag, 3 no controller, 4 refused, 5 conflict, 6 internal error, 130 Ctrl-C";

/// Events in, functions called, nothing lost.
#[derive(Parser, Debug)]
#[command(name = "bellwire", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, max_term_width = 110)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The controller's admin door [default: BELLWIRE_URL, else .bellwire/ of a parent folder, else 127.0.0.1:7071].
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub url: Option<String>,
    /// Read a ledger without its controller: sqlite:<path> or postgres://…, for commands that only read what is stored.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "BELLWIRE_LEDGER",
        hide_env = true,
        conflicts_with = "url"
    )]
    #[arg(help_heading = "Global options")]
    pub ledger: Option<String>,
    /// Print the API's body unchanged.
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print only the answer, no remarks.
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Colours: auto, always or never; NO_COLOR is honoured.
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    #[arg(value_name = "WHEN", hide_possible_values = true)]
    pub color: Color,
    /// Times: relative (this machine's clock) or iso (RFC 3339, UTC).
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    #[arg(value_name = "HOW", hide_possible_values = true)]
    pub time: TimeFormat,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Write a new service: a bellwire.yaml and a handler.
    Init(init::InitArgs),
    /// Run a service here: one process, embedded ledger, reload on save, the live log.
    Dev(serve::DevArgs),
    /// Run services for real: no reload, no samples, strict about secrets.
    Run(serve::RunArgs),
    /// Check bellwire.yaml: all errors at once.
    Check(check::CheckArgs),
    /// Print the JSON Schema of bellwire.yaml.
    Schema,
    /// Bring the ledger's tables to this version, or say how they stand.
    Migrate(serve::MigrateArgs),
    /// One screen: what is wrong, sources, bindings, functions, lanes.
    Status,
    /// Send an event through a source's own door: topic, webhook, s3, or a schedule's tick by hand.
    Send(send::SendArgs),
    /// Call a function now and print its result and logs.
    Invoke(invoke::InvokeArgs),
    /// List events, show one, or follow them live.
    Events {
        /// What to do.
        #[command(subcommand)]
        command: events::EventsCommand,
    },
    /// Say why an event was, or was not, delivered.
    Explain(explain::ExplainArgs),
    /// What was given up: list, show, group by error, try again, discard.
    DeadLetters {
        /// What to do.
        #[command(subcommand)]
        command: dead_letters::DeadLettersCommand,
    },
    /// What is owed, one by one: list, cancel.
    Deliveries {
        /// What to do.
        #[command(subcommand)]
        command: deliveries::DeliveriesCommand,
    },
    /// Deliver recorded events again.
    Replay(replay::ReplayArgs),
    /// Bindings: list, show, pause, resume.
    Bindings {
        /// What to do.
        #[command(subcommand)]
        command: bindings::BindingsCommand,
    },
    /// Sources: list, show.
    Sources {
        /// What to do.
        #[command(subcommand)]
        command: sources::SourcesCommand,
    },
    /// Functions: list, show.
    Functions {
        /// What to do.
        #[command(subcommand)]
        command: functions::FunctionsCommand,
    },
    /// Prove that every event is accounted for.
    Verify(verify::VerifyArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Print the version.
    Version,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        let cli =
            Cli::try_parse_from(["bellwire", "events", "list", "--json", "--url", "http://127.0.0.1:1"])
                .unwrap();
        assert!(cli.global.json && cli.global.url.is_some());
    }

    #[test]
    fn wrong_flags_end_with_2() {
        for line in
            ["status --nonsense", "frobnicate", "events", "dead-letters discard 1-1", "send", "replay show"]
        {
            let error = Cli::try_parse_from(std::iter::once("bellwire").chain(line.split(' '))).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(Cli::try_parse_from(["bellwire", "--help"]).unwrap_err().exit_code(), 0);
    }
}
