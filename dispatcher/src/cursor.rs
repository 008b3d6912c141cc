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
}

impl Cursor {
    /// Continues from a checkpoint: everything above its mark is read again, what is done there is skipped.
    pub fn resume(checkpoint: &Checkpoint) -> Self {
        let mut cursor = Self { mark: checkpoint.mark, done: checkpoint.done.clone(), read: checkpoint.mark };
        cursor.mark = cursor.done.absorb(cursor.mark);
        cursor.read = cursor.mark;
        cursor
    }

    /// The next place to read.
    pub fn next(&self) -> Seq {
        self.read.next()
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
        self.read = self.read.max(seq);
        !self.is_settled(seq)
    }

    /// Notes that nothing is kept up to this place.
    pub fn skip_to(&mut self, seq: Seq) {
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
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u64..3).prop_map(Step::Read),
            4 => any::<prop::sample::Index>().prop_map(|i| Step::Settle(i.index(1 << 20))),
            1 => Just(Step::Restart),
            1 => (0_u64..4).prop_map(Step::Skip),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// The cursor against a set of numbers: same mark, same settled places, nothing lost over restarts.
        #[test]
        fn accounts_agree_with_a_plain_set(steps in steps()) {
            let mut cursor = Cursor::resume(&Checkpoint::default());
            let mut settled = BTreeSet::new();
            let mut open: Vec<u64> = Vec::new();
            let mut read = 0_u64;
            for step in steps {
                match step {
                    Step::Read(gap) => {
                        let seq = read + 1 + gap;
                        settled.extend(read + 1..seq);
                        read = seq;
                        let fresh = cursor.arrive(Seq(seq));
                        prop_assert_eq!(fresh, !settled.contains(&seq));
                        if fresh { open.push(seq); }
                    }
                    Step::Settle(at) if !open.is_empty() => {
                        let seq = open.swap_remove(at % open.len());
                        cursor.settle(Seq(seq));
                        cursor.settle(Seq(seq));
                        settled.insert(seq);
                    }
                    Step::Settle(_) => {}
                    Step::Skip(by) => {
                        cursor.skip_to(Seq(read + by));
                        settled.extend(read + 1..=read + by);
                        read += by;
                    }
                    Step::Restart => {
                        let checkpoint = Checkpoint { version: 1, mark: cursor.mark(), done: cursor.done().clone() };
                        cursor = Cursor::resume(&checkpoint);
                        open.clear();
                        read = cursor.read().0;
                    }
                }
                let mark = (1..).take_while(|n| settled.contains(n)).last().unwrap_or(0);
                prop_assert_eq!(cursor.mark(), Seq(mark));
                for place in 1..=read.max(mark) + 2 {
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
