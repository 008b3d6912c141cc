//! The structural check: walks the tree along the schema, replaces references, reports what does not fit and
//! takes it out, so that the later stages judge the rest and everything is said at once. `judgement.rs` holds
//! what is said about a single value.

mod judgement;

use serde_json::{Map, Value};

use crate::Mode;
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::hints;
use crate::lower::url::without_password;
use crate::reference;
use crate::schema::Shape;
use crate::shape::words::KEY_RULES;
use crate::source_text::Blot;
use crate::tree::{Entry, Kind, Node, Pos, join};
use crate::yaml::core_value;

use judgement::{describe, has_type, json_type, refusal};

/// Checks a whole file.
pub(crate) fn check(root: &mut Node, shape: &Shape, cx: &mut Context<'_>) {
    let mut walk = Walk { shape, cx };
    let site =
        Site { key: "", at: Pos::new(root.at.line.max(1), root.at.column.max(1), 1), path: "", within: "" };
    if !matches!(root.kind, Kind::Map(_)) {
        walk.cx.error(Code::WrongType, site.at, "", "a service file is a map of keys".into()).help =
            Some("it begins with `service: <name>`".into());
        *root = Node { at: root.at, index: 0, kind: Kind::Map(Vec::new()) };
        return;
    }
    walk.map(root, &shape.schema, "", &site);
}

/// Where a value stands.
struct Site<'s> {
    key: &'s str,
    at: Pos,
    path: &'s str,
    within: &'s str,
}

struct Walk<'w, 'c, 'e> {
    shape: &'w Shape,
    cx: &'c mut Context<'e>,
}

impl<'w> Walk<'w, '_, '_> {
    /// Checks one value; `false` says that it has to go.
    fn value(&mut self, node: &mut Node, schema: &'w Value, site: &Site<'_>) -> bool {
        let alternatives = self.alternatives(schema);
        let secret = alternatives.iter().any(|(s, _)| s.get("x-secret").is_some());
        let hidden = secret || alternatives.iter().any(|(_, name)| *name == "VariableText");
        if !self.replace(node, secret, hidden, site) {
            return false;
        }
        if let Some((what, help)) = hints::later_value(site.key, site.within, node) {
            self.later(node.at, site.within, &what, help);
            return false;
        }
        let Some((found, name)) = self.choose(node, &alternatives) else {
            self.wrong_type(node, schema, site);
            return false;
        };
        match &mut node.kind {
            Kind::Scalar(scalar) => match refusal(scalar, found, schema, self.shape) {
                None => true,
                Some(_) if secret && scalar.raw.is_empty() => {
                    self.say(Code::BadValue, node.at, site, "this secret is empty")
                }
                Some((message, help)) => {
                    let value = shown(&scalar.raw);
                    let message = message.replace("{v}", &value);
                    self.cx.error(Code::BadValue, node.at, site.within, message).help = help;
                    false
                }
            },
            Kind::List(_) => self.list(node, found, site),
            Kind::Map(_) => self.map(node, found, name, site),
        }
    }

    fn list(&mut self, node: &mut Node, schema: &'w Value, site: &Site<'_>) -> bool {
        let at = node.at;
        let Kind::List(items) = &mut node.kind else { return true };
        if items.is_empty() && schema.get("minItems").is_some() {
            return self.say(Code::BadValue, at, site, "this list is empty");
        }
        let Some(item_schema) = schema.get("items") else { return self.free(node, site) };
        for (index, item) in items.iter_mut().enumerate() {
            item.index = index;
        }
        items.retain_mut(|item| {
            let path = format!("{}[{}]", site.path, item.index);
            let at = match item.kind {
                Kind::Scalar(_) => item.at,
                _ => Pos { length: 1, ..item.at },
            };
            let kept = self.value(item, item_schema, &Site { key: "", at, path: &path, within: site.path });
            if !kept {
                self.cx.dropped.insert(site.path.to_owned());
            }
            kept
        });
        true
    }

    fn map(&mut self, node: &mut Node, schema: &'w Value, name: &str, site: &Site<'_>) -> bool {
        let Kind::Map(entries) = &mut node.kind else { return true };
        let properties = schema.get("properties").and_then(Value::as_object);
        let keyed = schema.get("patternProperties").and_then(Value::as_object);
        if properties.is_none() && keyed.is_none() {
            return self.free(node, site);
        }
        let mut whole = true;
        let mut written: Vec<String> = entries.iter().map(|e| e.key.clone()).collect();
        let mut meant = String::new();
        entries.retain_mut(|entry| {
            if let Some(property) = properties.and_then(|p| p.get(&entry.key)) {
                return self.entry(entry, property, site);
            }
            if let Some((_, rule)) =
                keyed.and_then(|k| k.iter().find(|(p, _)| self.shape.matches(p, &entry.key)))
            {
                // What `x-` keys hold is judged where an alias uses it.
                return rule.get("description").is_none_or(|d| d != "Ignored: a home for anchors.")
                    && self.entry(entry, rule, site);
            }
            match (properties, keyed) {
                (Some(properties), _) => whole &= self.unknown(entry, properties, name, site, &mut meant),
                (None, Some(keyed)) => self.bad_name(entry, keyed, site),
                (None, None) => {}
            }
            false
        });
        // What a wrong key meant is not reported once more as missing.
        written.extend(
            properties
                .into_iter()
                .flatten()
                .map(|(key, _)| key.clone())
                .filter(|key| meant.contains(&format!("`{key}:")) || meant.contains(&format!("`{key}`"))),
        );
        if whole {
            whole &= self.exactly_one(schema, &written, entries, site);
        }
        whole & self.required(schema, &written, entries, site)
    }

    fn entry(&mut self, entry: &mut Entry, schema: &'w Value, site: &Site<'_>) -> bool {
        let path = join(site.path, &entry.key);
        let below = Site { key: &entry.key, at: entry.at, path: &path, within: site.path };
        let kept = self.value(&mut entry.value, schema, &below);
        if !kept {
            self.cx.dropped.insert(path);
        }
        kept
    }

    /// Values without a shape of their own: only references are replaced.
    fn free(&mut self, node: &mut Node, site: &Site<'_>) -> bool {
        match &mut node.kind {
            Kind::Scalar(_) => self.replace(node, false, false, site),
            Kind::List(items) => {
                items.iter_mut().map(|item| self.free(item, site)).fold(true, |all, one| all & one)
            }
            Kind::Map(entries) => entries
                .iter_mut()
                .map(|entry| self.free(&mut entry.value, site))
                .fold(true, |all, one| all & one),
        }
    }

    fn alternatives(&self, schema: &'w Value) -> Vec<(&'w Value, &'w str)> {
        let (schema, name) = self.shape.resolve(schema);
        match schema.get("anyOf").and_then(Value::as_array) {
            Some(alternatives) => alternatives.iter().map(|a| self.shape.resolve(a)).collect(),
            None => vec![(schema, name)],
        }
    }

    /// The alternative whose type the value has. The text of a reference becomes a number or a truth value where
    /// one is wanted.
    fn choose(&self, node: &mut Node, alternatives: &[(&'w Value, &'w str)]) -> Option<(&'w Value, &'w str)> {
        if let Kind::Scalar(scalar) = &mut node.kind
            && scalar.reference
            && let Some(typed) = scalar.value.as_str().and_then(core_value)
            && !typed.is_string()
        {
            let wants_text =
                alternatives.iter().any(|(s, _)| has_type(s, "string") && s.get("enum").is_none());
            let fits = alternatives.iter().find(|(s, _)| has_type(s, json_type(&typed)));
            if let (false, Some(found)) = (wants_text, fits) {
                scalar.value = typed;
                return Some(*found);
            }
        }
        let kind = match &node.kind {
            Kind::Scalar(scalar) => json_type(&scalar.value),
            Kind::List(_) => "array",
            Kind::Map(_) => "object",
        };
        alternatives.iter().find(|(s, _)| has_type(s, kind)).copied()
    }

    /// Replaces the references of a scalar and applies the rules of secrets.
    fn replace(&mut self, node: &mut Node, secret: bool, hidden: bool, site: &Site<'_>) -> bool {
        let at = node.at;
        let Kind::Scalar(scalar) = &mut node.kind else { return true };
        scalar.hidden |= hidden;
        let text = match &scalar.value {
            Value::String(text) => text.clone(),
            _ => return true,
        };
        if text.contains("://") && without_password(&text).is_some() {
            self.cx.text.blot(at, Blot::Password);
        }
        match reference::resolve(&text, self.cx) {
            Err(broken) => {
                let help = match broken.help.split_once(", or give a default") {
                    Some((help, _)) if secret => help.to_owned(),
                    _ => broken.help,
                };
                let finding = self.cx.error(Code::BadReference, at, site.within, broken.message);
                finding.help = (!help.is_empty()).then_some(help);
                false
            }
            Ok(None) => {
                if secret && !text.is_empty() {
                    self.literal(at, site);
                }
                true
            }
            Ok(Some(resolved)) => {
                if secret {
                    self.cx.text.blot(at, Blot::Default);
                    self.secret_reference(&resolved, at, site);
                }
                scalar.value = Value::String(resolved.text);
                scalar.reference = true;
                true
            }
        }
    }

    fn literal(&mut self, at: Pos, site: &Site<'_>) {
        self.cx.text.blot(at, Blot::Whole);
        let name = site.key.to_owned();
        let name = if name.is_empty() { "this secret".to_owned() } else { format!("`{name}`") };
        let message = format!("{name} is written into the file");
        let (finding, help) = match self.cx.mode {
            Mode::Dev => (
                self.cx.warn(Code::LiteralSecret, site.at, site.within, message),
                "write `${env:NAME}` or `${file:path}`: `run` refuses the value itself",
            ),
            Mode::Run => (
                self.cx.error(Code::LiteralSecret, site.at, site.within, message),
                "write `${env:NAME}` or `${file:path}`",
            ),
        };
        finding.help = Some(help.into());
    }

    fn secret_reference(&mut self, resolved: &reference::Resolved, at: Pos, site: &Site<'_>) {
        if let Some(file) = &resolved.exposed {
            let message = format!("everybody on this machine can read the secret file `{}`", shown(file));
            self.cx.error(Code::BadReference, at, site.within, message).help = Some("chmod 600 it".into());
        }
        if self.cx.mode == Mode::Run && (resolved.has_default || !resolved.whole) {
            let what = if resolved.has_default { "a default" } else { "other text" };
            let message = format!("a secret is a reference, without {what} beside it");
            self.cx.error(Code::LiteralSecret, at, site.within, message).help =
                Some("only `dev` takes a secret that is partly written into the file".into());
        }
    }

    fn unknown(
        &mut self,
        entry: &Entry,
        properties: &Map<String, Value>,
        name: &str,
        site: &Site<'_>,
        meant: &mut String,
    ) -> bool {
        if let Some(help) = hints::later_key(name, &entry.key) {
            self.later(entry.at, site.path, &format!("`{}`", entry.key), help);
            // Without the kind that was meant, nothing can be said about the rest.
            return !matches!(name, "Event" | "Source" | "Sending" | "Auth");
        }
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        let hint = hints::unknown_key(name, &entry.key, &entry.value, &known);
        meant.push_str(hint.as_deref().unwrap_or_default());
        let help = hint.unwrap_or_else(|| format!("known here: {}", known.join(", ")));
        self.cx
            .error(Code::UnknownKey, entry.at, site.path, format!("unknown key `{}`", shown(&entry.key)))
            .help = Some(help);
        true
    }

    fn bad_name(&mut self, entry: &Entry, keyed: &Map<String, Value>, site: &Site<'_>) {
        let noun = KEY_RULES
            .iter()
            .find(|(pattern, _)| keyed.contains_key(*pattern))
            .map_or("a name", |(_, noun)| noun);
        let message = format!("`{}` cannot be a name here", shown(&entry.key));
        self.cx.error(Code::BadValue, entry.at, site.path, message).help = Some(format!("write {noun}"));
    }

    fn exactly_one(&mut self, schema: &Value, written: &[String], left: &[Entry], site: &Site<'_>) -> bool {
        let Some(group) = schema.get("oneOf").and_then(Value::as_array) else { return true };
        let choices: Vec<&str> = group.iter().filter_map(|g| g.get("required")?.get(0)?.as_str()).collect();
        let chosen: Vec<&str> = choices.iter().copied().filter(|c| written.iter().any(|w| w == c)).collect();
        let list = choices.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
        let (code, message) = match chosen.as_slice() {
            // Where the value was refused, or the key was another word for it, that is said already.
            [one] => return left.iter().any(|e| e.key == *one),
            [] => (Code::MissingKey, format!("exactly one of {list} is needed")),
            several => {
                let several = several.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" and ");
                (Code::Conflict, format!("{several} exclude each other"))
            }
        };
        let finding = self.cx.error(code, site.at, site.path, message);
        if code == Code::Conflict {
            finding.help = Some(format!("write exactly one of {list}"));
        }
        false
    }

    fn required(&mut self, schema: &Value, written: &[String], left: &[Entry], site: &Site<'_>) -> bool {
        let Some(required) = schema.get("required").and_then(Value::as_array) else { return true };
        let mut whole = true;
        for key in required.iter().filter_map(Value::as_str) {
            if left.iter().any(|e| e.key == key) {
                continue;
            }
            whole = false;
            if !written.iter().any(|w| w == key) {
                let noun = schema.pointer(&format!("/properties/{key}")).map(|s| self.shape.noun(s));
                self.cx.error(Code::MissingKey, site.at, site.path, format!("`{key}` is missing")).help =
                    noun.map(|noun| format!("write {noun}"));
            }
        }
        whole
    }

    fn later(&mut self, at: Pos, within: &str, what: &str, help: &str) {
        let finding =
            self.cx.error(Code::NotSupportedYet, at, within, format!("{what} is not supported yet"));
        finding.help = (!help.is_empty()).then(|| help.to_owned());
    }

    fn wrong_type(&mut self, node: &Node, schema: &Value, site: &Site<'_>) {
        let noun = self.shape.noun(schema);
        let found = describe(node);
        let at = if matches!(node.kind, Kind::Scalar(_)) { node.at } else { site.at };
        let at = if matches!(&node.kind, Kind::Scalar(s) if s.value.is_null()) { site.at } else { at };
        let subject = if site.key.is_empty() { String::new() } else { format!("`{}`: ", site.key) };
        let message = format!("{subject}expected {noun}, found {found}");
        let help = judgement::help(node, &noun, site.key);
        self.cx.error(Code::WrongType, at, site.within, message).help = help;
    }

    fn say(&mut self, code: Code, at: Pos, site: &Site<'_>, message: &str) -> bool {
        let subject = if site.key.is_empty() { String::new() } else { format!("`{}`: ", site.key) };
        self.cx.error(code, at, site.within, format!("{subject}{message}"));
        false
    }
}
