//! The life of a received message: ready, handed out, committed, gone. Pure: the time is passed in.
//!
//! A message that comes again while it is still held only brings a new handle: the older one may no longer delete it
//! (Amazon SQS developer guide, "Receipt handle").

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::Message;
use bytes::Bytes;
use tokio::time::Instant;

use super::client::{BATCH, body_of};
use crate::{Limit, Receipt};

/// A received message: SQS's own form, its body taken out.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) body: Bytes,
    pub(super) message: Message,
}

/// Received messages that SQS still has.
#[derive(Debug)]
pub(super) struct Buffer {
    held: HashMap<String, Held>,
    /// In the order of arrival.
    ready: VecDeque<String>,
    out: Option<(Receipt, Vec<String>)>,
    /// Committed, waiting for their deletion.
    committed: VecDeque<String>,
    receipts: u64,
    bytes: usize,
    visibility: Duration,
}

#[derive(Debug)]
struct Held {
    /// `None` once committed.
    letter: Option<Arc<Letter>>,
    handle: String,
    /// Until then SQS keeps the message away from others.
    until: Instant,
    /// A call about it is in flight, or it waits for its next try until then.
    quiet: Option<Instant>,
}

/// A call about some messages: their ids and handles, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lot {
    pub(super) ids: Vec<String>,
    pub(super) handles: Vec<String>,
}

/// While a call is in flight; longer than any call.
const IN_FLIGHT: Duration = Duration::from_secs(60);
/// A call that failed for a message is made again after this pause.
const AGAIN: Duration = Duration::from_millis(500);

impl Buffer {
    /// An empty buffer of a queue whose messages stay invisible for this long.
    pub(super) fn new(visibility: Duration) -> Self {
        Self {
            held: HashMap::new(),
            ready: VecDeque::new(),
            out: None,
            committed: VecDeque::new(),
            receipts: 0,
            bytes: 0,
            visibility,
        }
    }

    /// Messages held, deleted ones left out.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Bytes of bodies held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what a poll brought; answers its bytes.
    pub(super) fn push(&mut self, messages: Vec<Message>, now: Instant) -> usize {
        let until = now + self.visibility;
        let mut sum = 0;
        for mut message in messages {
            let (Some(id), Some(handle)) = (message.message_id.clone(), message.receipt_handle.clone())
            else {
                continue;
            };
            let body = body_of(&mut message);
            sum += body.len();
            if let Some(held) = self.held.get_mut(&id) {
                held.handle = handle;
                held.until = until;
                held.quiet = None;
                continue;
            }
            self.bytes += body.len();
            let letter = Some(Arc::new(Letter { body, message }));
            self.held.insert(id.clone(), Held { letter, handle, until, quiet: None });
            self.ready.push_back(id);
        }
        sum
    }

    /// Hands out the oldest messages; what is still out from before comes first.
    pub(super) fn take(&mut self, limit: Limit) -> Option<(Receipt, Vec<Arc<Letter>>)> {
        self.put_back();
        let mut ids = Vec::new();
        let mut letters = Vec::new();
        let mut bytes = 0;
        while let Some(id) = self.ready.front() {
            let letter = self.held.get(id).and_then(|held| held.letter.clone());
            let size = letter.as_ref().map_or(0, |letter| letter.body.len());
            if letters.len() >= limit.items.max(1) || (bytes + size > limit.bytes && !letters.is_empty()) {
                break;
            }
            bytes += size;
            letters.extend(letter);
            ids.extend(self.ready.pop_front());
        }
        if letters.is_empty() {
            return None;
        }
        self.receipts += 1;
        let receipt = Receipt(self.receipts);
        self.out = Some((receipt, ids));
        Some((receipt, letters))
    }

    /// The ledger holds what was handed out under this receipt: it is to be deleted, and no longer kept invisible.
    pub(super) fn confirm(&mut self, receipt: Receipt) {
        let Some((_, ids)) = self.out.take_if(|(out, _)| *out == receipt) else { return };
        for id in ids {
            if let Some(held) = self.held.get_mut(&id) {
                self.bytes -= held.letter.take().map_or(0, |letter| letter.body.len());
                held.quiet = None;
                self.committed.push_back(id);
            }
        }
    }

    /// What was handed out under this receipt is handed out again.
    pub(super) fn release(&mut self, receipt: Receipt) {
        if self.out.as_ref().is_some_and(|(out, _)| *out == receipt) {
            self.put_back();
        }
    }

    fn put_back(&mut self) {
        let Some((_, ids)) = self.out.take() else { return };
        for id in ids.into_iter().rev() {
            self.ready.push_front(id);
        }
    }

    /// Committed messages whose deletion is due, at most ten.
    pub(super) fn due_deletions(&mut self, now: Instant) -> Option<Lot> {
        let mut lot = Lot::default();
        for _ in 0..self.committed.len() {
            let Some(id) = self.committed.pop_front() else { break };
            let Some(held) = self.held.get_mut(&id) else { continue };
            if held.quiet.is_some_and(|until| until > now) {
                self.committed.push_back(id);
                continue;
            }
            if held.until <= now {
                // It is visible again and will come back, to be recognised by its dedup key.
                self.held.remove(&id);
                continue;
            }
            held.quiet = Some(now + IN_FLIGHT);
            lot.handles.push(held.handle.clone());
            lot.ids.push(id.clone());
            self.committed.push_back(id);
            if lot.ids.len() == BATCH {
                break;
            }
        }
        (!lot.ids.is_empty()).then_some(lot)
    }

    /// Committed messages, at most ten, whatever was tried before; they are let go.
    pub(super) fn last_deletions(&mut self) -> Option<Lot> {
        let count = self.committed.len().min(BATCH);
        let ids: Vec<String> = self.committed.drain(..count).collect();
        let handles = ids.iter().filter_map(|id| Some(self.held.remove(id)?.handle)).collect();
        (count > 0).then_some(Lot { ids, handles })
    }

    /// Uncommitted messages that soon become visible to others, at most ten.
    pub(super) fn due_keeps(&mut self, now: Instant) -> Option<Lot> {
        let mut lot = Lot::default();
        for (id, held) in &mut self.held {
            let soon = held.until <= now + self.visibility / 2;
            if held.letter.is_none() || !soon || held.quiet.is_some_and(|until| until > now) {
                continue;
            }
            held.quiet = Some(now + IN_FLIGHT);
            lot.ids.push(id.clone());
            lot.handles.push(held.handle.clone());
            if lot.ids.len() == BATCH {
                break;
            }
        }
        (!lot.ids.is_empty()).then_some(lot)
    }

    /// When `due_keeps` or `due_deletions` has something again, at the earliest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |held: &Held| {
            let first = if held.letter.is_none() {
                held.until - self.visibility
            } else {
                held.until - self.visibility / 2
            };
            held.quiet.map_or(first, |quiet| quiet.max(first))
        };
        self.held.values().map(due).min()
    }

    /// A deletion was answered: those not among `failed` are gone.
    pub(super) fn deleted(&mut self, lot: &Lot, failed: &[usize], now: Instant) {
        for (index, id) in lot.ids.iter().enumerate() {
            if failed.contains(&index) {
                self.again(id, now);
            } else if self.held.get(id).is_some_and(|held| held.letter.is_none()) {
                self.held.remove(id);
            }
        }
        let held = &self.held;
        self.committed.retain(|id| held.contains_key(id));
    }

    /// A prolongation, asked for at `since`, was answered.
    pub(super) fn kept(&mut self, lot: &Lot, failed: &[usize], since: Instant, now: Instant) {
        for (index, id) in lot.ids.iter().enumerate() {
            if failed.contains(&index) {
                self.again(id, now);
            } else if let Some(held) = self.held.get_mut(id) {
                held.until = since + self.visibility;
                held.quiet = None;
            }
        }
    }

    fn again(&mut self, id: &str, now: Instant) {
        if let Some(held) = self.held.get_mut(id) {
            held.quiet = Some(now + AGAIN);
        }
    }

    /// Everything uncommitted, to be given back; committed messages stay.
    pub(super) fn give_up(&mut self) -> Vec<Lot> {
        self.put_back();
        let ids: Vec<String> = self.ready.drain(..).collect();
        let lot = |ids: &[String]| {
            let handle = |id: &String| self.held.get(id).map(|held| held.handle.clone()).unwrap_or_default();
            Lot { ids: ids.to_vec(), handles: ids.iter().map(handle).collect() }
        };
        let lots = ids.chunks(BATCH).map(lot).collect();
        for id in &ids {
            self.held.remove(id);
        }
        lots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBILITY: Duration = Duration::from_secs(30);
    const ALL: Limit = Limit { items: 100, bytes: 1 << 20 };

    fn message(id: &str, handle: &str) -> Message {
        Message::builder().message_id(id).receipt_handle(handle).body("four").build()
    }

    fn ids(letters: &[Arc<Letter>]) -> Vec<&str> {
        letters.iter().map(|l| l.message.message_id.as_deref().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_deleted_after_its_commit_and_not_kept_any_more() {
        let mut buffer = Buffer::new(VISIBILITY);
        let start = Instant::now();
        buffer.push(vec![message("a", "1"), message("b", "1")], start);
        let (receipt, letters) = buffer.take(ALL).unwrap();
        assert_eq!(ids(&letters), ["a", "b"]);
        assert!(buffer.take(Limit { items: 1, ..ALL }).is_some_and(|(_, l)| ids(&l) == ["a"]), "again");
        assert_eq!(buffer.due_deletions(start), None);
        assert_eq!(buffer.due_keeps(start), None);

        let later = start + VISIBILITY / 2;
        assert_eq!(buffer.next_due(), Some(later));
        let lot = buffer.due_keeps(later).unwrap();
        assert_eq!(lot.ids.len(), 2);
        assert_eq!(buffer.due_keeps(later), None, "one call at a time");
        buffer.kept(&lot, &[1], later, later);
        assert_eq!(buffer.due_keeps(later + AGAIN).unwrap().ids, lot.ids[1..]);

        buffer.confirm(receipt);
        assert_eq!(buffer.due_deletions(later), None, "the receipt was overtaken");
        let (receipt, _) = buffer.take(ALL).unwrap();
        buffer.confirm(receipt);
        assert_eq!(buffer.due_keeps(later + VISIBILITY), None, "never prolonged after the commit");
        let lot = buffer.due_deletions(later).unwrap();
        buffer.deleted(&lot, &[0], later);
        assert_eq!(buffer.len(), 1);
        assert_eq!(buffer.due_deletions(later), None, "a pause after a failure");
        assert_eq!(buffer.due_deletions(later + AGAIN).unwrap().ids, lot.ids[..1]);
        assert_eq!(buffer.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_again_brings_its_newer_handle() {
        let mut buffer = Buffer::new(VISIBILITY);
        let start = Instant::now();
        buffer.push(vec![message("a", "1")], start);
        buffer.push(vec![message("a", "2")], start);
        let (receipt, letters) = buffer.take(ALL).unwrap();
        assert_eq!(ids(&letters), ["a"]);
        assert!(buffer.take(ALL).is_some());
        buffer.push(vec![message("a", "3")], start);
        let (receipt, _) = (buffer.take(ALL).unwrap().0, receipt);
        buffer.confirm(receipt);
        buffer.push(vec![message("a", "4")], start);
        assert_eq!(buffer.due_deletions(start).unwrap().handles, ["4"]);
        assert!(buffer.take(ALL).is_none(), "what is committed is not handed out again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_deleted_in_time_is_let_go() {
        let mut buffer = Buffer::new(VISIBILITY);
        let start = Instant::now();
        buffer.push(vec![message("a", "1")], start);
        let (receipt, _) = buffer.take(ALL).unwrap();
        buffer.confirm(receipt);
        assert_eq!(buffer.due_deletions(start + VISIBILITY), None);
        assert_eq!(buffer.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_hold_and_one_large_message_passes() {
        let mut buffer = Buffer::new(VISIBILITY);
        buffer.push((0..5).map(|n| message(&n.to_string(), "h")).collect(), Instant::now());
        assert_eq!(buffer.bytes(), 20);
        let (_, letters) = buffer.take(Limit { items: 100, bytes: 9 }).unwrap();
        assert_eq!(ids(&letters), ["0", "1"]);
        let (receipt, letters) = buffer.take(Limit { items: 100, bytes: 1 }).unwrap();
        assert_eq!(ids(&letters), ["0"]);
        buffer.release(receipt);
        assert_eq!(buffer.give_up()[0].ids, ["0", "1", "2", "3", "4"]);
        assert_eq!(buffer.len(), 0);
    }
}
