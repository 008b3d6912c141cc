//! One filter pattern.

use std::cell::OnceCell;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::compile::{Compiled, Item, compile};
use crate::error::PatternError;
use crate::explain::{self, Explanation};
use crate::fields::{Spots, Tree, View};
use crate::json::Json;
use crate::limits::{MAX_DEPTH, MAX_PATTERN_BYTES};
use crate::solve::{Outcome, Steps, solve};

/// A compiled filter pattern. Compile once, match often; matching needs no lock and shares nothing.
///
/// Prints as the compact JSON that it was read from, which reads back as the same pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Json,
    compiled: Compiled,
}

impl Pattern {
    /// Reads a pattern from JSON text. Number literals count as written, which [`Pattern::from_value`] cannot know.
    ///
    /// # Errors
    /// Text that is no JSON, is longer than [`MAX_PATTERN_BYTES`], or is no pattern that AWS would accept. Each
    /// error points at the offending place.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Self::compile(Self::read(text)?)
    }

    /// Takes a pattern that is parsed already, such as the `filter` of a configuration file.
    ///
    /// # Errors
    /// A value that is nested too deeply or is no pattern that AWS would accept.
    pub fn from_value(value: &Value) -> Result<Self, PatternError> {
        let too_deep = || PatternError::new("", format!("nested more than {MAX_DEPTH} levels deep"));
        Self::compile(Json::from_value(value).ok_or_else(too_deep)?)
    }

    /// Whether the event satisfies the pattern. An event that is no object satisfies none.
    pub fn matches(&self, event: &Value) -> bool {
        self.accepts(event)
    }

    /// As [`Pattern::matches`], for raw JSON text; text that is no JSON satisfies no pattern. Unlike a parsed value,
    /// the text still tells apart numbers that a double would round.
    pub fn matches_text(&self, event: &str) -> bool {
        Json::read(event).is_ok_and(|event| self.accepts(&event))
    }

    /// Says which clause said no; `None` when the event satisfies the pattern.
    pub fn explain(&self, event: &Value) -> Option<Explanation> {
        match self.decide(event) {
            Decision::Matched => None,
            refused => Some(explain::explain(self, event, refused)),
        }
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// How many of the items that must all hold are satisfied, each for itself.
    pub(crate) fn satisfied_items(&self, event: &Value) -> usize {
        let found = Found::new(self, event);
        self.compiled.items.iter().filter(|item| found.may_hold(item)).count()
    }

    pub(crate) fn accepts<T: Tree>(&self, event: &T) -> bool {
        self.decide(event) == Decision::Matched
    }

    /// Reads the JSON of a pattern, within bounds.
    pub(crate) fn read(text: &str) -> Result<Json, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            let message = format!("longer than {MAX_PATTERN_BYTES} bytes; split it into several bindings");
            return Err(PatternError::new("", message));
        }
        Json::read(text).map_err(|message| PatternError::new("", message))
    }

    pub(crate) fn compile(source: Json) -> Result<Self, PatternError> {
        let compiled = compile(&source)?;
        Ok(Self { source, compiled })
    }

    fn decide<T: Tree>(&self, event: &T) -> Decision {
        if !matches!(event.view(), View::Object) {
            return Decision::NotAnObject;
        }
        let found = Found::new(self, event);
        let mut steps = Steps::default();
        let mut decision = Decision::Unsatisfied;
        for branch in &self.compiled.branches {
            if !branch.iter().all(|clause| found.may_satisfy(*clause)) {
                continue;
            }
            let clauses: Vec<_> =
                branch.iter().map(|clause| (&self.compiled.clauses[*clause], found.spots(*clause))).collect();
            match solve(&clauses, &mut steps) {
                Outcome::Matched => return Decision::Matched,
                Outcome::Stuck(place) => decision = decision.or(Decision::Stuck(branch[place])),
                Outcome::TooTangled => return Decision::TooTangled,
            }
        }
        decision
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// How an event fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Matched,
    NotAnObject,
    /// In every branch some clause cannot be satisfied, whatever the others ask.
    Unsatisfied,
    /// Every clause of a branch can be satisfied, but this one not by the elements that satisfy those before it.
    Stuck(usize),
    TooTangled,
}

impl Decision {
    fn or(self, other: Self) -> Self {
        if self == Self::Unsatisfied { other } else { self }
    }
}

/// What an event holds for each clause, looked up when first asked for.
pub(crate) struct Found<'a, T> {
    pattern: &'a Pattern,
    event: &'a T,
    spots: Vec<OnceCell<Spots>>,
}

impl<'a, T: Tree> Found<'a, T> {
    pub(crate) fn new(pattern: &'a Pattern, event: &'a T) -> Self {
        let spots = pattern.compiled.clauses.iter().map(|_| OnceCell::new()).collect();
        Self { pattern, event, spots }
    }

    /// Whether the item could hold if the event's arrays did not matter.
    pub(crate) fn may_hold(&self, item: &Item) -> bool {
        match item {
            Item::Clause(clause) => self.may_satisfy(*clause),
            Item::OneOf(one_of) => {
                one_of.alternatives.iter().any(|items| items.iter().all(|item| self.may_hold(item)))
            }
        }
    }

    /// Whether the clause could be satisfied if it stood alone. Absence is decided finally only where no array is
    /// involved.
    pub(crate) fn may_satisfy(&self, clause: usize) -> bool {
        let spots = self.spots(clause);
        spots.any_hit || (self.pattern.compiled.clauses[clause].rules.accept_absence() && !spots.any)
    }

    fn spots(&self, clause: usize) -> &Spots {
        self.spots[clause].get_or_init(|| {
            let clause = &self.pattern.compiled.clauses[clause];
            Spots::find(self.event, &clause.path, &clause.rules)
        })
    }
}
