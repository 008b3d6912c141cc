//! The broker's refusals in words that say what to do.

use lapin::{Error, ErrorKind};

use super::config::Broker;

/// Reply codes of AMQP 0-9-1 (section 1.2, "Constants").
mod code {
    pub(super) const CONTENT_TOO_LARGE: u16 = 311;
    pub(super) const CONNECTION_FORCED: u16 = 320;
    pub(super) const ACCESS_REFUSED: u16 = 403;
    pub(super) const NOT_FOUND: u16 = 404;
    pub(super) const RESOURCE_LOCKED: u16 = 405;
    pub(super) const PRECONDITION_FAILED: u16 = 406;
    pub(super) const NOT_ALLOWED: u16 = 530;
}

/// What was being done when the broker refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing<'a> {
    /// Logging in.
    Connecting,
    /// Declaring a queue.
    Declaring(&'a str),
    /// Binding a queue to an exchange.
    Binding(&'a str, &'a str),
    /// Reading a queue.
    Reading(&'a str),
    /// Publishing to an exchange.
    Publishing(&'a str),
}

/// The reply code, when the broker gave one.
pub(super) fn reply_code(error: &Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Whether the broker will refuse the same message again.
pub(super) fn is_final(error: &Error) -> bool {
    let finals = [code::CONTENT_TOO_LARGE, code::ACCESS_REFUSED, code::NOT_FOUND, code::PRECONDITION_FAILED];
    reply_code(error).is_some_and(|code| finals.contains(&code))
}

/// One line: where, what went wrong, and what to do about it.
pub(super) fn explain(broker: &Broker, doing: Doing<'_>, error: &Error) -> String {
    let place = broker.place();
    let said = match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::MissingHeartbeatError => "the broker gave no sign of life".to_owned(),
        ErrorKind::IOError(error) => format!("the connection broke: {error}"),
        _ => error.to_string(),
    };
    let Some(reply) = reply_code(error) else { return format!("rabbitmq at {place}: {said}") };
    let vhost = broker.vhost();
    let why = match (doing, reply) {
        (Doing::Connecting, code::ACCESS_REFUSED) => {
            format!("the broker refuses the login of user `{}`: check user and password", broker.user())
        }
        (Doing::Connecting, code::NOT_ALLOWED) => format!(
            "virtual host `{vhost}` does not exist, or user `{}` may not use it; `/` is written as %2f",
            broker.user()
        ),
        (Doing::Reading(queue), code::NOT_FOUND) => format!(
            "queue `{queue}` does not exist in virtual host `{vhost}`: create it, or let the source do so with \
             `declare: {{}}`"
        ),
        (Doing::Declaring(queue), code::PRECONDITION_FAILED) => format!(
            "queue `{queue}` exists with other arguments than `declare` says: leave `declare` out to read it as it \
             is, or set `declare.type`"
        ),
        (Doing::Binding(_, exchange), code::NOT_FOUND) => {
            format!("exchange `{exchange}` does not exist in virtual host `{vhost}`: create it first")
        }
        (Doing::Publishing(exchange), code::NOT_FOUND) => {
            format!(
                "exchange `{exchange}` does not exist in virtual host `{vhost}`: create it, or correct `exchange`"
            )
        }
        (Doing::Declaring(queue) | Doing::Reading(queue), code::RESOURCE_LOCKED) => {
            format!("queue `{queue}` belongs to another connection alone (exclusive)")
        }
        (Doing::Declaring(_) | Doing::Binding(..) | Doing::Reading(_), code::ACCESS_REFUSED) => format!(
            "user `{}` lacks a permission, or another consumer reads the queue exclusively",
            broker.user()
        ),
        (Doing::Publishing(_), code::ACCESS_REFUSED) => {
            format!("user `{}` may not publish there", broker.user())
        }
        (Doing::Reading(_), code::PRECONDITION_FAILED) if said.contains("timed out") => {
            "messages waited for the ledger longer than the broker's consumer_timeout allows".to_owned()
        }
        (_, code::CONNECTION_FORCED) => "the broker or its operator closed the connection".to_owned(),
        _ => return format!("rabbitmq at {place}: {said}"),
    };
    format!("rabbitmq at {place}: {why} ({said})")
}
