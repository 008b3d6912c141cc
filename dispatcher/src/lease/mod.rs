//! Which lanes this controller owns while others share the ledger, and how long it may believe so.
//!
//! One task sends heartbeats and gives orders to the lanes: take, give back, drop. What to order is decided by the pure
//! functions of `share.rs`; whether an attempt may start now is answered by `fence.rs`, from a monotonic clock and
//! without asking anybody. This room delivers nothing, flushes nothing, and never takes a lane whose owner is alive.
//!
//! Read `share.rs` first, then `fence.rs`, `keeper.rs` (the heartbeats) and `news.rs` (what others appended and changed).

mod fence;
mod keeper;
mod news;
mod share;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use fence::{Fence, Lead, Licence};
pub(crate) use keeper::{Keeper, View};
pub(crate) use news::{follow_changes, follow_tails};

/// Times of the leases. The defaults take a lane over within 7 s of its owner's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Between two heartbeats. A join or leave is noticed after this long.
    pub beat: Duration,
    /// How long a heartbeat counts, by the ledger's clock, from its arrival there.
    pub ttl: Duration,
    /// How long one is believed here, by the monotonic clock, from before it was sent: less than `ttl`, so that this
    /// controller stops before another one starts. The difference is what clocks may drift and a call may take.
    pub trust: Duration,
    /// A heartbeat without an answer is given up after this long and sent again; fits into `trust` at least once more.
    pub answer: Duration,
    /// How long running attempts may take to end when a lane is given back to be balanced; what still runs then is
    /// repeated by the next owner.
    pub give: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(500),
            ttl: Duration::from_secs(6),
            trust: Duration::from_secs(4),
            answer: Duration::from_secs(2),
            give: Duration::from_millis(500),
        }
    }
}
