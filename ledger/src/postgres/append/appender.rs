//! A task that appends: takes what waits as one group, and settles it before it takes the next.

use std::collections::{HashSet, VecDeque};
use std::sync::Weak;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::job::Job;
use super::settle::{Link, settle};
use crate::postgres::Shared;

/// Events in one commit: beyond that the row grows and nothing gets cheaper.
const GROUP_EVENTS: usize = 1_000;
/// Bytes in one commit, after which no more is taken in. A single larger append goes alone.
const GROUP_BYTES: usize = 1 << 20;
/// Appends in one commit.
const GROUP_JOBS: usize = 512;

/// One of the tasks.
pub(super) struct Appender {
    /// Not held while it waits, so that a ledger nobody uses goes away.
    shared: Weak<Shared>,
    jobs: mpsc::Receiver<Job>,
    waiting: VecDeque<Job>,
    link: Link,
}

impl Appender {
    pub fn new(shared: Weak<Shared>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { shared, jobs, waiting: VecDeque::new(), link: Link::default() }
    }

    /// Works until the ledger is closed and nothing waits any more.
    pub async fn run(mut self) {
        loop {
            if self.waiting.is_empty() {
                let Some(job) = self.jobs.recv().await else { return };
                self.waiting.push_back(job);
            }
            while self.waiting.len() < GROUP_JOBS
                && let Ok(job) = self.jobs.try_recv()
            {
                self.waiting.push_back(job);
            }
            let group = self.gather();
            let Some(shared) = self.shared.upgrade() else { return };
            settle(&shared, &mut self.link, group).await;
        }
    }

    /// Takes from what waits as much as one commit should hold: appends to the same lane, in order. An identity that
    /// one of them brings in is not brought in again by another; the same append does not come twice.
    fn gather(&mut self) -> Vec<Job> {
        let mut group: Vec<Job> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        let mut ids: HashSet<Uuid> = HashSet::new();
        let mut at = 0;
        while let Some(job) = self.waiting.get(at) {
            if group
                .first()
                .is_some_and(|first| first.only_lane() != job.only_lane() && first.only_lane().is_some())
            {
                at += 1;
                continue;
            }
            events += job.fates.len();
            bytes += job.bytes;
            let full = events > GROUP_EVENTS || bytes > GROUP_BYTES || group.len() >= GROUP_JOBS;
            let mut mine = job.hashes.iter().flatten().copied().chain([job.id()]);
            if !group.is_empty() && (full || mine.any(|id| ids.contains(&id))) {
                break;
            }
            // Only a neighbour can bring one in again.
            if self.waiting.len() > at + 1 {
                ids.extend(job.hashes.iter().flatten());
                ids.insert(job.id());
            }
            group.extend(self.waiting.remove(at));
        }
        group
    }
}
