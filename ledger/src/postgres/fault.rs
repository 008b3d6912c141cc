//! The server's errors, sorted by what the caller must do.

use crate::Error;

/// Sorts an error of the driver.
pub(super) fn from_postgres(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => Error::Corrupt(format!("{} ({})", db.message(), db.code().code())),
        None => Error::Unavailable(error.to_string()),
    }
}

/// The answer of verbs that are being built.
pub(super) fn unfinished() -> Error {
    Error::Failed("not built yet".into())
}
