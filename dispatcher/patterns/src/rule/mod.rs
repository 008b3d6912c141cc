//! One rule of a clause: does this value satisfy it?

mod read;

use std::collections::HashSet;

pub(crate) use read::read_rules;

use crate::address::{Address, Block};
use crate::fold;
use crate::number::Number;
use crate::wildcard::Wildcard;

/// A value without parts, as an event holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Leaf<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(&'a str),
}

/// The rule list of one clause: any rule may hold. Exact texts sit in a set, so that a list of thousands costs one
/// look-up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    texts: HashSet<String>,
    others: Vec<Rule>,
    absent: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Rule {
    Null,
    Bool(bool),
    Number(Number),
    Address(Address),
    Fold(String),
    Prefix(String),
    PrefixFold(String),
    Suffix(String),
    SuffixFold(String),
    Wildcard(Vec<Wildcard>),
    Range(Range),
    Cidr(Block),
    Present,
    AnythingBut(Unwanted),
}

/// A numeric range; a missing end is open to that side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Range {
    low: Option<End>,
    high: Option<End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    value: f64,
    inclusive: bool,
}

/// What `anything-but` excludes. A value of another type than the excluded ones is never excluded.
#[derive(Debug, Clone)]
pub(crate) enum Unwanted {
    Numbers(Vec<Number>),
    Texts(HashSet<String>),
    Folds(Vec<String>),
    Prefixes(Vec<String>),
    Suffixes(Vec<String>),
    Wildcards(Vec<Wildcard>),
}

impl Rules {
    /// Whether a value that is there satisfies one of the rules.
    pub(crate) fn accept(&self, leaf: &Leaf<'_>) -> bool {
        let listed = matches!(leaf, Leaf::Text(text) if self.texts.contains(*text));
        listed || self.others.iter().any(|rule| rule.accepts(leaf))
    }

    /// Whether one of the rules is `{"exists": false}`.
    pub(crate) fn accept_absence(&self) -> bool {
        self.absent
    }

    /// The wildcards, one group for each rule that holds some.
    fn wildcards(&self) -> Vec<&[Wildcard]> {
        self.others
            .iter()
            .filter_map(|rule| match rule {
                Rule::Wildcard(wildcards) | Rule::AnythingBut(Unwanted::Wildcards(wildcards)) => {
                    Some(wildcards.as_slice())
                }
                _ => None,
            })
            .collect()
    }
}

impl Rule {
    fn accepts(&self, leaf: &Leaf<'_>) -> bool {
        match (self, leaf) {
            (Self::Present, _) | (Self::Null, Leaf::Null) => true,
            (Self::AnythingBut(unwanted), leaf) => !unwanted.excludes(leaf),
            (Self::Bool(wanted), Leaf::Bool(actual)) => wanted == actual,
            (Self::Number(wanted), Leaf::Number(actual)) => wanted.same(actual),
            (Self::Range(range), Leaf::Number(actual)) => {
                actual.value.is_some_and(|value| range.holds(value))
            }
            (rule, Leaf::Text(text)) => rule.accepts_text(text),
            _ => false,
        }
    }

    fn accepts_text(&self, text: &str) -> bool {
        match self {
            Self::Address(wanted) => Address::read(text) == Some(*wanted),
            Self::Fold(wanted) => fold::equals(text, wanted),
            Self::Prefix(wanted) => text.starts_with(wanted.as_str()),
            Self::PrefixFold(wanted) => fold::starts_with(text, wanted),
            Self::Suffix(wanted) => text.ends_with(wanted.as_str()),
            Self::SuffixFold(wanted) => fold::ends_with(text, wanted),
            Self::Wildcard(wanted) => wanted.iter().any(|wildcard| wildcard.matches(text)),
            Self::Cidr(block) => Address::read(text).is_some_and(|address| block.contains(address)),
            _ => false,
        }
    }
}

impl Range {
    fn holds(&self, value: f64) -> bool {
        let above = self.low.is_none_or(|low| value > low.value || (low.inclusive && value == low.value));
        let below =
            self.high.is_none_or(|high| value < high.value || (high.inclusive && value == high.value));
        above && below
    }
}

impl Unwanted {
    fn excludes(&self, leaf: &Leaf<'_>) -> bool {
        match (self, leaf) {
            (Self::Numbers(numbers), Leaf::Number(actual)) => {
                numbers.iter().any(|number| number.same(actual))
            }
            (Self::Texts(texts), Leaf::Text(text)) => texts.contains(*text),
            (Self::Folds(folds), Leaf::Text(text)) => folds.iter().any(|fold| fold::equals(text, fold)),
            (Self::Prefixes(prefixes), Leaf::Text(text)) => {
                prefixes.iter().any(|p| text.starts_with(p.as_str()))
            }
            (Self::Suffixes(suffixes), Leaf::Text(text)) => {
                suffixes.iter().any(|s| text.ends_with(s.as_str()))
            }
            (Self::Wildcards(wildcards), Leaf::Text(text)) => wildcards.iter().any(|w| w.matches(text)),
            _ => false,
        }
    }
}
