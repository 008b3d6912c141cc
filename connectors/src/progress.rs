//! The watchdog's judgement: whether a pull source that is alive also gets on.
//!
//! A source is stalled when messages wait upstream and none comes, when its upstream answers no question and nothing
//! comes either, or when one of its calls does not return; each for [`STALL_AFTER`]. Waiting for the ledger is not
//! stalling, and what a source cannot tell counts for nothing. `pump.rs` notes what happens and acts on the verdict;
//! here is no clock and no I/O but reading tokio's time.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// How long nothing may move. Twice the minute after which Amazon calls a queue's approximate counts settled (SQS API
/// reference, `GetQueueAttributes`), and well above what a rebalance of a Kafka group takes (session timeout 15 s).
pub(crate) const STALL_AFTER: Duration = Duration::from_secs(120);

/// Where the loop of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Asks for messages.
    Receiving,
    /// Asks how many wait.
    Asking,
    /// Waits for the ledger.
    Appending,
    /// Tells the upstream that a batch is durable.
    Confirming,
    /// Tells the connector that it is not.
    Releasing,
    /// Waits after a failure.
    Pausing,
}

/// Why something should have come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waits {
    /// So many messages wait upstream.
    Messages(u64),
    /// The upstream did not answer.
    Silence(String),
}

/// What is known of one connector.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    step: Step,
    since: Instant,
    /// Something should come, and has not since then.
    owing: Option<(Instant, Waits)>,
    /// Whether anything came at all.
    moved: bool,
}

/// What the watchdog makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is wrong, as far as can be known.
    Healthy,
    /// Not the connector's fault, but to be seen: the ledger does not answer.
    Waits(String),
    /// The connector is to be dropped and made anew.
    Stalled(String),
}

impl Beat {
    /// A connector that is new.
    pub(crate) fn new(now: Instant) -> Self {
        Self { step: Step::Receiving, since: now, owing: None, moved: false }
    }

    /// The loop goes on to a step.
    pub(crate) fn enter(&mut self, step: Step, now: Instant) {
        (self.step, self.since) = (step, now);
    }

    /// Messages came.
    pub(crate) fn came(&mut self) {
        self.owing = None;
        self.moved = true;
    }

    /// The source says itself that it cannot go on.
    pub(crate) fn spoke(&mut self) {
        self.owing = None;
    }

    /// How many messages wait upstream, or why that is not known. A number that falls means that somebody reads them.
    /// Silence that the source complains of by itself is no news.
    pub(crate) fn told(&mut self, answer: Result<Option<u64>, String>, complains: bool, now: Instant) {
        self.owing = match (answer, self.owing.take()) {
            (Ok(None | Some(0)), _) => None,
            (Ok(Some(count)), Some((since, Waits::Messages(before)))) if count >= before => {
                Some((since, Waits::Messages(count)))
            }
            (Ok(Some(count)), Some((since, Waits::Silence(_)))) => Some((since, Waits::Messages(count))),
            (Ok(Some(count)), _) => Some((now, Waits::Messages(count))),
            (Err(_), owing) if complains => owing,
            (Err(why), None) => Some((now, Waits::Silence(why))),
            (Err(_), owing) => owing,
        };
    }

    /// Judges, if nothing may stand still for longer than `patience`.
    pub(crate) fn judge(&self, now: Instant, patience: Duration) -> Verdict {
        let long = |since: Instant| now.saturating_duration_since(since) >= patience;
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let call = match self.step {
            Step::Receiving => "asking for messages",
            Step::Asking => "asking how many messages wait",
            Step::Confirming => "confirming a batch",
            Step::Releasing => "giving back a batch",
            Step::Pausing => return Verdict::Healthy,
            Step::Appending if long(self.since) => {
                return Verdict::Waits("a batch waits for the ledger, which does not answer".into());
            }
            Step::Appending => return Verdict::Healthy,
        };
        if long(self.since) {
            return Verdict::Stalled(format!("{call} has not come to an end for {} s", seconds(self.since)));
        }
        match &self.owing {
            Some((since, Waits::Messages(count))) if long(*since) => {
                let wait =
                    if *count == 1 { "1 message waits".into() } else { format!("{count} messages wait") };
                Verdict::Stalled(format!("{wait} upstream, but none came for {} s", seconds(*since)))
            }
            Some((since, Waits::Silence(why))) if long(*since) => Verdict::Stalled(format!(
                "nothing came for {} s, and no answer either: {why}",
                seconds(*since)
            )),
            _ => Verdict::Healthy,
        }
    }
}

/// A beat that the loop of a source writes and its watchdog reads.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<Beat>);

impl Pulse {
    /// The pulse of a new connector.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Beat::new(Instant::now())))
    }

    /// See [`Beat::enter`].
    pub(crate) fn enter(&self, step: Step) {
        self.lock().enter(step, Instant::now());
    }

    /// See [`Beat::came`].
    pub(crate) fn came(&self) {
        self.lock().came();
    }

    /// See [`Beat::spoke`].
    pub(crate) fn spoke(&self) {
        self.lock().spoke();
    }

    /// See [`Beat::told`].
    pub(crate) fn told(&self, answer: Result<Option<u64>, String>, complains: bool) {
        self.lock().told(answer, complains, Instant::now());
    }

    /// See [`Beat::judge`].
    pub(crate) fn judge(&self, patience: Duration) -> Verdict {
        self.lock().judge(Instant::now(), patience)
    }

    /// Whether anything came at all.
    pub(crate) fn moved(&self) -> bool {
        self.lock().moved
    }

    fn lock(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(100);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn messages_that_wait_must_come_in_time() {
        let start = Instant::now();
        let mut beat = Beat::new(start);
        beat.told(Ok(Some(3)), false, after(start, 10));
        beat.enter(Step::Receiving, after(start, 90));
        assert_eq!(beat.judge(after(start, 109), PATIENCE), Verdict::Healthy);
        beat.told(Ok(Some(1)), false, after(start, 100));
        assert_eq!(beat.judge(after(start, 120), PATIENCE), Verdict::Healthy, "somebody reads them");
        beat.told(Ok(Some(5)), false, after(start, 150));
        beat.enter(Step::Receiving, after(start, 199));
        let stalled = Verdict::Stalled("5 messages wait upstream, but none came for 100 s".into());
        assert_eq!(beat.judge(after(start, 200), PATIENCE), stalled);
        beat.came();
        assert_eq!(beat.judge(after(start, 200), PATIENCE), Verdict::Healthy);
    }

    #[test]
    fn silence_counts_unless_the_source_complains_itself() {
        let start = Instant::now();
        let mut beat = Beat::new(start);
        beat.told(Err("away".into()), true, start);
        beat.enter(Step::Receiving, after(start, 150));
        assert_eq!(beat.judge(after(start, 200), PATIENCE), Verdict::Healthy);
        beat.told(Err("no answer".into()), false, after(start, 100));
        let stalled = Verdict::Stalled("nothing came for 100 s, and no answer either: no answer".into());
        assert_eq!(beat.judge(after(start, 200), PATIENCE), stalled);
        beat.told(Ok(None), false, after(start, 200));
        assert_eq!(beat.judge(after(start, 200), PATIENCE), Verdict::Healthy, "unknown is not silent");
    }

    #[test]
    fn a_call_must_come_to_an_end_but_the_ledger_may_take_its_time() {
        let start = Instant::now();
        let mut beat = Beat::new(start);
        for (step, stalls) in [
            (Step::Receiving, true),
            (Step::Asking, true),
            (Step::Confirming, true),
            (Step::Releasing, true),
            (Step::Appending, false),
            (Step::Pausing, false),
        ] {
            beat.enter(step, start);
            assert_eq!(beat.judge(after(start, 99), PATIENCE), Verdict::Healthy);
            let verdict = beat.judge(after(start, 100), PATIENCE);
            assert_eq!(matches!(verdict, Verdict::Stalled(_)), stalls, "{step:?}: {verdict:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Enter(Step),
        Came,
        Spoke,
        Told(Result<Option<u64>, String>, bool),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let step = prop_oneof![
            Just(Step::Receiving),
            Just(Step::Asking),
            Just(Step::Appending),
            Just(Step::Confirming),
            Just(Step::Pausing),
        ];
        let answer = prop_oneof![
            Just(Ok(None)),
            (0_u64..4).prop_map(|count| Ok(Some(count))),
            Just(Err("no answer".to_owned())),
        ];
        prop_oneof![
            4 => step.prop_map(Happening::Enter),
            1 => Just(Happening::Came),
            1 => Just(Happening::Spoke),
            4 => (answer, any::<bool>()).prop_map(|(answer, complains)| Happening::Told(answer, complains)),
        ]
    }

    proptest! {
        /// A stall is never declared sooner than the patience after the last good news, and always once that long
        /// nothing but bad news came.
        #[test]
        fn a_stall_needs_the_whole_patience_and_never_more(
            history in proptest::collection::vec((1_u64..30, happening()), 1..60),
        ) {
            let start = Instant::now();
            let (mut beat, mut now) = (Beat::new(start), 0);
            // The model: since when the step lasts, and since when something is owed without any good news.
            let (mut step, mut entered, mut owed, mut count) = (Step::Receiving, 0, None::<u64>, 0);
            for (pause, happening) in history {
                now += pause;
                let stalled = matches!(beat.judge(after(start, now), PATIENCE), Verdict::Stalled(_));
                let idle = matches!(step, Step::Pausing | Step::Appending);
                let expected = !idle && (now - entered >= 100 || owed.is_some_and(|since| now - since >= 100));
                prop_assert_eq!(stalled, expected);
                match &happening {
                    Happening::Enter(to) => { step = *to; entered = now; beat.enter(*to, after(start, now)); }
                    Happening::Came => { owed = None; count = 0; beat.came(); }
                    Happening::Spoke => { owed = None; count = 0; beat.spoke(); }
                    Happening::Told(answer, complains) => {
                        match answer {
                            Ok(None | Some(0)) => { owed = None; count = 0; }
                            Ok(Some(n)) => { if owed.is_none() || *n < count { owed = Some(now); } count = *n; }
                            Err(_) if *complains => {}
                            Err(_) => { owed = owed.or(Some(now)); }
                        }
                        beat.told(answer.clone(), *complains, after(start, now));
                    }
                }
            }
        }
    }
}
