//! Several patterns of which any may match, as one `filter` may list them.

use serde_json::Value;

use crate::error::PatternError;
use crate::explain::Explanation;
use crate::json::Json;
use crate::pattern::Pattern;

/// A list of patterns. It accepts an event that any of them accepts; the empty list accepts everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
}

impl PatternSet {
    /// Takes compiled patterns.
    pub fn new(patterns: Vec<Pattern>) -> Self {
        Self { patterns }
    }

    /// Reads a pattern object or a list of them from JSON text.
    ///
    /// # Errors
    /// As [`Pattern::parse`], for the first pattern that is refused; its pointer begins with the place in the list.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        match Pattern::read(text)? {
            Json::Array(list) => in_list(list.into_iter().map(Pattern::compile)),
            single => Pattern::compile(single).map(|pattern| Self::new(vec![pattern])),
        }
    }

    /// Takes a pattern object or a list of them, as a configuration file holds it.
    ///
    /// # Errors
    /// The first pattern that is refused; its pointer begins with the place in the list.
    pub fn from_value(value: &Value) -> Result<Self, PatternError> {
        match value {
            Value::Array(list) => in_list(list.iter().map(Pattern::from_value)),
            single => Pattern::from_value(single).map(|pattern| Self::new(vec![pattern])),
        }
    }

    /// The patterns, in the order given.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether every event is accepted because there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern accepts the event.
    pub fn matches(&self, event: &Value) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(event))
    }

    /// As [`PatternSet::matches`], for raw JSON text.
    pub fn matches_text(&self, event: &str) -> bool {
        let any = |event: Json| self.patterns.iter().any(|pattern| pattern.accepts(&event));
        self.patterns.is_empty() || Json::read(event).is_ok_and(any)
    }

    /// Says why no pattern accepts the event: what stopped the pattern of which most was satisfied, the first of
    /// equals. `None` when the event is accepted.
    pub fn explain(&self, event: &Value) -> Option<Explanation> {
        if self.matches(event) {
            return None;
        }
        let mut furthest: Option<(usize, &Pattern)> = None;
        for pattern in &self.patterns {
            let satisfied = pattern.satisfied_items(event);
            if furthest.is_none_or(|(most, _)| satisfied > most) {
                furthest = Some((satisfied, pattern));
            }
        }
        furthest.and_then(|(_, pattern)| pattern.explain(event))
    }
}

fn in_list(
    patterns: impl Iterator<Item = Result<Pattern, PatternError>>,
) -> Result<PatternSet, PatternError> {
    patterns
        .enumerate()
        .map(|(i, pattern)| {
            pattern.map_err(|error| PatternError { pointer: format!("/{i}{}", error.pointer), ..error })
        })
        .collect::<Result<_, _>>()
        .map(PatternSet::new)
}
