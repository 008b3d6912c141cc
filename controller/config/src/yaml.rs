//! YAML 1.2 (core schema) to a tree that knows where everything stands.
//!
//! Strict on purpose: one document, no duplicate keys, no merge keys, no tags, and a bound on size, depth and
//! what aliases may unfold to, so that no file can cost more than a few megabytes.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value;

use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::tree::{Entry, Kind, Node, Pos, Scalar};

/// Largest file, in bytes. A service of a thousand functions stays below 500 KB.
pub const MAX_BYTES: usize = 1 << 20;

/// Deepest nesting of maps and lists; the surface itself needs eight, filters a few more.
pub const MAX_DEPTH: usize = 64;

/// What a file may unfold to: bytes of text plus 32 for each node, aliases counted at every use.
pub const MAX_WEIGHT: usize = 8 << 20;

/// Reads the one document of a file; findings go to the context, `None` when nothing can be used.
pub(crate) fn read(text: &str, cx: &mut Context<'_>) -> Option<Node> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = match next {
            Ok(pair) => pair,
            Err(e) => {
                let at = Pos::new(e.marker().line(), e.marker().col() + 1, 1);
                cx.error(Code::Syntax, at, "", format!("this is not YAML: {}", shown(e.info())));
                return None;
            }
        };
        if let Err(refusal) = builder.event(event, position(span), cx) {
            let finding = cx.error(Code::Syntax, refusal.at, "", refusal.message);
            finding.help = refusal.help;
            return None;
        }
    }
    builder.root
}

struct Refusal {
    at: Pos,
    message: String,
    help: Option<String>,
}

fn refuse(at: Pos, message: impl Into<String>, help: &str) -> Refusal {
    Refusal { at, message: message.into(), help: (!help.is_empty()).then(|| help.to_owned()) }
}

/// A map or list that is not closed yet.
struct Open {
    anchor: usize,
    at: Pos,
    depth: usize,
    weight: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Pos)>, seen: BTreeMap<String, usize> },
}

#[derive(Clone)]
struct Anchored {
    node: Node,
    height: usize,
    weight: usize,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    heights: Vec<usize>,
    opened: BTreeSet<usize>,
    weight: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Pos, cx: &mut Context<'_>) -> Result<(), Refusal> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(refuse(
                        at,
                        "a second document starts here",
                        "one file is one service: cut it at the `---`",
                    ));
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at, cx)?,
            Event::Scalar(text, style, anchor, tag) => {
                let forced = tag_forces_text(tag.as_deref(), at)?;
                let plain = style == ScalarStyle::Plain && !forced;
                self.scalar(&text, plain, anchor, at, cx)?;
            }
            Event::SequenceStart(anchor, tag) => {
                tag_forces_text(tag.as_deref(), at)?;
                self.start(anchor, at, Items::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                tag_forces_text(tag.as_deref(), at)?;
                self.start(anchor, at, Items::Map { entries: Vec::new(), key: None, seen: BTreeMap::new() })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(cx)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn start(&mut self, anchor: usize, at: Pos, items: Items) -> Result<(), Refusal> {
        if let Some(Open { items: Items::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(refuse(at, "a map or list cannot be a key", "write the key as text"));
        }
        let depth = self.open.len() + 1;
        if depth > MAX_DEPTH {
            return Err(refuse(at, format!("nested deeper than {MAX_DEPTH} levels"), ""));
        }
        self.opened.insert(anchor);
        self.open.push(Open { anchor, at, depth, weight: self.weight, items });
        self.heights.push(0);
        self.weigh(0, at)
    }

    fn end(&mut self, cx: &mut Context<'_>) -> Result<(), Refusal> {
        let (Some(open), Some(inner)) = (self.open.pop(), self.heights.pop()) else { return Ok(()) };
        let kind = match open.items {
            Items::List(items) => Kind::List(items),
            Items::Map { entries, .. } => Kind::Map(entries),
        };
        debug_assert_eq!(open.depth, self.open.len() + 1, "maps and lists close in order");
        let node = Node { at: open.at, index: 0, kind };
        self.put(node, open.anchor, inner + 1, open.weight, cx)
    }

    fn scalar(
        &mut self,
        text: &str,
        plain: bool,
        anchor: usize,
        at: Pos,
        cx: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let before = self.weight;
        self.weigh(text.len(), at)?;
        if let Some(Open { items: Items::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            if plain && text == "<<" {
                return Err(refuse(
                    at,
                    "merge keys (`<<`) are not read",
                    "repeat the keys, or put them into `defaults`",
                ));
            }
            if anchor != 0 {
                return Err(refuse(at, "an anchor on a key is not read", "put the anchor behind the colon"));
            }
            *key = Some((text.to_owned(), at));
            return Ok(());
        }
        let value =
            if plain { core_value(text).ok_or_else(|| no_json(text, at))? } else { Value::from(text) };
        let scalar = Scalar { raw: text.to_owned(), value, reference: false, hidden: false };
        let node = Node { at, index: 0, kind: Kind::Scalar(scalar) };
        self.put(node, anchor, 0, before, cx)
    }

    fn alias(&mut self, anchor: usize, at: Pos, cx: &mut Context<'_>) -> Result<(), Refusal> {
        if let Some(Open { items: Items::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(refuse(at, "an alias cannot be a key", "write the key as text"));
        }
        let Some(found) = self.anchors.get(&anchor).cloned() else {
            let why = if self.opened.contains(&anchor) { "contains itself" } else { "is unknown" };
            return Err(refuse(at, format!("this alias {why}"), ""));
        };
        if self.open.len() + found.height > MAX_DEPTH {
            return Err(refuse(at, format!("aliases nest deeper than {MAX_DEPTH} levels"), ""));
        }
        let before = self.weight;
        self.weigh(found.weight, at)?;
        self.put(found.node, 0, found.height, before, cx)
    }

    fn weigh(&mut self, bytes: usize, at: Pos) -> Result<(), Refusal> {
        self.weight = self.weight.saturating_add(bytes).saturating_add(32);
        if self.weight > MAX_WEIGHT {
            return Err(refuse(
                at,
                "aliases unfold to more than 8 MB here",
                "write the parts out, or use fewer aliases",
            ));
        }
        Ok(())
    }

    fn put(
        &mut self,
        node: Node,
        anchor: usize,
        height: usize,
        before: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        if anchor != 0 {
            let weight = self.weight - before;
            // The copy under the anchor costs as much as the original.
            self.weigh(weight, node.at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), height, weight });
        }
        if let Some(top) = self.heights.last_mut() {
            *top = (*top).max(height);
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map { entries, key, seen }) => {
                let Some((key, at)) = key.take() else { return Ok(()) };
                if let Some(first) = seen.get(&key) {
                    let finding = cx.error(
                        Code::DuplicateKey,
                        at,
                        "",
                        format!("key `{}` is written twice", shown(&key)),
                    );
                    finding.help = Some(format!("the first one is in line {first}: keep one"));
                    return Ok(());
                }
                seen.insert(key.clone(), at.line);
                entries.push(Entry { key, at, value: node });
            }
        }
        Ok(())
    }
}

fn tag_forces_text(tag: Option<&saphyr_parser::Tag>, at: Pos) -> Result<bool, Refusal> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) => Err(refuse(
            at,
            format!("the tag `{}` is not read", shown(&tag.to_string())),
            "values have no tags here; for what CloudFormation does with `!Sub` and `!Ref` there is `${env:NAME}`",
        )),
    }
}

fn no_json(text: &str, at: Pos) -> Refusal {
    refuse(at, format!("`{}` is a number without a value", shown(text)), "in quotes it is text")
}

fn position(span: Span) -> Pos {
    let (start, end) = (span.start, span.end);
    let column = start.col() + 1;
    if start.line() == end.line() {
        return Pos::new(start.line(), column, end.col().saturating_sub(start.col()).max(1));
    }
    // An end at the very beginning of a line belongs to what follows.
    let last = if end.col() == 0 { end.line() - 1 } else { end.line() };
    Pos { lines: last.saturating_sub(start.line()) + 1, ..Pos::new(start.line(), column, usize::MAX) }
}

/// The value of a plain scalar by the YAML 1.2 core schema (section 10.3.2 of its specification); `None` for
/// the floats that JSON does not have.
pub(crate) fn core_value(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return None;
    }
    if let Some(value) = integer(text, unsigned) {
        return Some(value);
    }
    if is_float(unsigned) {
        return text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number);
    }
    Some(Value::from(text))
}

fn integer(text: &str, unsigned: &str) -> Option<Value> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && digits.chars().all(|c| c.is_digit(radix))
        {
            return u64::from_str_radix(digits, radix).ok().map(Value::from);
        }
    }
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, the sign already cut.
fn is_float(text: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    if exponent.is_some_and(|e| e.is_empty() || !digits(e)) {
        return false;
    }
    match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for (text, value) in [
            ("no", json!("no")),
            ("on", json!("on")),
            ("True", json!(true)),
            ("~", json!(null)),
            ("017", json!(17)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("-3", json!(-3)),
            ("1.5e3", json!(1500.0)),
            (".5", json!(0.5)),
            ("1_000", json!("1_000")),
            ("12:30", json!("12:30")),
            ("1e", json!("1e")),
            (".", json!(".")),
            ("18446744073709551615", json!(u64::MAX)),
            ("${env:X}", json!("${env:X}")),
        ] {
            assert_eq!(core_value(text), Some(value), "{text}");
        }
        for text in [".nan", ".inf", "-.INF", "1e999"] {
            assert_eq!(core_value(text), None, "{text}");
        }
    }
}
