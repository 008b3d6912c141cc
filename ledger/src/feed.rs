//! The hot hand-over: fresh events go from append to dispatch through memory, the ledger stays the truth.
//!
//! Only lanes that this process reads are remembered; what others append to them is learned by their tail alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bellwire_schemas::{Address, Clock, Lane, Seq};
use tokio::sync::watch;

use crate::{Append, Appended, Arrival, Error, Flush, FlushOutcome, Ledger, StoredEvent};

/// How many bytes of fresh events are kept for readers, per lane; older ones are read back from the ledger.
const KEPT_BYTES: usize = 8 << 20;

/// A ledger with a memory of what was just appended, and a signal per lane.
///
/// Appends of this process go through here. A reader that keeps up never touches the disk; one that fell behind reads
/// from the ledger, so a slow binding costs nobody else memory.
pub struct Feed {
    ledger: Arc<dyn Ledger>,
    clock: Clock,
    lanes: Vec<LaneFeed>,
    /// How often the events of a lane were forgotten.
    forgotten: AtomicU64,
}

struct LaneFeed {
    tail: watch::Sender<Seq>,
    /// Whether somebody here reads the lane.
    kept: AtomicBool,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    events: VecDeque<StoredEvent>,
    bytes: usize,
}

impl Feed {
    /// Wraps a ledger, starting at the tails it has now.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn new(ledger: Arc<dyn Ledger>, clock: Clock) -> Result<Self, Error> {
        let mut lanes = Vec::new();
        for lane in 1..=ledger.lanes() {
            let tail = ledger.tail(Lane(lane)).await?;
            let (tail, kept) = (watch::Sender::new(tail), AtomicBool::new(true));
            lanes.push(LaneFeed { tail, kept, recent: Mutex::default() });
        }
        Ok(Self { ledger, clock, lanes, forgotten: AtomicU64::new(0) })
    }

    /// The ledger behind it.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// Appends, remembers the events and wakes the readers.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub async fn append(&self, append: Append) -> Result<Appended, Error> {
        self.append_telling(append, |_| {}).await
    }

    /// [`Feed::append`], with news of the commit told before any reader can act on it: what happens to an event is
    /// never known before the event.
    ///
    /// # Errors
    /// As [`Ledger::append`]; nothing is told then.
    pub async fn append_telling(
        &self,
        append: Append,
        tell: impl FnOnce(&Appended),
    ) -> Result<Appended, Error> {
        let events = append.events.clone();
        let forgotten = self.forgotten.load(Ordering::Acquire);
        let appended = self.ledger.append(append, self.clock.now()).await?;
        tell(&appended);
        let stored = events.into_iter().zip(&appended.items).filter_map(|(new, item)| match item {
            Arrival::Accepted(address) => Some(StoredEvent {
                address: *address,
                source: new.source,
                accepted_at: appended.accepted_at,
                key: new.key,
                event: new.event,
            }),
            Arrival::Duplicate(_) => None,
        });
        // Committed, perhaps, on a server from which another took over meanwhile; the readers have begun anew.
        if forgotten == self.forgotten.load(Ordering::Acquire) {
            self.remember(stored);
        }
        for item in &appended.items {
            if let Arrival::Duplicate(first) = item {
                // Its append may have committed without an answer; then nobody has been told of it.
                self.advance(first.lane, first.seq);
            }
        }
        Ok(appended)
    }

    /// Commits a flush and wakes the readers of the lanes that it emits into. Also when the answer is an error, because
    /// it may have been committed all the same.
    ///
    /// # Errors
    /// As [`Ledger::flush`].
    pub async fn flush(&self, flush: Flush) -> Result<FlushOutcome, Error> {
        let lanes = flush.emits_into();
        let answer = self.ledger.flush(flush).await;
        let forgotten = self.forgotten.load(Ordering::Acquire);
        for lane in lanes {
            // Where the lane cannot be asked now, the repeat of the flush asks again.
            let Ok(tail) = self.ledger.tail(lane).await else { break };
            if forgotten == self.forgotten.load(Ordering::Acquire) {
                self.advance(lane, tail);
            }
        }
        answer
    }

    /// The last place known to be committed in a lane, and a way to wait for more.
    pub fn tail(&self, lane: Lane) -> watch::Receiver<Seq> {
        self.lane(lane).tail.subscribe()
    }

    /// Tells that another process may have appended: moves the known tail forward. Says whether that was news.
    pub fn advance(&self, lane: Lane, tail: Seq) -> bool {
        self.lane(lane).tail.send_if_modified(|seen| {
            let moved = tail > *seen;
            *seen = tail.max(*seen);
            moved
        })
    }

    /// Asks the ledger where a lane ends that was just taken, and remembers its fresh events from now on. When the lane
    /// ends before a place that was committed once (a fail-over lost it), what was remembered is forgotten.
    ///
    /// # Errors
    /// As [`Ledger::tail`].
    pub async fn learn(&self, lane: Lane) -> Result<(), Error> {
        let feed = self.lane(lane);
        let known = *feed.tail.borrow();
        let tail = self.ledger.tail(lane).await?;
        if tail < known {
            self.reset(lane, tail);
        } else {
            self.advance(lane, tail);
        }
        feed.kept.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets the fresh events of a lane that another controller reads now, and remembers no more of them.
    pub fn forget(&self, lane: Lane) {
        self.lane(lane).kept.store(false, Ordering::Release);
        self.clear(lane);
    }

    /// Forgets the fresh events of a lane and sets its tail, also backwards.
    pub fn reset(&self, lane: Lane, tail: Seq) {
        self.clear(lane);
        self.lane(lane).tail.send_replace(tail);
    }

    fn clear(&self, lane: Lane) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        *self.lane(lane).recent.lock().expect("no code panics while it holds this lock") = Recent::default();
    }

    /// Events from `from` on, as [`Ledger::read`]: from memory when they are there.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub async fn read(
        &self,
        lane: Lane,
        from: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        if let Some(events) = self.recent(lane, from, limit, bytes) {
            return Ok(events);
        }
        self.ledger.read(lane, from, limit, bytes).await
    }

    fn recent(&self, lane: Lane, from: Seq, limit: usize, bytes: usize) -> Option<Vec<StoredEvent>> {
        let recent = self.lane(lane).recent.lock().expect("no code panics while it holds this lock");
        let first = recent.events.front()?.address.seq;
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let mut size = 0;
        let fits = |e: &&StoredEvent| {
            let first = size == 0;
            size += e.event.data.as_ref().map_or(0, |d| d.len()).max(1);
            first || size <= bytes
        };
        let events: Vec<_> = recent.events.iter().skip(skip).take(limit).take_while(fits).cloned().collect();
        (!events.is_empty()).then_some(events)
    }

    /// Concurrent appends may report out of order: only a contiguous run is kept, and the tail moves to the highest
    /// place, which the gapless ledger guarantees to be preceded by all others.
    fn remember(&self, stored: impl Iterator<Item = StoredEvent>) {
        for event in stored {
            let Address { lane, seq } = event.address;
            let feed = self.lane(lane);
            if feed.kept.load(Ordering::Acquire) {
                let mut recent = feed.recent.lock().expect("no code panics while it holds this lock");
                recent.push(event);
            }
            self.advance(lane, seq);
        }
    }

    fn lane(&self, lane: Lane) -> &LaneFeed {
        &self.lanes[usize::from(lane.0.saturating_sub(1)).min(self.lanes.len() - 1)]
    }
}

impl Recent {
    fn push(&mut self, event: StoredEvent) {
        let expected = self.events.back().map(|e| e.address.seq.next());
        if expected.is_some_and(|e| e > event.address.seq) {
            return;
        }
        if expected.is_some_and(|e| e < event.address.seq) {
            self.events.clear();
            self.bytes = 0;
        }
        self.bytes += event.event.size_bytes();
        self.events.push_back(event);
        while self.bytes > KEPT_BYTES {
            let Some(old) = self.events.pop_front() else { break };
            self.bytes -= old.event.size_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::Timestamp;
    use bytes::Bytes;

    use super::*;
    use crate::ModelLedger;
    use crate::conformance::build::*;

    async fn feed(ledger: &ModelLedger) -> Feed {
        Feed::new(Arc::new(ledger.clone()), Clock::manual(at(1))).await.unwrap()
    }

    fn places(events: &[StoredEvent]) -> Vec<u64> {
        events.iter().map(|e| e.address.seq.0).collect()
    }

    #[tokio::test]
    async fn fresh_events_come_from_memory_and_older_ones_from_the_ledger() {
        let ledger = ModelLedger::new(1);
        let before: Arc<dyn Ledger> = Arc::new(ledger.clone());
        fill(&before, 0, 2).await;
        let feed = feed(&ledger).await;
        let tail = feed.tail(L1);
        assert_eq!(*tail.borrow(), Seq(2));
        let answer =
            feed.append(batch(vec![event("a").once("k", 9), event("a").once("k", 9)])).await.unwrap();
        assert_eq!(accepted(&answer), [addr(1, 3)]);
        feed.append(batch(vec![event("b"), event("c")])).await.unwrap();
        assert!(tail.has_changed().unwrap());
        assert_eq!(*tail.borrow(), Seq(5));
        assert_eq!(places(&feed.read(L1, Seq(1), 10, usize::MAX).await.unwrap()), [1, 2, 3, 4, 5]);
        let stored = before.read(L1, Seq(4), 10, usize::MAX).await.unwrap();
        assert_eq!(feed.read(L1, Seq(4), 10, usize::MAX).await.unwrap(), stored);
        before.close().await;
        // What is in memory needs no ledger; the limits are those of the ledger.
        assert_eq!(places(&feed.read(L1, Seq(3), 10, usize::MAX).await.unwrap()), [3, 4, 5]);
        assert_eq!(places(&feed.read(L1, Seq(3), 2, usize::MAX).await.unwrap()), [3, 4]);
        assert_eq!(places(&feed.read(L1, Seq(3), 10, 1).await.unwrap()), [3]);
        assert!(feed.read(L1, Seq(2), 10, usize::MAX).await.is_err());
    }

    #[tokio::test]
    async fn answers_out_of_order_leave_no_hole_in_memory() {
        let ledger = ModelLedger::new(1);
        let feed = feed(&ledger).await;
        let stored = |seq: u64| StoredEvent {
            address: addr(1, seq),
            source: orders(),
            accepted_at: Timestamp::default(),
            key: None,
            event: event(&seq.to_string()).event,
        };
        feed.remember([stored(1), stored(2)].into_iter());
        feed.remember([stored(5), stored(6)].into_iter());
        feed.remember([stored(3), stored(4)].into_iter());
        assert_eq!(*feed.tail(L1).borrow(), Seq(6));
        assert_eq!(places(&feed.recent(L1, Seq(5), 9, usize::MAX).unwrap()), [5, 6]);
        assert_eq!(feed.recent(L1, Seq(3), 9, usize::MAX), None, "read back from the ledger");
    }

    #[tokio::test]
    async fn the_repeat_of_an_append_that_seemed_to_fail_wakes_the_readers() {
        let ledger = ModelLedger::new(1);
        let feed = feed(&ledger).await;
        ledger.commit_then_fail_append(Error::Unavailable("the answer got lost".into()));
        feed.append(batch(vec![event("a").once("k", 9)])).await.unwrap_err();
        let tail = feed.tail(L1);
        // Its sender comes again, with another append id but the same key.
        let again = feed.append(batch(vec![event("a").once("k", 9)])).await.unwrap();
        assert_eq!(again.items, [Arrival::Duplicate(addr(1, 1))]);
        assert_eq!(*tail.borrow(), Seq(1));
        assert_eq!(places(&feed.read(L1, Seq(1), 9, usize::MAX).await.unwrap()), [1]);
    }

    #[tokio::test]
    async fn what_a_flush_emits_wakes_the_readers_also_when_its_answer_is_lost() {
        let ledger = ModelLedger::new(2);
        let handle: Arc<dyn Ledger> = Arc::new(ledger.clone());
        let b = declare(&handle, vec![binding("b:orders", bellwire_schemas::service::Start::Now)]).await[0];
        fill(&handle, 0, 1).await;
        let epoch = own(&handle, L1).await;
        let feed = feed(&ledger).await;
        let tail = feed.tail(L2);
        let part = share(b, 1, 1)
            .ends(1, bellwire_schemas::FinalState::Delivered)
            .emits(event("done").source("results").lane(L2));
        let flush = Flush { lane: L1, epoch, at: at(2), bindings: vec![part] };
        ledger.commit_then_fail_flush(Error::Unavailable("the answer got lost".into()));
        feed.flush(flush.clone()).await.unwrap_err();
        assert_eq!(*tail.borrow(), Seq(1));
        assert_eq!(feed.flush(flush).await.unwrap(), FlushOutcome::Flushed);
        assert_eq!(places(&feed.read(L2, Seq(1), 9, usize::MAX).await.unwrap()), [1]);
    }

    /// Two intakes over one ledger, of which this one does not read the lane, then does.
    #[tokio::test]
    async fn only_lanes_that_are_read_here_are_remembered() {
        let ledger = ModelLedger::new(1);
        let (ours, theirs) = (feed(&ledger).await, feed(&ledger).await);
        ours.forget(L1);
        ours.append(batch(vec![event("a"), event("b")])).await.unwrap();
        assert_eq!(ours.recent(L1, Seq(1), 9, usize::MAX), None);
        theirs.append(batch(vec![event("c")])).await.unwrap();
        assert_eq!(*ours.tail(L1).borrow(), Seq(2), "nobody has told");
        ours.learn(L1).await.unwrap();
        assert_eq!(*ours.tail(L1).borrow(), Seq(3));
        ours.append(batch(vec![event("d")])).await.unwrap();
        assert_eq!(places(&ours.recent(L1, Seq(4), 9, usize::MAX).unwrap()), [4]);
        assert_eq!(places(&ours.read(L1, Seq(1), 9, usize::MAX).await.unwrap()), [1, 2, 3, 4]);
        theirs.append(batch(vec![event("e")])).await.unwrap();
        assert!(ours.advance(L1, Seq(5)) && !ours.advance(L1, Seq(4)));
        ours.append(batch(vec![event("f")])).await.unwrap();
        assert_eq!(ours.recent(L1, Seq(4), 9, usize::MAX), None, "the gap is read back");
        assert_eq!(places(&ours.read(L1, Seq(4), 9, usize::MAX).await.unwrap()), [4, 5, 6]);
    }

    #[tokio::test]
    async fn a_lane_that_lost_events_forgets_them_and_its_tail_goes_back() {
        let ledger = ModelLedger::new(1);
        let feed = feed(&ledger).await;
        feed.append(batch(vec![event("a")])).await.unwrap();
        let before = ledger.snapshot();
        feed.append(batch(vec![event("b"), event("c")])).await.unwrap();
        ledger.fail_over(&before);
        feed.learn(L1).await.unwrap();
        assert_eq!(*feed.tail(L1).borrow(), Seq(1));
        assert_eq!(feed.recent(L1, Seq(2), 9, usize::MAX), None);
        feed.append(batch(vec![event("d")])).await.unwrap();
        let read = feed.read(L1, Seq(2), 9, usize::MAX).await.unwrap();
        assert_eq!((places(&read), read[0].event.id.as_str()), (vec![2], "d"));
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let ledger = ModelLedger::new(1);
        let feed = feed(&ledger).await;
        for n in 0..20 {
            let large = event(&n.to_string()).with(|e| e.data = Some(Bytes::from(vec![0; 1 << 20])));
            feed.append(batch(vec![large])).await.unwrap();
        }
        let kept = feed.recent(L1, Seq(20), 99, usize::MAX).unwrap();
        assert_eq!(places(&kept), [20]);
        assert_eq!(feed.recent(L1, Seq(5), 99, usize::MAX), None);
        assert!(feed.lane(L1).recent.lock().unwrap().bytes <= KEPT_BYTES);
        assert_eq!(feed.read(L1, Seq(1), 99, usize::MAX).await.unwrap().len(), 20);
    }
}
