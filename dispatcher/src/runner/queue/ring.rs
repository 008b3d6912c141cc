//! A stream in which keys take turns: of a flood of one key, another key's event waits for one batch, not for all.

use std::collections::{HashMap, VecDeque};

use bellwire_schemas::Seq;

use super::job::Job;

/// Jobs by key.
#[derive(Debug, Default)]
pub(super) struct Ring {
    groups: HashMap<u64, VecDeque<Job>>,
    turn: VecDeque<u64>,
    len: usize,
    debts: usize,
    bytes: usize,
}

impl Ring {
    pub(super) fn push_back(&mut self, group: u64, job: Job) {
        self.count(&job);
        let jobs = self.groups.entry(group).or_default();
        if jobs.is_empty() {
            self.turn.push_back(group);
        }
        jobs.push_back(job);
    }

    /// Puts a job before all others.
    pub(super) fn push_front(&mut self, group: u64, job: Job) {
        self.count(&job);
        let jobs = self.groups.entry(group).or_default();
        if !jobs.is_empty() {
            self.turn.retain(|other| *other != group);
        }
        self.turn.push_front(group);
        jobs.push_front(job);
    }

    /// The next key's first job.
    pub(super) fn first(&self) -> Option<&Job> {
        self.groups.get(self.turn.front()?)?.front()
    }

    /// Takes it out.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let group = self.turn.pop_front()?;
        let jobs = self.groups.get_mut(&group)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.groups.remove(&group);
        } else {
            self.turn.push_back(group);
        }
        self.uncount(&job);
        Some(job)
    }

    /// Takes out all of a sort.
    pub(super) fn drain(&mut self, is_wanted: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut all = Vec::new();
        for jobs in self.groups.values_mut() {
            let (wanted, kept) = std::mem::take(jobs).into_iter().partition(&is_wanted);
            let wanted: VecDeque<Job> = wanted;
            *jobs = kept;
            all.extend(wanted);
        }
        self.groups.retain(|_, jobs| !jobs.is_empty());
        self.turn.retain(|group| self.groups.contains_key(group));
        all.iter().for_each(|job| self.uncount(job));
        all
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Job> {
        let (group, at) = self.groups.iter().find_map(|(group, jobs)| {
            jobs.iter().position(|job| job.address.seq == seq).map(|at| (*group, at))
        })?;
        let jobs = self.groups.get_mut(&group)?;
        let job = jobs.remove(at)?;
        if jobs.is_empty() {
            self.groups.remove(&group);
            self.turn.retain(|other| *other != group);
        }
        self.uncount(&job);
        Some(job)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many of them are owed.
    pub(super) fn debts(&self) -> usize {
        self.debts
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&mut self, job: &Job) {
        self.len += 1;
        self.debts += usize::from(job.debt.is_some());
        self.bytes += job.bytes;
    }

    fn uncount(&mut self, job: &Job) {
        self.len -= 1;
        self.debts -= usize::from(job.debt.is_some());
        self.bytes -= job.bytes;
    }
}
