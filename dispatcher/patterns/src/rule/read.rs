//! Reading the rule list of a clause, and refusing what AWS refuses.

use std::collections::HashSet;

use super::{End, Range, Rule, Rules, Unwanted};
use crate::address::{Address, Block};
use crate::complexity;
use crate::error::{PatternError, step};
use crate::json::Json;
use crate::number::Number;
use crate::wildcard::Wildcard;

type Read<T> = Result<T, PatternError>;

/// Reads the list that stands for one field. The pointer is that of the list.
pub(crate) fn read_rules(list: &[Json], pointer: &str) -> Read<Rules> {
    let mut rules = Rules::default();
    for (i, item) in list.iter().enumerate() {
        let here = step(pointer, &i.to_string());
        match item {
            Json::Null => rules.others.push(Rule::Null),
            Json::Bool(wanted) => rules.others.push(Rule::Bool(*wanted)),
            Json::Number(literal) => rules.others.push(Rule::Number(Number::from_literal(literal))),
            Json::Text(text) => {
                rules.others.extend(Address::read(text).map(Rule::Address));
                rules.texts.insert(text.clone());
            }
            Json::Object(members) => read_operator(members, &here, &mut rules)?,
            Json::Array(_) => {
                return Err(PatternError::new(
                    &here,
                    "a rule must be a string, number, true, false, null or an operator object, not an array",
                ));
            }
        }
    }
    if list.is_empty() {
        return Err(PatternError::new(pointer, "an empty list accepts nothing; list at least one rule"));
    }
    if complexity::too_complex(&rules.wildcards()) {
        let message =
            "too complex; use fewer wildcard characters, or fewer repetitions after a wildcard character";
        return Err(PatternError::new(pointer, message));
    }
    Ok(rules)
}

fn read_operator(members: &[(String, Json)], pointer: &str, rules: &mut Rules) -> Read<()> {
    let (name, operand) = only_member(members, pointer, "an operator object")?;
    let here = step(pointer, name);
    let text = || text_of(operand, &here, name);
    let rule = match name {
        "exactly" => {
            rules.texts.insert(text()?.to_owned());
            return Ok(());
        }
        "exists" => match operand {
            Json::Bool(true) => Rule::Present,
            Json::Bool(false) => {
                rules.absent = true;
                return Ok(());
            }
            _ => return Err(PatternError::new(&here, "exists must be true or false")),
        },
        "prefix" => match operand {
            Json::Object(inner) => Rule::PrefixFold(folded(inner, &here)?),
            _ => Rule::Prefix(text()?.to_owned()),
        },
        "suffix" => match operand {
            Json::Object(inner) => Rule::SuffixFold(folded(inner, &here)?),
            _ => Rule::Suffix(text()?.to_owned()),
        },
        "equals-ignore-case" => Rule::Fold(text()?.to_owned()),
        "wildcard" => Rule::Wildcard(vec![wildcard(text()?, &here)?]),
        "cidr" => Rule::Cidr(Block::read(text()?).map_err(|message| PatternError::new(&here, message))?),
        "numeric" => Rule::Range(numeric(operand, &here)?),
        "anything-but" => Rule::AnythingBut(anything_but(operand, &here)?),
        other => {
            return Err(PatternError::new(
                &here,
                format!("\"{other}\" is not an operator; known are {OPERATORS}"),
            ));
        }
    };
    rules.others.push(rule);
    Ok(())
}

const OPERATORS: &str =
    "prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, cidr, exists and exactly";

fn only_member<'a>(members: &'a [(String, Json)], pointer: &str, what: &str) -> Read<(&'a str, &'a Json)> {
    match members {
        [(name, value)] => Ok((name, value)),
        _ => Err(PatternError::new(
            pointer,
            format!("{what} must have exactly one key, not {}", members.len()),
        )),
    }
}

fn text_of<'a>(value: &'a Json, pointer: &str, name: &str) -> Read<&'a str> {
    match value {
        Json::Text(text) => Ok(text),
        _ => Err(PatternError::new(pointer, format!("{name} must be a string"))),
    }
}

fn folded(members: &[(String, Json)], pointer: &str) -> Read<String> {
    match only_member(members, pointer, "the object of prefix or suffix")? {
        ("equals-ignore-case", value) => {
            let here = step(pointer, "equals-ignore-case");
            text_of(value, &here, "equals-ignore-case").map(str::to_owned)
        }
        (other, _) => Err(PatternError::new(
            &step(pointer, other),
            "only equals-ignore-case can stand inside prefix or suffix",
        )),
    }
}

fn wildcard(text: &str, pointer: &str) -> Read<Wildcard> {
    Wildcard::read(text).map_err(|message| PatternError::new(pointer, message))
}

/// `[=|<|<=, n]`, `[>|>=, n]` or `[>|>=, low, <|<=, high]` with low below high.
fn numeric(operand: &Json, pointer: &str) -> Read<Range> {
    let Json::Array(terms) = operand else {
        return Err(PatternError::new(pointer, "numeric must be a list such as [\">\", 0, \"<=\", 5]"));
    };
    let mut range = Range::default();
    match terms.as_slice() {
        [first, value] => {
            let value = comparable(value, &step(pointer, "1"))?;
            match operator(first, pointer, 0)? {
                "=" => {
                    range.low = Some(End { value, inclusive: true });
                    range.high = range.low;
                }
                sign if sign.starts_with('<') => range.high = Some(End { value, inclusive: sign == "<=" }),
                sign => range.low = Some(End { value, inclusive: sign == ">=" }),
            }
        }
        [first, low, second, high] => {
            let (low_sign, high_sign) = (operator(first, pointer, 0)?, operator(second, pointer, 2)?);
            let low = comparable(low, &step(pointer, "1"))?;
            let high = comparable(high, &step(pointer, "3"))?;
            if !low_sign.starts_with('>') || !high_sign.starts_with('<') {
                let message = "a numeric range is written lower end first: [\">\" or \">=\", low, \"<\" or \"<=\", high]";
                return Err(PatternError::new(pointer, message));
            }
            if low >= high {
                let message =
                    format!("the lower end {low} of the range must be less than the upper end {high}");
                return Err(PatternError::new(pointer, message));
            }
            range.low = Some(End { value: low, inclusive: low_sign == ">=" });
            range.high = Some(End { value: high, inclusive: high_sign == "<=" });
        }
        _ => {
            return Err(PatternError::new(
                pointer,
                "numeric takes one comparison, or a lower and an upper end",
            ));
        }
    }
    Ok(range)
}

fn operator<'a>(term: &'a Json, pointer: &str, index: usize) -> Read<&'a str> {
    match term {
        Json::Text(sign) if ["=", "<", "<=", ">", ">="].contains(&sign.as_str()) => Ok(sign),
        _ => {
            let message = "a numeric operator must be one of \"=\", \"<\", \"<=\", \">\", \">=\"";
            Err(PatternError::new(&step(pointer, &index.to_string()), message))
        }
    }
}

fn comparable(term: &Json, pointer: &str) -> Read<f64> {
    let Json::Number(literal) = term else {
        return Err(PatternError::new(pointer, "only a number can be compared with numeric"));
    };
    Number::from_literal(literal).value.ok_or_else(|| {
        PatternError::new(pointer, format!("{literal} cannot be compared without rounding it"))
    })
}

fn anything_but(operand: &Json, pointer: &str) -> Read<Unwanted> {
    match operand {
        Json::Object(members) => unwanted_kind(members, pointer),
        Json::Array(items) => unwanted_values(items, pointer, |i| step(pointer, &i.to_string())),
        single => unwanted_values(std::slice::from_ref(single), pointer, |_| pointer.to_owned()),
    }
}

fn unwanted_values(items: &[Json], pointer: &str, place: impl Fn(usize) -> String) -> Read<Unwanted> {
    let mut texts = HashSet::new();
    let mut numbers = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match item {
            Json::Text(text) => {
                texts.insert(text.clone());
            }
            Json::Number(literal) => {
                comparable(item, &place(i))?;
                numbers.push(Number::from_literal(literal));
            }
            _ => return Err(PatternError::new(&place(i), "anything-but takes strings or numbers")),
        }
    }
    match (texts.is_empty(), numbers.is_empty()) {
        (false, true) => Ok(Unwanted::Texts(texts)),
        (true, false) => Ok(Unwanted::Numbers(numbers)),
        (true, true) => Err(PatternError::new(pointer, "anything-but needs at least one value")),
        (false, false) => {
            Err(PatternError::new(pointer, "anything-but takes strings or numbers, not both at once"))
        }
    }
}

fn unwanted_kind(members: &[(String, Json)], pointer: &str) -> Read<Unwanted> {
    let (name, operand) = only_member(members, pointer, "the object of anything-but")?;
    let here = step(pointer, name);
    let texts = match operand {
        Json::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, item)| text_of(item, &step(&here, &i.to_string()), name).map(str::to_owned))
            .collect::<Read<Vec<_>>>()?,
        single => vec![text_of(single, &here, name)?.to_owned()],
    };
    let not_empty = |texts: Vec<String>| {
        let refused = texts.iter().any(String::is_empty);
        if refused {
            Err(PatternError::new(&here, format!("anything-but {name} must not be empty")))
        } else {
            Ok(texts)
        }
    };
    match name {
        "prefix" => Ok(Unwanted::Prefixes(not_empty(texts)?)),
        "suffix" => Ok(Unwanted::Suffixes(not_empty(texts)?)),
        "equals-ignore-case" => Ok(Unwanted::Folds(texts)),
        "wildcard" => {
            texts.iter().map(|text| wildcard(text, &here)).collect::<Read<Vec<_>>>().map(Unwanted::Wildcards)
        }
        _ => {
            let message = "anything-but can hold prefix, suffix, equals-ignore-case or wildcard";
            Err(PatternError::new(&here, message))
        }
    }
}
