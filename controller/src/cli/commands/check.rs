//! `check` and `schema`: the configuration, without running it.

use std::path::PathBuf;

use bellwire_config::{Mode, SystemEnv};
use clap::Args;
use serde_json::json;

use crate::cli::Context;
use crate::cli::exit::{Answer, Exit};

/// Flags of `check`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bellwire check\n  bellwire check -f bellwire.yaml --expand\n\nExit code 1: there are errors."
)]
pub struct CheckArgs {
    /// The service file; may be repeated.
    #[arg(short, long = "file", value_name = "FILE", default_value = "bellwire.yaml")]
    files: Vec<PathBuf>,
    /// Print the file with every default; secrets stay hidden.
    #[arg(long)]
    expand: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &CheckArgs) -> Answer {
    let out = &context.out;
    let loaded = match bellwire_config::load_many(&args.files, Mode::Dev, &SystemEnv) {
        Ok(loaded) => loaded,
        Err(report) if out.json => {
            out.value(&json!({"ok": false, "diagnostics": report.diagnostics}))?;
            return Ok(Exit::No);
        }
        Err(report) => {
            out.line(report.render(out.paint.0).trim_end())?;
            out.line(format!("{}. Nothing was started.", report.tally()))?;
            return Ok(Exit::No);
        }
    };
    if args.expand {
        out.line(bellwire_config::expand(&loaded).trim_end())?;
        return Ok(Exit::Done);
    }
    if out.json {
        out.value(&json!({"ok": true, "diagnostics": loaded.warnings}))?;
        return Ok(Exit::Done);
    }
    if !loaded.warnings.is_empty() {
        out.line(loaded.render_warnings(out.paint.0).trim_end())?;
    }
    for service in &loaded.services {
        let count =
            |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        out.line(format!(
            "{}: {}, {}, {}: no errors",
            service.name,
            count(service.functions.len(), "function"),
            count(service.sources.len(), "source"),
            count(service.bindings.len(), "binding")
        ))?;
    }
    Ok(Exit::Done)
}

/// Prints the JSON Schema of the configuration.
pub fn schema(context: &Context) -> Answer {
    context.out.line(serde_json::to_string_pretty(&bellwire_config::json_schema())?)?;
    Ok(Exit::Done)
}
