//! How fast a backlog shrinks, from what is seen of it now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bellwire_schemas::Timestamp;

/// Looks closer together than this say little.
const LEAST: Duration = Duration::from_secs(1);
/// What was seen longer ago than this says nothing about now.
const FORGET: Duration = Duration::from_secs(300);
/// The part that a new look has in the pace.
const WEIGHT: f64 = 0.5;

/// The pace of one backlog.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Timestamp,
    waiting: u64,
    per_second: Option<f64>,
}

impl Pace {
    /// Notes what waits now, and says when it will be done.
    pub(crate) fn drains_by(&self, waiting: u64, now: Timestamp) -> Option<Timestamp> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.filter(|before| now.since(before.at) < FORGET);
        let per_second = match before {
            Some(before) if now.since(before.at) < LEAST => before.per_second,
            _ => {
                let shrunk = |before: Seen| {
                    let pace = (before.waiting as f64 - waiting as f64) / now.since(before.at).as_secs_f64();
                    before.per_second.map_or(pace, |old| old + WEIGHT * (pace - old))
                };
                let per_second = before.map(shrunk);
                *seen = Some(Seen { at: now, waiting, per_second });
                per_second
            }
        };
        let pace = per_second.filter(|pace| *pace > 0.0 && waiting > 0)?;
        let left = (waiting as f64 / pace).min(10.0 * 365.0 * 86_400.0);
        Some(now.plus(Duration::from_secs_f64(left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_shrinks_has_an_end_and_one_that_grows_has_none() {
        let start = Timestamp::from_millis(1_000_000);
        let at = |s: u64| start.plus(Duration::from_secs(s));
        let pace = Pace::default();
        assert_eq!(pace.drains_by(1_000, at(0)), None);
        assert_eq!(pace.drains_by(900, at(10)), Some(at(100)));
        assert_eq!(
            pace.drains_by(899, at(10)).map(|t| t < at(101)),
            Some(true),
            "a second look at once changes nothing"
        );
        assert_eq!(pace.drains_by(2_000, at(20)), None);
        assert_eq!(pace.drains_by(0, at(400)), None);
    }
}
