//! `.bellwire/`: the folder beside the configuration where a local controller leaves its address and token.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// `.bellwire/controller.json`: how local commands find the controller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControllerFile {
    /// Base URL of the admin door.
    pub url: String,
    /// Base URL of the ingress door.
    pub ingress: String,
    /// The token that was made at start; absent when tokens are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The process.
    pub pid: u32,
}

/// Makes the state folder, readable by its owner only.
///
/// # Errors
/// When it cannot be made.
pub fn folder(base: &Path) -> anyhow::Result<PathBuf> {
    let folder = base.join(".bellwire");
    fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
    Ok(folder)
}

/// The token of the last run, so that what was configured with it keeps working; only from a private file.
pub fn last_token(folder: &Path) -> Option<String> {
    let path = folder.join("controller.json");
    let private = fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o077 == 0);
    let file: ControllerFile = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    file.token.filter(|token| private && token.len() > 32)
}

/// The file of the folder's controller at this place: a second one on the same folder does not hide the first.
fn name(place: u16) -> String {
    if place == 1 { "controller.json".into() } else { format!("controller-{place}.json") }
}

/// Writes the file, mode 0600, replacing the old one in one step.
///
/// # Errors
/// When the folder is not writable.
pub fn write(folder: &Path, place: u16, file: &ControllerFile) -> anyhow::Result<()> {
    let path = folder.join(name(place));
    let fresh = folder.join(format!("{}.{}", name(place), std::process::id()));
    let _ = fs::remove_file(&fresh);
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .with_context(|| format!("write {}", fresh.display()))?;
    out.write_all(serde_json::to_string_pretty(file)?.as_bytes())?;
    fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))
}

/// Takes the file away at a clean end, if it is still ours; the token stays valid only for the next start through
/// [`last_token`], so the file is kept with pid 0.
pub fn retire(folder: &Path, place: u16) {
    let path = folder.join(name(place));
    let Ok(text) = fs::read_to_string(&path) else { return };
    let Ok(mut file) = serde_json::from_str::<ControllerFile>(&text) else { return };
    if file.pid == std::process::id() {
        file.pid = 0;
        let _ = write(folder, place, &file);
    }
}
