//! The crew's book: which workers there are, what each does, who waits, and how many must be started. Pure: nothing
//! here starts, kills or waits.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bellwire_schemas::{ErrorInfo, Timestamp};
use tokio::time::Instant;

/// Shortest pause after a failed start; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a failed start.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Most workers of one crew that start at once: more would only slow each other down.
const MAX_STARTING: usize = 8;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its process starts; ends with its first `next`, or with its exit.
    Starting,
    /// It waits in `next`.
    Idle,
    /// An invocation has it.
    Busy,
    /// It has answered and not asked for more yet.
    Settling,
    /// It was told to stop or killed; gone when its process has ended.
    Dying,
}

/// One worker in the book.
#[derive(Debug)]
pub struct Member<W> {
    /// The worker; none before its process exists.
    pub worker: Option<W>,
    /// What it does.
    pub stage: Stage,
    /// Since when.
    pub since: Instant,
}

/// Why workers cannot start, and when the next try is.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// The last error.
    pub error: ErrorInfo,
    /// First failure of this row.
    pub since: Timestamp,
    /// Next try, as shown.
    pub next_try: Timestamp,
    /// Next try, as measured.
    pub next_try_at: Instant,
    /// Failures in this row.
    pub failures: u32,
}

/// The limits that may change without a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most processes.
    pub most: usize,
    /// Workers kept ready.
    pub least: usize,
    /// How long the others stay without work.
    pub idle: Duration,
}

/// The book of one crew: `W` is a worker, `T` one who waits for it.
#[derive(Debug)]
pub struct Book<W, T> {
    members: HashMap<u32, Member<W>>,
    idle: Vec<u32>,
    /// Those who wait, first come first.
    pub waiting: VecDeque<T>,
    /// The limits.
    pub limits: Limits,
    /// Set while workers cannot start.
    pub trouble: Option<Trouble>,
    /// Set once a newer version has taken over.
    pub retired: bool,
    /// Idle workers that ended by themselves, since one answered.
    idle_deaths: u32,
    /// No worker is started only to be kept ready before this.
    ready_from: Option<Instant>,
}

impl<W: Clone, T> Book<W, T> {
    /// An empty book.
    pub fn new(limits: Limits) -> Self {
        let (members, idle, waiting) = (HashMap::new(), Vec::new(), VecDeque::new());
        Self {
            members,
            idle,
            waiting,
            limits,
            trouble: None,
            retired: false,
            idle_deaths: 0,
            ready_from: None,
        }
    }

    /// Counts the workers in a stage.
    pub fn count(&self, stage: Stage) -> usize {
        self.members.values().filter(|member| member.stage == stage).count()
    }

    /// Enters a worker that is about to start.
    pub fn begin(&mut self, number: u32, now: Instant) {
        self.members.insert(number, Member { worker: None, stage: Stage::Starting, since: now });
    }

    /// A worker in the book.
    pub fn member(&mut self, number: u32) -> Option<&mut Member<W>> {
        self.members.get_mut(&number)
    }

    /// Every worker in the book.
    pub fn members(&self) -> impl Iterator<Item = (u32, &Member<W>)> {
        self.members.iter().map(|(&number, member)| (number, member))
    }

    /// Moves a worker to a stage; a dying one stays so. Returns the stage it had, and nothing when it did not move.
    pub fn turn(&mut self, number: u32, stage: Stage, now: Instant) -> Option<Stage> {
        let member = self.members.get_mut(&number).filter(|member| member.stage != Stage::Dying)?;
        let before = std::mem::replace(&mut member.stage, stage);
        member.since = now;
        if before == Stage::Idle {
            self.idle.retain(|&other| other != number);
        }
        if stage == Stage::Idle {
            self.idle.push(number);
        }
        if stage == Stage::Settling {
            self.idle_deaths = 0;
        }
        Some(before)
    }

    /// Takes the worker that became idle last, so that the others can go when there is little to do.
    pub fn pop_idle(&mut self, now: Instant) -> Option<(u32, W)> {
        while let Some(number) = self.idle.pop() {
            if let Some(member) = self.members.get_mut(&number)
                && let Some(worker) = member.worker.clone()
            {
                (member.stage, member.since) = (Stage::Busy, now);
                return Some((number, worker));
            }
        }
        None
    }

    /// Removes a worker whose process has ended; returns the stage it had. After one that left while it was idle,
    /// those kept ready are replaced more and more slowly.
    pub fn remove(&mut self, number: u32, now: Instant) -> Option<Stage> {
        self.idle.retain(|&other| other != number);
        let stage = self.members.remove(&number).map(|member| member.stage);
        if stage == Some(Stage::Idle) {
            self.idle_deaths = self.idle_deaths.saturating_add(1);
            self.ready_from = Some(now + pause(self.idle_deaths));
        }
        stage
    }

    /// Workers that have been idle for too long, beyond those kept ready; the longest idle first.
    pub fn overdue(&self, now: Instant) -> Vec<u32> {
        let live = self.members.values().filter(|member| member.stage != Stage::Dying).count();
        let spare = live.saturating_sub(self.limits.least);
        let stale = |number: &&u32| {
            self.members.get(number).is_some_and(|member| now - member.since >= self.limits.idle)
        };
        self.idle.iter().filter(stale).take(spare).copied().collect()
    }

    /// How many workers must be started now. A worker that is about to ask for more counts as one on its way,
    /// unless somebody has lost patience with it.
    pub fn wanted(&self, now: Instant, impatient: bool) -> usize {
        if self.retired {
            return 0;
        }
        let starting = self.count(Stage::Starting);
        let settling = if impatient { 0 } else { self.count(Stage::Settling) };
        let owed = self.waiting.len().saturating_sub(starting + settling);
        let live = self.members.len() - self.count(Stage::Dying);
        let least = if self.ready_from.is_none_or(|from| now >= from) { self.limits.least } else { 0 };
        let wanted = owed.max(least.saturating_sub(live));
        let room = self.limits.most.saturating_sub(self.members.len());
        match &self.trouble {
            Some(trouble) if now < trouble.next_try_at => 0,
            Some(_) => wanted.min(room).min(1_usize.saturating_sub(starting)),
            None => wanted.min(room).min(MAX_STARTING.saturating_sub(starting)),
        }
    }

    /// The error that everybody waiting gets, when no worker is left that could still come.
    pub fn hopeless(&self, now: Instant) -> Option<ErrorInfo> {
        let trouble = self.trouble.as_ref().filter(|trouble| now < trouble.next_try_at)?;
        let hope = self.members.values().any(|member| member.stage != Stage::Dying);
        (!hope).then(|| trouble.error.clone())
    }

    /// Notes a failed start: the next one waits 1 s, 2 s, 4 s … 60 s.
    pub fn failed(&mut self, error: ErrorInfo, at: Timestamp, now: Instant) {
        let (since, failures) = match &self.trouble {
            Some(trouble) => (trouble.since, trouble.failures.saturating_add(1)),
            None => (at, 1),
        };
        let pause = pause(failures);
        let (next_try, next_try_at) = (at.plus(pause), now + pause);
        self.trouble = Some(Trouble { error, since, next_try, next_try_at, failures });
    }
}

fn pause(failures: u32) -> Duration {
    MIN_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::FailureClass;

    use super::*;

    fn book(most: usize, least: usize) -> Book<char, ()> {
        Book::new(Limits { most, least, idle: Duration::from_secs(60) })
    }

    fn idle(book: &mut Book<char, ()>, number: u32, now: Instant) {
        book.begin(number, now);
        book.member(number).unwrap().worker = Some('w');
        book.turn(number, Stage::Idle, now);
    }

    #[test]
    fn as_many_start_as_wait_and_never_more_than_the_limit() {
        let now = Instant::now();
        let mut book = book(2, 0);
        assert_eq!(book.wanted(now, false), 0);
        book.waiting.extend([(), (), ()]);
        assert_eq!(book.wanted(now, false), 2);
        book.begin(1, now);
        assert_eq!(book.wanted(now, false), 1);
        book.begin(2, now);
        assert_eq!(book.wanted(now, true), 0);
    }

    #[test]
    fn a_crowd_starts_in_groups() {
        let now = Instant::now();
        let mut book = book(100, 0);
        book.waiting.extend([(); 50]);
        assert_eq!(book.wanted(now, true), 8);
        (1..=8).for_each(|number| book.begin(number, now));
        assert_eq!(book.wanted(now, true), 0);
        book.turn(1, Stage::Idle, now);
        assert_eq!(book.wanted(now, true), 1);
    }

    #[test]
    fn a_settling_worker_counts_as_coming_until_patience_ends() {
        let now = Instant::now();
        let mut book = book(2, 0);
        idle(&mut book, 1, now);
        book.turn(1, Stage::Settling, now);
        book.waiting.push_back(());
        assert_eq!((book.wanted(now, false), book.wanted(now, true)), (0, 1));
    }

    #[test]
    fn a_dying_worker_takes_its_room_until_it_is_gone() {
        let now = Instant::now();
        let mut book = book(1, 1);
        idle(&mut book, 1, now);
        book.turn(1, Stage::Dying, now);
        assert_eq!((book.wanted(now, false), book.pop_idle(now)), (0, None));
        assert_eq!(book.turn(1, Stage::Idle, now), None);
        book.remove(1, now);
        assert_eq!(book.wanted(now, false), 1);
    }

    #[test]
    fn a_kept_worker_that_leaves_again_and_again_is_replaced_slowly() {
        let now = Instant::now();
        let mut book = book(1, 1);
        for seconds in [1, 2, 4] {
            idle(&mut book, 1, now);
            book.remove(1, now);
            assert_eq!(book.wanted(now + Duration::from_millis(seconds * 1_000 - 1), false), 0);
            assert_eq!(book.wanted(now + Duration::from_secs(seconds), false), 1);
        }
        book.waiting.push_back(());
        assert_eq!(book.wanted(now, false), 1);
    }

    #[test]
    fn idle_workers_go_last_in_first_out_and_the_kept_ones_stay() {
        let start = Instant::now();
        let mut book = book(3, 1);
        for number in 1..=3 {
            idle(&mut book, number, start);
        }
        assert!(book.overdue(start).is_empty());
        assert_eq!(book.overdue(start + Duration::from_secs(60)), [1, 2]);
        assert_eq!(book.pop_idle(start).unwrap().0, 3);
    }

    #[test]
    fn failed_starts_pause_longer_and_longer_and_are_tried_one_at_a_time() {
        let (start, at) = (Instant::now(), Timestamp::from_millis(1_000));
        let error = || ErrorInfo::platform(FailureClass::CannotStart, "E", "no");
        let mut book = book(5, 0);
        book.waiting.extend([(), (), ()]);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            book.failed(error(), at, start);
            let pause = Duration::from_secs(seconds);
            let early = start + pause - Duration::from_millis(1);
            assert_eq!((book.wanted(early, false), book.hopeless(early)), (0, Some(error())));
            assert_eq!((book.wanted(start + pause, false), book.hopeless(start + pause)), (1, None));
        }
        assert_eq!(book.trouble.as_ref().unwrap().since, at);
    }
}
