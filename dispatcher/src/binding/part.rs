//! The part of every limit that is this controller's, when several deliver.

use std::collections::BTreeSet;

use bellwire_schemas::ControllerId;

use crate::lease::View;

/// One of so many controllers that deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    place: u32,
    of: u32,
}

impl Part {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { place: 0, of: 1 };

    /// Counts the controllers that own lanes, and this one.
    pub(crate) fn seen(view: &View, me: ControllerId) -> Self {
        let owners = view.cluster.lanes.iter().filter_map(|lane| lane.owner);
        let all: BTreeSet<ControllerId> = owners.chain([me]).collect();
        let place = all.iter().position(|id| *id == me).unwrap_or(0);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { place: count(place), of: count(all.len()) }
    }

    /// This controller's part of a limit: the parts add up to it, as long as it is not smaller than the number of
    /// controllers; one each is the least, because a lane without a slot would stand still. `name` decides who gets
    /// what is left over.
    pub(crate) fn of_limit(self, limit: u32, name: &str) -> u32 {
        if limit == 0 {
            return 0;
        }
        let turn = name.bytes().fold(self.place, |turn, byte| turn.wrapping_add(byte.into())) % self.of;
        (limit / self.of + u32::from(turn < limit % self.of)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_limit() {
        for of in 1..=7 {
            for limit in of..40 {
                for name in ["a", "price", "thumbnail"] {
                    let parts = (0..of).map(|place| Part { place, of }.of_limit(limit, name));
                    assert_eq!(parts.sum::<u32>(), limit, "{limit} in {of}");
                }
            }
            assert_eq!(Part { place: 0, of }.of_limit(0, "x"), 0);
            assert!((0..of).all(|place| Part { place, of }.of_limit(1, "x") == 1));
        }
    }
}
