//! What came in, per source, since this process started, and whether intake works.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bellwire_schemas::{SourceName, Timestamp};

/// Arrivals of one source since start; `received` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Messages seen.
    pub received: u64,
    /// Stored events.
    pub accepted: u64,
    /// Not stored again.
    pub duplicate: u64,
    /// Kept as no event.
    pub quarantined: u64,
    /// Told to their sender: whole requests and single items.
    pub refused: u64,
}

/// One source as the intake sees it.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Its name.
    pub name: SourceName,
    /// `s3`, `schedule`, `webhook`, `topic`.
    pub kind: &'static str,
    /// `ok`, `paused` (enabled: false), `failing`.
    pub state: &'static str,
    /// Why, when it is not `ok`.
    pub reason: Option<String>,
    /// Since when it is failing.
    pub since: Option<Timestamp>,
    /// Where events enter: `POST /s3`, or the next tick.
    pub entrance: String,
    /// The next tick of a schedule.
    pub next_tick: Option<Timestamp>,
    /// Arrivals since start.
    pub counts: Counts,
}

/// The counters and failures of all sources.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<BTreeMap<SourceName, Gauge>>);

/// What is known of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) counts: Counts,
    pub(crate) failing: Option<(String, Timestamp)>,
}

impl Meter {
    /// Changes the counts of a source.
    pub(crate) fn count(&self, source: &SourceName, change: impl FnOnce(&mut Counts)) {
        let mut all = self.lock();
        if let Some(gauge) = all.get_mut(source) {
            change(&mut gauge.counts);
        } else {
            change(&mut all.entry(source.clone()).or_default().counts);
        }
    }

    /// Notes that intake of a source fails; the time of the first failure in a row stays.
    pub(crate) fn failing(&self, source: &SourceName, reason: String, now: Timestamp) {
        let mut all = self.lock();
        let gauge = all.entry(source.clone()).or_default();
        let since = gauge.failing.take().map_or(now, |(_, since)| since);
        gauge.failing = Some((reason, since));
    }

    /// Notes that intake of a source works.
    pub(crate) fn healthy(&self, source: &SourceName) {
        if let Some(gauge) = self.lock().get_mut(source) {
            gauge.failing = None;
        }
    }

    /// What is known of a source.
    pub(crate) fn read(&self, source: &SourceName) -> Gauge {
        self.lock().get(source).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, Gauge>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}
