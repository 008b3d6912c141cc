//! Finding the values of one path in an event, with the array elements they stand in.

use serde_json::Value;

use crate::json::Json;
use crate::limits::{MAX_DEPTH, MAX_QUOTED_VALUES};
use crate::number::Number;
use crate::rule::{Leaf, Rules};

/// A JSON tree, parsed one way or the other.
pub(crate) trait Tree: Sized {
    /// What this node is.
    fn view(&self) -> View<'_, Self>;
    /// The member of this name; of a repeated name the last. `None` where this is no object.
    fn member(&self, name: &str) -> Option<&Self>;
}

pub(crate) enum View<'a, T> {
    Leaf(Leaf<'a>),
    Array(&'a [T]),
    Object,
}

impl Tree for Value {
    fn view(&self) -> View<'_, Self> {
        match self {
            Self::Null => View::Leaf(Leaf::Null),
            Self::Bool(b) => View::Leaf(Leaf::Bool(*b)),
            Self::Number(n) => View::Leaf(Leaf::Number(Number::from_json(n))),
            Self::String(s) => View::Leaf(Leaf::Text(s)),
            Self::Array(items) => View::Array(items),
            Self::Object(_) => View::Object,
        }
    }

    fn member(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }
}

impl Tree for Json {
    fn view(&self) -> View<'_, Self> {
        match self {
            Self::Null => View::Leaf(Leaf::Null),
            Self::Bool(b) => View::Leaf(Leaf::Bool(*b)),
            Self::Number(literal) => View::Leaf(Leaf::Number(Number::from_literal(literal))),
            Self::Text(text) => View::Leaf(Leaf::Text(text)),
            Self::Array(items) => View::Array(items),
            Self::Object(_) => View::Object,
        }
    }

    fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

/// Where the values of one path stand, seen from one place of the event: directly there, or in elements of arrays
/// that begin there. Elements are those that are objects or arrays; a plain value in an array stands directly, since
/// two of them never contradict each other.
#[derive(Debug, Default)]
pub(crate) struct Spots {
    /// A value stands directly here.
    pub(crate) any: bool,
    /// A value directly here satisfies the rules.
    pub(crate) hit: bool,
    /// A value here or in an element satisfies the rules.
    pub(crate) any_hit: bool,
    /// Arrays with elements that hold values of the path.
    pub(crate) arrays: Vec<Elements>,
}

/// The elements of one array that hold values of the path, by ascending index.
#[derive(Debug)]
pub(crate) struct Elements {
    /// Identifies the array within the event; the same for every path.
    pub(crate) array: usize,
    pub(crate) spots: Vec<(usize, Spots)>,
}

impl Spots {
    /// Finds the values of the path and judges each by the rules.
    pub(crate) fn find<T: Tree>(event: &T, path: &str, rules: &Rules) -> Self {
        let mut spots = Self::default();
        spots.visit(event, Some(path), rules, 0);
        spots
    }

    /// Whether no value of the path exists, in whatever element.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any && self.arrays.is_empty()
    }

    /// `rest` is what of the path lies below this node; `None` when the node is where it ends.
    fn visit<T: Tree>(&mut self, node: &T, rest: Option<&str>, rules: &Rules, depth: usize) {
        if depth > 2 * MAX_DEPTH {
            return;
        }
        match (node.view(), rest) {
            (View::Leaf(leaf), None) => self.add(&leaf, rules),
            (View::Leaf(_), Some(_)) | (View::Object, None) => {}
            (View::Object, Some(rest)) => {
                for (member, rest) in members(node, rest) {
                    self.visit(member, rest, rules, depth + 1);
                }
            }
            (View::Array(items), rest) => self.visit_elements(items, rest, rules, depth),
        }
    }

    fn visit_elements<T: Tree>(&mut self, items: &[T], rest: Option<&str>, rules: &Rules, depth: usize) {
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match (item.view(), rest) {
                (View::Leaf(leaf), None) => self.add(&leaf, rules),
                (View::Leaf(_), Some(_)) => {}
                _ => {
                    let mut spots = Self::default();
                    spots.visit(item, rest, rules, depth + 1);
                    if !spots.is_empty() {
                        self.any_hit |= spots.any_hit;
                        found.push((index, spots));
                    }
                }
            }
        }
        if !found.is_empty() {
            self.arrays.push(Elements { array: items.as_ptr() as usize, spots: found });
        }
    }

    fn add(&mut self, leaf: &Leaf<'_>, rules: &Rules) {
        self.any = true;
        self.hit = self.hit || rules.accept(leaf);
        self.any_hit |= self.hit;
    }
}

/// What an event holds at a path, for people to read.
#[derive(Debug, Default)]
pub(crate) struct Quoted<'a> {
    /// The first values found.
    pub(crate) values: Vec<&'a Value>,
    /// An object or an empty array stands where a value was looked for.
    pub(crate) container: Option<&'a Value>,
}

impl<'a> Quoted<'a> {
    /// Collects what the event holds at the path, [`MAX_QUOTED_VALUES`] values at most.
    pub(crate) fn find(event: &'a Value, path: &str) -> Self {
        let mut quoted = Self::default();
        quoted.visit(event, Some(path), 0);
        quoted
    }

    fn visit(&mut self, node: &'a Value, rest: Option<&str>, depth: usize) {
        if depth > 2 * MAX_DEPTH || self.values.len() >= MAX_QUOTED_VALUES {
            return;
        }
        match (node, rest) {
            (Value::Array(items), None) if items.is_empty() => self.container = self.container.or(Some(node)),
            (Value::Array(items), rest) => items.iter().for_each(|item| self.visit(item, rest, depth + 1)),
            (Value::Object(_), None) => self.container = self.container.or(Some(node)),
            (Value::Object(_), Some(rest)) => {
                for (member, rest) in members(node, rest) {
                    self.visit(member, rest, depth + 1);
                }
            }
            (leaf, None) => self.values.push(leaf),
            (_, Some(_)) => {}
        }
    }
}

/// The members that the path leads through, each with what of the path is left: a name may itself hold dots.
fn members<'a, 'p, T: Tree>(node: &'a T, path: &'p str) -> impl Iterator<Item = (&'a T, Option<&'p str>)> {
    let whole = node.member(path).map(|member| (member, None));
    let split = path
        .match_indices('.')
        .filter_map(move |(dot, _)| node.member(&path[..dot]).map(|member| (member, Some(&path[dot + 1..]))));
    split.chain(whole)
}
