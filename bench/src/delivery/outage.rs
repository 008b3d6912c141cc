//! A target that is away for a while, with events coming all the time: what it costs, and how it comes back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwire_ledger::LogOutcome;
use bellwire_schemas::{ErrorInfo, FailureClass};
use tokio::time::MissedTickBehavior;

use super::rig::{Rig, bound};

/// Most calls at once that the target allows.
const LIMIT: u32 = 20;
/// Between two appends of [`EACH`] events: 500 events a second.
const PACE: Duration = Duration::from_millis(20);
const EACH: u64 = 10;
/// How long the target works on one event: 2,000/s at its limit.
const WORK: Duration = Duration::from_millis(10);

/// Measures it; figures by their stable keys.
pub async fn measure(length: Duration, dir: &Path) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let act = move |_: &_| match is_away.load(Ordering::Relaxed) {
        true => {
            let error =
                ErrorInfo::platform(FailureClass::Unreachable, "HTTP.Unreachable", "connection refused");
            (Duration::from_millis(1), Err(error))
        }
        false => (WORK, Ok(())),
    };
    let rig = Rig::new(dir, vec![bound("target", |_| {})], LIMIT, true, Arc::new(act)).await?;
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut number, mut sent) = (0, Vec::new());
    let mut step = async |rig: &Rig, sent: &mut Vec<_>| {
        pace.tick().await;
        let events = (number..number + EACH).map(|n| rig.stamped(n, &format!("k{n}"), "healthy"));
        number += EACH;
        sent.extend(rig.append(events.collect()).await?);
        anyhow::Ok(())
    };
    let started = Instant::now();
    while started.elapsed() < length {
        step(&rig, &mut sent).await?;
    }
    let backlog = rig.owed().await?;
    let calls = rig.calls.count.load(Ordering::Relaxed);
    rig.calls.most.store(0, Ordering::Relaxed);
    away.store(false, Ordering::Relaxed);
    let back = Instant::now();
    let mut first = None;
    let mut early = 0;
    // Drained: no more is owed than what arrives in a moment.
    while rig.owed().await? > 4 * EACH {
        step(&rig, &mut sent).await?;
        let answered = rig.calls.count.load(Ordering::Relaxed) > calls;
        if first.is_none() && answered {
            first = Some(back.elapsed());
        }
        if first.is_some_and(|first| back.elapsed() - first < Duration::from_millis(50)) {
            early = rig.calls.most.load(Ordering::Relaxed);
        }
        anyhow::ensure!(
            back.elapsed() < 20 * length + Duration::from_secs(300),
            "the backlog does not drain"
        );
    }
    let drained = back.elapsed();
    rig.quiet().await?;
    let mut burnt = 0;
    for address in &sent {
        let log = rig.feed.ledger().log(*address, None).await?;
        burnt += log.iter().filter(|(_, entry)| entry.outcome == LogOutcome::Failed).count();
    }
    let peak = rig.calls.most.load(Ordering::Relaxed);
    rig.stop().await;
    Ok(vec![
        ("outage_backlog", backlog as f64),
        ("outage_calls", calls as f64),
        ("outage_attempts_burnt", burnt as f64),
        ("recovery_first_call_s", first.unwrap_or_default().as_secs_f64()),
        ("recovery_first_50ms_concurrency", early as f64),
        ("recovery_peak_concurrency", peak as f64),
        ("recovery_limit", f64::from(LIMIT)),
        ("recovery_drain_s", drained.as_secs_f64()),
    ])
}
