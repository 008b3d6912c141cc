//! The Postgres ledger, measured against what the same server does for bare statements, in the same run.
//!
//! Every comparison alternates: a short round of the baseline, one of ours, again and again; what is reported is the
//! median, because a machine that does other things too is never quiet. Events are made before the clock starts. What
//! this room does not do: measure the network, a server elsewhere, or workers.
//!
//! Read `rounds.rs` (what a measurement is), then `raw.rs` (the limit), `ours.rs` and `flow.rs` (the ledger).

mod events;
mod flow;
mod jobs;
mod ours;
mod raw;
mod rounds;
pub mod server;
mod single;
mod sustained;

use std::time::Duration;

use clap::ValueEnum;

use crate::table::{Report, Row};
pub use ours::Case;
use server::Server;

/// What to measure, and for how long.
#[derive(Debug)]
pub struct Options {
    /// A server to use; none: a private one is started.
    pub url: Option<String>,
    /// The length of one round of the main case; the others take a part of it.
    pub round: Duration,
    /// The length of the sustained run; zero leaves it out.
    pub sustained: Duration,
    /// The parts to measure; none: all of them.
    pub only: Vec<Part>,
    /// The cases to measure; none: the table of them.
    pub cases: Vec<Case>,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Bare insert against append at batch 500 over two lanes.
    Main,
    /// The same for every other batch size and number of lanes.
    Cases,
    /// Appends with dedup keys.
    Dedup,
    /// Many callers of one event each.
    Callers,
    /// Latency of one commit of one event.
    Single,
    /// Append, read, checkpoint and log.
    Flow,
    /// The same while another session holds a snapshot.
    Snapshot,
    /// A job table with SKIP LOCKED.
    Jobs,
    /// The main case for minutes, when a length is given.
    Sustained,
}

/// Runs what the options ask for.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let server = Server::start(options.url.as_deref()).await?;
    let mut report = Report::new();
    for (name, value) in server.settings().await? {
        report.setting(name, value);
    }
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let (round, short) = (options.round, options.round.mul_f64(0.35));
    if wanted(Part::Main) {
        let main = ours::case(&server, ours::MAIN, 5, round).await?;
        main.headline(&mut report);
        report.table("main", "batch 500 x 2 lanes, 300 B of JSON", vec![main.row()]);
    }
    if wanted(Part::Cases) {
        let mut rows = Vec::new();
        let cases = if options.cases.is_empty() { ours::CASES.to_vec() } else { options.cases };
        for case in cases {
            rows.push(ours::case(&server, case, 3, short).await?.row());
        }
        report.table("append", "append, 300 B of JSON", rows);
    }
    if wanted(Part::Dedup) {
        report.table("dedup", "append with dedup keys", ours::dedup(&server, short).await?);
    }
    if wanted(Part::Callers) {
        report.table("callers", "callers of one event each", ours::callers(&server, short).await?);
    }
    if wanted(Part::Single) {
        let rows = single::measure(&server, short, &mut report).await?;
        report.table("single", "one caller, one event", rows);
    }
    if wanted(Part::Flow) {
        let rows = flow::measure(&server, round, &mut report).await?;
        report.table("flow", "append, read, checkpoint and log", rows);
    }
    if wanted(Part::Snapshot) {
        let rows = flow::snapshot(&server, round, &mut report).await?;
        report.table("snapshot", "the same beside a held snapshot", rows);
    }
    if wanted(Part::Jobs) {
        let per_s = jobs::measure(&server, round).await?;
        report.figure("job_table_per_s", per_s);
        report.table(
            "jobs",
            "job table with SKIP LOCKED",
            vec![Row::new("batch 500 x 2", vec![("job_table_per_s", per_s)])],
        );
    }
    if wanted(Part::Sustained) && !options.sustained.is_zero() {
        sustained::measure(&server, options.sustained, &mut report).await?;
    }
    server.stop().await?;
    Ok(report)
}
