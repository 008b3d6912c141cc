//! Limits that all controllers share: who may run how many attempts at once.
//!
//! Every controller asks for what it needs and runs no more than it was granted; what it does not need is lent to the
//! others. The grants of all controllers alive never exceed the limit by more than what a controller says it
//! uses already. Where more controllers want slots than there are, they take turns.

use std::time::Duration;

use bellwire_schemas::{ControllerId, Timestamp};

/// How long a controller keeps a slot that others wait for, when there are fewer slots than controllers that want one.
pub const TURN: Duration = Duration::from_secs(5);

/// What a controller asks of one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotsAsked {
    /// The limit's name: the same text for every controller, such as `function price`.
    pub limit: String,
    /// The limit itself, as the caller's configuration has it.
    pub most: u32,
    /// How many the caller has and does not give back yet: it may use them while the answer is under way. It keeps these
    /// whatever the limit says.
    pub kept: u32,
    /// How many it needs. Nothing wanted and nothing kept gives back everything.
    pub wanted: u32,
}

/// What a controller has of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotsGranted {
    /// How many it may use.
    pub slots: u32,
    /// What it may go on to use: its fair part of what all want, or all that it keeps while nobody else lacks any. It is to
    /// give back what it has beyond: to use no more, and to say so.
    pub part: u32,
}

/// What a controller has of one limit, and what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) controller: ControllerId,
    pub(crate) granted: u32,
    pub(crate) wanted: u32,
    /// Since when it has some, or since when it waits for the first.
    pub(crate) since: Timestamp,
}

/// What the only controller gets: all it wants, up to the limit.
pub(crate) fn alone(asked: &[SlotsAsked]) -> Vec<SlotsGranted> {
    let one = |asked: &SlotsAsked| {
        let part = asked.wanted.max(asked.kept).min(asked.most);
        SlotsGranted { slots: part.max(asked.kept), part }
    };
    asked.iter().map(one).collect()
}

/// What `me` gets now. `others`: the other controllers alive; `before`: what `me` had.
///
/// It keeps what it says, and beyond that gets no more than what is free, and no more than its fair part.
pub(crate) fn grant(
    others: &[Holder],
    before: Option<Holder>,
    me: ControllerId,
    asked: &SlotsAsked,
    now: Timestamp,
) -> (Holder, SlotsGranted) {
    let wanted = asked.wanted;
    let mine =
        Holder { wanted, ..before.unwrap_or(Holder { controller: me, granted: 0, wanted, since: now }) };
    let taken: u64 = others.iter().map(|other| u64::from(other.granted)).sum();
    let free = u32::try_from(u64::from(asked.most).saturating_sub(taken)).unwrap_or(u32::MAX);
    let part = part(others, mine, asked.most, now);
    let granted = part.min(free).max(asked.kept);
    let since = if (granted == 0) == (mine.granted == 0) { mine.since } else { now };
    let is_wanted = others.iter().any(|other| other.wanted > other.granted);
    // No more than is free: after the limit was lowered, or a lease had ended, everybody goes down until it fits.
    let part = if is_wanted { part } else { part.max(asked.kept.min(free)) };
    (Holder { granted, since, ..mine }, SlotsGranted { slots: granted, part })
}

/// The fair part of `mine`: who wants little gets all of it, the others share what is left over equally. With fewer slots
/// than controllers that want one: first those whose turn is not over, then those that wait, the longest first.
fn part(others: &[Holder], mine: Holder, most: u32, now: Timestamp) -> u32 {
    let mut wanting: Vec<Holder> = others.iter().copied().chain([mine]).filter(|h| h.wanted > 0).collect();
    let is_mine = |holder: &Holder| holder.controller == mine.controller;
    if wanting.len() > most as usize {
        let turn = |holder: &Holder| match holder.granted {
            0 => 1,
            _ if now.since(holder.since) < TURN => 0,
            _ => 2,
        };
        wanting.sort_by_key(|holder| (turn(holder), holder.since, holder.controller));
        return u32::from(wanting.iter().take(most as usize).any(is_mine));
    }
    wanting.sort_by_key(|holder| (holder.wanted, holder.controller));
    let (mut left, mut heads) = (most, u32::try_from(wanting.len()).unwrap_or(u32::MAX));
    for holder in wanting {
        let given = holder.wanted.min(left / heads);
        if is_mine(&holder) {
            return given;
        }
        (left, heads) = (left - given, heads - 1);
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const MOST: u32 = 4;

    fn holders(rows: &[(u32, u32, i64)]) -> Vec<Holder> {
        let holder = |(n, (granted, wanted, since)): (u128, &(u32, u32, i64))| Holder {
            controller: ControllerId(Uuid::from_u128(n)),
            granted: *granted,
            wanted: *wanted,
            since: Timestamp::from_micros(since * 1_000_000),
        };
        (0..).zip(rows).map(holder).collect()
    }

    fn ask(rows: &mut [Holder], n: usize, most: u32, asked: (u32, u32), second: i64) -> u32 {
        ask_fully(rows, n, most, asked, second).slots
    }

    fn ask_fully(
        rows: &mut [Holder],
        n: usize,
        most: u32,
        (kept, wanted): (u32, u32),
        second: i64,
    ) -> SlotsGranted {
        let others: Vec<_> = rows.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, h)| *h).collect();
        let asked = SlotsAsked { limit: "l".into(), most, kept, wanted };
        let at = Timestamp::from_micros(second * 1_000_000);
        let (holder, granted) = grant(&others, Some(rows[n]), rows[n].controller, &asked, at);
        rows[n] = holder;
        assert_eq!(granted.slots, holder.granted);
        granted
    }

    #[test]
    fn idle_slots_are_lent_and_shared_out_fairly() {
        let mut all = holders(&[(0, 0, 0), (0, 0, 0), (0, 0, 0)]);
        assert_eq!(ask(&mut all, 0, 10, (0, 10), 1), 10, "nobody else wants any");
        assert_eq!(ask(&mut all, 1, 10, (0, 10), 2), 0, "none is free");
        assert_eq!(ask(&mut all, 0, 10, (8, 10), 3), 8, "it gives back what does not run");
        assert_eq!(ask(&mut all, 1, 10, (0, 10), 3), 2);
        assert_eq!(ask(&mut all, 0, 10, (2, 10), 4), 5);
        assert_eq!(ask(&mut all, 1, 10, (2, 10), 4), 5);
        assert_eq!(ask(&mut all, 2, 10, (0, 1), 5), 0);
        assert_eq!(ask(&mut all, 0, 10, (0, 10), 5), 4, "one of ten is for the modest one");
        assert_eq!(ask(&mut all, 2, 10, (0, 1), 6), 1);
        assert_eq!(ask(&mut all, 1, 10, (5, 10), 6), 5);
        assert_eq!(ask(&mut all, 0, 10, (0, 0), 7), 0);
        assert_eq!(ask(&mut all, 1, 10, (5, 10), 7), 9);
    }

    #[test]
    fn who_waits_for_one_slot_gets_its_turn() {
        let mut all = holders(&[(0, 0, 0), (0, 0, 0), (0, 0, 0)]);
        assert_eq!(ask(&mut all, 0, 1, (0, 1), 0), 1);
        assert_eq!(ask(&mut all, 1, 1, (0, 1), 1), 0);
        assert_eq!(ask(&mut all, 2, 1, (0, 1), 2), 0);
        assert_eq!(ask(&mut all, 0, 1, (1, 1), 4), 1, "its turn is not over");
        assert_eq!(ask(&mut all, 0, 1, (1, 1), 6), 1, "what it keeps is not taken away");
        assert_eq!(ask(&mut all, 0, 1, (0, 1), 7), 0);
        assert_eq!(ask(&mut all, 2, 1, (0, 1), 7), 0, "the other one has waited longer");
        assert_eq!(ask(&mut all, 1, 1, (0, 1), 8), 1);
        assert_eq!(ask(&mut all, 1, 1, (0, 1), 14), 0);
        assert_eq!(ask(&mut all, 2, 1, (0, 1), 14), 1);
    }

    proptest! {
        /// Whatever is asked, and by whom: the sum stays within the limit as long as everybody runs only what it got; and
        /// when all want more than there is and nothing runs, nothing is left over after three rounds.
        #[test]
        fn the_grants_stay_within_the_limit(steps in prop::collection::vec((0..3_usize, 0..=MOST, 0..=9_u32), 1..60)) {
            let mut all = holders(&[(0, 0, 0), (0, 0, 0), (0, 0, 0)]);
            for (second, (n, kept, wanted)) in (0..).zip(steps) {
                let kept = kept.min(all[n].granted);
                let got = ask(&mut all, n, MOST, (kept, wanted), second);
                prop_assert!(got >= kept && got <= wanted.max(kept));
                prop_assert!(all.iter().map(|h| h.granted).sum::<u32>() <= MOST);
            }
            for n in [0, 1, 2].repeat(3) {
                ask(&mut all, n, MOST, (0, 9), 99);
            }
            prop_assert_eq!(all.iter().map(|h| h.granted).sum::<u32>(), MOST);
            prop_assert!(all.iter().all(|h| h.granted >= 1), "{:?}", all);
        }

        /// However much too many run (the limit was lowered, a lease had ended while attempts ran): as they end, the sum
        /// comes down to the limit, stays there, and all of it is used.
        #[test]
        fn what_is_too_much_goes_down(runs in prop::collection::vec(0..=9_u32, 3), turns in prop::collection::vec(0..3_usize, 60)) {
            let mut all = holders(&[(0, 0, 0), (runs[1], runs[1], 0), (runs[2], runs[2].max(MOST), 0)]);
            let (mut size, mut runs) = (vec![0; 3], runs);
            for (second, n) in (0..).zip(turns.into_iter().chain([0, 1, 2].repeat(30))) {
                let kept = size[n].max(runs[n]);
                let wanted = MOST.max(runs[n]);
                let SlotsGranted { slots, part } = ask_fully(&mut all, n, MOST, (kept, wanted), second);
                size[n] = slots.min(part);
                // Attempts end one by one; what is free is used at once.
                runs[n] = if runs[n] > size[n] { runs[n] - 1 } else { size[n] };
            }
            prop_assert_eq!(runs.iter().sum::<u32>(), MOST, "{:?}", all);
        }
    }
}
