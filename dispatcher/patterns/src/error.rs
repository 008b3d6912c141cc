//! Why a pattern was refused.

/// A pattern that cannot be used: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {message}", place(.pointer))]
pub struct PatternError {
    /// What is wrong and what would be right; lowercase, one sentence.
    pub message: String,
    /// JSON pointer (RFC 6901) to the offending place; empty for the pattern as a whole.
    pub pointer: String,
}

impl PatternError {
    pub(crate) fn new(pointer: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), pointer: pointer.to_owned() }
    }
}

/// Appends one step to a JSON pointer, escaped as RFC 6901 asks.
pub(crate) fn step(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() { "filter pattern:".to_owned() } else { format!("filter pattern at {pointer}:") }
}
