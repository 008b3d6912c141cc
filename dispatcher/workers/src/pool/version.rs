//! A function's version: a hash over its code and its settings, so that the same name never means two things.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bellwire_schemas::service::{Auth, FunctionSpec};
use sha2::{Digest as _, Sha256};

/// Most files whose content is read; of later ones only size and time of change count.
const MAX_FILES: usize = 5_000;
/// Most bytes read; of later files only size and time of change count.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Most entries looked at in all.
const MAX_ENTRIES: usize = 50_000;
/// Deepest folder looked into.
const MAX_DEPTH: usize = 16;
/// Folders that hold what is installed or derived, not the user's code.
const SKIPPED: [&str; 2] = ["node_modules", "__pycache__"];

/// Hashes the files below a folder; hidden ones, installed packages and caches are skipped. Blocking, bounded.
pub fn code_digest(folder: &Path) -> [u8; 32] {
    let mut files = Vec::new();
    collect(folder, 0, &mut files);
    files.sort();
    let (mut digest, mut read, mut buffer) = (Sha256::new(), 0_u64, vec![0_u8; 64 * 1024]);
    for (count, path) in files.iter().enumerate() {
        let Ok(meta) = fs::symlink_metadata(path) else { continue };
        field(&mut digest, path.strip_prefix(folder).unwrap_or(path).as_os_str().as_encoded_bytes());
        field(&mut digest, &meta.mode().to_le_bytes());
        let link = meta.is_symlink().then(|| fs::read_link(path).unwrap_or_default());
        let within = count < MAX_FILES && read + meta.len() <= MAX_BYTES;
        if let Some(to) = link {
            field(&mut digest, to.as_os_str().as_encoded_bytes());
        } else if !within || hash_file(path, meta.len(), &mut digest, &mut buffer).is_err() {
            field(&mut digest, &meta.len().to_le_bytes());
            field(&mut digest, &meta.mtime().to_le_bytes());
            field(&mut digest, &meta.mtime_nsec().to_le_bytes());
        } else {
            read += meta.len();
        }
    }
    digest.finalize().into()
}

/// The version: eight hex digits over code and everything that shapes a process or a request. `concurrency` and
/// `warm` are left out, because they change without a new version.
pub fn of(spec: &FunctionSpec, code: &[u8; 32]) -> String {
    let mut digest = Sha256::new();
    field(&mut digest, code);
    field(&mut digest, format!("{:?}", spec.target).as_bytes());
    field(&mut digest, spec.code.as_os_str().as_encoded_bytes());
    field(&mut digest, format!("{:?} {:?} {:?}", spec.timeout, spec.memory, spec.format).as_bytes());
    for (name, value) in spec.environment.iter().chain(&spec.request.headers) {
        field(&mut digest, name.as_bytes());
        field(&mut digest, value.expose().as_bytes());
    }
    let secret = spec.request.signing_secret.as_ref().map_or("", |secret| secret.expose());
    field(&mut digest, secret.as_bytes());
    let auth = match &spec.request.auth {
        None => ("none", ""),
        Some(Auth::Bearer(secret)) => ("bearer", secret.expose()),
        Some(Auth::Basic(secret)) => ("basic", secret.expose()),
    };
    field(&mut digest, auth.0.as_bytes());
    field(&mut digest, auth.1.as_bytes());
    field(&mut digest, &[u8::from(spec.request.allow_private)]);
    hex::encode(&digest.finalize()[..4])
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if files.len() >= MAX_ENTRIES || name.starts_with('.') || SKIPPED.contains(&&*name) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => collect(&entry.path(), depth + 1, files),
            Ok(kind) if kind.is_file() || kind.is_symlink() => files.push(entry.path()),
            _ => {}
        }
    }
}

fn hash_file(path: &Path, length: u64, digest: &mut Sha256, buffer: &mut [u8]) -> io::Result<()> {
    let mut file = File::open(path)?.take(length);
    digest.update(length.to_le_bytes());
    loop {
        match file.read(buffer)? {
            0 => return Ok(()),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Adds one field with its length before it, so that no two lists of fields look alike.
fn field(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_counts_and_derived_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            code_digest(dir.path())
        };
        let first = write("app.py", "1");
        for derived in [".git/x", ".venv/x", "node_modules/x", "a/__pycache__/x"] {
            assert_eq!(write(derived, "x"), first, "{derived}");
        }
        let second = write("a/b.py", "1");
        assert_ne!(first, second);
        assert_ne!(write("a/b.py", "2"), second);
        assert_eq!(write("a/b.py", "1"), second);
    }
}
