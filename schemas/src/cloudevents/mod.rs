//! CloudEvents 1.0: messages into events, events into HTTP requests.
//!
//! Pure: bytes and header pairs in, [`Event`] out, and back. It neither invents ids nor fills in times, and it never
//! re-serialises a payload that it can keep. Which door accepts which mode is decided elsewhere. Read [`decode`]
//! first, then `encode.rs`; `header.rs` holds the rules of header values.

mod decode;
mod encode;
mod header;

#[cfg(test)]
mod tests;

pub use decode::{Binding, Decoded, decode, decode_batch, decode_binary, decode_structured, mode};
pub use encode::{encode_batch, encode_binary, encode_structured};
pub use header::{decode_header_value, encode_header_value};

/// Media type of one event in the JSON format.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of a list of events in the JSON format.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// Longest attribute name read, in bytes; the specification recommends 20.
pub const MAX_NAME_BYTES: usize = 128;

/// How a message carries CloudEvents (HTTP protocol binding, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in `ce-` headers, payload in the body.
    Binary,
    /// Attributes and payload in one JSON object.
    Structured,
    /// A JSON array of such objects.
    Batch,
}

/// Why a message is no CloudEvent, said so that its sender can mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudEventError {
    /// A required attribute is missing or empty.
    #[error("required attribute `{0}` is missing or empty")]
    Missing(&'static str),
    /// Another version of the specification.
    #[error("specversion `{0}` is not supported: send 1.0")]
    Version(String),
    /// An attribute name breaks the naming rule.
    #[error("attribute name `{0}`: only lower-case letters a-z and digits are allowed")]
    Name(String),
    /// An attribute value has a type or form that its attribute does not allow.
    #[error("attribute `{name}`: {problem}")]
    Value {
        /// The attribute.
        name: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// The body is not what the content type says.
    #[error("body is not {expected}: {problem}")]
    Body {
        /// What was expected.
        expected: &'static str,
        /// What the parser said.
        problem: String,
    },
    /// A CloudEvents media type in a format that this program does not read.
    #[error("media type `{0}` is not supported: send {STRUCTURED} or {BATCH}")]
    Format(String),
}

impl CloudEventError {
    pub(crate) fn value(name: &str, problem: impl Into<String>) -> Self {
        Self::Value { name: name.to_owned(), problem: problem.into() }
    }
}

/// Whether a text may name a CloudEvents attribute.
pub fn is_attribute_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}
