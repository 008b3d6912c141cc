//! The pace of the live log: counts facts per second and says when single lines would only rush by.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwire_schemas::live::Fact;
use bellwire_schemas::{FinalState, Timestamp};

use super::MAX_RATE;
use crate::cli::times::count;

const WINDOW: Duration = Duration::from_secs(1);

/// The current second.
#[derive(Debug, Default)]
pub struct Rate {
    since: Option<Timestamp>,
    accepted: u64,
    ended: u64,
    counting: bool,
    counts: BTreeMap<(bool, String), Count>,
}

/// What one source or binding did while single lines were held back.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// The source, or the binding's label.
    pub label: String,
    accepted: u64,
    retrying: u64,
    ended: [u64; FinalState::ALL.len()],
}

impl Rate {
    /// Whether facts are counted instead of shown.
    pub fn counting(&self) -> bool {
        self.counting
    }

    /// Counts a fact about one event under a label.
    pub fn count(&mut self, fact: &Fact, label: String, now: Timestamp) {
        self.since.get_or_insert(now);
        let accepted = matches!(fact, Fact::Accepted { .. });
        if accepted {
            self.accepted += 1;
        } else {
            self.ended += 1;
        }
        self.counting |= self.accepted.max(self.ended) > MAX_RATE;
        if !self.counting {
            return;
        }
        let entry = self.counts.entry((!accepted, label.clone())).or_default();
        entry.label = label;
        match fact {
            Fact::Accepted { .. } => entry.accepted += 1,
            Fact::Attempt { state: None, .. } => entry.retrying += 1,
            Fact::Attempt { state: Some(state), .. } | Fact::Settled { state, .. } => {
                let at = FinalState::ALL.iter().position(|s| s == state).unwrap_or(0);
                entry.ended[at] += 1;
            }
            Fact::NotAccepted { .. } | Fact::Condition { .. } => {}
        }
    }

    /// Ends the current second when it is over: gives what was counted, sources first, and over which time.
    pub fn roll(&mut self, now: Timestamp) -> Option<(Vec<Count>, Duration)> {
        let over = now.since(self.since?);
        if over < WINDOW {
            return None;
        }
        // Half the pace to go back: a pace near the limit must not switch to and fro.
        let per_second = u128::from(self.accepted.max(self.ended)) * 1_000 / over.as_millis().max(1);
        self.counting &= per_second > u128::from(MAX_RATE / 2);
        (self.since, self.accepted, self.ended) = (None, 0, 0);
        if self.counting {
            self.since = Some(now);
        }
        let counts = std::mem::take(&mut self.counts);
        Some((counts.into_values().collect(), over))
    }
}

impl Count {
    /// What happened, in words: `312 delivered  4 retrying`.
    pub fn words(&self) -> String {
        let ended = FinalState::ALL.iter().zip(self.ended).map(|(state, n)| (n, state.as_str()));
        std::iter::once((self.accepted, "accepted"))
            .chain(ended)
            .chain([(self.retrying, "retrying")])
            .filter(|(n, _)| *n > 0)
            .map(|(n, word)| format!("{} {word}", count(n)))
            .collect::<Vec<_>>()
            .join("  ")
    }
}
