//! The scales: every performance claim of the project comes from here, as ratios against a baseline of the same run.
//!
//! `bellwire-bench embedded` measures the SQLite ledger and the way from append to handler. `--json` is for machines.
//! Read `embedded/mod.rs` first.

mod embedded;
mod native_worker;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures Bellwire on this machine")]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The embedded ledger: appends, end to end, latency.
    Embedded {
        /// Print one JSON document instead of tables.
        #[arg(long)]
        json: bool,
        /// Length of each measurement, in seconds.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Folder for the ledger files: the disk that is measured. Default: a temporary folder.
        #[arg(long)]
        dir: Option<std::path::PathBuf>,
    },
    /// A no-op function in native code, started by the benchmark itself.
    #[command(name = "__worker", hide = true)]
    Worker,
    /// The launcher of worker processes.
    #[command(name = "__exec", hide = true, disable_help_flag = true)]
    Exec {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    match Args::parse().bench {
        Bench::Worker => native_worker::run(),
        Bench::Exec { args } => bellwire_workers::exec_main(args.into_iter()),
        Bench::Embedded { json, seconds, dir } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let result = runtime
                .map_err(anyhow::Error::from)
                .and_then(|rt| rt.block_on(embedded::run(Duration::from_secs_f64(seconds), dir)));
            match result {
                Ok(report) if json => println!("{}", report.json()),
                Ok(report) => print!("{report}"),
                Err(error) => {
                    eprintln!("error: {error:#}");
                    return ExitCode::FAILURE;
                }
            }
            ExitCode::SUCCESS
        }
    }
}
