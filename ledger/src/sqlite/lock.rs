//! The lock beside the ledger file: one controller per ledger.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::schema::beside;
use crate::Error;

/// Held as long as the file is open; the system frees it when the process ends, however it ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a ledger, and writes this process's number into it for those who come second.
    ///
    /// # Errors
    /// [`Error::Locked`] while another holds it; [`Error::Unavailable`] when the lock file cannot be made.
    pub fn take(ledger: &Path) -> Result<Self, Error> {
        let path = beside(ledger, ".lock");
        let failed =
            |e: std::io::Error| Error::Unavailable(format!("open lock file `{}`: {e}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = private(&mut options).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(ledger, &mut file)),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Files of the ledger hold payloads: only their owner reads them.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn held(ledger: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let holder = match text.trim() {
        pid if read.is_ok() && !pid.is_empty() => format!("process {pid}"),
        _ => "another process".into(),
    };
    Error::Locked(format!(
        "ledger `{}` is in use by {holder}: stop that controller first, or choose another ledger",
        ledger.display()
    ))
}
