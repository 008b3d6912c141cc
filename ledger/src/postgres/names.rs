//! Names and their numbers: written once per name in the database, remembered here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use bellwire_schemas::SourceName;
use postgres_types::Type;

use super::Shared;
use super::codec::{escape, unescape};
use super::fault::misread;
use crate::Error;

/// Shards remembered; beyond that all are asked for again.
const SHARDS: usize = 100_000;

/// What is known of names. Numbers are never given anew while the server has the same history.
#[derive(Default)]
pub(super) struct Names {
    sources: RwLock<Arc<Sources>>,
    shards: RwLock<HashMap<String, i32>>,
    /// How often all was forgotten: answers to older questions are not remembered.
    forgotten: AtomicU64,
}

/// Sources by name and by number.
#[derive(Clone, Default)]
pub(super) struct Sources {
    /// Numbers.
    pub numbers: HashMap<SourceName, i32>,
    /// Names.
    pub names: HashMap<i32, SourceName>,
}

impl Names {
    /// Forgets all, because a server took over that may give the numbers anew.
    pub fn forget(&self) {
        let mut sources = self.sources.write().expect("no code panics while it holds this lock");
        let mut shards = self.shards.write().expect("no code panics while it holds this lock");
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        *sources = Arc::default();
        shards.clear();
    }

    fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }
}

impl Shared {
    /// The sources that this handle knows of; those that it has written, and those that it has asked for.
    pub(super) fn sources(&self) -> Arc<Sources> {
        self.names.sources.read().expect("no code panics while it holds this lock").clone()
    }

    /// The sources, after the numbers given are known among them; for reading rows.
    pub(super) async fn sources_with(
        &self,
        numbers: impl Iterator<Item = i32>,
    ) -> Result<Arc<Sources>, Error> {
        let known = self.sources();
        let mut numbers = numbers;
        if numbers.all(|number| known.names.contains_key(&number)) {
            return Ok(known);
        }
        let since = self.names.forgotten();
        let rows = self.pool.ask(&self.sql("select name, id from bellwire.source"), &[]).await?;
        self.learn(&rows, since)
    }

    /// The sources, after every name given has a number; for writing rows.
    pub(super) async fn sources_named(&self, names: &[&SourceName]) -> Result<Arc<Sources>, Error> {
        let known = self.sources();
        let new: Vec<_> = names
            .iter()
            .filter(|name| !known.numbers.contains_key(**name))
            .map(|name| escape(name.as_str()))
            .collect();
        if new.is_empty() {
            return Ok(known);
        }
        let since = self.names.forgotten();
        let sql = self.sql("select o_name, o_id from bellwire.number_sources($1)");
        let rows = self.pool.ask(&sql, &[(&new, Type::TEXT_ARRAY)]).await?;
        self.learn(&rows, since)
    }

    /// The number of a source, or nothing when it was never written; for questions.
    pub(super) async fn source_number(&self, name: &SourceName) -> Result<Option<i32>, Error> {
        if let Some(number) = self.sources().numbers.get(name) {
            return Ok(Some(*number));
        }
        let since = self.names.forgotten();
        let sql = self.sql("select name, id from bellwire.source where name = $1");
        let rows = self.pool.ask(&sql, &[(&escape(name.as_str()), Type::TEXT)]).await?;
        Ok(self.learn(&rows, since)?.numbers.get(name).copied())
    }

    fn learn(&self, rows: &[tokio_postgres::Row], since: u64) -> Result<Arc<Sources>, Error> {
        let mut sources = self.names.sources.write().expect("no code panics while it holds this lock");
        let mut more = Sources::clone(&sources);
        for row in rows {
            let name: &str = row.try_get(0).map_err(misread)?;
            let name: SourceName = unescape(name).as_ref().into();
            let number: i32 = row.try_get(1).map_err(misread)?;
            more.names.insert(number, name.clone());
            more.numbers.insert(name, number);
        }
        let more = Arc::new(more);
        if since == self.names.forgotten() {
            *sources = more.clone();
        }
        Ok(more)
    }

    /// The numbers of shards, given to those that have none.
    pub(super) async fn shards_named(&self, names: &[&str]) -> Result<Vec<i32>, Error> {
        if let Some(numbers) = self.known_shards(names) {
            return Ok(numbers);
        }
        let since = self.names.forgotten();
        let escaped: Vec<_> = names.iter().map(|name| escape(name)).collect();
        let sql = self.sql("select o_name, o_id from bellwire.number_shards($1)");
        let rows = self.pool.ask(&sql, &[(&escaped, Type::TEXT_ARRAY)]).await?;
        {
            let mut shards = self.names.shards.write().expect("no code panics while it holds this lock");
            if shards.len() >= SHARDS {
                shards.clear();
            }
            for row in rows.iter().filter(|_| since == self.names.forgotten()) {
                let name: &str = row.try_get(0).map_err(misread)?;
                shards.insert(unescape(name).into_owned(), row.try_get(1).map_err(misread)?);
            }
        }
        let lost = || Error::Unavailable("a shard has lost its number; try again".into());
        self.known_shards(names).ok_or_else(lost)
    }

    fn known_shards(&self, names: &[&str]) -> Option<Vec<i32>> {
        let shards = self.names.shards.read().expect("no code panics while it holds this lock");
        names.iter().map(|name| shards.get(*name).copied()).collect()
    }
}
