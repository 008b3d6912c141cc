//! Which ticks are due: a pure function of the last tick and the time.

use std::time::Duration;

use bellwire_schemas::Timestamp;
use bellwire_schemas::service::Missed;

use super::Timer;

/// A tick up to this late still counts as on time: a restart or a slow commit takes seconds, and must not cost a tick
/// even where missed ones are forgotten. Later ones fall under the missed-run policy.
pub const ON_TIME: Duration = Duration::from_secs(10);

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ticks to emit, oldest first.
    pub ticks: Vec<Timestamp>,
    /// Everything up to here is dealt with once the ticks are stored; `None` when nothing is due.
    pub through: Option<Timestamp>,
    /// When the next tick is due, if none is due now and there is one.
    pub wake: Option<Timestamp>,
}

impl Timer {
    /// Plans from the last tick that was dealt with, at most `limit` ticks.
    ///
    /// Ticks are emitted in their order, so one that jitter holds back holds back those after it. Time that jumped
    /// forwards leaves missed ticks; time that jumped backwards leaves none due until it has caught up.
    pub fn plan(&self, last: Timestamp, now: Timestamp, limit: usize) -> Plan {
        let Some(first) = self.next_after(last) else { return Plan::default() };
        let due = self.due(first);
        if due > now {
            return Plan { wake: Some(due), ..Plan::default() };
        }
        let late = now.minus(ON_TIME);
        if self.missed == Missed::All || due >= late {
            return emit(self.due_after(last, now, limit));
        }
        // The first is missed. All due before `sure` are missed too, so the search for others can begin there.
        let sure = late.minus(self.jitter).max(last);
        let recent = self.due_after(sure, now, usize::MAX);
        let on_time: Vec<_> =
            recent.iter().copied().filter(|tick| self.due(*tick) >= late).take(limit).collect();
        if !on_time.is_empty() {
            return emit(on_time);
        }
        let newest = recent.last().copied().or_else(|| self.last_until(sure)).unwrap_or(first).max(first);
        match self.missed {
            Missed::Last => emit(vec![newest]),
            Missed::None | Missed::All => Plan { through: Some(newest), ..Plan::default() },
        }
    }

    fn due_after(&self, after: Timestamp, now: Timestamp, limit: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |tick| self.next_after(*tick))
            .take_while(|tick| self.due(*tick) <= now)
            .take(limit)
            .collect()
    }
}

fn emit(ticks: Vec<Timestamp>) -> Plan {
    Plan { through: ticks.last().copied(), ticks, wake: None }
}
