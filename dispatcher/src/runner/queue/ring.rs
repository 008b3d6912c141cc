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
    pub(super) fn pop(&mut self) -> Option<(u64, Job)> {
        let group = self.turn.pop_front()?;
        let jobs = self.groups.get_mut(&group)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.groups.remove(&group);
        } else {
            self.turn.push_back(group);
        }
        self.len -= 1;
        self.bytes -= job.bytes;
        Some((group, job))
    }

    pub(super) fn drain(&mut self) -> Vec<Job> {
        let jobs = self.groups.drain().flat_map(|(_, jobs)| jobs).collect();
        self.turn.clear();
        (self.len, self.bytes) = (0, 0);
        jobs
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
        self.len -= 1;
        self.bytes -= job.bytes;
        Some(job)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&mut self, job: &Job) {
        self.len += 1;
        self.bytes += job.bytes;
    }
}
