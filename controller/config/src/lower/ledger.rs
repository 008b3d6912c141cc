//! Where events and outcomes are kept: a file, or a database that several controllers share.

use bellwire_schemas::LedgerUrl;
use bellwire_schemas::service::LedgerSpec;

use super::url::{refuse, secrets};
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::shape::Ledger;
use crate::tree::At;

/// Lanes of a new ledger in Postgres when nothing is said; a file has one.
pub(crate) const POSTGRES_LANES: u16 = 8;

/// What `sslmode` may be, after the server's manual.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Lowers the ledger's settings.
pub(super) fn lower(ledger: &Ledger, at: &At<'_>, cx: &mut Context<'_>) -> LedgerSpec {
    let text = ledger.url.0.as_str();
    let postgres = is_postgres(text);
    let url = if postgres { database(text, at, cx) } else { file(text, at, cx) };
    let lanes = ledger.lanes.unwrap_or(if postgres { POSTGRES_LANES } else { 1 });
    if lanes != 1 && !postgres {
        let at = at.key("lanes");
        cx.error(Code::BadValue, at.node.at, &at.within, "a ledger in SQLite has one lane".into());
    }
    if ledger.retention.0.is_zero() {
        let at = at.key("retention");
        cx.error(Code::BadValue, at.node.at, &at.within, "`retention` is more than 0s".into());
    }
    let (retention, max_size) = (ledger.retention.0, Some(ledger.max_size));
    LedgerSpec { url: LedgerUrl::new(url), retention, max_size, lanes }
}

/// Whether a URL names a database in Postgres.
pub(crate) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

fn file(text: &str, at: &At<'_>, cx: &mut Context<'_>) -> String {
    let message = match text.strip_prefix("sqlite:") {
        Some(path) if !is_no_file(path) => return format!("sqlite:{}", cx.resolve(path).display()),
        Some(_) => format!("`{}` names no file", shown(text)),
        None => "this is no ledger".into(),
    };
    let help =
        "write `sqlite:` and a path, such as `sqlite:.bellwire/ledger.db`, or `postgres://host/database`";
    refuse(Code::BadValue, message, help, at, cx);
    String::new()
}

fn is_no_file(path: &str) -> bool {
    path.is_empty() || path.starts_with(':') || path.starts_with("//") || path.contains('?')
}

fn database(text: &str, at: &At<'_>, cx: &mut Context<'_>) -> String {
    secrets(at, "write `postgres://user:${env:NAME}@host/database`, or the whole URL as a reference", cx);
    let bare = |url: &str| url.split_once("://").map(|(_, rest)| rest.to_owned());
    let Some(rest) = bare(text) else {
        refuse(Code::BadValue, "this names no database".into(), "write `postgres://host/database`", at, cx);
        return String::new();
    };
    let (base, query) = rest.split_once('?').unwrap_or((&rest, ""));
    let place = base.rsplit_once('@').map_or(base, |(_, place)| place);
    let (host, name) = place.split_once('/').unwrap_or((place, ""));
    let names_host = !host.is_empty() || query.split('&').any(|pair| pair.starts_with("host="));
    if !names_host || (name.is_empty() && !query.split('&').any(|pair| pair.starts_with("dbname="))) {
        let message = "this URL names no host or no database".into();
        refuse(Code::BadValue, message, "write `postgres://host/database`", at, cx);
    }
    let mut parameters = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "schema" if !is_schema(value) => {
                let message = format!("`schema={}` is no name of a schema", shown(value));
                refuse(Code::BadValue, message, "write small letters, digits and `_`, at most 63", at, cx);
            }
            "sslmode" if !SSL_MODES.contains(&value) => {
                let message = format!("there is no `sslmode={}`", shown(value));
                refuse(Code::BadValue, message, &format!("known: {}", SSL_MODES.join(", ")), at, cx);
            }
            "sslrootcert" if !value.contains('%') && value != "system" => {
                parameters.push(format!("sslrootcert={}", cx.resolve(value).display()));
                continue;
            }
            _ => {}
        }
        parameters.push(pair.to_owned());
    }
    let head = text.split_once('?').map_or(text, |(head, _)| head);
    if parameters.is_empty() { head.to_owned() } else { format!("{head}?{}", parameters.join("&")) }
}

fn is_schema(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
