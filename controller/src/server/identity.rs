//! Which controller this is: the same one after a crash and restart on its state folder, so that its lanes are its own
//! again at once and nobody waits for a lease to end.
//!
//! Each controller that runs on a folder locks an identity file of its own for as long as it lives; the lock goes with
//! the process, however that ends. An identity counts on the host that wrote it only: a folder that was copied to another
//! host must not make two controllers into one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use bellwire_schemas::ControllerId;
use uuid::Uuid;

/// Controllers that may run on one folder at the same time.
const MOST: u16 = 64;
/// Longer files are none of ours.
const MAX_BYTES: u64 = 1_024;

/// The identity of this process.
#[derive(Debug)]
pub struct Identity {
    /// The id.
    pub id: ControllerId,
    /// Which of the folder's controllers it is, from 1.
    pub place: u16,
    /// For people: host and process.
    pub name: String,
    /// Held for the lock on it.
    _file: File,
}

/// Takes the first identity of the folder that no living process holds.
///
/// # Errors
/// When the folder cannot be written, or too many controllers run on it.
pub fn claim(folder: &Path) -> anyhow::Result<Identity> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for place in 1..=MOST {
        let path = folder.join(format!("identity-{place}"));
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        let id = match recall(&mut file, &host) {
            Some(id) => id,
            None => write(&mut file, &host).with_context(|| format!("write {}", path.display()))?,
        };
        let name = format!("{host}:{}", std::process::id());
        return Ok(Identity { id, place, name, _file: file });
    }
    bail!("{MOST} controllers run on {} already: give each a folder of its own", folder.display())
}

fn recall(file: &mut File, host: &str) -> Option<ControllerId> {
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let (id, of) = text.trim_end().split_once(' ')?;
    (of == host).then(|| id.parse::<Uuid>().ok().map(ControllerId)).flatten()
}

fn write(file: &mut File, host: &str) -> std::io::Result<ControllerId> {
    let id = Uuid::now_v7();
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{id} {host}")?;
    file.sync_all()?;
    Ok(ControllerId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_the_same_controller_and_a_second_one_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(folder.path()).unwrap();
        let second = claim(folder.path()).unwrap();
        assert_eq!((first.place, second.place), (1, 2));
        assert_ne!(first.id, second.id);
        let (one, two) = (first.id, second.id);
        drop(first);
        let again = claim(folder.path()).unwrap();
        assert_eq!((again.id, again.place), (one, 1));
        drop((again, second));
        assert_eq!(claim(folder.path()).unwrap().id, one);
        let _held = claim(folder.path()).unwrap();
        assert_eq!(claim(folder.path()).unwrap().id, two);
    }

    #[test]
    fn an_identity_of_another_host_or_a_damaged_one_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let id = claim(folder.path()).unwrap().id;
        let path = folder.path().join("identity-1");
        for text in [format!("{} elsewhere\n", id.0), "x".repeat(5_000), String::new(), "no id\n".into()] {
            std::fs::write(&path, text).unwrap();
            let fresh = claim(folder.path()).unwrap().id;
            assert_ne!(fresh, id);
            assert_eq!(claim(folder.path()).unwrap().id, fresh, "written down");
        }
    }
}
