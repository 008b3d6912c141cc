//! A rate: so many deliveries per time, over all lanes of the binding here. A token bucket; the others wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bellwire_schemas::Timestamp;
use bellwire_schemas::service::Rate;

/// What may be spent at once after a rest, besides one whole batch: a tenth of a second's worth.
const BURST: Duration = Duration::from_millis(100);

/// The bucket of a binding.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Bucket>);

#[derive(Clone, Debug, Default)]
struct Bucket {
    tokens: f64,
    /// When the tokens were counted; `None` before the first question.
    at: Option<Timestamp>,
}

impl Meter {
    /// How many deliveries may start now, at most `most`; or when the next one may. `share`: the part of the rate that
    /// is this controller's.
    pub(crate) fn allowance(
        &self,
        rate: Rate,
        share: f64,
        most: usize,
        now: Timestamp,
    ) -> Result<usize, Timestamp> {
        self.lock().allowance(rate, share, most, now)
    }

    /// The same for who only wants to know: the bucket stays as it is.
    pub(crate) fn peek(
        &self,
        rate: Rate,
        share: f64,
        most: usize,
        now: Timestamp,
    ) -> Result<usize, Timestamp> {
        self.lock().clone().allowance(rate, share, most, now)
    }

    /// Takes what was started.
    pub(crate) fn spend(&self, deliveries: usize) {
        self.lock().tokens -= deliveries as f64;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn allowance(&mut self, rate: Rate, share: f64, most: usize, now: Timestamp) -> Result<usize, Timestamp> {
        let per_second = f64::from(rate.events) * share / rate.per.as_secs_f64();
        if per_second <= 0.0 {
            return Err(now.plus(Duration::from_secs(1)));
        }
        let full = (per_second * BURST.as_secs_f64()).max(most as f64).max(1.0);
        // A clock that was set back adds nothing.
        let gained = self.at.map_or(full, |at| now.since(at).as_secs_f64() * per_second);
        self.tokens = (self.tokens + gained).min(full);
        self.at = Some(now);
        if self.tokens >= 1.0 {
            return Ok((self.tokens as usize).min(most));
        }
        // Timers count milliseconds: never wake before the token is there.
        Err(now.plus(Duration::from_secs_f64((1.0 - self.tokens) / per_second) + Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_ask_loosens_nothing() {
        let rate = Rate { events: 100, per: Duration::from_secs(1) };
        let (meter, start) = (Meter::default(), Timestamp::from_millis(1_000_000));
        assert_eq!(meter.peek(rate, 1.0, 1, start), Ok(1));
        assert_eq!(meter.allowance(rate, 1.0, 1, start), Ok(1));
        meter.spend(10);
        let next = meter.allowance(rate, 1.0, 1, start).unwrap_err();
        // Asked with a time of before, as by who has waited for something since.
        assert!(meter.peek(rate, 1.0, 1, Timestamp::from_millis(999_000)).is_err());
        assert_eq!(meter.allowance(rate, 1.0, 1, start), Err(next));
    }

    #[test]
    fn no_window_holds_more_than_the_rate_and_one_batch() {
        let rate = Rate { events: 100, per: Duration::from_secs(1) };
        let start = Timestamp::from_millis(1_000_000);
        for most in [1, 7, 200] {
            let meter = Meter::default();
            let (mut now, mut started) = (start, Vec::new());
            while now.since(start) < Duration::from_secs(20) {
                match meter.allowance(rate, 1.0, most, now) {
                    Ok(n) => {
                        meter.spend(n);
                        started.extend(std::iter::repeat_n(now, n));
                        now = now.plus(Duration::from_millis(1));
                    }
                    Err(at) => {
                        assert!(at > now);
                        now = at;
                    }
                }
            }
            for from in &started {
                let within =
                    started.iter().filter(|at| **at >= *from && at.since(*from) < Duration::from_secs(1));
                assert!(within.count() <= 100 + most.max(10) + 1);
            }
            let per_second = started.len() as f64 / 20.0;
            assert!((95.0..=115.0).contains(&per_second), "{most}: {per_second}");
        }
    }
}
