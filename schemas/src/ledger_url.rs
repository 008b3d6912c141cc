//! Where a ledger is, without ever showing the password that may be part of it.

use std::fmt;

/// `sqlite:<path>` or `postgres://…`. Prints without user, password and parameters but `schema`.
#[derive(Clone, PartialEq, Eq)]
pub struct LedgerUrl(String);

impl LedgerUrl {
    /// Takes a URL as it is.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole of it, for the one place that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The file, when it is one.
    pub fn sqlite_path(&self) -> Option<&str> {
        self.0.strip_prefix("sqlite:")
    }

    /// Whether it is a database in Postgres.
    pub fn is_postgres(&self) -> bool {
        self.0.starts_with("postgres:") || self.0.starts_with("postgresql:")
    }
}

impl fmt::Display for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            // A URL of a database without its slashes may hold anything.
            return f.write_str(if self.is_postgres() { "postgres:***" } else { &self.0 });
        };
        let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
        let place = match base.rsplit_once('@') {
            Some((_, place)) => place,
            // A password with a question mark in it: what comes before is not to be told from it.
            None if query.contains('@') => "***",
            None => base,
        };
        write!(f, "{scheme}://{place}")?;
        match query.split('&').find(|pair| pair.starts_with("schema=")) {
            Some(schema) if place != "***" => write!(f, "?{schema}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_is_ever_shown() {
        for (url, shown) in [
            ("sqlite:/srv/ledger.db", "sqlite:/srv/ledger.db"),
            ("postgres://db/bell", "postgres://db/bell"),
            ("postgres://ana:pw@db:5432/bell?sslmode=require", "postgres://db:5432/bell"),
            ("postgres://ana:p@w@db,db2/bell?schema=x&password=pw", "postgres://db,db2/bell?schema=x"),
            ("postgres://ana:p/w@db/bell", "postgres://db/bell"),
            ("postgres://db/bell?user=ana&password=p@w", "postgres://***"),
            ("postgres://ana:p?w@db/bell", "postgres://***"),
            ("postgres:ana:pw", "postgres:***"),
        ] {
            let url = LedgerUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert!(!shown.contains("pw"));
        }
    }
}
