//! `verify`: the sums that prove every event accounted for.

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::Context;
use crate::cli::client::Reply;
use crate::cli::exit::{Answer, Exit};

/// Flags of `verify`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bellwire verify\n\nExit code 1: there is a gap.")]
pub struct VerifyArgs {}

/// Runs the command.
pub async fn run(context: &Context, _: VerifyArgs) -> Answer {
    let found: Reply<Value> = context.client()?.post("/v1/verifications", &Map::new()).await?;
    context.out.body(&found.body)?;
    Ok(Exit::Done)
}
