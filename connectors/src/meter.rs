//! What came in, per source, since this process started, and whether intake works.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

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

/// A failure older than this is over: whatever still fails is tried again more often, and a door that nobody calls any
/// more must not look broken for ever.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// The counters and failures of all sources.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<BTreeMap<SourceName, Gauge>>);

/// What is known of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) counts: Counts,
    pub(crate) failing: Option<Failing>,
}

/// A row of failures without a success between.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
    last: Timestamp,
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
        let since = gauge.failing.take().filter(|old| !old.is_over(now)).map_or(now, |old| old.since);
        gauge.failing = Some(Failing { reason, since, last: now });
    }

    /// Notes that intake of a source works.
    pub(crate) fn healthy(&self, source: &SourceName) {
        if let Some(gauge) = self.lock().get_mut(source) {
            gauge.failing = None;
        }
    }

    /// What is known of a source.
    pub(crate) fn read(&self, source: &SourceName, now: Timestamp) -> Gauge {
        let mut gauge = self.lock().get(source).cloned().unwrap_or_default();
        gauge.failing = gauge.failing.filter(|failing| !failing.is_over(now));
        gauge
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, Gauge>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl Failing {
    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.last) > FORGOTTEN
    }
}
