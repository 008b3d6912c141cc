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
    /// `ok`; `paused`: by `enabled: false`, or held back for now; `failing`; `stalled`: alive, but nothing moves.
    pub state: &'static str,
    /// Why, when it is not `ok`. Of a source that is held back it begins with [`crate::pressure::LEDGER_FULL`] or
    /// [`crate::pressure::MEMORY`] and a colon.
    pub reason: Option<String>,
    /// Since when, unless that is by configuration.
    pub since: Option<Timestamp>,
    /// Where events enter: `POST /s3`, or the next tick.
    pub entrance: String,
    /// The next tick of a schedule.
    pub next_tick: Option<Timestamp>,
    /// Arrivals since start.
    pub counts: Counts,
    /// How often its connector was dropped and made anew since start, because it stalled or broke down.
    pub restarts: u64,
}

/// A trouble older than this is over: whatever still fails is tried again more often, and a door that nobody calls any
/// more must not look broken for ever.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// The counters and troubles of all sources.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<BTreeMap<SourceName, Gauge>>);

/// What is known of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) counts: Counts,
    pub(crate) restarts: u64,
    pub(crate) trouble: Option<Trouble>,
}

/// What kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Held back: by a full ledger, or by full memory.
    Paused,
    /// Something does not work.
    Failing,
    /// Nothing moves although work waits. Not forgotten: it ends when something moves.
    Stalled,
}

/// A row of troubles of one kind without a success between.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
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

    /// Notes trouble of a source; the time of the first in a row stays. Returns whether it is the first.
    pub(crate) fn trouble(&self, source: &SourceName, kind: Kind, reason: String, now: Timestamp) -> bool {
        let mut all = self.lock();
        let gauge = all.entry(source.clone()).or_default();
        let before = gauge.trouble.take().filter(|old| old.kind == kind && !old.is_over(now));
        let first = before.is_none();
        let since = before.map_or(now, |old| old.since);
        gauge.trouble = Some(Trouble { kind, reason, since, last: now });
        first
    }

    /// Notes that intake of a source fails.
    pub(crate) fn failing(&self, source: &SourceName, reason: String, now: Timestamp) {
        self.trouble(source, Kind::Failing, reason, now);
    }

    /// Notes a suspicion, unless something is known already.
    pub(crate) fn suspect(&self, source: &SourceName, reason: String, now: Timestamp) {
        if self.read(source, now).trouble.is_none_or(|trouble| trouble.reason == reason) {
            self.failing(source, reason, now);
        }
    }

    /// Notes that intake of a source works; returns the trouble that is over.
    pub(crate) fn healthy(&self, source: &SourceName) -> Option<Kind> {
        Some(self.lock().get_mut(source)?.trouble.take()?.kind)
    }

    /// Notes that a source which had stalled may be idle by right; other troubles stay. Returns whether it had.
    pub(crate) fn unstalled(&self, source: &SourceName) -> bool {
        let stalled = |trouble: &mut Trouble| trouble.kind == Kind::Stalled;
        self.lock().get_mut(source).and_then(|gauge| gauge.trouble.take_if(stalled)).is_some()
    }

    /// Counts a connector that is dropped and made anew.
    pub(crate) fn restarted(&self, source: &SourceName) {
        self.lock().entry(source.clone()).or_default().restarts += 1;
    }

    /// What is known of a source.
    pub(crate) fn read(&self, source: &SourceName, now: Timestamp) -> Gauge {
        let mut gauge = self.lock().get(source).cloned().unwrap_or_default();
        gauge.trouble = gauge.trouble.filter(|trouble| !trouble.is_over(now));
        gauge
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, Gauge>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl Kind {
    /// The word for people and machines.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Failing => "failing",
            Self::Stalled => "stalled",
        }
    }
}

impl Trouble {
    fn is_over(&self, now: Timestamp) -> bool {
        self.kind != Kind::Stalled && now.since(self.last) > FORGOTTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_its_beginning_and_only_a_stall_is_remembered() {
        let (meter, source) = (Meter::default(), SourceName::new("s"));
        let at = Timestamp::from_millis;
        let seen = |now| meter.read(&source, now).trouble.map(|t| (t.kind, t.reason, t.since));
        meter.trouble(&source, Kind::Paused, "ledger-full: a".into(), at(1_000));
        meter.trouble(&source, Kind::Paused, "ledger-full: b".into(), at(20_000));
        assert_eq!(seen(at(20_000)), Some((Kind::Paused, "ledger-full: b".into(), at(1_000))));
        meter.failing(&source, "away".into(), at(21_000));
        assert_eq!(seen(at(22_000)), Some((Kind::Failing, "away".into(), at(21_000))));
        meter.unstalled(&source);
        assert!(seen(at(22_000)).is_some() && seen(at(60_000)).is_none(), "forgotten by itself only");
        meter.trouble(&source, Kind::Stalled, "stuck".into(), at(60_000));
        assert_eq!(seen(at(9_000_000)), Some((Kind::Stalled, "stuck".into(), at(60_000))));
        meter.unstalled(&source);
        assert_eq!(seen(at(60_000)), None);
    }
}
