//! The counting oracle: which events were acknowledged, which calls a function saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Events that a sender was told are accepted, against the calls that functions noted themselves.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Ids acknowledged with 202.
    pub acknowledged: BTreeSet<String>,
    /// Ids sent whose answer never came: they may or may not be there.
    pub unknown: BTreeSet<String>,
}

/// What the oracle counted.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// Acknowledged events that no call and no dead letter accounts for.
    pub lost: Vec<String>,
    /// Calls of events that nobody sent.
    pub invented: Vec<String>,
    /// Successful calls beyond the first per event.
    pub duplicates: usize,
    /// Events with at least one successful call.
    pub served: usize,
}

impl Oracle {
    /// Adds what another sender knows.
    pub fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
    }

    /// Compares with the function's notes (`<id> <outcome>` a line, and perhaps more words) and the ids that ended as dead letters.
    pub fn count(&self, notes: &Path, dead: &BTreeSet<String>) -> Count {
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for line in fs::read_to_string(notes).unwrap_or_default().lines() {
            let mut words = line.split(' ');
            if let (Some(id), Some("ok")) = (words.next(), words.next()) {
                *calls.entry(id.into()).or_default() += 1;
            }
        }
        Count {
            lost: self
                .acknowledged
                .iter()
                .filter(|id| !calls.contains_key(*id) && !dead.contains(*id))
                .cloned()
                .collect(),
            invented: calls
                .keys()
                .filter(|id| !self.acknowledged.contains(*id) && !self.unknown.contains(*id))
                .cloned()
                .collect(),
            duplicates: calls.values().map(|n| n - 1).sum(),
            served: calls.len(),
        }
    }
}
