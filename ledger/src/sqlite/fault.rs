//! How SQLite's failures become the ledger's errors.

use rusqlite::ErrorCode;

use crate::Error;

/// Why a piece of work on the file did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The ledger refuses it: its own savepoint is undone, its neighbours go on.
    Refused(Error),
    /// SQLite failed.
    Sql(rusqlite::Error),
}

/// The result of work on the file.
pub(super) type Outcome<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(error) => error,
            Fault::Sql(error) => from_sql(&error),
        }
    }
}

impl Fault {
    /// Whether the file or its disk can no longer be trusted: nothing more may be written until it is opened again.
    ///
    /// After a failed `fsync` the kernel may have dropped the very pages it reports, so a second try that succeeds
    /// proves nothing.
    pub fn is_fatal(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        let full = is_full(error);
        !full
            && matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            )
    }

    /// Whether it concerns the piece of work that met it and no other in the same transaction: a row against the rules
    /// of its table, a value that fits no column or type. SQLite undoes the statement and keeps the transaction
    /// (sqlite.org/lang_conflict.html, ABORT).
    pub fn is_own(&self) -> bool {
        let Self::Sql(error) = self else { return true };
        matches!(
            error.sqlite_error_code(),
            None | Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        )
    }
}

/// The ledger's error for a failure of SQLite.
pub(super) fn from_sql(error: &rusqlite::Error) -> Error {
    let text = error.to_string();
    if is_full(error) {
        return Error::Full(format!("{text}; free space on its disk, or raise ledger.max_size"));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::Incompatible(format!("the file is no ledger: {text}")),
        Some(ErrorCode::DatabaseCorrupt) => Error::Failed(format!("its file is damaged: {text}")),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            Error::Corrupt(text)
        }
        Some(_) => Error::Unavailable(text),
        None => Error::Corrupt(format!("stored data is not as written: {text}")),
    }
}

/// No space for the file, or for the memory map of its write-ahead log, which reports it differently.
fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}
