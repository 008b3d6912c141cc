//! What a binding can ask of delivery: batches, order, rate, bursts.

use std::fmt;
use std::time::Duration;

use crate::ByteSize;

/// How many events one invocation receives (`batch:`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Most events, at least 1.
    pub size: u32,
    /// Most bytes of events, counted as the ledger keeps them; a single larger one goes alone.
    pub bytes: ByteSize,
    /// How long a batch that is not full waits for more; zero: never.
    pub window: Duration,
    /// A batch that fails as a whole is halved until the bad event is alone, which uses up no attempt.
    pub bisect: bool,
}

impl Batch {
    /// Lambda's limit of one invocation's payload, the default of `bytes`.
    pub const BYTES: ByteSize = ByteSize(6 << 20);

    /// Batches of at most `size` with everything else as documented.
    pub const fn of(size: u32) -> Self {
        Self { size, bytes: Self::BYTES, window: Duration::ZERO, bisect: true }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::of(1)
    }
}

/// Whether deliveries of one key wait for each other (`ordering:`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// Each is delivered when there is a slot.
    #[default]
    None,
    /// At most one delivery of a key is in flight, in the order of the lane.
    Key,
}

/// Most deliveries per time (`rate: 100/s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many events, at least 1.
    pub events: u32,
    /// In this time, more than zero.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per.as_secs() {
            1 => write!(f, "{}/s", self.events),
            60 => write!(f, "{}/m", self.events),
            3600 => write!(f, "{}/h", self.events),
            _ => write!(f, "{} in {}", self.events, crate::Span(self.per)),
        }
    }
}

/// Waiting for the end of a burst (`debounce:`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// An event is delivered when none of its key has come for so long.
    pub wait: Duration,
    /// And at the latest so long after the first of the burst.
    pub max_wait: Option<Duration>,
}

/// What happens to an event while another of its key is in flight or waits for its retry (`singleton:`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Singleton {
    /// It ends as filtered.
    Skip,
    /// The other one is given up, and this one runs.
    Cancel,
}
