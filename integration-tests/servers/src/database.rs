//! A database of one test's own on the server that `./test` started for all of them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;

use crate::postgres::psql;

/// The variable that holds the URL of a server where tests may create databases.
pub const SERVER_VARIABLE: &str = "BELLWIRE_TEST_POSTGRES";

/// An empty database, dropped with its value.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// Creates a database with a random name on the server that `BELLWIRE_TEST_POSTGRES` names.
    ///
    /// # Errors
    /// When the variable is not set, or the server refuses.
    pub fn create() -> anyhow::Result<Self> {
        let server = std::env::var(SERVER_VARIABLE).with_context(|| {
            format!("{SERVER_VARIABLE} is not set: run ./test, which starts a server, or name one (postgres://user@host/db)")
        })?;
        let name = format!("t_{:016x}", RandomState::new().build_hasher().finish());
        psql(&server, &format!("create database {name}"))?;
        Ok(Self { server, name })
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        let (server, options) =
            self.server.split_once('?').map_or((self.server.as_str(), ""), |(s, o)| (s, o));
        let after_scheme = server.find("://").map_or(0, |at| at + 3);
        let end = server[after_scheme..].find('/').map_or(server.len(), |at| after_scheme + at);
        let mark = if options.is_empty() { "" } else { "?" };
        format!("{}/{}{mark}{options}", &server[..end], self.name)
    }

    /// Where its server listens.
    ///
    /// # Errors
    /// When the URL names no host and port, or the name cannot be resolved.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        let rest = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', '?']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
        let host = if host.contains(':') { host.to_string() } else { format!("{host}:5432") };
        host.to_socket_addrs()?.next().with_context(|| format!("resolve {host}"))
    }

    /// Runs SQL in the database with `psql`.
    ///
    /// # Errors
    /// When the SQL fails; what the server said is in the message.
    pub fn sql(&self, sql: &str) -> anyhow::Result<String> {
        psql(&self.url(), sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Best effort: the server itself goes away after the tests.
        let _ = psql(&self.server, &format!("drop database if exists {} with (force)", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_the_database() {
        let url = |server: &str| Database { server: server.into(), name: "t".into() };
        let check = |server: &str, expected: &str| {
            let database = url(server);
            assert_eq!(database.url(), expected);
            if server.contains("127.0.0.1:1") {
                assert_eq!(database.address().expect("an address"), SocketAddr::from(([127, 0, 0, 1], 1)));
            }
            std::mem::forget(database);
        };
        check("postgres://postgres@127.0.0.1:1/postgres", "postgres://postgres@127.0.0.1:1/t");
        check("postgres://postgres@127.0.0.1:1", "postgres://postgres@127.0.0.1:1/t");
        check("postgres://h/db?sslmode=disable", "postgres://h/t?sslmode=disable");
    }
}
