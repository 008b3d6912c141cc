//! Where events and outcomes are kept: a file, or a database that several controllers share.

use bellwire_schemas::LedgerUrl;
use bellwire_schemas::service::LedgerSpec;

use crate::Mode;
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::reference::{self, Part};
use crate::shape::Ledger;
use crate::source_text::Blot;
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
    secrets(at, cx);
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

/// The rules of secrets, for a value of which only a part is one.
fn secrets(at: &At<'_>, cx: &mut Context<'_>) {
    let url = at.key("url");
    let Some(scalar) = url.node.scalar() else { return };
    let raw = scalar.raw.clone();
    for part in reference::parse(&raw).ok().flatten().unwrap_or_default() {
        let Part::File(path) = part else { continue };
        let full = cx.resolve(&path);
        if cx.env.read_file(&full).is_ok_and(|found| found.others_can_read) {
            let message = format!("everybody on this machine can read the secret file `{}`", shown(&path));
            refuse(Code::BadReference, message, "chmod 600 it", at, cx);
        }
    }
    if without_password(&raw).is_none() {
        return;
    }
    let message = "the password is written into the file".to_owned();
    let help = "write `postgres://user:${env:NAME}@host/database`, or the whole URL as a reference";
    match cx.mode {
        Mode::Run => refuse(Code::LiteralSecret, message, help, at, cx),
        Mode::Dev => {
            cx.text.blot(url.node.at, Blot::Password);
            let within = if url.node.at == at.node.at { &at.within } else { &url.within };
            cx.warn(Code::LiteralSecret, url.node.at, within, message).help =
                Some(format!("{help}: `run` refuses the password itself"));
        }
    }
}

fn is_schema(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn refuse(code: Code, message: String, help: &str, at: &At<'_>, cx: &mut Context<'_>) {
    let url = at.key("url");
    let within = if url.node.at == at.node.at { &at.within } else { &url.within };
    // Such a URL may hold a password.
    cx.text.blot(url.node.at, Blot::Password);
    cx.error(code, url.node.at, within, message).help = Some(help.to_owned());
}

/// A URL as it was written with its password blotted out; `None` when no password is written in it. A password that is
/// one reference without a default is none; a default is.
pub(crate) fn without_password(raw: &str) -> Option<String> {
    let parts = match reference::parse(raw) {
        Ok(Some(parts)) => parts,
        _ => vec![Part::Text(raw.to_owned())],
    };
    // References stand as a character that no URL holds.
    let mut plain = String::new();
    for part in &parts {
        match part {
            Part::Text(text) => plain.push_str(text),
            Part::Variable { default: Some(default), .. } if default.contains("://") => {
                return without_password(default).map(|_| "***".into());
            }
            // Where it stands decides whether it is a secret.
            Part::Variable { default: Some(default), .. } if !default.is_empty() => plain.push_str(default),
            Part::Variable { .. } | Part::File(_) => plain.push('\u{1}'),
        }
    }
    let (scheme, rest) = plain.split_once("://")?;
    let written = |value: &str| !value.is_empty() && value.chars().any(|c| c != '\u{1}');
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user = base.rsplit_once('@').map(|(user, _)| user);
    let password = user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| written(password));
    let in_query = query.split('&').filter_map(|pair| pair.split_once('=')).any(|(key, value)| {
        let key = key.to_ascii_lowercase();
        (key == "password" || key == "sslpassword") && written(value)
    });
    // A question mark in a password: its end is beyond it.
    let torn = user.is_none() && query.contains('@') && written(base);
    if !(password || in_query || torn) {
        return None;
    }
    let place = base.rsplit_once('@').map_or(if torn { "***" } else { base }, |(_, place)| place);
    let place: String = place.chars().map(|c| if c == '\u{1}' { '*' } else { c }).collect();
    Some(format!("{scheme}://***@{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_wherever_they_are_written() {
        for (raw, shown) in [
            ("postgres://ana:pw@db/bell", "postgres://***@db/bell"),
            ("postgres://ana:p@w@db/bell?sslmode=require", "postgres://***@db/bell"),
            ("postgres://ana:x${env:PW}@db/bell", "postgres://***@db/bell"),
            ("postgres://ana:${env:PW, 'pw'}@db/bell", "postgres://***@db/bell"),
            ("postgres://db/bell?user=ana&password=pw", "postgres://***@db/bell"),
            ("postgres://ana:p?w@db/bell", "postgres://***@***"),
            ("${env:URL, 'postgres://ana:pw@db/bell'}", "***"),
        ] {
            assert_eq!(without_password(raw).as_deref(), Some(shown), "{raw}");
        }
        for raw in [
            "postgres://db/bell",
            "postgres://ana@db/bell",
            "postgres://ana:@db/bell",
            "postgres://ana:${env:PW}@db/bell",
            "postgres://${env:USER}:${file:pw}@${env:HOST, 'db'}/bell",
            "postgres://db/bell?password=${env:PW}",
            "${env:URL}",
            "${env:URL, 'postgres://db/bell'}",
            "sqlite:.bellwire/ledger.db",
        ] {
            assert_eq!(without_password(raw), None, "{raw}");
        }
    }
}
