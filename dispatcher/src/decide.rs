//! What happens to a delivery: pure functions of facts, policy and time. Nothing here reads a clock, draws a random
//! number, logs or writes; `docs/states.md` draws the edges, and a test walks each of them.

use std::time::Duration;

use bellwire_schemas::service::BindingSpec;
use bellwire_schemas::{ErrorInfo, Exhausted, FailureClass, RetryPolicy, Timestamp};
use bellwire_workers::{DESTINATION_REFUSED, DESTINATION_UNAVAILABLE};

/// Longest pause that a `Retry-After` can ask for; a target that says "in ten years" is asked again after a day.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);
/// First wait of a function that cannot start or asks for less; doubles with every probe that fails.
pub const MIN_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two probes, unless `Retry-After` asks for more.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// When a blocked delivery is due: never by itself. The last day that RFC 3339 can write.
pub const FAR: Timestamp = Timestamp::from_millis(253_402_214_400_000);

/// Longest wait between two probes of a target that is away: a probe costs one call, a target that is back and not asked
/// costs everybody's time.
pub const MAX_AWAY: Duration = Duration::from_secs(10);

/// What a binding asks for when attempts fail or time passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Attempts, delays, errors that end the delivery at once.
    pub retry: RetryPolicy,
    /// Older deliveries end as expired.
    pub max_age: Option<Duration>,
}

/// A delivery before an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Whether the filter says yes; debts passed it before and say `true`.
    pub matches: bool,
    /// When the delivery was first owed.
    pub since: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// What to do with a delivery before an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Ends as filtered: the filter said no.
    Filtered,
    /// Ends as expired: too old.
    Expired,
    /// May be attempted.
    Attempt,
}

/// An attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Its number, from 1.
    pub attempt: u32,
    /// The failure; `None` when the function answered.
    pub failure: Option<&'a ErrorInfo>,
    /// Whether the failure is the target's, which is away, and not the event's.
    pub is_away: bool,
    /// The pause that the target asked for.
    pub retry_after: Option<Duration>,
    /// When the delivery was first owed.
    pub since: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// How many probes of the function in a row have said "not now" before this one.
    pub waits: u32,
    /// A random number in [0, 1).
    pub random: f64,
    /// Whether the delivery has a key and stands in its line, which it can then block; one without a key, or tried
    /// again beside the line, cannot.
    pub is_in_line: bool,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ends as delivered.
    Delivered,
    /// Owed again, at this time.
    Retry {
        /// When the next attempt is due.
        at: Timestamp,
    },
    /// Ends as a dead letter.
    Dead(DeadReason),
    /// Stays owed without a time, and its key with it, until an operator decides (`exhausted: block-key`).
    Blocked(DeadReason),
    /// Ends as expired: the next attempt would come too late.
    Expired,
    /// The attempt does not count: the function is left alone until then.
    Wait {
        /// When one probe is made.
        until: Timestamp,
        /// Why.
        why: WaitReason,
    },
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The last attempt failed.
    AttemptsExhausted,
    /// The error's name is one that trying again cannot mend.
    NonRetryable,
}

/// Why a function is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// The target asked for less (429, or 503 with `Retry-After`).
    Throttled,
    /// Its worker does not start.
    CannotStart,
    /// The broker of a destination is away, or takes nothing now.
    Unavailable,
    /// Deliveries in a row found the target away.
    BreakerOpen,
}

impl Policy {
    /// The policy of a binding.
    pub fn of(spec: &BindingSpec) -> Self {
        Self { retry: spec.retry.clone(), max_age: spec.max_age }
    }

    /// The policy of a binding that sends to a destination: an outage turns nothing into a dead letter, and what is
    /// refused dies at once.
    #[must_use]
    pub fn for_destination(mut self) -> Self {
        self.retry.attempts = None;
        self.retry.non_retryable.push(DESTINATION_REFUSED.to_owned());
        self
    }

    fn too_old(&self, since: Timestamp, at: Timestamp) -> bool {
        self.max_age.is_some_and(|age| at.since(since) >= age)
    }

    /// Upper bound of the wait after an attempt: `min_delay`, doubled with every attempt, up to `max_delay`.
    fn ceiling(&self, attempt: u32) -> Duration {
        doubled(self.retry.min_delay, attempt.saturating_sub(1), self.retry.max_delay)
    }
}

impl DeadReason {
    /// The word in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts-exhausted",
            Self::NonRetryable => "non-retryable",
        }
    }

    /// The reason that a recorded failure must have had under a policy: for explanations of older dead letters.
    pub fn of(retry: &RetryPolicy, error: &ErrorInfo) -> Self {
        if retry.non_retryable.contains(&error.kind) { Self::NonRetryable } else { Self::AttemptsExhausted }
    }
}

impl WaitReason {
    /// The word in explanations and in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::CannotStart => "function-cannot-start",
            Self::Unavailable => "destination-unavailable",
            Self::BreakerOpen => "breaker-open",
        }
    }
}

/// Decides whether a delivery may be attempted.
pub fn admit(policy: &Policy, candidate: &Candidate) -> Admission {
    if !candidate.matches {
        Admission::Filtered
    } else if policy.too_old(candidate.since, candidate.now) {
        Admission::Expired
    } else {
        Admission::Attempt
    }
}

/// Whether a failure may mean that the target is away rather than that the event is bad: it cannot be reached, or a
/// gateway before an endpoint says so (502, 503, 504), or an endpoint does not answer in time. Errors that a function
/// raised, and crashes of its worker, never do.
pub fn is_away(error: &ErrorInfo, is_endpoint: bool) -> bool {
    match error.class {
        FailureClass::Unreachable => error.kind != "HTTP.AddressRefused",
        FailureClass::Timeout => is_endpoint,
        FailureClass::Function => is_endpoint && matches!(&*error.kind, "HTTP.502" | "HTTP.503" | "HTTP.504"),
        _ => false,
    }
}

/// Decides what follows an attempt.
///
/// An answer always counts, however late. A failure that is no fault of the event ([`FailureClass::burns_attempt`], or
/// the target is away) leaves the delivery as it was and pauses the function. All others use up an attempt: the
/// delivery dies, or blocks its key where the policy says so and it has one, when it was the last or the error's name is
/// listed, expires when its next attempt would come after `max_age`, and is owed again otherwise, after a wait drawn
/// evenly from zero to the doubled delay, but not before `Retry-After` is over.
pub fn decide(policy: &Policy, ended: &Ended<'_>) -> Next {
    let Some(failure) = ended.failure else { return Next::Delivered };
    let asked = ended.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    if ended.is_away || !failure.class.burns_attempt() {
        let why = match failure.class {
            _ if ended.is_away => WaitReason::BreakerOpen,
            FailureClass::Throttled => WaitReason::Throttled,
            _ if failure.kind == DESTINATION_UNAVAILABLE => WaitReason::Unavailable,
            _ => WaitReason::CannotStart,
        };
        // Half of the ceiling is fixed, so that a probe never follows at once.
        let most = if ended.is_away { MAX_AWAY } else { MAX_WAIT };
        let wait = doubled(MIN_WAIT, ended.waits, most).mul_f64(0.5 + 0.5 * share(ended.random));
        return Next::Wait { until: ended.now.plus(wait.max(asked)), why };
    }
    let given_up = |why| match policy.retry.exhausted {
        Exhausted::BlockKey if ended.is_in_line => Next::Blocked(why),
        Exhausted::BlockKey | Exhausted::SkipEvent => Next::Dead(why),
    };
    if policy.retry.non_retryable.contains(&failure.kind) {
        return given_up(DeadReason::NonRetryable);
    }
    if policy.retry.attempts.is_some_and(|most| ended.attempt >= most) {
        return given_up(DeadReason::AttemptsExhausted);
    }
    let wait = policy.ceiling(ended.attempt).mul_f64(share(ended.random));
    let at = ended.now.plus(wait.max(asked));
    if policy.too_old(ended.since, at) { Next::Expired } else { Next::Retry { at } }
}

/// `base * 2^times`, at most `most`.
fn doubled(base: Duration, times: u32, most: Duration) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times.min(31))).min(most)
}

fn share(random: f64) -> f64 {
    if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn policy(attempts: Option<u32>, max_age: Option<u64>) -> Policy {
        let retry =
            RetryPolicy { attempts, non_retryable: vec!["ValidationError".into()], ..RetryPolicy::default() };
        Policy { retry, max_age: max_age.map(Duration::from_secs) }
    }

    fn failure(class: FailureClass, kind: &str) -> ErrorInfo {
        ErrorInfo::platform(class, kind, "no")
    }

    fn ended(failure: Option<&ErrorInfo>) -> Ended<'_> {
        Ended {
            attempt: 1,
            failure,
            is_away: false,
            retry_after: None,
            since: NOW,
            now: NOW,
            waits: 0,
            random: 0.5,
            is_in_line: true,
        }
    }

    /// The states an attempt may lead to, in the words of `docs/states.md`.
    fn word(next: Next) -> &'static str {
        match next {
            Next::Delivered => "delivered",
            Next::Retry { .. } => "retrying",
            Next::Dead(_) => "dead",
            Next::Expired => "expired",
            Next::Blocked(_) => "parked",
            Next::Wait { .. } => "waiting",
        }
    }

    /// Every edge that the two functions can take is drawn in `docs/states.md`, and every edge drawn there is taken, but
    /// for those of operators, crashes, order and flow, which the tests of the dispatcher and end to end walk.
    #[test]
    fn the_drawing_and_the_functions_have_the_same_edges() {
        let mut taken = BTreeSet::new();
        let error = failure(FailureClass::Function, "ValueError");
        for from in ["waiting", "retrying"] {
            for (matches, age) in [(false, 0), (true, 0), (true, 100)] {
                let candidate = Candidate { matches, since: NOW.minus(Duration::from_secs(age)), now: NOW };
                let to = match admit(&policy(Some(3), Some(60)), &candidate) {
                    Admission::Filtered => "filtered",
                    Admission::Expired => "expired",
                    Admission::Attempt => "running",
                };
                // Debts passed the filter when they were made.
                if from == "waiting" || matches {
                    taken.insert((from.to_string(), to.to_string()));
                }
            }
        }
        let failures = [
            None,
            Some(error.clone()),
            Some(failure(FailureClass::Function, "ValidationError")),
            Some(failure(FailureClass::CannotStart, "Runtime.ImportModuleError")),
            Some(failure(FailureClass::Throttled, "Http.429")),
        ];
        for failure in &failures {
            for (attempt, age) in [(1, 0), (3, 0), (1, 59)] {
                let since = NOW.minus(Duration::from_secs(age));
                let ended = Ended {
                    attempt,
                    since,
                    random: 0.999_999,
                    retry_after: Some(Duration::from_secs(2)),
                    ..ended(failure.as_ref())
                };
                let mut policy = policy(Some(3), Some(60));
                taken.insert(("running".into(), word(decide(&policy, &ended)).into()));
                policy.retry.exhausted = Exhausted::BlockKey;
                taken.insert(("running".into(), word(decide(&policy, &ended)).into()));
                let away = Ended { is_away: failure.is_some(), ..ended };
                taken.insert(("running".into(), word(decide(&policy, &away)).into()));
            }
        }
        let drawing = include_str!("../../docs/states.md");
        let drawn: BTreeSet<(String, String)> = drawing
            .lines()
            .filter_map(|line| line.trim().split_once(" --> "))
            .filter(|(_, rest)| {
                !["operator:", "crash:", "order:", "flow:"].iter().any(|who| rest.contains(who))
            })
            .map(|(from, rest)| (from.to_string(), rest.split(':').next().unwrap_or("").trim().to_string()))
            .filter(|(from, to)| from != "[*]" && to != "[*]")
            .collect();
        assert_eq!(taken, drawn);
    }

    #[test]
    fn delays_double_from_the_least_to_the_most_with_full_jitter() {
        let error = failure(FailureClass::Timeout, "Function.Timeout");
        let policy = policy(None, None);
        let wait = |attempt, random| match decide(&policy, &Ended { attempt, random, ..ended(Some(&error)) })
        {
            Next::Retry { at } => at.since(NOW).as_secs_f64(),
            other => panic!("{other:?}"),
        };
        for (attempt, ceiling) in
            [(1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0), (4_000_000_000, 300.0)]
        {
            assert_eq!(wait(attempt, 0.0), 0.0);
            assert!((wait(attempt, 0.5) - ceiling / 2.0).abs() < 1e-3, "{attempt}");
            assert!(wait(attempt, 0.999_999) <= ceiling);
        }
    }

    #[test]
    fn retry_after_is_a_lower_bound_and_has_a_limit() {
        let error = failure(FailureClass::Function, "Http.500");
        let at = |asked| {
            let ended = Ended { retry_after: Some(Duration::from_secs(asked)), ..ended(Some(&error)) };
            decide(&policy(None, None), &ended)
        };
        assert_eq!(at(30), Next::Retry { at: NOW.plus(Duration::from_secs(30)) });
        assert_eq!(at(u64::MAX), Next::Retry { at: NOW.plus(MAX_RETRY_AFTER) });
    }

    #[test]
    fn attempts_count_the_first_and_may_be_unlimited() {
        let error = failure(FailureClass::Crash, "Runtime.ExitError");
        let next =
            |attempts, attempt| decide(&policy(attempts, None), &Ended { attempt, ..ended(Some(&error)) });
        assert_eq!(next(Some(1), 1), Next::Dead(DeadReason::AttemptsExhausted));
        assert!(matches!(next(Some(4), 3), Next::Retry { .. }));
        assert_eq!(next(Some(4), 4), Next::Dead(DeadReason::AttemptsExhausted));
        assert!(matches!(next(None, u32::MAX), Next::Retry { .. }));
    }

    #[test]
    fn a_listed_error_dies_at_once_and_a_late_answer_counts() {
        let error = failure(FailureClass::Function, "ValidationError");
        assert_eq!(decide(&policy(None, None), &ended(Some(&error))), Next::Dead(DeadReason::NonRetryable));
        let late = Ended { since: NOW.minus(Duration::from_secs(1_000)), ..ended(None) };
        assert_eq!(decide(&policy(None, Some(1)), &late), Next::Delivered);
    }

    #[test]
    fn a_target_that_is_away_burns_no_attempt_and_is_asked_every_few_seconds() {
        let error = failure(FailureClass::Unreachable, "HTTP.Unreachable");
        for (waits, least, most) in [(0, 0.5, 1.0), (3, 4.0, 8.0), (u32::MAX, 5.0, 10.0)] {
            let ended = Ended { attempt: 10, waits, is_away: true, random: 0.999, ..ended(Some(&error)) };
            let Next::Wait { until, why } = decide(&policy(Some(1), None), &ended) else { panic!() };
            assert_eq!(why, WaitReason::BreakerOpen);
            assert!((least..=most).contains(&until.since(NOW).as_secs_f64()), "{waits}");
        }
    }

    #[test]
    fn only_a_key_can_be_blocked() {
        let error = failure(FailureClass::Function, "ValidationError");
        let policy = {
            let mut policy = policy(Some(3), None);
            policy.retry.exhausted = Exhausted::BlockKey;
            policy
        };
        let next = |is_in_line| decide(&policy, &Ended { is_in_line, ..ended(Some(&error)) });
        assert_eq!(next(true), Next::Blocked(DeadReason::NonRetryable));
        assert_eq!(next(false), Next::Dead(DeadReason::NonRetryable));
    }

    #[test]
    fn flow_signals_burn_no_attempt_and_back_off_to_a_minute() {
        let error = failure(FailureClass::CannotStart, "Runtime.ImportModuleError");
        for (waits, least, most) in [(0, 0.5, 1.0), (1, 1.0, 2.0), (6, 30.0, 60.0), (u32::MAX, 30.0, 60.0)] {
            for random in [0.0, 0.999] {
                let ended = Ended { attempt: 10, waits, random, ..ended(Some(&error)) };
                let Next::Wait { until, why } = decide(&policy(Some(1), None), &ended) else { panic!() };
                let wait = until.since(NOW).as_secs_f64();
                assert_eq!(why, WaitReason::CannotStart);
                assert!((least..=most).contains(&wait), "{waits} {wait}");
            }
        }
    }
}
