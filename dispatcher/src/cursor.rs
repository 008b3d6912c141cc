//! The account of one binding in one lane: which places are finished or owed, and which are still to come.
//!
//! Pure. A place is *settled* when it is finished, belongs to another source, or has a debt row that commits with the
//! checkpoint. The mark moves over settled places only; those above it are kept as ranges.

use bellwire_ledger::Checkpoint;
use bellwire_schemas::{Seq, SeqRanges};

/// How far a reader may run ahead of the mark, in places: one delivery that does not end stalls its binding after this
/// many, so that a restart never has more to skip.
pub const MAX_SPAN: u64 = 100_000;
/// How many ranges may lie above the mark: what a checkpoint costs to write.
pub const MAX_RANGES: usize = 1_000;

/// The cursor of one binding in one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    mark: Seq,
    done: SeqRanges,
    read: Seq,
    /// A second reader at the end of the lane, while this one is far behind.
    live: Option<Live>,
}

/// Places beyond the gap that a backlog leaves: all of `from..=read` were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    from: Seq,
    read: Seq,
}

impl Cursor {
    /// Continues from a checkpoint: everything above its mark is read again, what is done there is skipped.
    pub fn resume(checkpoint: &Checkpoint) -> Self {
        let (mark, done) = (checkpoint.mark, checkpoint.done.clone());
        let mut cursor = Self { mark, done, read: mark, live: None };
        cursor.mark = cursor.done.absorb(cursor.mark);
        cursor.read = cursor.mark;
        cursor
    }

    /// The next place to read.
    pub fn next(&self) -> Seq {
        self.read.next()
    }

    /// The next place that the second reader reads.
    pub fn next_live(&self) -> Option<Seq> {
        self.live.map(|live| live.read.next())
    }

    /// Starts a second reader behind `at`, which the first one has not reached. It ends when the first one meets it.
    pub fn split(&mut self, at: Seq) {
        if self.live.is_none() && at > self.read {
            self.live = Some(Live { from: at.next(), read: at });
        }
    }

    /// Passes over places that are settled already.
    pub fn jump(&mut self) {
        while let Some(last) = self.done.end_of(self.read.next()) {
            self.read = last;
            self.meet();
        }
    }

    /// Everything up to here is settled.
    pub fn mark(&self) -> Seq {
        self.mark
    }

    /// Settled places above the mark.
    pub fn done(&self) -> &SeqRanges {
        &self.done
    }

    /// The last place read.
    pub fn read(&self) -> Seq {
        self.read
    }

    /// Whether a place is settled.
    pub fn is_settled(&self, seq: Seq) -> bool {
        seq <= self.mark || self.done.contains(seq)
    }

    /// Whether reading on would break a limit.
    pub fn is_stretched(&self) -> bool {
        self.read.0.saturating_sub(self.mark.0) >= MAX_SPAN || self.done.len() >= MAX_RANGES
    }

    /// Notes that a place was read; those between it and the last one read were removed by retention, and are settled.
    /// Returns false for a place that was settled before.
    pub fn arrive(&mut self, seq: Seq) -> bool {
        self.skip_to(Seq(seq.0.saturating_sub(1)));
        if seq <= self.read {
            // The second reader had it.
            return false;
        }
        self.read = seq;
        self.meet();
        !self.is_settled(seq)
    }

    /// The same for the second reader.
    pub fn arrive_live(&mut self, seq: Seq) -> bool {
        if let Some(live) = &mut self.live {
            for place in live.read.0 + 1..seq.0 {
                self.done.insert(Seq(place));
            }
            live.read = live.read.max(seq);
            // What was done before a restart may reach up to here.
            self.mark = self.done.absorb(self.mark);
        }
        !self.is_settled(seq)
    }

    /// The first reader has come to where the second began.
    fn meet(&mut self) {
        if let Some(live) = self.live
            && self.read.next() >= live.from
        {
            self.read = self.read.max(live.read);
            self.live = None;
            self.mark = self.done.absorb(self.mark);
        }
    }

    /// Notes that nothing is kept up to this place.
    pub fn skip_to(&mut self, seq: Seq) {
        if let Some(live) = self.live
            && seq >= live.from
        {
            self.pass(Seq(live.from.0 - 1));
            self.meet();
        }
        self.pass(seq);
        self.meet();
    }

    fn pass(&mut self, seq: Seq) {
        if seq <= self.read {
            return;
        }
        if self.mark >= self.read {
            self.mark = self.mark.max(seq);
            self.mark = self.done.absorb(self.mark);
        } else {
            for place in self.read.0 + 1..=seq.0 {
                self.done.insert(Seq(place));
            }
        }
        self.read = seq;
    }

    /// Settles a place.
    pub fn settle(&mut self, seq: Seq) {
        if seq == self.mark.next() {
            self.mark = seq;
        } else if seq > self.mark {
            self.done.insert(seq);
        } else {
            return;
        }
        if !self.done.is_empty() {
            self.mark = self.done.absorb(self.mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Read(u64),
        Settle(usize),
        Restart,
        Skip(u64),
        Split(u64),
        Live(u64),
        Jump,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u64..3).prop_map(Step::Read),
            4 => any::<prop::sample::Index>().prop_map(|i| Step::Settle(i.index(1 << 20))),
            1 => Just(Step::Restart),
            1 => (0_u64..4).prop_map(Step::Skip),
            1 => (1_u64..6).prop_map(Step::Split),
            3 => (0_u64..3).prop_map(Step::Live),
            1 => Just(Step::Jump),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// The cursor against a set of numbers: same mark, same settled places, each place met once, nothing lost over
        /// restarts, with a second reader at the end of the lane or without.
        #[test]
        fn accounts_agree_with_a_plain_set(steps in steps()) {
            let mut cursor = Cursor::resume(&Checkpoint::default());
            let mut settled = BTreeSet::new();
            let mut open: Vec<u64> = Vec::new();
            for step in steps {
                match step {
                    Step::Read(gap) => {
                        let seq = cursor.next().0 + gap;
                        let known: BTreeSet<u64> = open.iter().copied().collect();
                        settled.extend((cursor.next().0..seq).filter(|place| !known.contains(place)));
                        let fresh = cursor.arrive(Seq(seq));
                        prop_assert_eq!(fresh, !settled.contains(&seq) && !known.contains(&seq));
                        if fresh { open.push(seq); }
                    }
                    Step::Split(ahead) => cursor.split(Seq(cursor.next().0 + ahead + 3)),
                    Step::Live(gap) => {
                        let Some(next) = cursor.next_live() else { continue };
                        let seq = next.0 + gap;
                        settled.extend(next.0..seq);
                        let fresh = cursor.arrive_live(Seq(seq));
                        prop_assert_eq!(fresh, !settled.contains(&seq));
                        if fresh { open.push(seq); }
                    }
                    Step::Jump => cursor.jump(),
                    Step::Settle(at) if !open.is_empty() => {
                        let seq = open.swap_remove(at % open.len());
                        cursor.settle(Seq(seq));
                        cursor.settle(Seq(seq));
                        settled.insert(seq);
                    }
                    Step::Settle(_) => {}
                    Step::Skip(by) => {
                        let to = cursor.next().0 - 1 + by;
                        let known: BTreeSet<u64> = open.iter().copied().collect();
                        settled.extend((cursor.next().0..=to).filter(|place| !known.contains(place)));
                        cursor.skip_to(Seq(to));
                    }
                    Step::Restart => {
                        let checkpoint = Checkpoint { version: 1, mark: cursor.mark(), done: cursor.done().clone() };
                        cursor = Cursor::resume(&checkpoint);
                        open.clear();
                    }
                }
                let mark = (1..).take_while(|n| settled.contains(n)).last().unwrap_or(0);
                prop_assert_eq!(cursor.mark(), Seq(mark));
                let end = settled.last().copied().unwrap_or(0).max(mark) + 2;
                for place in 1..=end {
                    prop_assert_eq!(cursor.is_settled(Seq(place)), settled.contains(&place), "place {}", place);
                }
            }
        }
    }

    #[test]
    fn a_stuck_place_stretches_the_cursor() {
        let mut cursor = Cursor::resume(&Checkpoint::default());
        for seq in 1..=MAX_SPAN {
            assert!(!cursor.is_stretched());
            cursor.arrive(Seq(seq));
            if seq > 1 {
                cursor.settle(Seq(seq));
            }
        }
        assert!(cursor.is_stretched());
        cursor.settle(Seq(1));
        assert!(!cursor.is_stretched());
        assert_eq!(cursor.mark(), Seq(MAX_SPAN));
    }
}
