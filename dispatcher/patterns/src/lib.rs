//! Filter patterns: does this event concern this binding, and if not, which clause said no.
//!
//! This room reads the pattern language of EventBridge and of its open-source engine, event-ruler: exact values,
//! `prefix`, `suffix`, `wildcard`, `anything-but`, `numeric`, `cidr`, `exists`, `equals-ignore-case` and `$or`, with
//! array-consistent matching. Where the two disagree, the answers recorded from AWS win.
//!
//! It refuses to do I/O, to know what an event envelope looks like, and to guess: a pattern that AWS would not
//! accept is an error here too. Hostile patterns and events cost bounded time and memory; the bounds are in
//! [`limits`].
//!
//! Read first: `pattern.rs` (what callers use), then `compile.rs` (what a pattern means), `fields.rs` and `solve.rs`
//! (how it is matched), `explain.rs` (why it said no). `conformance.rs` judges one case of the shared corpus.

mod address;
mod compile;
mod complexity;
pub mod conformance;
mod error;
mod explain;
mod fields;
mod fold;
mod json;
pub mod limits;
mod number;
mod pattern;
mod rule;
mod set;
mod solve;
mod wildcard;

#[cfg(test)]
mod tests;

pub use error::PatternError;
pub use explain::{Explanation, Reason};
pub use pattern::Pattern;
pub use set::PatternSet;
