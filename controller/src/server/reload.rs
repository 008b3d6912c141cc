//! Follows the files of `dev`: a saved change runs in under a second, a bad one keeps the last good configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bellwire_config::{Loaded, Mode, SystemEnv};
use bellwire_schemas::live::Fact;

use super::app::Shared;
use super::assemble::declare;
use super::options::ServeOptions;

/// Files looked at below one code folder; a larger tree is followed by its first so many.
const MAX_FILES: usize = 4_096;
/// Folders that hold no code of the user's.
const SKIPPED: [&str; 4] = ["node_modules", "__pycache__", ".venv", "target"];

type Stamps = BTreeMap<PathBuf, (SystemTime, u64)>;

/// What was seen last.
pub struct Reloader {
    options: ServeOptions,
    folders: Vec<PathBuf>,
    config: Stamps,
    code: Stamps,
}

impl Reloader {
    /// Starts from the files as they are now.
    pub fn new(options: &ServeOptions, loaded: &Loaded) -> Self {
        let mut reloader = Self {
            options: options.clone(),
            folders: folders(loaded),
            config: Stamps::new(),
            code: Stamps::new(),
        };
        reloader.config = stamps(&reloader.options.files);
        reloader.code = tree_stamps(&reloader.folders);
        reloader
    }

    /// Whether this is `dev`, which follows its files.
    pub fn is_dev(&self) -> bool {
        self.options.mode == Mode::Dev
    }

    /// Looks for changes; what was done about them is the answer. `run` follows nothing.
    pub async fn poll(&mut self, app: &Shared) -> Option<Fact> {
        if !self.is_dev() {
            return None;
        }
        let (config, code) = (stamps(&self.options.files), tree_stamps(&self.folders));
        let config_changed = config != self.config;
        if !config_changed && code == self.code {
            return None;
        }
        (self.config, self.code) = (config, code);
        let fact = |subject: &str, state: &str, detail: String| Fact::Condition {
            at: app.clock.now(),
            subject: subject.into(),
            state: state.into(),
            detail,
        };
        let loaded = match bellwire_config::load_many(&self.options.files, self.options.mode, &SystemEnv) {
            Ok(loaded) => loaded,
            Err(report) => {
                let text = report.render(self.options.color);
                return Some(fact("bellwire.yaml", "reload-failed", text));
            }
        };
        self.folders = folders(&loaded);
        let before = versions(app);
        if let Err(error) = declare(app, &loaded.services).await {
            return Some(fact("bellwire.yaml", "reload-failed", format!("{error:#}")));
        }
        let changed: Vec<String> = versions(app)
            .into_iter()
            .filter(|(name, version)| before.get(name) != Some(version))
            .map(|(name, version)| format!("{name}, version {version}"))
            .collect();
        match (changed.is_empty(), config_changed) {
            (true, false) => None,
            (true, true) => Some(fact("bellwire.yaml", "reloaded", "configuration".into())),
            (false, _) => Some(fact("functions", "reloaded", changed.join("; "))),
        }
    }
}

fn versions(app: &Shared) -> BTreeMap<String, String> {
    app.workers.status().into_iter().map(|f| (f.name.to_string(), f.version)).collect()
}

fn folders(loaded: &Loaded) -> Vec<PathBuf> {
    let mut folders: Vec<_> =
        loaded.services.iter().flat_map(|s| s.functions.iter().map(|f| f.code.clone())).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn stamps(files: &[PathBuf]) -> Stamps {
    files.iter().filter_map(|file| Some((file.clone(), stamp(file)?))).collect()
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Code files only: what a function writes beside its code (`out/`, databases) must not reload it.
fn tree_stamps(folders: &[PathBuf]) -> Stamps {
    let mut stamps = Stamps::new();
    let mut open: Vec<PathBuf> = folders.to_vec();
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') || SKIPPED.contains(&name.as_ref()) || stamps.len() >= MAX_FILES {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(_) if is_code(&path) => {
                    if let Some(stamp) = stamp(&path) {
                        stamps.insert(path, stamp);
                    }
                }
                _ => {}
            }
        }
    }
    stamps
}

fn is_code(path: &Path) -> bool {
    let code = ["py", "js", "mjs", "cjs", "ts", "sh", "rb"];
    path.extension().is_none_or(|end| code.iter().any(|known| end == *known))
}
