//! Array consistency: whether one choice of array elements satisfies all clauses of a branch.
//!
//! Clauses that look into the same array must be satisfied by the same element of it. Clauses are taken by path;
//! after each, the states are the sets of elements that can have been chosen so far. An array that no later clause
//! looks into is forgotten and equal states are one, and since paths that share a beginning are neighbours, the
//! states are rarely more than the elements of the innermost array. That keeps the work linear, where trying all
//! combinations would be exponential in the number of arrays.
//!
//! `{"exists": false}` means, as in event-ruler, that no value stands in the elements chosen so far by the clauses
//! before it in path order.

use std::collections::{HashMap, HashSet};

use crate::compile::Clause;
use crate::fields::Spots;
use crate::limits::{MAX_STATES, MAX_STEPS};

/// What became of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Matched,
    /// No choice of elements satisfies the clause at this place of the branch together with those before it.
    Stuck(usize),
    /// The bound on steps was reached.
    TooTangled,
}

/// Steps spent so far on one event, over all branches of a pattern.
#[derive(Debug, Default)]
pub(crate) struct Steps(usize);

impl Steps {
    fn spend(&mut self) -> bool {
        self.0 += 1;
        self.0 <= MAX_STEPS
    }
}

/// Chosen elements: array and index, by array.
type State = Vec<(usize, usize)>;

/// Decides a branch: clauses in path order, each with what the event holds for it.
pub(crate) fn solve(branch: &[(&Clause, &Spots)], steps: &mut Steps) -> Outcome {
    let Some(last_use) = last_uses(branch, steps) else {
        return Outcome::TooTangled;
    };
    let mut states: HashSet<State> = HashSet::from([State::new()]);
    for (place, (clause, spots)) in branch.iter().enumerate() {
        let mut step = Step { place, last_use: &last_use, next: HashSet::new(), steps };
        for state in &states {
            let absent = clause.rules.accept_absence() && !present(spots, state, step.steps);
            if absent {
                step.reach(state);
            }
            if !step.choose(spots, state) {
                return Outcome::TooTangled;
            }
        }
        if step.next.is_empty() {
            return Outcome::Stuck(place);
        }
        states = step.next;
    }
    Outcome::Matched
}

/// For each array, the last clause that looks into it. `None` when the steps are spent.
fn last_uses(branch: &[(&Clause, &Spots)], steps: &mut Steps) -> Option<HashMap<usize, usize>> {
    let mut last_use = HashMap::new();
    let mut open: Vec<(usize, &Spots)> =
        branch.iter().enumerate().map(|(i, (_, spots))| (i, *spots)).collect();
    while let Some((place, spots)) = open.pop() {
        for elements in &spots.arrays {
            let last = last_use.entry(elements.array).or_insert(place);
            *last = place.max(*last);
            open.extend(elements.spots.iter().map(|(_, inner)| (place, inner)));
        }
        if !steps.spend() {
            return None;
        }
    }
    Some(last_use)
}

struct Step<'a> {
    place: usize,
    last_use: &'a HashMap<usize, usize>,
    next: HashSet<State>,
    steps: &'a mut Steps,
}

impl Step<'_> {
    /// Adds every state that one satisfying value leads to. False when the steps are spent.
    fn choose(&mut self, spots: &Spots, state: &State) -> bool {
        if !self.steps.spend() || self.next.len() > MAX_STATES {
            return false;
        }
        if spots.hit {
            self.reach(state);
        }
        for elements in &spots.arrays {
            let fits = match chosen(state, elements.array) {
                Some(index) => element(&elements.spots, index)
                    .is_none_or(|inner| !inner.any_hit || self.choose(inner, state)),
                None => elements.spots.iter().filter(|(_, inner)| inner.any_hit).all(|(index, inner)| {
                    let mut grown = state.clone();
                    grown.push((elements.array, *index));
                    grown.sort_unstable();
                    self.choose(inner, &grown)
                }),
            };
            if !fits {
                return false;
            }
        }
        true
    }

    /// Keeps a state, without the arrays that no later clause looks into.
    fn reach(&mut self, state: &State) {
        let needed =
            |(array, _): &&(usize, usize)| self.last_use.get(array).is_some_and(|last| *last > self.place);
        let kept = state.iter().filter(needed).copied().collect();
        self.next.insert(kept);
    }
}

/// Whether a value stands where the chosen elements allow it. Says yes when the steps are spent; `choose` then
/// notices.
fn present(spots: &Spots, state: &State, steps: &mut Steps) -> bool {
    if spots.any || !steps.spend() {
        return true;
    }
    spots.arrays.iter().any(|elements| match chosen(state, elements.array) {
        Some(index) => element(&elements.spots, index).is_some_and(|inner| present(inner, state, steps)),
        // Elements without a value are not kept, so an element that is there has one; but a deeper array may have
        // been entered already.
        None => elements.spots.iter().any(|(_, inner)| present(inner, state, steps)),
    })
}

fn chosen(state: &State, array: usize) -> Option<usize> {
    state.binary_search_by_key(&array, |(array, _)| *array).ok().map(|at| state[at].1)
}

fn element(spots: &[(usize, Spots)], index: usize) -> Option<&Spots> {
    spots.binary_search_by_key(&index, |(index, _)| *index).ok().map(|at| &spots[at].1)
}
