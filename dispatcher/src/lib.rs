//! The hands: takes events out of the ledger, gives them to functions, and writes down what came of it.
//!
//! Each lane that this controller owns has one runner per binding, with a cursor of its own, and one flusher that
//! commits what all of them have to tell. Slots are counted per binding and per function over all lanes. Debts (retries,
//! redrives, replays) go through the same runners as fresh events, in turn with them.
//!
//! This room does not know connectors, does not read the configuration file, writes no SQL, and does not decide inside
//! its tasks: what becomes of a delivery is said by the pure functions of [`decide`], what a function receives by those
//! of [`shape`], what its answer says by that of [`reply`], what is finished by [`cursor`].
//!
//! Read `decide.rs` first, then `cursor.rs`, `runner/mod.rs` (one binding in one lane), `lane/mod.rs` (a lane and its
//! flusher), `lease/mod.rs` (which lanes are ours) and `handle.rs` (what the controller holds). `replay/` and
//! `explain/` serve operators.

mod binding;
pub mod conformance;
pub mod cursor;
pub mod decide;
pub mod explain;
pub mod handle;
mod lane;
mod lease;
pub mod replay;
pub mod reply;
mod rooms;
mod runner;
pub mod sending;
pub mod shape;
mod slots;
pub mod status;

#[cfg(test)]
mod tests;

pub use handle::{ApplyError, Configuration, Handle};
pub use lease::LeaseOptions;
pub use rooms::Rooms;
pub use runner::MAX_UNFLUSHED;
pub use status::{BindingLive, ClusterLive, FunctionLive, LaneLive};
