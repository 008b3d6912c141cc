//! The condition of one target, as a pure machine: may it be called now, how many calls may be out, when is it asked
//! again. `docs/states.md` draws it.
//!
//! * It is left alone after it said "not now" (cannot start, asks for less) or was away for [`AWAY`] deliveries in a
//!   row; when the time has come exactly one call is made to see.
//! * After that the limit ramps up from one: doubling with every round of answers up to half of what it was before,
//!   then by one each round, as TCP does after a loss (RFC 5681, slow start and congestion avoidance). So neither a
//!   backlog nor everybody's retries fall upon a target that has just come back.
//! * While it ramps, a single failure of that kind is enough to leave it alone again.

use std::time::Duration;

use bellwire_schemas::{Address, ErrorInfo, Timestamp};

use crate::decide::{Next, WaitReason};

/// So many different deliveries in a row that find the target away open the breaker: one event that kills the target
/// cannot, a target that is down does so within its first few calls.
pub(crate) const AWAY: usize = 5;

/// A target that is left alone.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) until: Timestamp,
    pub(crate) why: WaitReason,
    pub(crate) since: Timestamp,
    pub(crate) error: Option<ErrorInfo>,
    /// From when it was noted until `until`.
    length: Duration,
    count: u32,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Flow {
    ceiling: f64,
    limit: f64,
    threshold: f64,
    out: u32,
    away: Vec<Address>,
    /// The delivery by which it was left alone last, and whether another was answered since.
    cause: Option<Address>,
    has_answered: bool,
    wait: Option<Wait>,
    /// Grows with every change of condition; results of calls from before it say nothing about now.
    generation: u64,
    is_probing: bool,
    /// Somebody was refused only because too many calls are out.
    is_wanted: bool,
}

/// The answer to "may it be called now".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes.
    Go(Call),
    /// Not before; somebody else's probe or too many calls: no time is known.
    Later(Option<Timestamp>),
}

/// One call that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    generation: u64,
    is_probe: bool,
    /// How many probes in a row have said "not now" before it.
    pub(crate) waits: u32,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing that others wait for.
    None,
    /// It is left alone, and was not before for this reason.
    Waits(WaitReason),
    /// It is left alone for longer.
    StillWaits,
    /// It is called again.
    Back,
}

impl Wait {
    /// Whether it is too early to ask. When more is left than there was at first, the clock was set back.
    fn is_on(&self, now: Timestamp) -> bool {
        self.until > now && self.until.since(now) <= self.length
    }
}

impl Flow {
    pub(crate) fn new(ceiling: u32) -> Self {
        let ceiling = f64::from(ceiling);
        Self {
            ceiling,
            limit: ceiling,
            threshold: ceiling,
            out: 0,
            away: Vec::new(),
            cause: None,
            has_answered: false,
            wait: None,
            generation: 0,
            is_probing: false,
            is_wanted: false,
        }
    }

    /// Changes the most calls at once.
    pub(crate) fn set_ceiling(&mut self, ceiling: u32) {
        let ceiling = f64::from(ceiling);
        if self.limit >= self.ceiling {
            (self.limit, self.threshold) = (ceiling, ceiling);
        }
        self.ceiling = ceiling;
        self.limit = self.limit.min(ceiling).max(1.0);
    }

    /// Ends the wait: the next call is the probe.
    pub(crate) fn ask_again(&mut self, now: Timestamp) {
        if let Some(wait) = &mut self.wait {
            wait.until = now;
        }
    }

    pub(crate) fn wait(&self) -> Option<&Wait> {
        self.wait.as_ref()
    }

    /// Calls that may be out, when that is fewer than the function allows.
    pub(crate) fn limit(&self) -> Option<u32> {
        (self.limit < self.ceiling).then(|| self.allowed())
    }

    fn allowed(&self) -> u32 {
        // Casting is exact: limits are small and at least one.
        self.limit.max(1.0).min(f64::from(u32::MAX)) as u32
    }

    pub(crate) fn admit(&mut self, now: Timestamp) -> Answer {
        let (is_probe, waits) = match &self.wait {
            None => (false, 0),
            Some(_) if self.is_probing => return Answer::Later(None),
            Some(wait) if wait.is_on(now) => return Answer::Later(Some(wait.until)),
            Some(wait) => (true, wait.count),
        };
        if self.limit < self.ceiling && !is_probe && self.out >= self.allowed() {
            self.is_wanted = true;
            return Answer::Later(None);
        }
        self.is_probing |= is_probe;
        self.out += 1;
        Answer::Go(Call { generation: self.generation, is_probe, waits })
    }

    /// Whether a call that found the target away says something about the target rather than about its event. A call
    /// from before the last change of condition does: it met the target as it was then.
    pub(crate) fn is_away(&mut self, call: Call, address: Address) -> bool {
        if call.generation != self.generation {
            return true;
        }
        if self.wait.is_some() || self.limit < self.ceiling {
            // The same delivery again, though another was answered in between: it is about the event.
            if self.cause == Some(address) && self.has_answered {
                return false;
            }
            (self.cause, self.has_answered) = (Some(address), false);
            return true;
        }
        if !self.away.contains(&address) {
            self.away.push(address);
        }
        let is_away = self.away.len() >= AWAY;
        if is_away {
            (self.cause, self.has_answered) = (Some(address), false);
        }
        is_away
    }

    /// Takes what followed a call; `was_away`: it failed in a way that may be the target's fault.
    pub(crate) fn report(
        &mut self,
        call: Call,
        next: &Next,
        error: Option<&ErrorInfo>,
        was_away: bool,
        now: Timestamp,
    ) -> News {
        if call.generation != self.generation {
            return News::None;
        }
        if call.is_probe {
            self.is_probing = false;
        }
        self.has_answered |= !was_away && !matches!(next, Next::Wait { .. });
        match (next, self.wait.take()) {
            (Next::Wait { until, why }, before) => {
                if before.is_none() {
                    self.threshold = (self.limit / 2.0).max(1.0);
                    self.limit = 1.0;
                }
                let since = before.as_ref().map_or(now, |wait| wait.since);
                let count = before.as_ref().map_or(1, |wait| wait.count.saturating_add(1));
                let is_news = before.is_none_or(|wait| wait.why != *why);
                let (until, length, error) = (*until, until.since(now), error.cloned());
                self.wait = Some(Wait { until, why: *why, since, error, length, count });
                self.generation += 1;
                self.away.clear();
                if is_news { News::Waits(*why) } else { News::StillWaits }
            }
            (_, Some(_)) => {
                self.limit = self.ceiling.min(2.0);
                self.generation += 1;
                self.away.clear();
                News::Back
            }
            (_, None) if was_away => News::None,
            (_, None) => {
                self.away.clear();
                self.grow();
                News::None
            }
        }
    }

    fn grow(&mut self) {
        if self.limit < self.ceiling {
            self.limit += if self.limit < self.threshold { 1.0 } else { 1.0 / self.limit };
            self.limit = self.limit.min(self.ceiling);
        }
    }

    /// A call is over; returns whether somebody waits for its place. A probe without a report is given back.
    pub(crate) fn leave(&mut self, call: Call, is_reported: bool) -> bool {
        self.out = self.out.saturating_sub(1);
        let is_given_back = !is_reported && call.is_probe && call.generation == self.generation;
        if is_given_back {
            self.is_probing = false;
        }
        is_given_back || std::mem::take(&mut self.is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::{FailureClass, Lane, Seq};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn go(flow: &mut Flow, now: Timestamp) -> Option<Call> {
        match flow.admit(now) {
            Answer::Go(call) => Some(call),
            Answer::Later(_) => None,
        }
    }

    fn done(flow: &mut Flow, call: Call, now: Timestamp) {
        flow.report(call, &Next::Delivered, None, false, now);
        flow.leave(call, true);
    }

    fn opened(until: Timestamp) -> Next {
        Next::Wait { until, why: WaitReason::BreakerOpen }
    }

    fn place(seq: u64) -> Address {
        Address::new(Lane(1), Seq(seq))
    }

    #[test]
    fn five_different_deliveries_in_a_row_open_it_and_one_event_never_does() {
        let mut flow = Flow::new(10);
        for _ in 0..100 {
            let call = go(&mut flow, NOW).unwrap();
            assert!(!flow.is_away(call, place(1)));
            flow.report(call, &Next::Retry { at: NOW }, None, true, NOW);
            flow.leave(call, true);
        }
        for seq in 2..=4 {
            let call = go(&mut flow, NOW).unwrap();
            assert!(!flow.is_away(call, place(seq)));
            flow.leave(call, true);
        }
        let call = go(&mut flow, NOW).unwrap();
        assert!(flow.is_away(call, place(5)));
        let call = go(&mut flow, NOW).unwrap();
        done(&mut flow, call, NOW);
        let call = go(&mut flow, NOW).unwrap();
        assert!(!flow.is_away(call, place(6)), "an answer between them starts the row anew");
    }

    #[test]
    fn it_is_probed_alone_and_then_ramps_up() {
        let mut flow = Flow::new(64);
        let until = NOW.plus(Duration::from_secs(1));
        let (first, late) = (go(&mut flow, NOW).unwrap(), go(&mut flow, NOW).unwrap());
        assert_eq!(flow.report(first, &opened(until), None, true, NOW), News::Waits(WaitReason::BreakerOpen));
        flow.leave(first, true);
        assert!(flow.is_away(late, place(9)), "what was out when it opened counts as the outage");
        assert_eq!(flow.report(late, &opened(until), None, true, NOW), News::None);
        flow.leave(late, true);
        assert_eq!(flow.admit(NOW), Answer::Later(Some(until)));
        let probe = go(&mut flow, until).unwrap();
        assert_eq!(flow.admit(until), Answer::Later(None));
        assert_eq!(flow.report(probe, &Next::Delivered, None, false, until), News::Back);
        flow.leave(probe, true);
        let mut rounds = Vec::new();
        while flow.limit().is_some() && rounds.len() < 100 {
            let mut calls = Vec::new();
            while let Some(call) = go(&mut flow, until) {
                calls.push(call);
            }
            rounds.push(calls.len());
            calls.into_iter().for_each(|call| done(&mut flow, call, until));
        }
        assert_eq!(rounds[..5], [2, 4, 8, 16, 32], "doubles up to half of what it was");
        assert!((rounds[5]..=34).contains(&rounds[6]) && rounds.len() > 20, "then by one: {rounds:?}");
    }

    #[test]
    fn one_failure_while_it_ramps_leaves_it_alone_again() {
        let mut flow = Flow::new(8);
        let call = go(&mut flow, NOW).unwrap();
        flow.report(call, &opened(NOW), None, true, NOW);
        flow.leave(call, true);
        let probe = go(&mut flow, NOW).unwrap();
        done(&mut flow, probe, NOW);
        let call = go(&mut flow, NOW).unwrap();
        assert!(flow.is_away(call, place(1)));
    }

    #[test]
    fn a_probe_that_was_dropped_is_given_back() {
        let mut flow = Flow::new(8);
        let call = go(&mut flow, NOW).unwrap();
        flow.report(call, &opened(NOW), None, true, NOW);
        flow.leave(call, true);
        let probe = go(&mut flow, NOW).unwrap();
        assert_eq!(flow.admit(NOW), Answer::Later(None));
        assert!(flow.leave(probe, false));
        assert!(go(&mut flow, NOW).is_some());
    }

    #[test]
    fn one_event_that_the_target_never_answers_does_not_keep_it_shut() {
        let mut flow = Flow::new(8);
        let call = go(&mut flow, NOW).unwrap();
        flow.report(call, &opened(NOW), None, true, NOW);
        flow.leave(call, true);
        let mut burnt = 0;
        for _ in 0..10 {
            // Another is answered; the one is not.
            let other = go(&mut flow, NOW).unwrap();
            done(&mut flow, other, NOW);
            let call = go(&mut flow, NOW).unwrap();
            let is_away = flow.is_away(call, place(7));
            burnt += u32::from(!is_away);
            let next = if is_away { opened(NOW) } else { Next::Retry { at: NOW } };
            flow.report(call, &next, None, true, NOW);
            flow.leave(call, true);
        }
        assert!(burnt >= 5, "{burnt}");
    }

    proptest! {
        /// Whatever happens: never more calls than the ceiling asks for while it ramps, never two probes, and with a
        /// target that answers it comes back to full speed.
        #[test]
        fn limits_hold_and_it_always_recovers(steps in prop::collection::vec((0_u8..6, any::<prop::sample::Index>()), 0..200)) {
            let mut flow = Flow::new(16);
            let mut out: Vec<Call> = Vec::new();
            let mut now = NOW;
            let error = ErrorInfo::platform(FailureClass::Unreachable, "HTTP.Unreachable", "gone");
            for (what, which) in steps {
                match what {
                    0..=2 => {
                        let ramping = flow.limit();
                        if let Answer::Go(call) = flow.admit(now) {
                            out.push(call);
                            if let (Some(limit), false) = (ramping, call.is_probe) {
                                prop_assert!(out.len() <= limit as usize);
                            }
                            let probes = out.iter().filter(|c| c.is_probe && c.generation == flow.generation);
                            prop_assert!(probes.count() <= 1);
                        }
                    }
                    3 => now = now.plus(Duration::from_millis(700)),
                    _ if out.is_empty() => {}
                    4 => {
                        let call = out.swap_remove(which.index(out.len()));
                        done(&mut flow, call, now);
                    }
                    _ => {
                        let call = out.swap_remove(which.index(out.len()));
                        let until = now.plus(Duration::from_secs(1));
                        let next = if flow.is_away(call, place(which.index(20) as u64)) { opened(until) } else { Next::Retry { at: now } };
                        flow.report(call, &next, Some(&error), true, now);
                        flow.leave(call, true);
                    }
                }
            }
            for call in out.drain(..) {
                done(&mut flow, call, now);
            }
            for _ in 0..2_000 {
                now = now.plus(Duration::from_millis(100));
                if let Some(call) = go(&mut flow, now) {
                    done(&mut flow, call, now);
                }
            }
            prop_assert_eq!(flow.limit(), None);
            prop_assert!(flow.wait().is_none());
        }
    }
}
