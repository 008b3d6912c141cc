//! `invoke`: a function called now, outside any binding.

use std::path::PathBuf;

use bellwire_schemas::Address;
use bellwire_schemas::api::{InvocationRequest, InvocationView};
use clap::Args;

use super::send::read;
use crate::cli::Context;
use crate::cli::client::{Reply, segment};
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::live::own_output;
use crate::cli::out::Out;
use crate::cli::text::{Style, clean};
use crate::cli::times::millis;

/// Flags of `invoke`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bellwire invoke thumbnail --sample s3\n  bellwire invoke greet --event event.json\n  \
    bellwire invoke thumbnail 1-3          (a recorded event)\n\nExit code 1: the function failed."
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["address", "event", "sample"]))]
pub struct InvokeArgs {
    /// The function.
    #[arg(value_name = "FUNCTION")]
    function: String,
    /// A recorded event, in the shape its binding would deliver.
    #[arg(value_name = "ADDRESS")]
    address: Option<Address>,
    /// The event as a JSON file, handed over as it is; - is stdin.
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// A sample of a kind.
    #[arg(long, value_name = "KIND", value_parser = ["kafka", "rabbitmq", "sqs", "s3", "schedule", "webhook", "topic"])]
    sample: Option<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: InvokeArgs) -> Answer {
    let event = match &args.event {
        None => None,
        Some(path) => {
            let text = read(path).map_err(|e| Failure::usage(format!("read {}: {e}", path.display())))?;
            let event = serde_json::from_str(&text);
            Some(event.map_err(|e| Failure::usage(format!("{} is no JSON: {e}", path.display())))?)
        }
    };
    let request = InvocationRequest { event, address: args.address, sample: args.sample };
    let path = format!("/v1/functions/{}/invocations", segment(&args.function));
    let called: Reply<InvocationView> = context.client()?.post(&path, &request).await?;
    let out = &context.out;
    if out.json {
        out.body(&called.body)?
    } else {
        show(out, &called.value)?
    }
    Ok(if called.value.ok { Exit::Done } else { Exit::No })
}

fn show(out: &Out, view: &InvocationView) -> Result<(), Failure> {
    for line in own_output(&view.logs, view.error.as_ref()) {
        out.note(&format!("│ {}", clean(line)));
    }
    let init = view.init_ms.map(|ms| format!(" (start {})", millis(ms))).unwrap_or_default();
    let mark = if view.ok { "✓" } else { "✗" };
    out.note(&format!("{mark} {}{init}, version {}", millis(view.duration_ms), clean(&view.version)));
    if let Some(error) = &view.error {
        out.line(out.style(Style::Red, &clean(&error.headline())))?;
        let rest = error.message.lines().skip(1).chain(error.stack.iter().flat_map(|line| line.lines()));
        return rest.into_iter().try_for_each(|line| out.line(format!("  {}", clean(line))));
    }
    match (&view.result, &view.text) {
        (Some(json), _) => {
            let pretty = serde_json::to_string_pretty(json)?;
            pretty.lines().try_for_each(|line| out.line(clean(line)))
        }
        (None, Some(text)) => text.lines().try_for_each(|line| out.line(clean(line))),
        (None, None) => out.line("null"),
    }
}
