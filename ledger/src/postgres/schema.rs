//! The name of the schema, and statements with that name in them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use crate::Error;

/// Statements kept with their names filled in; those of dropped generations pile up otherwise.
const TEXTS: usize = 1_000;

/// The schema that holds a ledger.
pub(super) struct Schema {
    name: String,
    texts: RwLock<HashMap<(&'static str, i32), Arc<str>>>,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Schema {
    /// Takes a name of lower-case letters, digits and `_`, which is the same quoted and not.
    ///
    /// # Errors
    /// [`Error::Incompatible`] for any other name.
    pub fn new(name: &str) -> Result<Self, Error> {
        let fits = name.len() <= 48
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !name.starts_with("pg_");
        if !fits {
            return Err(Error::Incompatible(format!(
                "`{name}` cannot name the ledger's schema: use up to 48 of a-z, 0-9 and _, beginning with a letter"
            )));
        }
        Ok(Self { name: name.to_owned(), texts: RwLock::default() })
    }

    /// A text with `bellwire.` replaced by the schema.
    pub fn replace(&self, text: &str) -> String {
        text.replace("bellwire.", &format!("\"{}\".", self.name))
    }

    /// The same, worked out once per text.
    pub fn sql(&self, text: &'static str) -> Arc<str> {
        self.sql_in(text, 0)
    }

    /// A text with `bellwire.` replaced by the schema and `{g}` by a generation, worked out once per text and
    /// generation.
    pub fn sql_in(&self, text: &'static str, generation: i32) -> Arc<str> {
        let key = (text, generation);
        if let Some(known) = self.texts.read().expect("no code panics while it holds this lock").get(&key) {
            return known.clone();
        }
        let made: Arc<str> = self.replace(text).replace("{g}", &generation.to_string()).into();
        let mut texts = self.texts.write().expect("no code panics while it holds this lock");
        if texts.len() >= TEXTS {
            texts.clear();
        }
        texts.insert(key, made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_generations_are_filled_in() {
        let schema = Schema::new("my_book").unwrap();
        assert_eq!(
            &*schema.sql_in("select bellwire.append_{g}() from bellwire.lane", 7),
            "select \"my_book\".append_7() from \"my_book\".lane"
        );
        assert_eq!(&*schema.sql("bellwire.x"), "\"my_book\".x");
    }

    #[test]
    fn odd_names_are_refused() {
        for name in ["", "1a", "A", "a b", "a\"b", "pg_x", "ä", &"x".repeat(49)] {
            assert!(Schema::new(name).is_err(), "{name}");
        }
    }
}
