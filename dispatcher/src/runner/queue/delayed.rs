//! Rows of a line whose time has not come, found by their place and by their time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bellwire_schemas::{Seq, Timestamp};

use super::line::Row;

#[derive(Debug, Default)]
pub(super) struct Delayed {
    rows: BTreeMap<Seq, Row>,
    times: BTreeSet<(Timestamp, Seq)>,
}

impl Delayed {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Takes a row in; a place has one at most.
    pub(super) fn insert(&mut self, seq: Seq, row: Row) {
        self.remove(seq);
        self.times.insert((row.at, seq));
        self.rows.insert(seq, row);
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Row> {
        let row = self.rows.remove(&seq)?;
        self.times.remove(&(row.at, seq));
        Some(row)
    }

    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Row> {
        self.rows.get_mut(&seq)
    }

    pub(super) fn keep_only(&mut self, but: &HashSet<Seq>) {
        self.rows.retain(|seq, _| but.contains(seq));
        self.times.retain(|(_, seq)| but.contains(seq));
    }

    pub(super) fn first_at(&self) -> Option<Timestamp> {
        self.times.first().map(|(at, _)| *at)
    }

    /// Takes out one whose time has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(Seq, Row)> {
        let (at, seq) = *self.times.first()?;
        if at > now {
            return None;
        }
        self.times.pop_first();
        Some((seq, self.rows.remove(&seq)?))
    }
}
