//! The disk under a ledger in a file: sources are held back before it is full, so that what was accepted can still be
//! worked off. Outcomes, debts and dead letters need room, too, and without it functions would run in vain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::app::Shared;
use crate::cli::times::size;

/// How often the disk is looked at: a fast sender writes some 100 MB between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// What is kept free: 1 GiB, on a small disk one twentieth of it.
const RESERVE: u64 = 1 << 30;
const SMALL: u64 = 20;
/// A hold ends when a sixteenth more than the reserve is free, so that one batch more or less changes nothing.
const CLEAR: u64 = 16;

/// Bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    free: u64,
    all: u64,
}

/// Holds intake back while the ledger's disk is nearly full, until the controller stops. A database looks after its
/// own disk.
pub async fn watch(app: Shared) {
    let Some(file) = app.settings.ledger.url.sqlite_path().map(PathBuf::from) else { return };
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let (mut held, mut blind) = (false, false);
    loop {
        let asked = folder.clone();
        let found = tokio::task::spawn_blocking(move || room(&asked)).await;
        let reason = match found.map_err(std::io::Error::other).and_then(|found| found) {
            Ok(room) => judge(room, held),
            Err(error) => {
                if !blind {
                    tracing::warn!(folder = %folder.display(), %error, "how full the ledger's disk is cannot be told");
                }
                blind = true;
                None
            }
        };
        if held || reason.is_some() {
            held = reason.is_some();
            app.intake.hold(reason);
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Free space for us, not for root alone.
fn room(folder: &Path) -> std::io::Result<Room> {
    let found = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Room { free: bytes(found.f_bavail), all: bytes(found.f_blocks) })
}

/// Why nothing more may come in, if so.
fn judge(room: Room, held: bool) -> Option<String> {
    let reserve = RESERVE.min(room.all / SMALL);
    let wanted = if held { reserve + reserve / CLEAR } else { reserve };
    (room.free < wanted).then(|| {
        format!(
            "{} are free on the ledger's disk, {} are kept for what was accepted: free some space",
            size(room.free),
            size(reserve)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_wait_while_the_reserve_is_touched() {
        let large = |free| Room { free, all: 1 << 40 };
        assert_eq!(judge(large(RESERVE), false), None);
        let said = judge(large(700 << 20), false).unwrap();
        assert!(said.starts_with("700 MB are free on the ledger's disk, 1 GB are kept"), "{said}");
        assert!(judge(large(RESERVE + 1), true).is_some(), "a hold does not end on the edge");
        assert_eq!(judge(large(RESERVE + RESERVE / CLEAR), true), None);
    }

    #[test]
    fn a_small_disk_keeps_a_twentieth() {
        let small = |free| Room { free, all: 100 << 20 };
        assert_eq!(judge(small(5 << 20), false), None);
        assert!(judge(small((5 << 20) - 1), false).is_some());
        assert_eq!(judge(Room { free: 0, all: 0 }, false), None, "a file system that tells no sizes");
    }

    #[test]
    fn the_disk_of_a_folder_can_be_told() {
        let folder = tempfile::tempdir().unwrap();
        let found = room(folder.path()).unwrap();
        assert!(found.free <= found.all && found.all > 0, "{found:?}");
        assert!(room(&folder.path().join("nowhere")).is_err());
    }
}
