//! Deliveries without order: streams in turn, and the keys of each stream in turn.

use bellwire_schemas::Seq;

use super::batch::{Batch, Draw};
use super::job::{Job, Kind, Stream};
use super::ring::Ring;
use super::{Ready, Room};

/// Events without a key share one turn.
const KEYLESS: u64 = 0;

const CURSOR: usize = 0;
const LIVE: usize = 1;
const DEBTS: usize = 2;
const LONE: usize = 3;
/// Take the turns of the streams that they came from as long as there are any: what came before goes first, and what is owed
/// never takes the turns of new events, however often it fails.
const PARTS: usize = 4;
const OWED_PARTS: usize = 5;

/// Streams that have a turn of their own.
const TURNS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Free {
    streams: [Ring; 6],
    next: usize,
}

impl Free {
    pub(super) fn push_fresh(&mut self, job: Job, stream: Stream) {
        let (stream, group) = place(&job, index(stream));
        self.streams[stream].push_back(group, job);
    }

    pub(super) fn push_debt(&mut self, job: Job) {
        let (stream, group) = place(&job, CURSOR);
        self.streams[stream].push_back(group, job);
    }

    pub(super) fn put_back(&mut self, job: Job) {
        // Which fresh stream it came from does not matter any more: it goes first.
        let (stream, group) = place(&job, CURSOR);
        self.streams[stream].push_front(group, job);
    }

    pub(super) fn put_behind(&mut self, job: Job) {
        self.push_fresh(job, Stream::Cursor);
    }

    pub(super) fn take(&mut self, room: Room) -> Vec<Job> {
        let mut batch = Batch::new(room);
        let streams = &mut self.streams;
        batch.fill(&mut self.next, TURNS, |turn, batch| {
            let parts = match turn {
                CURSOR | LIVE => PARTS,
                DEBTS => OWED_PARTS,
                _ => turn,
            };
            let stream = if streams[parts].len() > 0 { parts } else { turn };
            if !room.fresh && matches!(stream, CURSOR | LIVE) {
                return Draw::Nothing;
            }
            match streams[stream].first().map(|job| batch.has_room_for(job.size())) {
                Some(true) => streams[stream].pop().map_or(Draw::Nothing, |job| Draw::Job(Box::new(job))),
                Some(false) => Draw::Waits,
                None => Draw::Nothing,
            }
        });
        batch.jobs
    }

    pub(super) fn ready(&self) -> Ready {
        let has = |stream: &usize| self.streams[*stream].len() > 0;
        Ready {
            fresh: [CURSOR, LIVE].iter().any(has),
            others: [DEBTS, LONE, PARTS, OWED_PARTS].iter().any(has),
        }
    }

    /// Whether new events, with the debts that may join them, make a full batch.
    pub(super) fn fills(&self, room: Room) -> bool {
        // Debts do not join while parts of such stand before them.
        let joining = if self.streams[OWED_PARTS].len() > 0 { DEBTS } else { DEBTS + 1 };
        let of = |what: fn(&Ring) -> usize| self.streams[..joining].iter().map(what).sum::<usize>();
        of(Ring::len) >= room.events || of(Ring::bytes) >= room.bytes
    }

    pub(super) fn drop_debts(&mut self) -> Vec<Seq> {
        let debts = self.streams.iter_mut().flat_map(|stream| stream.drain(|job| job.debt.is_some()));
        debts.map(|job| job.address.seq).collect()
    }

    pub(super) fn take_fresh(&mut self) -> Vec<Job> {
        self.streams.iter_mut().flat_map(|stream| stream.drain(|job| job.debt.is_none())).collect()
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Job> {
        self.streams.iter_mut().find_map(|stream| stream.remove(seq))
    }

    pub(super) fn stream_len(&self, stream: Stream) -> usize {
        self.streams[index(stream)].len()
    }

    pub(super) fn fresh_len(&self) -> usize {
        self.streams.iter().map(|stream| stream.len() - stream.debts()).sum()
    }

    pub(super) fn debts_len(&self) -> usize {
        self.streams.iter().map(Ring::debts).sum()
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

/// The stream of a job and whose turn it is in there; `fresh`: the one that new events come from.
fn place(job: &Job, fresh: usize) -> (usize, u64) {
    match job.size().kind {
        Kind::Fresh if job.key().is_none() => (fresh, KEYLESS),
        Kind::Fresh => (fresh, job.line),
        Kind::Debt => (DEBTS, job.line),
        Kind::Lone => (LONE, job.line),
        Kind::Part => (PARTS, KEYLESS),
        Kind::OwedPart => (OWED_PARTS, KEYLESS),
    }
}
