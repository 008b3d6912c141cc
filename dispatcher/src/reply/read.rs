//! The identifiers in an answer. Reads it once without building a tree of it: most answers have nothing to say here, and
//! a hostile one must not cost more than its size.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

const FAILURES: &str = "batchItemFailures";
const IDENTIFIER: &str = "itemIdentifier";
/// Most characters of an answer that stand in a message.
const SHOWN: usize = 200;

/// How a function names an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identifier {
    /// By an id; not empty.
    Text(String),
    /// A record of Kafka by its place.
    Record {
        /// `<topic>-<partition>`.
        partition: String,
        /// The offset.
        offset: i64,
    },
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "`{text}`"),
            Self::Record { partition, offset } => write!(f, "offset {offset} of `{partition}`"),
        }
    }
}

/// The failures that an answer reports; none when it reports nothing.
///
/// # Errors
/// What is wrong with a report.
pub(super) fn failures(answer: &[u8]) -> Result<Vec<Identifier>, String> {
    if answer.trim_ascii_start().first() != Some(&b'{') {
        return Ok(Vec::new());
    }
    let mut report = Report::default();
    let mut json = serde_json::Deserializer::from_slice(answer);
    match (&mut report).deserialize(&mut json).and_then(|()| json.end()) {
        Ok(()) => Ok(report.failures),
        // Not JSON, so it can be anything; but half a report must not pass for a success.
        Err(_) if !report.seen && !names_failures(answer) => Ok(Vec::new()),
        Err(error) => {
            Err(format!("the answer's `{FAILURES}` cannot be understood: {}", shown(&error.to_string())))
        }
    }
}

/// As much of a text as belongs in a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn names_failures(answer: &[u8]) -> bool {
    answer.windows(FAILURES.len()).any(|window| window == FAILURES.as_bytes())
}

/// The answer as a whole: an object of which one key matters. Where the key occurs twice, the last one counts.
#[derive(Default)]
struct Report {
    seen: bool,
    failures: Vec<Identifier>,
}

impl<'de> DeserializeSeed<'de> for &mut Report {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Report {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == FAILURES {
                self.seen = true;
                self.failures = map.next_value_seed(Seed(List))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Reads any JSON value with a visitor.
struct Seed<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Seed<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

/// `null` or a list of entries.
struct List;

impl<'de> Visitor<'de> for List {
    type Value = Vec<Identifier>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of `{{\"{IDENTIFIER}\": …}}`")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(identifier) = items.next_element_seed(Seed(Entry))? {
            all.push(identifier);
        }
        Ok(all)
    }
}

struct Entry;

impl<'de> Visitor<'de> for Entry {
    type Value = Identifier;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with `{IDENTIFIER}`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == IDENTIFIER {
                found = Some(map.next_value_seed(Seed(Name))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        found.ok_or_else(|| A::Error::custom(format_args!("an entry has no `{IDENTIFIER}`")))
    }
}

struct Name;

impl<'de> Visitor<'de> for Name {
    type Value = Identifier;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text or a Kafka record as `{IDENTIFIER}`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.is_empty() {
            return Err(E::custom(format_args!("an `{IDENTIFIER}` is empty")));
        }
        Ok(Identifier::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut partition, mut offset) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "partition" => partition = Some(map.next_value()?),
                "offset" => offset = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match (partition, offset) {
            (Some(partition), Some(offset)) => Ok(Identifier::Record { partition, offset }),
            _ => Err(A::Error::custom(format_args!("an `{IDENTIFIER}` lacks `partition` or `offset`"))),
        }
    }
}
