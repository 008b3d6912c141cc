//! Judges a file of conformance cases: `conformance <kind> <file.jsonl> [--json]`.
//!
//! Exit code 0: every case passed or was skipped for a stated reason; 1: some failed; 2: wrong arguments or file.

use std::process::ExitCode;

use bellwire_integration_tests::conformance::{Kind, judge_file};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Judges a file of conformance cases, one JSON object a line")]
struct Args {
    /// What the cases are about.
    #[arg(value_enum)]
    kind: Kind,
    /// The file.
    file: std::path::PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let report = match judge_file(args.kind, &args.file) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("a report is plain data"));
    } else {
        print!("{report}");
    }
    if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
