//! The controller part: doors, limits, tokens; the ledger in `ledger.rs`.

use bellwire_schemas::service::{ControllerSpec, Role, Secret, TokenSpec};

use crate::context::Context;
use crate::diagnostic::Code;
use crate::shape::{File, Level, Logs, RoleWord};
use crate::tree::At;

use super::ledger;

/// Lowers the controller part.
pub(super) fn lower(file: &File, top: &At<'_>, cx: &mut Context<'_>) -> ControllerSpec {
    let ledger = ledger::lower(&file.ledger, &top.key("ledger"), cx);
    doors(file, top, cx);
    if file.limits.event_size > file.limits.memory {
        let at = top.key("limits").key("event_size");
        let message = "`event_size` is larger than the `memory` that holds events".to_owned();
        cx.error(Code::Conflict, at.node.at, &at.within, message);
    }
    if file.limits.event_size.0 == 0 {
        let at = top.key("limits").key("event_size");
        cx.error(Code::BadValue, at.node.at, &at.within, "`event_size` is more than 0".into());
    }
    let tokens = file.security.tokens.iter().map(|(name, token)| TokenSpec {
        name: name.0.clone(),
        role: match token.role {
            RoleWord::Read => Role::Read,
            RoleWord::Operate => Role::Operate,
            RoleWord::Admin => Role::Admin,
            RoleWord::Publish => Role::Publish,
        },
        secret: Secret::new(&*token.secret.0),
    });
    ControllerSpec {
        ledger,
        ingress: file.listen.ingress.0.clone(),
        admin: file.listen.admin.0.clone(),
        plain_http: file.listen.tls.is_some(),
        event_size: file.limits.event_size,
        memory: file.limits.memory,
        tokens: tokens.collect(),
        allow_private_urls: file.security.allow_private_urls.iter().map(|u| u.0.clone()).collect(),
        logs_json: file.telemetry.logs == Logs::Json,
        log_level: Level::word(file.telemetry.level).to_owned(),
    }
}

/// Whether an address can only be reached from this machine.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The address of a door as a flag gives it: `:0` is a port of loopback. The rules of the file hold here too.
///
/// # Errors
/// When there is no port, or when the door would be open to the network without tokens or without a word on TLS.
pub fn door_of_flag(text: &str, settings: &ControllerSpec) -> Result<String, String> {
    let address = if text.starts_with(':') { format!("127.0.0.1{text}") } else { text.to_owned() };
    if address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
        return Err(format!("`{text}` is no address: write host and port, such as 127.0.0.1:7070, or `:0`"));
    }
    if is_loopback(&address) {
        return Ok(address);
    }
    if settings.tokens.is_empty() {
        return Err(format!(
            "`{text}` is open to the network, and there are no tokens: write them under `security.tokens`"
        ));
    }
    if !settings.plain_http {
        return Err(format!(
            "`{text}` is open to the network, and nothing is said about TLS: put a proxy that encrypts before it, \
             and say so with `listen: {{ tls: off }}`"
        ));
    }
    Ok(address)
}

fn doors(file: &File, top: &At<'_>, cx: &mut Context<'_>) {
    let listen = top.key("listen");
    let doors = [("ingress", &file.listen.ingress.0), ("admin", &file.listen.admin.0)];
    for (key, address) in doors {
        let at = listen.key(key);
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            cx.error(
                Code::BadValue,
                at.node.at,
                &at.within,
                format!("`{address}` has no port from 0 to 65535"),
            );
            continue;
        }
        if is_loopback(address) {
            continue;
        }
        if file.security.tokens.is_empty() && !cx.dropped("security") {
            let message = format!("`{address}` is open to the network, and there are no tokens");
            cx.error(Code::Conflict, at.node.at, &at.within, message).help =
                Some("write `security: { tokens: { <name>: { role: admin, secret: ${env:NAME} } } }`".into());
        }
        if file.listen.tls.is_none() && !cx.dropped("listen.tls") {
            let message = format!("`{address}` is open to the network, and nothing is said about TLS");
            cx.error(Code::Conflict, at.node.at, &at.within, message).help =
                Some("put a proxy that encrypts before it, and say so with `listen: { tls: off }`".into());
        }
    }
    if file.listen.ingress == file.listen.admin && !file.listen.admin.0.ends_with(":0") {
        let at = listen.key("admin");
        cx.error(Code::Conflict, at.node.at, &at.within, "the two doors need two addresses".into());
    }
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::service::{ControllerSpec, Role, Secret, TokenSpec};

    use super::{door_of_flag, is_loopback};

    #[test]
    fn loopback_is_what_only_this_machine_reaches() {
        for yes in ["127.0.0.1:7070", "127.9.9.9:1", "localhost:0", "[::1]:7070"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["0.0.0.0:7070", "[::]:7070", "example.com:1", "localhost.evil.com:1"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn a_flag_opens_no_door_that_the_file_may_not() {
        let mut settings = settings();
        let door = |text: &str, settings: &ControllerSpec| door_of_flag(text, settings).ok();
        assert_eq!(door(":0", &settings).as_deref(), Some("127.0.0.1:0"));
        assert_eq!(door("localhost:7070", &settings).as_deref(), Some("localhost:7070"));
        for bad in ["7070", "nonsense", "127.0.0.1:70000", "0.0.0.0:7070"] {
            assert_eq!(door(bad, &settings), None, "{bad}");
        }
        let token = TokenSpec { name: "ops".into(), role: Role::Admin, secret: Secret::new("s") };
        settings.tokens.push(token);
        assert_eq!(door("0.0.0.0:7070", &settings), None, "nothing is said about TLS");
        settings.plain_http = true;
        assert_eq!(door("0.0.0.0:7070", &settings).as_deref(), Some("0.0.0.0:7070"));
    }

    fn settings() -> ControllerSpec {
        let parsed = crate::parse(
            "service: a\n",
            "a.yaml",
            std::path::Path::new("/"),
            crate::Mode::Run,
            &crate::SystemEnv,
        );
        parsed.expect("a service of a name alone").controller
    }
}
