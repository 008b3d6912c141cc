//! `dev`, `run`, `migrate`: the commands that are a controller, or prepare its ledger.

use std::path::PathBuf;
use std::process::ExitCode;

use bellwire_config::{Mode, SystemEnv};
use bellwire_ledger::Error as LedgerError;
use clap::Args;
use serde_json::json;

use crate::cli::Context;
use crate::cli::exit::{Answer, Exit, Failure};
use crate::server::{ServeOptions, ledgers, serve};

/// Flags of `dev`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bellwire dev\n  bellwire dev examples/thumbnails --samples\n  bellwire dev --json | jq .\n\n\
    Exit code 1: the configuration has errors."
)]
pub struct DevArgs {
    /// The folder with bellwire.yaml.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The service file, instead of bellwire.yaml in the folder.
    #[arg(short, long, value_name = "FILE", conflicts_with = "dir")]
    file: Option<PathBuf>,
    /// Send the events in samples/ once the controller is ready.
    #[arg(long)]
    samples: bool,
    /// Start with an empty ledger: what is in the old one is deleted.
    #[arg(long)]
    reset: bool,
}

/// Flags of `run`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bellwire run -f bellwire.yaml\n  bellwire run -f orders.yaml -f shop.yaml --ingress 127.0.0.1:0\n\n\
    Exit codes: 1 the configuration has errors, 3 the ledger cannot be reached, 5 it is in use or newer."
)]
pub struct RunArgs {
    /// A service file; may be repeated.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Address of the ingress door, instead of the file's.
    #[arg(long, value_name = "ADDR")]
    ingress: Option<String>,
    /// Address of the admin door, instead of the file's.
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Flags of `migrate`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  bellwire migrate --status\n  bellwire migrate -f bellwire.yaml\n\n\
    Exit codes: 1 with --status: steps are missing; 5 the ledger is newer than this program.")]
pub struct MigrateArgs {
    /// The service file that names the ledger.
    #[arg(short, long, value_name = "FILE", default_value = "bellwire.yaml")]
    file: PathBuf,
    /// Only say how the tables stand.
    #[arg(long)]
    status: bool,
}

/// Runs `dev`.
///
/// # Errors
/// When the controller cannot start.
pub fn dev(context: &Context, args: DevArgs) -> Result<ExitCode, Failure> {
    // `.` is left out: every message names the file as people type it.
    let dir = args.dir.strip_prefix(".").unwrap_or(&args.dir);
    let file = args.file.unwrap_or_else(|| dir.join("bellwire.yaml"));
    start(ServeOptions {
        mode: Mode::Dev,
        files: vec![file],
        ingress: None,
        admin: None,
        reset: args.reset,
        samples: args.samples,
        color: context.out.paint.0,
        json: context.out.json,
    })
}

/// Runs `run`.
///
/// # Errors
/// When the controller cannot start.
pub fn run(context: &Context, args: RunArgs) -> Result<ExitCode, Failure> {
    start(ServeOptions {
        mode: Mode::Run,
        files: args.files,
        ingress: args.ingress,
        admin: args.admin,
        reset: false,
        samples: false,
        color: context.out.paint.0,
        json: context.out.json,
    })
}

fn start(options: ServeOptions) -> Result<ExitCode, Failure> {
    // Fails only when a provider is installed already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = runtime()?;
    let served = runtime.block_on(serve(options));
    runtime.shutdown_background();
    served.map_err(|error| Failure::new(Exit::No, format!("{error:#}")))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Internal, format!("start the runtime: {e}")))
}

/// Runs `migrate`.
pub fn migrate(context: &Context, args: &MigrateArgs) -> Answer {
    let out = &context.out;
    let loaded = match bellwire_config::load_many(std::slice::from_ref(&args.file), Mode::Dev, &SystemEnv) {
        Ok(loaded) => loaded,
        Err(report) => {
            let text = report.render(out.paint.0);
            return Err(Failure::new(Exit::No, text.trim_end().trim_start_matches("error: ")));
        }
    };
    let url = &loaded.controller.ledger.url;
    let runtime = runtime()?;
    if !args.status {
        runtime.block_on(ledgers::migrate(url)).map_err(of_ledger)?;
    }
    let status = runtime.block_on(ledgers::schema_status(url)).map_err(of_ledger)?;
    let shown = url.sqlite_path().map_or_else(|| url.to_string(), str::to_owned);
    let current = status.current == status.newest;
    if out.json {
        out.value(&json!({"ledger": shown, "current": status.current, "newest": status.newest}))?;
    } else {
        let steps = format!("{} of {} steps", status.current, status.newest);
        out.line(format!(
            "{}: {steps}{}",
            shown,
            if current { ", nothing to do" } else { ": run `bellwire migrate`" }
        ))?;
    }
    Ok(if current { Exit::Done } else { Exit::No })
}

fn of_ledger(error: LedgerError) -> Failure {
    let exit = match &error {
        LedgerError::Incompatible(_) | LedgerError::Locked(_) => Exit::Conflict,
        LedgerError::NotFound(_) => Exit::No,
        _ => Exit::Unreachable,
    };
    Failure::new(exit, error.to_string())
}
