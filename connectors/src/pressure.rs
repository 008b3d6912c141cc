//! What holds intake back from outside: a hold that the controller lays on, and the memory that brokers share.
//!
//! A hold works where a full ledger works: doors refuse, connectors wait with the batch they have, so nothing is
//! confirmed and what lies upstream stays there. It decides nothing itself; whoever sees the reason sets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bellwire_schemas::Timestamp;
use tokio::sync::watch;

/// The first word of the reason of a source that waits because the ledger takes nothing (`ledger.max_size`, a disk).
pub const LEDGER_FULL: &str = "ledger-full";
/// The first word of the reason of a source whose senders fill `limits.memory`.
pub const MEMORY: &str = "memory";

/// The least that a connector may buffer: one batch of the intake.
const LEAST_SHARE: usize = 1 << 20;

/// Why all intake waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
}

/// The hold, if there is one.
#[derive(Debug)]
pub(crate) struct Pressure(watch::Sender<Option<Hold>>);

impl Default for Pressure {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Pressure {
    /// Sets or ends the hold; the time at which it began stays. Returns whether one began or ended.
    pub(crate) fn set(&self, reason: Option<String>, now: Timestamp) -> bool {
        let mut turned = false;
        self.0.send_modify(|hold| {
            turned = hold.is_some() != reason.is_some();
            let since = hold.as_ref().map_or(now, |hold| hold.since);
            *hold = reason.map(|reason| Hold { reason, since });
        });
        turned
    }

    /// The hold as it is now.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.0.borrow().clone()
    }

    /// Waits until there is none; returns at once when there is none.
    pub(crate) async fn released(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(Option::is_none).await;
    }
}

/// How much each connector may buffer: half of `limits.memory`, in equal parts.
#[derive(Clone, Debug)]
pub(crate) struct Share(Arc<AtomicUsize>);

impl Default for Share {
    /// No bound but the connector's own.
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Share {
    /// Shares out anew; running connectors see it at their next message.
    pub(crate) fn set(&self, memory: usize, connectors: usize) {
        self.0.store((memory / 2 / connectors.max(1)).max(LEAST_SHARE), Ordering::Relaxed);
    }

    /// Bytes of payload, at most `own`.
    #[allow(dead_code, reason = "for connectors that read ahead")]
    pub(crate) fn of(&self, own: usize) -> usize {
        self.0.load(Ordering::Relaxed).min(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hold_keeps_its_beginning_and_its_end_is_heard() {
        let pressure = Arc::new(Pressure::default());
        pressure.released().await;
        assert!(pressure.set(Some("low".into()), Timestamp::from_millis(1)));
        assert!(!pressure.set(Some("lower".into()), Timestamp::from_millis(2)));
        let hold = Hold { reason: "lower".into(), since: Timestamp::from_millis(1) };
        assert_eq!(pressure.hold(), Some(hold));
        let waiting = tokio::spawn({
            let pressure = pressure.clone();
            async move { pressure.released().await }
        });
        assert!(pressure.set(None, Timestamp::from_millis(3)));
        waiting.await.unwrap();
    }

    #[test]
    fn connectors_share_half_of_the_memory_and_each_can_take_a_batch() {
        let share = Share::default();
        assert_eq!(share.of(32 << 20), 32 << 20);
        share.set(256 << 20, 16);
        assert_eq!((share.of(32 << 20), share.of(1 << 20)), (8 << 20, 1 << 20));
        share.set(1 << 20, 100);
        assert_eq!(share.of(32 << 20), LEAST_SHARE);
    }
}
