//! URLs that hold a password: found wherever it is written, refused or blotted out.

use bellwire_schemas::service::Secret;

use crate::Mode;
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::reference::{self, Part};
use crate::source_text::Blot;
use crate::tree::At;

/// How the URL of a RabbitMQ server is written.
const AMQP: &str =
    "write `amqp://user:${env:NAME}@host/vhost` (`amqps` for TLS), or the whole URL as a reference";

/// The `url` of a map that names a RabbitMQ server, and whether it asks for TLS; `None` after an error.
pub(super) fn amqp(at: &At<'_>, cx: &mut Context<'_>) -> Option<(Secret, bool)> {
    secrets(at, AMQP, cx);
    let url = at.key("url").node.text()?;
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let named = !host.is_empty() && !host.starts_with(':') && !url.contains(char::is_whitespace);
    match scheme {
        "amqp" | "amqps" if named => Some((Secret::new(url), scheme == "amqps")),
        _ => {
            refuse(Code::BadValue, "this names no RabbitMQ server".into(), AMQP, at, cx);
            None
        }
    }
}

/// The rules of secrets, for the `url` of a map, of which only a part is one.
pub(super) fn secrets(at: &At<'_>, help: &str, cx: &mut Context<'_>) {
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

/// Refuses the `url` of a map; what is shown of it has no password.
pub(super) fn refuse(code: Code, message: String, help: &str, at: &At<'_>, cx: &mut Context<'_>) {
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
