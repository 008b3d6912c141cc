//! The URL of a ledger: what the driver understands, and what it does not.
//!
//! `postgres://user:password@host:port,host:port/database?parameter=value&…`, as the server's own tools take it. The
//! parameters `schema`, `sslmode`, `sslrootcert` and `target_session_attrs` are ours; the driver gets the others.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;

use crate::Error;

/// How the connection is protected; the words and their meaning are those of `sslmode` in the server's manual (34.19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; not checked.
    Prefer,
    /// Always; not checked.
    Require,
    /// Always; the certificate is signed by somebody we trust.
    VerifyCa,
    /// Always; signed by somebody we trust, for the host we asked for.
    VerifyFull,
}

/// Where a ledger lies.
#[derive(Clone)]
pub(super) struct Target {
    /// Hosts, user, password, database and options for the driver.
    pub config: Config,
    /// The schema that the URL names, if it does.
    pub schema: Option<String>,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// Certificates to trust, in a PEM file; those of the system when absent.
    pub root: Option<PathBuf>,
    /// Whether a server that only reads is refused.
    pub writable: bool,
    /// How long one attempt to connect may take, per address.
    pub patience: Duration,
}

/// How long one attempt to connect may take when the URL says nothing: a host that is down must not hide the next one.
const PATIENCE: Duration = Duration::from_secs(5);

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`Error::Incompatible`] when it is no URL of a Postgres database; the text never holds the password.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if !base.starts_with("postgres://") && !base.starts_with("postgresql://") {
            return Err(wrong("it must begin with postgres://"));
        }
        let mut target = Self {
            config: Config::new(),
            schema: None,
            tls: TlsMode::Prefer,
            root: None,
            writable: true,
            patience: PATIENCE,
        };
        let mut mode = None;
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match name {
                "schema" => target.schema = Some(value),
                "sslmode" => mode = Some(tls_mode(&value)?),
                // The system's certificates, and then the name must fit, as libpq has it.
                "sslrootcert" if value == "system" => mode = Some(TlsMode::VerifyFull),
                "sslrootcert" => target.root = Some(value.into()),
                "target_session_attrs" => target.writable = writable(&value)?,
                _ => rest.push(pair),
            }
        }
        target.config = Config::from_str(&format!("{base}?{}", rest.join("&")))
            .map_err(|e| wrong(&super::fault::chain(&e)))?;
        // A file of roots is given to be checked against (libpq does the same).
        target.tls = match (mode, &target.root) {
            (None | Some(TlsMode::Require), Some(_)) => TlsMode::VerifyCa,
            (mode, _) => mode.unwrap_or(TlsMode::Prefer),
        };
        if target.config.get_hosts().is_empty() {
            return Err(wrong("it names no host"));
        }
        if target.config.get_application_name().is_none() {
            target.config.application_name("bellwire");
        }
        if let Some(patience) = target.config.get_connect_timeout() {
            target.patience = *patience;
        }
        Ok(target)
    }
}

fn tls_mode(word: &str) -> Result<TlsMode, Error> {
    Ok(match word {
        "disable" => TlsMode::Disable,
        "allow" | "prefer" => TlsMode::Prefer,
        "require" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" => TlsMode::VerifyFull,
        _ => return Err(wrong("sslmode must be disable, prefer, require, verify-ca or verify-full")),
    })
}

fn writable(word: &str) -> Result<bool, Error> {
    match word {
        "read-write" | "primary" => Ok(true),
        "any" => Ok(false),
        _ => Err(wrong("target_session_attrs must be read-write, primary or any")),
    }
}

/// Percent signs of a parameter's value.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(wrong("a % in it is not followed by two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))
}

fn wrong(why: &str) -> Error {
    Error::Incompatible(format!("the URL of the ledger cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_parameters_are_taken_out() {
        let url = "postgres://u:p%40@a:1,b:2/db?schema=x%5Fy&sslmode=require&sslrootcert=%2Fr.pem&connect_timeout=2";
        let target = Target::parse(url).unwrap();
        assert_eq!(target.schema.as_deref(), Some("x_y"));
        assert_eq!((target.tls, target.root), (TlsMode::VerifyCa, Some("/r.pem".into())));
        assert_eq!((target.config.get_hosts().len(), target.config.get_ports()), (2, &[1, 2][..]));
        assert_eq!((target.patience, target.writable), (Duration::from_secs(2), true));
        assert_eq!(target.config.get_password(), Some(&b"p@"[..]));
    }

    #[test]
    fn nothing_said_is_the_tools_default() {
        let target = Target::parse("postgresql://localhost/db?target_session_attrs=any").unwrap();
        assert_eq!((target.tls, target.writable, target.schema), (TlsMode::Prefer, false, None));
        assert_eq!(target.config.get_application_name(), Some("bellwire"));
        let target = Target::parse("postgresql://localhost/db?sslrootcert=system").unwrap();
        assert_eq!((target.tls, target.root), (TlsMode::VerifyFull, None));
    }

    #[test]
    fn refusals_never_show_the_password() {
        for url in [
            "mysql://u:geheim@h/db",
            "postgres://u:geheim@h/db?sslmode=maybe",
            "postgres://u:geheim@h/db?surprise=1",
            "postgres://u:geheim@h:port/db",
            "postgres://u:geheim@/db",
            "postgres://u:geheim@h/db?schema=%zz",
        ] {
            let error = Target::parse(url).err().unwrap().to_string();
            assert!(error.contains("cannot be used") && !error.contains("geheim"), "{url}: {error}");
        }
    }
}
