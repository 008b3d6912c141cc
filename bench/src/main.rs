//! The scales: every performance claim of the project comes from here, as ratios against a baseline of the same run.
//!
//! `bellwire-bench embedded` measures the SQLite ledger and the way from append to handler, `bellwire-bench ledger` the
//! Postgres ledger beside what its server can do at most, `bellwire-bench sources` the brokers beside bare clients,
//! `bellwire-bench delivery` order, neighbours and outages.
//! `--json` is for machines. Read the `mod.rs` of each folder first.

mod delivery;
mod embedded;
mod ledger;
mod native_worker;
mod sources;
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
    /// The Postgres ledger: appends beside the bare limit, delivery, latency, snapshots, a job table.
    Ledger {
        /// Print one JSON document instead of tables.
        #[arg(long)]
        json: bool,
        /// Length of one round of the main case, in seconds; all rounds grow with it.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// A server to measure, as a superuser: what is measured lies in a schema and tables of its own, which are
        /// dropped. Default: a private one is started.
        #[arg(long)]
        url: Option<String>,
        /// Length of the sustained run, in minutes; 0 leaves it out.
        #[arg(long, default_value_t = 0.0)]
        minutes: f64,
        /// Measure only these parts.
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<ledger::Part>,
        /// Measure only these cases of batch size and lanes, such as 10x8.
        #[arg(long = "case", value_delimiter = ',')]
        cases: Vec<ledger::Case>,
    },
    /// Delivery: order per key, healthy deliveries beside bad neighbours, an outage and what follows.
    Delivery {
        /// Print one JSON document instead of tables.
        #[arg(long)]
        json: bool,
        /// Length of one slice, in seconds; all of them grow with it.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Length of the outage, in seconds.
        #[arg(long, default_value_t = 60.0)]
        outage: f64,
        /// Folder for the ledger files: the disk that is measured. Default: a temporary folder.
        #[arg(long)]
        dir: Option<std::path::PathBuf>,
    },
    /// Kafka, RabbitMQ and SQS: from the broker into the ledger, beside a bare client that throws messages away.
    Sources {
        /// Print one JSON document instead of tables.
        #[arg(long)]
        json: bool,
        /// Messages of one round over Kafka; RabbitMQ gets a quarter of them, SQS a hundredth.
        #[arg(long, default_value_t = 300_000)]
        messages: usize,
        /// Rounds of each; the median is reported.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Measure only these brokers.
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<sources::Broker>,
        /// Folder for the SQLite ledgers: the disk that is measured. Default: a temporary folder.
        #[arg(long)]
        dir: Option<std::path::PathBuf>,
        /// Use the servers that the variables of the test command name. Default: private ones are started.
        #[arg(long)]
        shared: bool,
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
            report(json, embedded::run(Duration::from_secs_f64(seconds), dir))
        }
        Bench::Ledger { json, seconds, url, minutes, only, cases } => {
            let (round, sustained) =
                (Duration::from_secs_f64(seconds), Duration::from_secs_f64(minutes * 60.0));
            report(json, ledger::run(ledger::Options { url, round, sustained, only, cases }))
        }
        Bench::Delivery { json, seconds, outage, dir } => {
            let (slice, outage) = (Duration::from_secs_f64(seconds), Duration::from_secs_f64(outage));
            report(json, delivery::run(delivery::Options { slice, outage, dir }))
        }
        Bench::Sources { json, messages, rounds, only, dir, shared } => {
            if let Err(error) = sources::log_in() {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
            report(json, sources::run(sources::Options { messages, rounds, only, dir, shared }))
        }
    }
}

/// Runs a benchmark and prints what it found.
fn report(json: bool, bench: impl Future<Output = anyhow::Result<table::Report>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|rt| rt.block_on(bench)) {
        Ok(report) if json => println!("{}", report.json()),
        Ok(report) => print!("{report}"),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
