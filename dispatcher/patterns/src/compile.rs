//! From JSON to clauses: which fields must satisfy which rules, and which branches the `$or`s make of them.
//!
//! Keys of nested objects join to a path with dots, and so do the keys of an event: `{"a": {"b": [1]}}` and
//! `{"a.b": [1]}` ask the same question. A key repeated in one object counts once, the last time it stands there;
//! the same path asked twice in other ways (by dots, or inside and outside an `$or`) is refused, since one answer
//! would silently replace the other.

use std::collections::HashMap;

use crate::error::{PatternError, step};
use crate::json::Json;
use crate::limits::{MAX_COMBINATIONS, MAX_EXPANDED_CLAUSES};
use crate::rule::{Rules, read_rules};

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    /// Every clause once.
    pub(crate) clauses: Vec<Clause>,
    /// The pattern as written: all items must hold.
    pub(crate) items: Vec<Item>,
    /// The pattern with its `$or`s multiplied out: one branch must hold. Each branch lists clauses by path, the
    /// order in which array consistency is decided.
    pub(crate) branches: Vec<Vec<usize>>,
}

/// One field and the rules of which it must satisfy one.
#[derive(Debug, Clone)]
pub(crate) struct Clause {
    pub(crate) path: String,
    pub(crate) rules: Rules,
    pub(crate) wanted: Json,
    pointer: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Item {
    Clause(usize),
    OneOf(OneOf),
}

/// An `$or`: all items of one alternative must hold.
#[derive(Debug, Clone)]
pub(crate) struct OneOf {
    pub(crate) path: String,
    pub(crate) wanted: Json,
    pub(crate) alternatives: Vec<Vec<Item>>,
}

/// Compiles a pattern.
pub(crate) fn compile(pattern: &Json) -> Result<Compiled, PatternError> {
    let Json::Object(members) = pattern else {
        return Err(PatternError::new("", "a filter pattern must be a JSON object"));
    };
    let mut compiler = Compiler { clauses: Vec::new() };
    let items = compiler.all_of(members, &[], "", false)?;
    let (branches, clauses) = size(&items);
    if branches > MAX_COMBINATIONS {
        let message = format!("the $or alternatives multiply to more than {MAX_COMBINATIONS} combinations");
        return Err(PatternError::new("", message));
    }
    if clauses > MAX_EXPANDED_CLAUSES {
        let message = format!("the $or alternatives repeat more than {MAX_EXPANDED_CLAUSES} clauses");
        return Err(PatternError::new("", message));
    }
    let mut branches = expand(&items);
    let clauses = compiler.clauses;
    for branch in &mut branches {
        branch.sort_by(|a, b| clauses[*a].path.cmp(&clauses[*b].path));
        for pair in branch.windows(2) {
            let (first, second) = (&clauses[pair[0]], &clauses[pair[1]]);
            if first.path == second.path {
                let message = format!("\"{}\" is asked twice, also at {}", second.path, first.pointer);
                return Err(PatternError::new(&second.pointer, message));
            }
        }
    }
    Ok(Compiled { clauses, items, branches })
}

struct Compiler {
    clauses: Vec<Clause>,
}

/// The items of one conjunction, and where each path of it already stands.
#[derive(Default)]
struct Scope {
    items: Vec<Item>,
    seen: HashMap<Vec<String>, usize>,
}

impl Compiler {
    fn all_of(
        &mut self,
        members: &[(String, Json)],
        steps: &[String],
        pointer: &str,
        in_or: bool,
    ) -> Result<Vec<Item>, PatternError> {
        let mut scope = Scope::default();
        self.object(members, steps, pointer, in_or, &mut scope)?;
        Ok(scope.items)
    }

    fn object(
        &mut self,
        members: &[(String, Json)],
        steps: &[String],
        pointer: &str,
        in_or: bool,
        scope: &mut Scope,
    ) -> Result<(), PatternError> {
        if members.is_empty() {
            return Err(PatternError::new(pointer, "an empty object asks nothing; leave the key out"));
        }
        for (key, value) in members {
            let here = step(pointer, key);
            if key == "$or" {
                let one_of = self.one_of(value, steps, &here)?;
                scope.items.push(Item::OneOf(one_of));
                continue;
            }
            if in_or && RESERVED_IN_OR.contains(&key.as_str()) {
                let message = format!("\"{key}\" is an operator; inside $or it cannot name a field");
                return Err(PatternError::new(&here, message));
            }
            let steps: Vec<String> = steps.iter().chain([key]).cloned().collect();
            match value {
                Json::Object(inner) => self.object(inner, &steps, &here, in_or, scope)?,
                Json::Array(list) => self.clause(list, steps, &here, scope)?,
                _ => {
                    let message = format!("\"{key}\" must be an object or a list of rules; write [{value}]");
                    return Err(PatternError::new(&here, message));
                }
            }
        }
        Ok(())
    }

    fn clause(
        &mut self,
        list: &[Json],
        steps: Vec<String>,
        pointer: &str,
        scope: &mut Scope,
    ) -> Result<(), PatternError> {
        let clause = Clause {
            path: steps.join("."),
            rules: read_rules(list, pointer)?,
            wanted: Json::Array(list.to_vec()),
            pointer: pointer.to_owned(),
        };
        match scope.seen.get(&steps) {
            Some(earlier) => self.clauses[*earlier] = clause,
            None => {
                scope.seen.insert(steps, self.clauses.len());
                scope.items.push(Item::Clause(self.clauses.len()));
                self.clauses.push(clause);
            }
        }
        Ok(())
    }

    fn one_of(&mut self, value: &Json, steps: &[String], pointer: &str) -> Result<OneOf, PatternError> {
        let Json::Array(list) = value else {
            return Err(PatternError::new(pointer, "$or must be a list of objects"));
        };
        if list.len() < 2 {
            return Err(PatternError::new(pointer, "$or needs at least two alternatives"));
        }
        let mut alternatives = Vec::with_capacity(list.len());
        for (i, alternative) in list.iter().enumerate() {
            let here = step(pointer, &i.to_string());
            let Json::Object(members) = alternative else {
                return Err(PatternError::new(&here, "an alternative of $or must be an object"));
            };
            alternatives.push(self.all_of(members, steps, &here, true)?);
        }
        let path = steps.iter().map(String::as_str).chain(["$or"]).collect::<Vec<_>>().join(".");
        Ok(OneOf { path, wanted: value.clone(), alternatives })
    }
}

/// Branches of the items, and clauses in all branches together.
fn size(items: &[Item]) -> (usize, usize) {
    items.iter().fold((1, 0), |(branches, clauses): (usize, usize), item| {
        let (more_branches, more_clauses) = match item {
            Item::Clause(_) => (1, 1),
            Item::OneOf(one_of) => one_of
                .alternatives
                .iter()
                .map(|items| size(items))
                .fold((0, 0), |a: (usize, usize), b| (a.0.saturating_add(b.0), a.1.saturating_add(b.1))),
        };
        let kept = clauses.saturating_mul(more_branches);
        (branches.saturating_mul(more_branches), kept.saturating_add(more_clauses.saturating_mul(branches)))
    })
}

fn expand(items: &[Item]) -> Vec<Vec<usize>> {
    let mut branches = vec![Vec::new()];
    for item in items {
        match item {
            Item::Clause(clause) => branches.iter_mut().for_each(|branch| branch.push(*clause)),
            Item::OneOf(one_of) => {
                let tails: Vec<Vec<usize>> =
                    one_of.alternatives.iter().flat_map(|items| expand(items)).collect();
                branches = branches
                    .iter()
                    .flat_map(|branch| tails.iter().map(move |tail| [branch.as_slice(), tail].concat()))
                    .collect();
            }
        }
    }
    branches
}

/// Field names that event-ruler keeps for operators, present and future, inside `$or`.
const RESERVED_IN_OR: [&str; 25] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
    "html",
    "=",
    "<",
    "<=",
    ">",
    ">=",
    "regex",
    "not-wildcard",
    "not-equals-ignore-case",
    "date-after",
    "date-on-or-after",
    "date-before",
    "date-on-or-before",
    "in-date-range",
    "ip-address-in-range",
    "ip-address-not-in-range",
];
