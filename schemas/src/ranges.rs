//! A set of places in a lane, kept as few ranges: the events a cursor has finished out of order.

use serde::{Deserialize, Serialize};

use crate::Seq;

/// Sorted, disjoint, non-touching closed ranges of [`Seq`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeqRanges(Vec<(u64, u64)>);

impl SeqRanges {
    /// Adds one place; adding it twice changes nothing.
    pub fn insert(&mut self, seq: Seq) {
        let at = self.0.partition_point(|r| r.1 < seq.0);
        if self.0.get(at).is_some_and(|r| r.0 <= seq.0) {
            return;
        }
        let joins_left = at > 0 && self.0[at - 1].1 + 1 == seq.0;
        let joins_right = self.0.get(at).is_some_and(|r| seq.0 + 1 == r.0);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = seq.0,
            (false, true) => self.0[at].0 = seq.0,
            (false, false) => self.0.insert(at, (seq.0, seq.0)),
        }
    }

    /// Whether the place is in the set.
    pub fn contains(&self, seq: Seq) -> bool {
        let at = self.0.partition_point(|r| r.1 < seq.0);
        self.0.get(at).is_some_and(|r| r.0 <= seq.0)
    }

    /// The last place of the range that holds this one.
    pub fn end_of(&self, seq: Seq) -> Option<Seq> {
        let at = self.0.partition_point(|r| r.1 < seq.0);
        self.0.get(at).filter(|r| r.0 <= seq.0).map(|r| Seq(r.1))
    }

    /// Moves a mark over every place that follows it without a gap, and forgets those places.
    pub fn absorb(&mut self, mark: Seq) -> Seq {
        let mut mark = mark;
        let mut used = 0;
        for &(from, to) in &self.0 {
            if from > mark.0 + 1 {
                break;
            }
            mark = mark.max(Seq(to));
            used += 1;
        }
        self.0.drain(..used);
        mark
    }

    /// How many ranges are held: what a checkpoint costs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges as (first, last), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, Seq)> + '_ {
        self.0.iter().map(|&(from, to)| (Seq(from), Seq(to)))
    }

    /// How many places are held.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from + 1).sum()
    }
}

impl FromIterator<(Seq, Seq)> for SeqRanges {
    /// Reads back what [`SeqRanges::iter`] gave, in its order.
    fn from_iter<I: IntoIterator<Item = (Seq, Seq)>>(ranges: I) -> Self {
        Self(ranges.into_iter().map(|(first, last)| (first.0, last.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ranges_agree_with_a_plain_set() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut ranges = SeqRanges::default();
        let mut set = BTreeSet::new();
        let mut mark = Seq(0);
        for step in 0..4_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let seq = mark.0 + 1 + (state >> 33) % 40;
            ranges.insert(Seq(seq));
            set.insert(seq);
            if step % 3 == 0 {
                mark = ranges.absorb(mark);
                let mut expected = mark.0;
                while set.remove(&(expected + 1)) {
                    expected += 1;
                }
                set.retain(|s| *s > mark.0);
                assert_eq!(mark.0, expected);
            }
            assert_eq!(ranges.count() as usize, set.len());
            assert!(set.iter().all(|s| ranges.contains(Seq(*s))));
            assert_eq!(ranges.iter().collect::<SeqRanges>(), ranges);
        }
    }
}
