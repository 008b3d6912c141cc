//! The server's errors, sorted by what the caller must do.

use tokio_postgres::error::DbError;

use crate::Error;

/// Why a statement did not succeed.
#[must_use]
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The server refused it: nothing was written.
    Server {
        /// The SQLSTATE, such as `BW002` or `23505`.
        code: String,
        message: String,
        /// What a function of the ledger wants to say beyond its code.
        detail: Option<String>,
    },
    /// The connection went before the answer came, or none could be made. Whether a write happened is not known.
    Lost(String),
    /// No answer came in time. Whether a write happened is not known; repeating at once would make it worse.
    Late(String),
}

/// The result of one statement.
pub(super) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// The SQLSTATE of a refusal; empty when the connection was lost.
    pub fn code(&self) -> &str {
        match self {
            Self::Server { code, .. } => code,
            Self::Lost(_) | Self::Late(_) => "",
        }
    }

    /// The detail of a refusal; empty when there is none.
    pub fn detail(&self) -> &str {
        match self {
            Self::Server { detail, .. } => detail.as_deref().unwrap_or_default(),
            Self::Lost(_) | Self::Late(_) => "",
        }
    }

    /// Whether the same statement may succeed on another connection or a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Late(_) => true,
            Self::Server { code, .. } => is_passing(code),
        }
    }

    /// Whether the connection it came over must not be used again.
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Late(_) => true,
            // Told to go, or a standby now, or plans of it that no longer fit.
            Self::Server { code, .. } => {
                code.starts_with("57P") || code.starts_with("08") || code == "25006" || code == "0A000"
            }
        }
    }
}

/// Classes and codes of the server's manual, appendix A, that pass by themselves: connections, lack of resources, locks
/// and deadlocks, cancelled by an operator or a timeout, a server that stops or starts, a standby, a disk that fails.
fn is_passing(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "40" | "53" | "57" | "58")) || matches!(code, "55P03" | "25006")
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self::server(db),
            None if error.is_closed() => Self::Lost("the connection to the database was lost".into()),
            None => Self::Lost(chain(&error)),
        }
    }
}

impl Fault {
    fn server(db: &DbError) -> Self {
        Self::Server {
            code: db.code().code().to_owned(),
            message: db.message().to_owned(),
            detail: db.detail().map(str::to_owned),
        }
    }
}

/// An error with its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let (code, message, detail) = match fault {
            Fault::Lost(text) | Fault::Late(text) => return Self::Unavailable(text),
            Fault::Server { code, message, detail } => (code, message, detail),
        };
        let text = match detail {
            Some(detail) => format!("{message} ({code}): {detail}"),
            None => format!("{message} ({code})"),
        };
        match code.as_str() {
            "53100" => Self::Full(format!("{text}; free space on the database's disk")),
            "BW000" | "42501" => Self::Incompatible(text),
            "BW020" => Self::NotFound(message),
            "XX001" | "XX002" => Self::Failed(text),
            code if is_passing(code) => Self::Unavailable(text),
            code if code.starts_with("28") || code.starts_with("3D") => Self::Unavailable(text),
            _ => Self::Corrupt(text),
        }
    }
}

/// A row that does not have the columns that this program expects.
pub(super) fn misread(error: tokio_postgres::Error) -> Error {
    Error::Corrupt(format!("read a row: {}", chain(&error)))
}
