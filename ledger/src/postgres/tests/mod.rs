//! The contract, kept by Postgres. Every test has a schema of its own in the server of `BELLWIRE_TEST_POSTGRES`.

mod cluster;
mod connecting;
mod debts;
mod exactly_once;
mod failover;
mod flush;
mod generations;
mod held;
mod histories;
mod looking;
mod odd;
mod opening;
mod outbox;
mod people;
mod pooler;
mod races;
mod settings;
mod slots;
mod stored;
mod stress;

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_schemas::ControllerId;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::{PostgresLedger, PostgresOptions};
use crate::Ledger;
use crate::conformance::Subject;

/// The variable that names a server where tests may create schemas.
const SERVER: &str = "BELLWIRE_TEST_POSTGRES";

/// The URL of the tests' server.
pub(super) fn server() -> String {
    std::env::var(SERVER).unwrap_or_else(|_| {
        panic!(
            "{SERVER} is not set: run ./test, which starts a server, or name one (postgres://user@host/db)"
        )
    })
}

crate::conformance::suite!(OnServer);

/// A ledger in a schema that goes with it.
pub(super) struct OnServer {
    /// The way to the server.
    url: String,
    pub ledger: PostgresLedger,
    pub options: PostgresOptions,
}

impl OnServer {
    /// A new ledger in a schema with a random name.
    pub async fn with(options: PostgresOptions) -> Self {
        Self::at(server(), options).await
    }

    /// The same by another way to the server.
    pub async fn at(url: String, options: PostgresOptions) -> Self {
        let schema = format!("t_{}", Uuid::new_v4().simple());
        let options = PostgresOptions { schema, ..options };
        let ledger = PostgresLedger::open(&url, options.clone()).await.unwrap();
        Self { url, ledger, options }
    }

    /// One more handle on the same ledger, as another controller has it.
    pub async fn another(&self) -> PostgresLedger {
        PostgresLedger::open(&self.url, self.options.clone()).await.unwrap()
    }

    /// A connection that is none of the ledger's.
    pub async fn connect(&self) -> Client {
        connect().await
    }

    /// Runs SQL on the ledger's tables, named with `bellwire.`, behind its back.
    pub async fn sql(&self, sql: &str) {
        let sql = sql.replace("bellwire.", &format!("{}.", self.options.schema));
        self.connect().await.batch_execute(&sql).await.unwrap();
    }

    /// The whole number that SQL on the ledger's tables answers.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = sql.replace("bellwire.", &format!("{}.", self.options.schema));
        self.connect().await.query_one(&sql, &[]).await.unwrap().get(0)
    }
}

async fn connect() -> Client {
    let (client, connection) = tokio_postgres::connect(&server(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Drop for OnServer {
    fn drop(&mut self) {
        let sql = format!("set lock_timeout = '5s'; drop schema if exists {} cascade", self.options.schema);
        // A thread of its own: the test's runtime may be the one that drops this.
        let drop = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { connect().await.batch_execute(&sql).await })
        };
        // Best effort: the server itself goes away after the tests.
        let _ = std::thread::spawn(drop).join();
    }
}

#[async_trait]
impl Subject for OnServer {
    const IN_UNITS: bool = true;
    const IS_SHARED: bool = true;

    async fn new(lanes: u16) -> Self {
        Self::with(PostgresOptions { lanes, ..PostgresOptions::default() }).await
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(self.ledger.clone())
    }

    async fn reopen(&mut self) {
        self.ledger.close().await;
        self.ledger = self.another().await;
    }

    async fn beside(&self) -> Option<Arc<dyn Ledger>> {
        Some(Arc::new(self.another().await))
    }

    async fn turn(&mut self) {
        crate::postgres::upkeep::rotate(&self.ledger.shared).await.unwrap();
    }

    async fn expire(&mut self, controller: ControllerId) -> bool {
        let ended = "update bellwire.controller set expires_at = clock_timestamp() - interval '1 second'";
        self.sql(&format!("{ended} where id = '{}'", controller.0)).await;
        true
    }
}
