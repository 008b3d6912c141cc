//! One line of a binding in order, and which of its jobs is next.

use std::collections::{BTreeMap, VecDeque};

use bellwire_ledger::{Owed, OwedReason};
use bellwire_schemas::{Address, Lane, Seq, Timestamp};

use super::batch::Size;
use super::delayed::Delayed;
use super::job::{Job, Kind, REPORTED};

#[derive(Debug, Default)]
pub(super) struct Line {
    /// Batches of it that are out: more than one only when order was asked for while they were.
    pub(super) out: u32,
    /// The ring that it is in, and where.
    pub(super) place: Option<(Kind, u64)>,
    pub(super) memory: VecDeque<Job>,
    /// Failed, parked and blocked debts.
    pub(super) rows: BTreeMap<Seq, Row>,
    /// Redriven and replayed ones, and delayed ones whose time has come.
    pub(super) again: BTreeMap<Seq, Row>,
    /// Those whose time has not come: they hold up nothing.
    pub(super) delayed: Delayed,
    again_next: bool,
}

/// A debt row, as far as it is needed to choose; the rest is read when its attempt starts.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) at: Timestamp,
    pub(super) attempts: u32,
    pub(super) since: Timestamp,
    pub(super) reason: OwedReason,
    /// Most events of a batch that it may be in: one when it failed with nothing else to blame, fewer with each halving.
    pub(super) most: usize,
    /// False until the flush that writes it is confirmed.
    pub(super) is_written: bool,
}

/// A job that may run now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// It stands beside the line.
    pub(super) is_again: bool,
    pub(super) size: Size,
    is_row: bool,
}

/// What a line is looked at with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Timestamp,
    /// Every place up to here was read.
    pub(super) read: Seq,
    /// Parts of batches are kept apart.
    pub(super) bisect: bool,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.known() == 0
    }

    /// Its rows.
    pub(super) fn known(&self) -> usize {
        self.rows.len() + self.again.len() + self.delayed.len()
    }

    /// What it has to run now; for a line that is not out.
    pub(super) fn next(&mut self, moment: Moment) -> Option<Next> {
        while let Some((seq, row)) = self.delayed.pop_due(moment.now) {
            self.again.insert(seq, row);
        }
        match (self.first(false, moment), self.first(true, moment)) {
            (Some(_), Some(again)) if self.again_next => Some(again),
            (live, again) => live.or(again),
        }
    }

    /// When it has something else to run.
    pub(super) fn later(&self, moment: Moment) -> Option<Timestamp> {
        let times = [self.live_at(moment.read), self.again_at(), self.delayed.first_at()];
        times.into_iter().flatten().filter(|at| *at > moment.now).min()
    }

    /// The first one of the line, or of what stands beside it, if it may run now.
    pub(super) fn first(&self, is_again: bool, moment: Moment) -> Option<Next> {
        let at = if is_again { self.again_at() } else { self.live_at(moment.read) };
        at.filter(|at| *at <= moment.now)?;
        let row = match is_again {
            true => self.again.values().next(),
            false => self
                .rows
                .first_key_value()
                .filter(|(seq, _)| !self.is_fresh_before(**seq))
                .map(|(_, row)| row),
        };
        let (most, bytes) = match row {
            Some(row) => (row.most, 0),
            None => self.memory.front().map(|job| (job.most, job.bytes))?,
        };
        let most = if moment.bisect { most } else { usize::MAX };
        let size = Size { kind: Kind::of(most, row.is_some()), most, bytes };
        Some(Next { is_again, is_row: row.is_some(), size })
    }

    /// Takes out what is next.
    pub(super) fn pop(&mut self, next: Next, (lane, id): (Lane, u64)) -> Option<Job> {
        self.again_next = !next.is_again;
        if !next.is_row {
            let job = self.memory.pop_front()?;
            return Some(Job { most: next.size.most, ..job });
        }
        let rows = if next.is_again { &mut self.again } else { &mut self.rows };
        let (seq, row) = rows.pop_first()?;
        Some(Job {
            address: Address::new(lane, seq),
            event: None,
            attempts: row.attempts,
            since: row.since,
            debt: Some(row.reason),
            error: None,
            line: id,
            bytes: 0,
            most: next.size.most,
        })
    }

    /// How many could go now, one after the other, in a batch of any size, up to a number; and their bytes.
    pub(super) fn count_whole(&self, is_again: bool, moment: Moment, most: usize) -> (usize, usize) {
        let is_whole = |most: usize| most == usize::MAX || !moment.bisect;
        let goes = |row: &Row| row.at().is_some_and(|at| at <= moment.now) && is_whole(row.most);
        if is_again {
            return (self.again.values().take(most).take_while(|row| goes(row)).count(), 0);
        }
        let (mut rows, mut memory) = (self.rows.iter().peekable(), self.memory.iter().peekable());
        let (mut events, mut bytes) = (0, 0);
        while events < most {
            let row = rows.peek().map(|(seq, _)| **seq);
            let fresh = memory.next_if(|job| row.is_none_or(|seq| job.address.seq < seq));
            bytes += match fresh {
                Some(job) if is_whole(job.most) => job.bytes,
                None if rows.next_if(|(seq, row)| **seq <= moment.read && goes(row)).is_some() => 0,
                _ => break,
            };
            events += 1;
        }
        (events, bytes)
    }

    /// When the first of the line may run.
    fn live_at(&self, read: Seq) -> Option<Timestamp> {
        match self.rows.first_key_value() {
            Some((seq, row)) if !self.is_fresh_before(*seq) => row.at().filter(|_| *seq <= read),
            _ => self.memory.front().map(|_| Timestamp::from_micros(i64::MIN)),
        }
    }

    /// When the first beside the line may run.
    fn again_at(&self) -> Option<Timestamp> {
        self.again.values().next().and_then(Row::at)
    }

    fn is_fresh_before(&self, seq: Seq) -> bool {
        self.memory.front().is_some_and(|job| job.address.seq < seq)
    }
}

impl Row {
    pub(super) fn of(owed: &Owed, is_written: bool) -> Self {
        let is_suspect = owed.attempts > 0 && owed.error.as_ref().is_none_or(|e| e.kind != REPORTED);
        let most = if is_suspect { 1 } else { usize::MAX };
        let (at, attempts, since, reason) = (owed.next_at, owed.attempts, owed.since, owed.reason.clone());
        Self { at, attempts, since, reason, most, is_written }
    }

    /// When it may run; a row that is not written yet has no time.
    fn at(&self) -> Option<Timestamp> {
        self.is_written.then_some(self.at)
    }
}
