//! A batch in the making, filled from streams that take turns.

use super::Room;
use super::job::{Job, Kind};

/// What a stream has to say when its turn comes.
pub(super) enum Draw {
    Job(Box<Job>),
    /// Its next one does not go with this batch: it begins the next.
    Waits,
    Nothing,
}

/// What must be known of a job to tell whether it goes along.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) kind: Kind,
    pub(super) most: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) jobs: Vec<Job>,
    kind: Option<Kind>,
    events: usize,
    bytes_left: usize,
}

impl Batch {
    pub(super) fn new(room: Room) -> Self {
        Self { jobs: Vec::new(), kind: None, events: room.events.max(1), bytes_left: room.bytes }
    }

    /// Takes one of each stream in turn, from `next` on, until the batch is full or no stream has one that goes along.
    /// A stream whose job does not go along keeps its turn, and holds up no other.
    pub(super) fn fill(
        &mut self,
        next: &mut usize,
        turns: usize,
        mut draw: impl FnMut(usize, &Self) -> Draw,
    ) {
        let (mut turn, mut idle, mut first_waiting) = (*next % turns, 0, None);
        while !self.is_full() && idle < turns {
            idle += 1;
            match draw(turn, self) {
                Draw::Job(job) => {
                    self.add(*job);
                    idle = 0;
                }
                Draw::Waits => {
                    first_waiting.get_or_insert(turn);
                }
                Draw::Nothing => {}
            }
            turn = (turn + 1) % turns;
        }
        *next = first_waiting.unwrap_or(turn);
    }

    /// Whether a job goes with the others; the first one always does.
    pub(super) fn has_room_for(&self, size: Size) -> bool {
        let Some(kind) = self.kind else { return true };
        kind.goes_with(size.kind)
            && self.jobs.len() < self.events.min(size.most.max(1))
            && size.bytes <= self.bytes_left
    }

    pub(super) fn add(&mut self, job: Job) {
        self.kind.get_or_insert(job.size().kind);
        self.events = self.events.min(job.most.max(1));
        self.bytes_left = self.bytes_left.saturating_sub(job.bytes);
        self.jobs.push(job);
    }

    pub(super) fn is_full(&self) -> bool {
        !self.jobs.is_empty() && (self.jobs.len() >= self.events || self.bytes_left == 0)
    }
}
