//! The tree of a file: every key and value with its place.

use serde_json::{Map, Value};

/// A place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    pub line: usize,
    pub column: usize,
    pub length: usize,
    /// How many lines it spans.
    pub lines: usize,
}

impl Pos {
    pub const fn new(line: usize, column: usize, length: usize) -> Self {
        Self { line, column, length, lines: 1 }
    }

    /// About the file as a whole.
    pub const NOWHERE: Self = Self::new(0, 0, 0);
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub at: Pos,
    /// Its place in the list as it was written, where it is an item.
    pub index: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar: as written, and what it means once references are replaced.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub raw: String,
    pub value: Value,
    pub reference: bool,
    /// Never shown.
    pub hidden: bool,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub at: Pos,
    pub value: Node,
}

impl Node {
    /// A value that nobody wrote: a default, placed where its owner stands.
    pub fn made(value: &Value, at: Pos) -> Self {
        let kind = match value {
            Value::Array(items) => Kind::List(items.iter().map(|v| Self::made(v, at)).collect()),
            Value::Object(map) => Kind::Map(
                map.iter().map(|(k, v)| Entry { key: k.clone(), at, value: Self::made(v, at) }).collect(),
            ),
            scalar => {
                let raw = scalar.as_str().map_or_else(|| scalar.to_string(), str::to_owned);
                Kind::Scalar(Scalar { raw, value: scalar.clone(), reference: false, hidden: false })
            }
        };
        Self { at, index: 0, kind }
    }

    pub fn entries(&self) -> &[Entry] {
        if let Kind::Map(entries) = &self.kind { entries } else { &[] }
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|e| &e.value)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Kind::Map(entries) = &mut self.kind else { return None };
        entries.iter_mut().find(|e| e.key == key).map(|e| &mut e.value)
    }

    pub fn items(&self) -> &[Self] {
        if let Kind::List(items) = &self.kind { items } else { &[] }
    }

    pub fn scalar(&self) -> Option<&Scalar> {
        if let Kind::Scalar(scalar) = &self.kind { Some(scalar) } else { None }
    }

    pub fn text(&self) -> Option<&str> {
        self.scalar().and_then(|s| s.value.as_str())
    }

    /// How many values it holds, itself included.
    pub fn count(&self) -> usize {
        match &self.kind {
            Kind::Scalar(_) => 1,
            Kind::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Kind::Map(entries) => 1 + entries.iter().map(|e| e.value.count()).sum::<usize>(),
        }
    }

    /// The value as JSON, references replaced.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar(scalar) => scalar.value.clone(),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }
}

/// A place to stand in the tree while typed values are judged: node, key and path together.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub node: &'a Node,
    /// Where the key stands that leads here.
    pub key: Pos,
    /// The path of this node.
    pub path: String,
    /// The path of the map or list around it.
    pub within: String,
}

impl<'a> At<'a> {
    pub fn root(node: &'a Node) -> Self {
        Self { node, key: Pos::new(1, 1, 1), path: String::new(), within: String::new() }
    }

    /// The value under a key; where it is absent, the place itself.
    pub fn key(&self, key: &str) -> Self {
        self.node.entry(key).map_or_else(|| self.clone(), |entry| self.entry(entry))
    }

    /// The value of an entry of this map.
    pub fn entry(&self, entry: &'a Entry) -> Self {
        Self {
            node: &entry.value,
            key: entry.at,
            path: join(&self.path, &entry.key),
            within: self.path.clone(),
        }
    }

    /// An item of a list, or the value itself where it is no list.
    pub fn item(&self, index: usize) -> Self {
        match self.node.items().get(index) {
            Some(node) => {
                let path = format!("{}[{}]", self.path, node.index);
                Self { node, key: node.at, path, within: self.path.clone() }
            }
            None => self.clone(),
        }
    }
}

/// `a` and `b` make `a.b`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
