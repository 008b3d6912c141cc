//! The queue against a plain account of what may run: a runner in miniature, with flushes that are confirmed late,
//! failures, and crashes that forget everything the ledger does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{Owed, OwedReason, StoredEvent};
use bellwire_schemas::service::Ordering;
use bellwire_schemas::{Address, Event, Lane, Seq, Timestamp};
use proptest::prelude::*;

use super::{Change, Job, Queue, Ready, Room, Stream};

const LANE: Lane = Lane(1);
const NOW: Timestamp = Timestamp::from_millis(1_000_000);

#[derive(Clone, Debug)]
enum Step {
    Read,
    Take(usize, bool),
    Land(usize, Vec<u8>),
    Confirm,
    Wait(u64),
    Redrive(usize),
    Relieve,
    Remove(usize),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Read),
        4 => (1_usize..6, prop::bool::weighted(0.8)).prop_map(|(events, fresh)| Step::Take(events, fresh)),
        5 => (any::<usize>(), prop::collection::vec(0_u8..10, 1..6)).prop_map(|(at, ends)| Step::Land(at, ends)),
        2 => Just(Step::Confirm),
        2 => (0_u64..40).prop_map(Step::Wait),
        1 => any::<usize>().prop_map(Step::Redrive),
        1 => Just(Step::Relieve),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..250)
}

/// What the ledger has.
#[derive(Clone, Debug, Default)]
struct Book {
    settled: BTreeSet<u64>,
    rows: BTreeMap<u64, Owed>,
    dead: BTreeSet<u64>,
}

struct Mini {
    keys: Vec<Option<u8>>,
    queue: Queue,
    now: Timestamp,
    read: u64,
    /// Settled places, rows and dead letters as memory has them.
    settled: BTreeSet<u64>,
    owed: BTreeMap<u64, Owed>,
    dead: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    changes: Vec<Change>,
    book: Book,
    out: Vec<Vec<Job>>,
}

impl Mini {
    fn new(keys: Vec<Option<u8>>) -> Self {
        Self {
            keys,
            queue: Queue::new(LANE, Ordering::Key),
            now: NOW,
            read: 0,
            settled: BTreeSet::new(),
            owed: BTreeMap::new(),
            dead: BTreeSet::new(),
            ended: BTreeSet::new(),
            changes: Vec::new(),
            book: Book::default(),
            out: Vec::new(),
        }
    }

    fn key(&self, seq: u64) -> Option<String> {
        self.keys[seq as usize - 1].map(|key| format!("k{key}"))
    }

    fn event(&self, seq: u64) -> StoredEvent {
        StoredEvent {
            address: Address::new(LANE, Seq(seq)),
            source: "s".into(),
            accepted_at: NOW,
            key: self.key(seq),
            event: Arc::new(Event::default()),
        }
    }

    fn owe(&mut self, job: &Job, at: Timestamp, reason: OwedReason) {
        let seq = job.address.seq;
        let key = self.key(seq.0);
        let owed = Owed { seq, attempts: job.attempts, next_at: at, since: NOW, error: None, reason, key };
        self.changes.push(self.queue.owe(&owed, job.line, self.now));
        self.owed.insert(seq.0, owed);
        self.settled.insert(seq.0);
    }

    fn read(&mut self) {
        if self.read as usize == self.keys.len() {
            return;
        }
        self.read += 1;
        if !self.settled.contains(&self.read) {
            let job = Job::fresh(self.event(self.read));
            if self.queue.is_parked(job.line) {
                self.owe(&job, self.now, OwedReason::Parked);
            } else {
                self.queue.push_fresh(job, Stream::Cursor, self.now);
            }
        }
        self.queue.set_read(Seq(self.read), self.now);
    }

    fn take(&mut self, events: usize, fresh: bool) {
        let room = Room { events, bytes: usize::MAX, bisect: true, fresh };
        let ready = self.queue.ready(self.now);
        let has_something = ready.others || (fresh && ready.fresh);
        if !has_something {
            return;
        }
        let fills = fresh && self.queue.fills(room, self.now);
        let jobs = self.queue.take(room, self.now);
        assert!(!jobs.is_empty() && jobs.len() <= events, "what is ready can be taken");
        let most = jobs.iter().map(|job| job.most).min().unwrap();
        assert!(jobs.len() <= most, "{} together of {most}", jobs.len());
        assert!(
            jobs.iter().all(|job| (job.most == usize::MAX) == (most == usize::MAX)),
            "parts are by themselves"
        );
        let has_new = jobs.iter().any(Job::is_new);
        assert!(
            !fills || !has_new || jobs.len() == events,
            "new events fill it unless parts come before them"
        );
        assert!(fresh || !has_new, "new events are gathered");
        for job in &jobs {
            let Some(key) = self.key(job.address.seq.0) else { continue };
            for other in self.out.iter().flatten() {
                assert_ne!(
                    self.key(other.address.seq.0),
                    Some(key.clone()),
                    "two batches of one key are out"
                );
            }
            let is_again = matches!(job.debt, Some(OwedReason::Redrive));
            let lower = (1..job.address.seq.0).filter(|seq| self.key(*seq).as_ref() == Some(&key));
            for seq in lower.filter(|_| !is_again) {
                let with_it = jobs.iter().any(|other| other.address.seq.0 == seq);
                let again = self.owed.get(&seq).is_some_and(|owed| owed.reason == OwedReason::Redrive);
                assert!(with_it || again || self.ended.contains(&seq), "{seq} of {key} has not ended");
            }
        }
        assert!(jobs.is_sorted_by_key(|job| job.address));
        self.out.push(jobs);
    }

    fn land(&mut self, at: usize, ends: &[u8]) {
        if self.out.is_empty() {
            return;
        }
        let jobs = self.out.swap_remove(at % self.out.len());
        let lines: BTreeSet<u64> = jobs.iter().map(|job| job.line).collect();
        let half = jobs.len().div_ceil(2);
        let halved = jobs.len() > 1 && ends[0] == 9;
        let mut failed = BTreeSet::new();
        let mut again = Vec::new();
        for (n, mut job) in jobs.into_iter().enumerate() {
            match ends[n % ends.len()] {
                _ if halved => {
                    job.most = half;
                    again.push(job);
                }
                _ if failed.contains(&job.line) => again.push(job),
                0..=4 => self.end(&job, false),
                5..=6 => {
                    failed.insert(job.line);
                    job.attempts += 1;
                    let at = self.now.plus(Duration::from_millis(u64::from(ends[0]) * 4));
                    let reason =
                        job.debt.clone().filter(|r| *r == OwedReason::Redrive).unwrap_or(OwedReason::Retry);
                    self.owe(&job, at, reason);
                }
                7 => self.end(&job, true),
                _ => {
                    failed.insert(job.line);
                    again.push(job);
                }
            }
        }
        self.queue.put_back(again, self.now);
        for line in &lines {
            if self.queue.is_parked(*line) {
                for job in self.queue.park(*line) {
                    self.owe(&job, self.now, OwedReason::Parked);
                }
            }
        }
        self.queue.landed(lines.into_iter(), self.now);
    }

    fn end(&mut self, job: &Job, is_dead: bool) {
        let seq = job.address.seq.0;
        if job.debt.is_some() {
            self.changes.push(self.queue.end(job));
            self.owed.remove(&seq);
        }
        self.settled.insert(seq);
        self.ended.insert(seq);
        if is_dead {
            self.dead.insert(seq);
        }
    }

    fn confirm(&mut self) {
        let (settled, rows, dead) = (self.settled.clone(), self.owed.clone(), self.dead.clone());
        self.book = Book { settled, rows, dead };
        for change in std::mem::take(&mut self.changes) {
            self.queue.confirm(change, self.now);
        }
    }

    /// An operator puts a dead letter back; the runner reads its debts again.
    fn redrive(&mut self, at: usize) {
        let dead: Vec<u64> = self.book.dead.iter().copied().collect();
        if dead.is_empty() {
            return;
        }
        self.confirm();
        let seq = dead[at % dead.len()];
        let (next_at, key) = (self.now, self.key(seq));
        let reason = OwedReason::Redrive;
        let owed = Owed { seq: Seq(seq), attempts: 0, next_at, since: NOW, error: None, reason, key };
        for owes in [&mut self.owed, &mut self.book.rows] {
            owes.insert(seq, owed.clone());
        }
        self.dead.remove(&seq);
        self.book.dead.remove(&seq);
        let rows: Vec<Owed> = self.book.rows.values().cloned().collect();
        self.queue.learn(&rows, self.now);
    }

    fn crash(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        let (book, now) = (self.book.clone(), self.now);
        *self = Self::new(keys);
        self.now = now;
        let rows: Vec<Owed> = book.rows.values().cloned().collect();
        self.settled.clone_from(&book.settled);
        self.owed.clone_from(&book.rows);
        self.dead.clone_from(&book.dead);
        self.ended = book.settled.iter().copied().filter(|seq| !book.rows.contains_key(seq)).collect();
        self.book = book;
        self.queue.learn(&rows, now);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Read => self.read(),
            Step::Take(events, fresh) => self.take(*events, *fresh),
            Step::Land(at, ends) => self.land(*at, ends),
            Step::Confirm => self.confirm(),
            Step::Wait(millis) => self.now = self.now.plus(Duration::from_millis(*millis)),
            Step::Redrive(at) => self.redrive(*at),
            Step::Relieve => {
                for job in self.queue.relieve(2) {
                    self.owe(&job, self.now, OwedReason::Parked);
                }
            }
            Step::Remove(at) => {
                let seq = Seq(1 + *at as u64 % self.keys.len() as u64);
                if let Some(job) = self.queue.remove(seq, self.now) {
                    self.end(&job, false);
                }
            }
            Step::Crash => self.crash(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Never two batches of a key out, never an event before one of its key that has not ended, and in the end nothing
    /// is left.
    #[test]
    fn keys_are_in_order_and_nothing_is_forgotten(
        keys in prop::collection::vec(prop::option::weighted(0.9, 0_u8..4), 1..60),
        steps in steps(),
    ) {
        let mut mini = Mini::new(keys);
        for step in &steps {
            mini.step(step);
        }
        for _ in 0..400 {
            (0..3).for_each(|_| mini.read());
            mini.take(4, true);
            mini.land(0, &[0]);
            mini.confirm();
            mini.now = mini.now.plus(Duration::from_millis(40));
        }
        prop_assert_eq!(mini.ended.len(), mini.keys.len(), "owed {:?}", mini.owed);
        prop_assert!(mini.owed.is_empty());
        prop_assert_eq!((mini.queue.len(), mini.queue.rows(), mini.queue.held_len()), (0, 0, 0));
    }
}

fn fresh(seq: u64, key: Option<&str>) -> Job {
    let mini = Mini::new(vec![None; seq as usize]);
    let mut event = mini.event(seq);
    event.key = key.map(str::to_owned);
    Job::fresh(event)
}

const ONE: Room = Room { events: 1, bytes: usize::MAX, bisect: true, fresh: true };
const TEN: Room = Room { events: 10, ..ONE };

#[test]
fn a_flood_of_one_key_does_not_hold_up_another() {
    for ordering in [Ordering::None, Ordering::Key] {
        let mut queue = Queue::new(LANE, ordering);
        for seq in 1..=1_000 {
            queue.push_fresh(fresh(seq, Some("flood")), Stream::Cursor, NOW);
        }
        queue.push_fresh(fresh(1_001, Some("single")), Stream::Cursor, NOW);
        let taken: Vec<u64> =
            (0..2).flat_map(|_| queue.take(ONE, NOW)).map(|job| job.address.seq.0).collect();
        assert_eq!(taken, [1, 1_001], "{ordering:?}");
    }
}

/// A debt without a key that is due; one with attempts has failed alone.
fn debt(seq: u64, attempts: u32) -> Owed {
    let reason = if attempts > 0 { OwedReason::Retry } else { OwedReason::Redrive };
    Owed { seq: Seq(seq), attempts, next_at: NOW, since: NOW, error: None, reason, key: None }
}

/// A queue of so many new events, and of these debts.
fn queue(ordering: Ordering, fresh: u64, debts: &[Owed]) -> Queue {
    let mut queue = Queue::new(LANE, ordering);
    (1..=fresh).for_each(|seq| queue.push_fresh(self::fresh(seq, None), Stream::Cursor, NOW));
    debts.iter().for_each(|owed| queue.push_due(Job::debt(LANE, owed.clone(), true)));
    queue.learn(debts, NOW);
    queue.set_read(Seq(10_000), NOW);
    queue
}

fn sizes(queue: &mut Queue, room: Room) -> Vec<usize> {
    std::iter::from_fn(|| Some(queue.take(room, NOW).len()).filter(|len| *len > 0)).collect()
}

#[test]
fn new_events_live_ones_and_retries_take_turns() {
    let mut queue = Queue::new(LANE, Ordering::None);
    for seq in 1..=3 {
        queue.push_fresh(fresh(seq, None), Stream::Cursor, NOW);
        queue.push_fresh(fresh(100 + seq, None), Stream::Live, NOW);
        queue.push_due(Job::debt(LANE, debt(50 + seq, 1), true));
    }
    let taken: Vec<u64> = (0..9).flat_map(|_| queue.take(ONE, NOW)).map(|job| job.address.seq.0).collect();
    assert_eq!(taken, [1, 101, 51, 2, 102, 52, 3, 103, 53]);
}

#[test]
fn a_batch_keeps_to_its_bytes_and_to_what_failed_with_others() {
    let mut queue = Queue::new(LANE, Ordering::None);
    let size = fresh(1, None).bytes;
    for seq in 1..=10 {
        let mut job = fresh(seq, None);
        if seq == 5 || seq == 6 {
            job.most = 2;
        }
        queue.push_fresh(job, Stream::Cursor, NOW);
    }
    let room = Room { events: 100, bytes: 3 * size, ..ONE };
    assert_eq!(sizes(&mut queue, room), [2, 3, 3, 2], "5 and 6 go with each other only");
}

#[test]
fn what_goes_alone_leaves_the_other_batches_full() {
    for ordering in [Ordering::None, Ordering::Key] {
        let lone: Vec<Owed> = (901..=904).map(|seq| debt(seq, 1)).collect();
        let mut mixed = queue(ordering, 50, &lone);
        assert_eq!(sizes(&mut mixed, TEN), [10, 1, 10, 1, 10, 1, 10, 1, 10], "{ordering:?}");
        let debts: Vec<Owed> = (901..=922).map(|seq| debt(seq, u32::from(seq % 10 == 5))).collect();
        let mut owed = queue(ordering, 0, &debts);
        assert_eq!(sizes(&mut owed, TEN), [10, 1, 10, 1], "{ordering:?}");
    }
}

#[test]
fn halves_go_before_new_events_and_without_them() {
    for ordering in [Ordering::None, Ordering::Key] {
        let mut queue = queue(ordering, 30, &[debt(900, 1)]);
        let mut failed = queue.take(TEN, NOW);
        let lines: Vec<u64> = failed.iter().map(|job| job.line).collect();
        failed.iter_mut().for_each(|job| job.most = 5);
        queue.put_back(failed, NOW);
        queue.landed(lines.into_iter(), NOW);
        assert_eq!(sizes(&mut queue, TEN), [1, 5, 5, 10, 10], "{ordering:?}");
    }
}

/// Halves of what is owed and fails take no turns of new events, and the other way round.
#[test]
fn nothing_starves_beside_what_keeps_failing() {
    for (ordering, bad) in [Ordering::None, Ordering::Key].into_iter().flat_map(|o| [(o, true), (o, false)]) {
        let debts: Vec<Owed> = (1_001..=1_300).map(|seq| debt(seq, 0)).collect();
        let mut queue = queue(ordering, 300, &debts);
        let mut left = [300, 300];
        let (mut rests, mut longest) = ([0, 0], [0, 0]);
        loop {
            let mut jobs = queue.take(TEN, NOW);
            if jobs.is_empty() {
                break;
            }
            for (is_owed, rest) in rests.iter_mut().enumerate() {
                let goes = jobs.iter().any(|job| usize::from(job.debt.is_some()) == is_owed);
                *rest = if goes || left[is_owed] == 0 { 0 } else { *rest + 1 };
                longest[is_owed] = longest[is_owed].max(*rest);
            }
            let lines: Vec<u64> = jobs.iter().map(|job| job.line).collect();
            let fails = |job: &Job| job.address.seq.0.is_multiple_of(4) && job.debt.is_some() == bad;
            if jobs.len() > 1 && jobs.iter().any(fails) {
                let half = jobs.len().div_ceil(2);
                jobs.iter_mut().for_each(|job| job.most = half);
                queue.put_back(jobs, NOW);
            } else {
                jobs.iter().for_each(|job| left[usize::from(job.debt.is_some())] -= 1);
            }
            queue.landed(lines.into_iter(), NOW);
        }
        assert_eq!(left, [0, 0], "{ordering:?}");
        assert!(longest.iter().all(|rest| *rest <= 4), "{ordering:?}, owed ones fail: {bad}: {longest:?}");
    }
}

#[test]
fn while_new_events_are_gathered_the_others_go() {
    for ordering in [Ordering::None, Ordering::Key] {
        let gathering = Room { fresh: false, ..TEN };
        let mut queue = queue(ordering, 5, &[debt(901, 0), debt(902, 1), debt(903, 0)]);
        assert!(!queue.fills(TEN, NOW) && queue.fills(Room { events: 7, ..TEN }, NOW), "{ordering:?}");
        assert_eq!(queue.ready(NOW), Ready { fresh: true, others: true });
        assert_eq!(sizes(&mut queue, gathering), [2, 1], "{ordering:?}");
        assert_eq!(queue.ready(NOW), Ready { fresh: true, others: false });
        assert_eq!(sizes(&mut queue, TEN), [5], "{ordering:?}");
    }
}

#[test]
fn a_large_event_keeps_its_turn() {
    let mut queue = Queue::new(LANE, Ordering::None);
    let size = fresh(1, None).bytes;
    let mut large = fresh(2, None);
    large.bytes = 10 * size;
    queue.push_fresh(fresh(1, None), Stream::Cursor, NOW);
    queue.push_fresh(large, Stream::Cursor, NOW);
    (101..=110).for_each(|seq| queue.push_fresh(fresh(seq, None), Stream::Live, NOW));
    let room = Room { bytes: 3 * size, ..TEN };
    assert_eq!(sizes(&mut queue, room), [3, 1, 3, 3, 2]);
}
