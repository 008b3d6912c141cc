//! Delivery, measured: order per key, neighbours that misbehave, an outage. Everything of the product is real but the
//! functions, which are code of this process, so that what is measured is the dispatcher and its ledger.

mod neighbours;
mod outage;
mod rig;
mod speed;

use std::path::PathBuf;
use std::time::Duration;

use crate::table::Report;

/// What to measure.
pub struct Options {
    /// Length of one slice; everything grows with it.
    pub slice: Duration,
    /// Length of the outage.
    pub outage: Duration,
    /// Folder for the ledger files; default: a temporary one.
    pub dir: Option<PathBuf>,
}

/// Runs every measurement.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let temporary = tempfile::tempdir()?;
    let dir = options.dir.unwrap_or_else(|| temporary.path().to_path_buf());
    std::fs::create_dir_all(&dir)?;
    let mut report = Report::new();
    report.setting("ledger".into(), "sqlite".into());
    report.setting("slice_s".into(), options.slice.as_secs_f64().to_string());
    report.setting("outage_s".into(), options.outage.as_secs_f64().to_string());
    let speeds = speed::measure(options.slice, &dir).await?;
    for speed in &speeds {
        report.figure(speed.key, speed.per_s);
    }
    let rows = speeds.iter().map(speed::Speed::row).collect();
    report.table("speed", "append to outcome, no-op function", rows);
    let mut rows = Vec::new();
    for case in neighbours::Case::ALL {
        let found = neighbours::measure(case, options.slice, &dir).await?;
        report.figure(case.key(), found.ratio);
        rows.push(found.row(case));
    }
    report.table("neighbours", "append called -> handler starts, 200 healthy events/s", rows);
    let found = outage::measure(options.outage, &dir).await?;
    for (key, value) in &found {
        report.figure(key, *value);
    }
    Ok(report)
}
