//! `schedule`: a pull connector that makes exactly one event per schedule and tick.
//!
//! The last tick that was dealt with is the source's position; it moves by compare-and-set in the commit that holds
//! the ticks, so neither a restart nor a second controller nor a clock that jumps makes one tick twice. `plan.rs`
//! decides purely which ticks are due, `client.rs` waits and asks, `envelope.rs` makes events.

mod client;
mod config;
pub mod envelope;
mod plan;

#[cfg(test)]
mod tests;

pub use client::TimerConnector;
pub use config::Timer;
pub use plan::{ON_TIME, Plan};

use std::sync::Arc;

use bellwire_schemas::service::{ScheduleSpec, SourceSpec};

use crate::Connector;
use crate::registry::{Around, Opened, Pull};

/// Opens a timer.
pub(crate) fn open(spec: &Arc<SourceSpec>, schedule: &ScheduleSpec) -> Result<Opened, String> {
    Ok(Opened::Pull(Arc::new(Ready(Arc::new(Timer::new(spec.clone(), schedule)?)))))
}

/// A timer that may be connected.
struct Ready(Arc<Timer>);

impl Pull for Ready {
    fn connect(&self, around: &Around) -> Box<dyn Connector> {
        Box::new(TimerConnector::new(self.0.clone(), around.ledger.clone(), around.clock.clone()))
    }

    fn timer(&self) -> Option<&Timer> {
        Some(&self.0)
    }
}
