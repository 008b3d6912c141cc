//! The words that every room shares: events, names, addresses, policies, outcomes, and the bodies of the
//! management API. No I/O, no clock but the one that is passed around, no decision about delivery.
//!
//! Read `event.rs` first, then `service.rs` (what the user declared) and `delivery.rs` (what happened).

pub mod api;
pub mod brokers;
pub mod clock;
pub mod cloudevents;
pub mod crash;
pub mod delivery;
pub mod event;
pub mod ids;
mod ledger_url;
pub mod live;
pub mod meta;
pub mod outlet;
pub mod policy;
pub mod ranges;
pub mod selector;
pub mod service;
pub mod units;
mod verdict;
mod vital;

pub use clock::{Clock, Timestamp};
pub use crash::crash_point;
pub use delivery::{ErrorInfo, Exhausted, FailureClass, FinalState, RetryPolicy};
pub use event::Event;
pub use ids::{
    Address, BindingId, BindingName, ControllerId, Epoch, FunctionName, Lane, ReplayId, Seq, SourceName,
};
pub use ledger_url::LedgerUrl;
pub use ranges::SeqRanges;
pub use units::{ByteSize, Span};
pub use verdict::Verdict;
pub use vital::Vital;
