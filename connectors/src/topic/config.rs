//! A topic's settings.

use std::sync::Arc;

use bellwire_schemas::service::SourceSpec;

/// A topic, checked.
#[derive(Clone, Debug)]
pub struct TopicConfig {
    /// The source.
    pub source: Arc<SourceSpec>,
    /// The topic's name: the last part of its path.
    pub topic: String,
}

impl TopicConfig {
    /// Checks the name.
    ///
    /// # Errors
    /// When it cannot stand in a path.
    pub fn new(source: Arc<SourceSpec>, topic: &str) -> Result<Self, String> {
        let fits = !topic.is_empty()
            && topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits {
            return Err(format!("topic `{topic}`: use letters, digits, `-`, `_` and `.`"));
        }
        Ok(Self { source, topic: topic.to_owned() })
    }
}
