//! The programs that run plain handlers: `bootstrap.py` and `bootstrap.cjs`, written for this project, standard
//! library only. `interpreter.rs` finds what runs them.

pub mod interpreter;

/// The bootstrap of `python3` handlers.
pub const PYTHON: &str = include_str!("bootstrap.py");
/// The bootstrap of `nodejs` handlers.
pub const NODE: &str = include_str!("bootstrap.cjs");
