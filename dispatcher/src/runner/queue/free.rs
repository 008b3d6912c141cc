//! Deliveries without order: three streams in turn, and the keys of each stream in turn.

use bellwire_schemas::Seq;

use super::Room;
use super::job::{Job, Stream};
use super::ring::Ring;

/// Events without a key share one turn.
const KEYLESS: u64 = 0;

const CURSOR: usize = 0;
const LIVE: usize = 1;
const DEBTS: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Free {
    streams: [Ring; 3],
    next: usize,
}

impl Free {
    pub(super) fn push_fresh(&mut self, job: Job, stream: Stream) {
        self.streams[index(stream)].push_back(group(&job), job);
    }

    pub(super) fn push_debt(&mut self, job: Job) {
        self.streams[DEBTS].push_back(job.line, job);
    }

    pub(super) fn put_back(&mut self, job: Job) {
        // Which fresh stream it came from does not matter any more: it goes first.
        let stream = if job.debt.is_some() { DEBTS } else { CURSOR };
        let group = if job.debt.is_some() { job.line } else { group(&job) };
        self.streams[stream].push_front(group, job);
    }

    pub(super) fn put_behind(&mut self, job: Job) {
        match job.debt {
            Some(_) => self.push_debt(job),
            None => self.push_fresh(job, Stream::Cursor),
        }
    }

    pub(super) fn take(&mut self, room: Room) -> Vec<Job> {
        let mut batch = Batch::new(room);
        while let Some((stream, group, job)) = self.pop() {
            if !batch.has_room_for(&job) {
                self.streams[stream].push_front(group, job);
                break;
            }
            batch.add(job);
            if batch.is_full() {
                break;
            }
        }
        batch.jobs
    }

    fn pop(&mut self) -> Option<(usize, u64, Job)> {
        for step in 0..self.streams.len() {
            let stream = (self.next + step) % self.streams.len();
            if let Some((group, job)) = self.streams[stream].pop() {
                self.next = stream + 1;
                return Some((stream, group, job));
            }
        }
        None
    }

    pub(super) fn drop_debts(&mut self) -> Vec<Seq> {
        self.streams[DEBTS].drain().into_iter().map(|job| job.address.seq).collect()
    }

    pub(super) fn take_fresh(&mut self) -> Vec<Job> {
        let mut jobs = self.streams[CURSOR].drain();
        jobs.append(&mut self.streams[LIVE].drain());
        jobs
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Job> {
        self.streams.iter_mut().find_map(|stream| stream.remove(seq))
    }

    pub(super) fn stream_len(&self, stream: Stream) -> usize {
        self.streams[index(stream)].len()
    }

    pub(super) fn fresh_len(&self) -> usize {
        self.streams[CURSOR].len() + self.streams[LIVE].len()
    }

    pub(super) fn debts_len(&self) -> usize {
        self.streams[DEBTS].len()
    }

    pub(super) fn len(&self) -> usize {
        self.fresh_len() + self.debts_len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.streams.iter().map(Ring::bytes).sum()
    }
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Cursor => CURSOR,
        Stream::Live => LIVE,
    }
}

fn group(job: &Job) -> u64 {
    if job.key().is_some() { job.line } else { KEYLESS }
}

/// A batch in the making.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) jobs: Vec<Job>,
    events: usize,
    bytes_left: usize,
}

impl Batch {
    pub(super) fn new(room: Room) -> Self {
        Self { jobs: Vec::new(), events: room.events.max(1), bytes_left: room.bytes }
    }

    /// Whether a job goes with the others; the first one always does.
    pub(super) fn has_room_for(&self, job: &Job) -> bool {
        let fits = self.jobs.len() < self.events.min(job.most.max(1)) && job.bytes <= self.bytes_left;
        fits || self.jobs.is_empty()
    }

    pub(super) fn add(&mut self, job: Job) {
        self.events = self.events.min(job.most.max(1));
        self.bytes_left = self.bytes_left.saturating_sub(job.bytes);
        self.jobs.push(job);
    }

    pub(super) fn is_full(&self) -> bool {
        self.jobs.len() >= self.events || self.bytes_left == 0
    }
}
