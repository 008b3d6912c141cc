//! An exact limit of attempts in flight, which can change while they are.
//!
//! Where controllers share the ledger, the gate is as large as the slots that this one was granted (`slots.rs`); it notes
//! what would be needed and calls for more. It is no semaphore of tokio's, because a smaller limit must hold back at once
//! those who wait already, and a semaphore lets them in before it shrinks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// Slots, handed out in the order they were asked for.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// Told when somebody waits and more slots could be granted; none where the whole limit is this controller's.
    hungry: Option<Arc<Notify>>,
}

#[derive(Debug, Default)]
struct State {
    /// The limit of all controllers together; none: no limit.
    most: Option<u32>,
    size: u32,
    inside: u32,
    /// Most that were inside since the last look.
    peak: u32,
    /// Somebody wanted a slot since the last look and got none.
    is_short: bool,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// The right to be inside, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Option<Arc<Gate>>);

/// How a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) most: u32,
    pub(crate) size: u32,
    pub(crate) inside: u32,
    pub(crate) peak: u32,
    pub(crate) is_short: bool,
}

/// A gate that lets nobody in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// How many may be inside here.
    pub(crate) size: u32,
    /// How many at all controllers together.
    pub(crate) most: u32,
}

impl Gate {
    /// Lets nobody in yet. `hungry`: the limit is shared, and this is told when more of it is wanted.
    pub(crate) fn new(hungry: Option<Arc<Notify>>) -> Self {
        Self { state: Mutex::new(State { most: Some(0), ..State::default() }), hungry }
    }

    /// Changes the limit, `None` for no limit. A smaller one takes free slots away at once, and slots in use as they are
    /// given back.
    pub(crate) fn set_most(self: &Arc<Self>, most: Option<u32>) {
        let mut state = self.lock();
        let size = match (most, &self.hungry) {
            (Some(most), Some(_)) if state.most.is_some() => state.size.min(most),
            (Some(_), Some(_)) => 0,
            (Some(most), None) => most,
            (None, _) => u32::MAX,
        };
        state.most = most;
        self.fit(&mut state, size);
    }

    /// Takes what was granted.
    pub(crate) fn resize(self: &Arc<Self>, size: u32) {
        let mut state = self.lock();
        if let Some(most) = state.most {
            self.fit(&mut state, size.min(most));
        }
    }

    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        if state.inside < state.size {
            return Some(self.admit(&mut state));
        }
        self.lack(&mut state);
        None
    }

    /// Waits for a slot; `None` only if the gate is gone.
    pub(crate) async fn enter(self: &Arc<Self>) -> Option<Slot> {
        let place = {
            let mut state = self.lock();
            if state.inside < state.size {
                return Some(self.admit(&mut state));
            }
            self.lack(&mut state);
            state.waiting.retain(|other| !other.is_closed());
            let (sender, place) = oneshot::channel();
            state.waiting.push_back(sender);
            place
        };
        place.await.ok()
    }

    /// How it stands, and what happened since the last look. `None`: it has no limit.
    pub(crate) fn look(&self) -> Option<Look> {
        let mut state = self.lock();
        let most = state.most?;
        state.waiting.retain(|other| !other.is_closed());
        let State { size, inside, peak, is_short, .. } = *state;
        state.peak = inside;
        state.is_short = !state.waiting.is_empty();
        Some(Look { most, size, inside, peak, is_short })
    }

    /// Whether somebody waits, or got none since the last look, and more could be granted than the `wanted` that were
    /// asked for.
    pub(crate) fn lacks_more(&self, wanted: u32) -> bool {
        let state = self.lock();
        state.is_short && state.most.is_some_and(|most| state.size < most && wanted < most)
    }

    /// Its size, where the limit is shared.
    pub(crate) fn granted(&self) -> Option<u32> {
        self.hungry.as_ref().map(|_| self.lock().size)
    }

    /// Its size, when nobody more gets in.
    pub(crate) fn full(&self) -> Option<Full> {
        let State { most, size, inside, .. } = *self.lock();
        most.filter(|_| inside >= size).map(|most| Full { size, most })
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> u32 {
        self.lock().inside
    }

    fn fit(self: &Arc<Self>, state: &mut State, size: u32) {
        state.size = size;
        self.hand_out(state);
        if !state.waiting.is_empty() {
            self.lack(state);
        }
    }

    /// Lets in those who wait, as far as there is room.
    fn hand_out(self: &Arc<Self>, state: &mut State) {
        while state.inside < state.size
            && let Some(place) = state.waiting.pop_front()
        {
            let slot = self.admit(state);
            if let Err(mut unwanted) = place.send(slot) {
                unwanted.0 = None;
                state.inside -= 1;
            }
        }
    }

    fn admit(self: &Arc<Self>, state: &mut State) -> Slot {
        state.inside += 1;
        state.peak = state.peak.max(state.inside);
        Slot(Some(Arc::clone(self)))
    }

    /// Notes that a slot was wanted in vain, and calls for more once between two looks.
    fn lack(&self, state: &mut State) {
        let could_grow = state.most.is_some_and(|most| state.size < most);
        if !std::mem::replace(&mut state.is_short, true)
            && could_grow
            && let Some(hungry) = &self.hungry
        {
            hungry.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            let mut state = gate.lock();
            state.inside -= 1;
            gate.hand_out(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn waits(entering: &mut Pin<Box<impl Future<Output = Option<Slot>>>>) -> bool {
        entering.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    fn gate(most: u32) -> Arc<Gate> {
        let gate = Arc::new(Gate::new(None));
        gate.set_most(Some(most));
        gate
    }

    #[tokio::test]
    async fn the_limit_is_exact_while_it_changes() {
        let gate = gate(2);
        let held = [gate.try_enter().unwrap(), gate.try_enter().unwrap()];
        assert!(gate.try_enter().is_none());
        gate.set_most(Some(1));
        drop(held);
        let one = gate.try_enter().unwrap();
        assert!(gate.try_enter().is_none());
        gate.set_most(Some(3));
        let _more = [gate.try_enter().unwrap(), gate.try_enter().unwrap()];
        assert!(gate.try_enter().is_none());
        drop(one);
        assert!(gate.enter().await.is_some());
    }

    #[tokio::test]
    async fn who_came_first_gets_in_first_and_who_left_is_passed_over() {
        let gate = gate(1);
        let inside = gate.try_enter().unwrap();
        let mut first = Box::pin(gate.enter());
        let mut gone = Box::pin(gate.enter());
        let mut last = Box::pin(gate.enter());
        assert!(waits(&mut first) && waits(&mut gone) && waits(&mut last));
        drop(gone);
        drop(inside);
        let slot = first.await;
        assert!(waits(&mut last));
        drop(slot);
        let slot = last.await;
        assert!(gate.try_enter().is_none());
        drop(slot);
        assert!(gate.try_enter().is_some(), "nothing is lost");
    }

    #[tokio::test]
    async fn a_slot_handed_to_somebody_who_left_meanwhile_comes_back() {
        let gate = gate(1);
        let inside = gate.try_enter().unwrap();
        let mut left = Box::pin(gate.enter());
        assert!(waits(&mut left));
        drop(inside);
        drop(left);
        assert!(gate.try_enter().is_some());
    }

    #[tokio::test]
    async fn a_shared_limit_starts_closed_and_calls_once_for_more() {
        let hungry = Arc::new(Notify::new());
        let gate = Arc::new(Gate::new(Some(Arc::clone(&hungry))));
        gate.set_most(Some(3));
        assert!(gate.try_enter().is_none());
        hungry.notified().await;
        assert_eq!(gate.look(), Some(Look { most: 3, size: 0, inside: 0, peak: 0, is_short: true }));
        gate.resize(9);
        let _slots = [gate.try_enter(), gate.try_enter(), gate.try_enter()].map(Option::unwrap);
        assert!(gate.try_enter().is_none(), "never more than the limit");
        gate.resize(1);
        assert_eq!(gate.look(), Some(Look { most: 3, size: 1, inside: 3, peak: 3, is_short: true }));
        gate.set_most(None);
        assert!(gate.try_enter().is_some() && gate.look().is_none());
        gate.set_most(Some(3));
        assert!(gate.try_enter().is_none(), "a new limit has to be asked for");
    }
}
