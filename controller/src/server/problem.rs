//! Errors of the HTTP doors: RFC 9457 bodies with a stable code, what happened and what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bellwire_dispatcher::replay;
use bellwire_ledger::Error as LedgerError;
use bellwire_schemas::api::ErrorBody;

/// An error answer on its way out.
#[derive(Debug)]
pub struct Problem(Box<ErrorBody>);

impl Problem {
    /// A problem with its status, stable code and what happened here.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let title = title(code).unwrap_or_else(|| status.canonical_reason().unwrap_or("error"));
        Self(Box::new(ErrorBody {
            kind: format!("/e/{code}"),
            title: title.into(),
            status: status.as_u16(),
            code: code.into(),
            detail: detail.into(),
            hint: None,
            pointer: None,
            request_id: uuid::Uuid::now_v7().simple().to_string(),
        }))
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds which part of the request is meant.
    pub fn pointer(mut self, pointer: impl Into<String>) -> Self {
        self.0.pointer = Some(pointer.into());
        self
    }

    /// What people read.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// 400 for a request that does not say what is wanted.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 404 for a name or address that is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match &error {
            LedgerError::NotFound(what) => Self::not_found(what.clone()),
            LedgerError::Full(_) | LedgerError::Unavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ledger-unavailable", error.to_string())
                    .hint("try again in a moment; `bellwire status` says what is wrong")
            }
            _ => {
                tracing::error!(error = %error, "ledger refused a request of the api");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
            }
        }
    }
}

impl From<replay::Error> for Problem {
    fn from(error: replay::Error) -> Self {
        match error {
            replay::Error::Selector(detail) => Self::bad_request(detail).pointer("/selector"),
            replay::Error::Ledger(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.0)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Every stable code with its title and the text of its page under `/e/`.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "bad-request",
        "the request is not understood",
        "A parameter or the body is missing, misspelt or of the wrong type. `detail` names it.",
    ),
    (
        "unauthorized",
        "a token is needed",
        "Send `Authorization: Bearer <token>`. `dev` and a loopback `run` write theirs to `.bellwire/controller.json`.",
    ),
    (
        "forbidden",
        "this token may not do that",
        "The token is known, its role does not include the call. Roles: publish, read, operate, admin.",
    ),
    (
        "bad-host",
        "the Host header names another machine",
        "The admin door answers only to its own name, so that a web page cannot reach it through DNS rebinding.",
    ),
    (
        "not-found",
        "there is no such thing",
        "The name, id or address is not known here. `detail` says what was looked for.",
    ),
    (
        "ambiguous-id",
        "several events carry this id",
        "Ids are unique within one source only. Ask by address, or add `--source`.",
    ),
    (
        "selector-required",
        "say which ones",
        "A write without a selector is refused. Choose by address, time, binding, error, or say `all`.",
    ),
    ("reason-required", "say why", "Giving deliveries up is logged with a reason: `--reason`."),
    (
        "ledger-unavailable",
        "the ledger cannot be reached or is full",
        "Nothing was written. Try again; `bellwire status` says what is wrong.",
    ),
    ("too-many", "the answer would be too large", "Narrow the selector."),
    (
        "body-too-large",
        "the body is larger than allowed",
        "The limit is `limits.event_size` of the configuration.",
    ),
    (
        "conflict",
        "the state does not allow it",
        "Another change got ahead, or the object is in another state. `detail` says which.",
    ),
    (
        "bad-signature",
        "the signature does not fit",
        "The header is missing, or was not made from this body with this secret. `detail` says which; compare the source's `verify` and `secret` with the sender's.",
    ),
    (
        "bad-cloudevent",
        "this is no CloudEvent",
        "A required attribute is missing or misspelt: `specversion`, `id`, `source`, `type`. `detail` names it.",
    ),
    (
        "bad-attribute",
        "an attribute cannot be kept",
        "It is too long or holds characters that no attribute may hold. `detail` names it.",
    ),
    (
        "event-too-large",
        "the event is larger than allowed",
        "One event is at most `limits.event_size` of the configuration.",
    ),
    ("method-not-allowed", "this door does not take that method", "The `Allow` header lists what it takes."),
    (
        "unsupported-media-type",
        "this kind of body is not taken",
        "Send `application/json` or one of the CloudEvents media types.",
    ),
    (
        "unsupported-encoding",
        "the body is encoded in a way that is not read here",
        "Send it without `Content-Encoding`.",
    ),
    (
        "source-disabled",
        "this source takes nothing in",
        "The configuration says `enabled: false`. Its position is kept.",
    ),
    ("busy", "too much is on its way already", "Nothing was stored. Try again after `Retry-After`."),
    (
        "ledger-full",
        "the ledger or its disk is full",
        "Nothing was stored. Free space or raise `ledger.max_size`; try again after `Retry-After`.",
    ),
    (
        "shutting-down",
        "the controller is stopping",
        "Nothing was stored. Try again: another one will answer.",
    ),
    ("internal", "something broke here", "It is logged with `request_id`. Please report it."),
];

fn title(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _, _)| *known == code).map(|(_, title, _)| *title)
}
