//! Finds interpreters and programs: beside the code first, then on the controller's PATH.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bellwire_schemas::ErrorInfo;
use tokio::process::Command;
use tokio::time::timeout;

use crate::pool::launch::invalid_entry;

/// How long an interpreter may take to say what it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A language with a bundled bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `python3`.
    Python,
    /// `nodejs`.
    Node,
}

/// Interpreters that were asked for their version; only those that answered.
#[derive(Debug, Default)]
pub struct Interpreters(Mutex<HashMap<PathBuf, Probed>>);

#[derive(Clone, Debug)]
struct Probed {
    file: PathBuf,
    version: String,
}

impl Interpreters {
    /// Finds the interpreter for a code folder.
    ///
    /// # Errors
    /// When there is none, or none of the demanded version; the message names what was found instead.
    pub async fn find(
        &self,
        language: Language,
        version: Option<&str>,
        code: &Path,
        path: &OsStr,
    ) -> Result<PathBuf, ErrorInfo> {
        let mut found = Vec::new();
        for candidate in language.candidates(version, code, path) {
            // A plain binary of any version needs no question; a script (a version manager's shim) hides the
            // real one, which would not find its way in a worker's environment.
            if version.is_none() && is_elf(&candidate) {
                return Ok(candidate);
            }
            match self.probe(language, &candidate).await {
                Some(probed) if version.is_none_or(|wanted| matches(&probed.version, wanted)) => {
                    return Ok(probed.file);
                }
                Some(probed) => found.push(format!("{} is {}", candidate.display(), probed.version)),
                None => {}
            }
        }
        let name = language.name();
        let wanted = version.map(|version| format!(" {version}")).unwrap_or_default();
        let found = if found.is_empty() { "none was found".to_owned() } else { found.join(", ") };
        Err(invalid_entry(format!(
            "{name}{wanted} is needed, but {found}; install it or put it on the PATH of the controller"
        )))
    }

    async fn probe(&self, language: Language, candidate: &Path) -> Option<Probed> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(candidate).cloned();
        if known.as_ref().is_some_and(|probed| probed.file.exists()) {
            return known;
        }
        // Runs in the controller's own environment: a shim may need it.
        let mut command = Command::new(candidate);
        command.args(language.question()).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let output = timeout(PROBE_TIMEOUT, command.output()).await.ok()?.ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        let (version, file) = text.trim_end().split_once('\n')?;
        let probed = Probed { file: PathBuf::from(file), version: version.to_owned() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(candidate.to_owned(), probed.clone());
        Some(probed)
    }
}

impl Language {
    const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// Arguments that make the interpreter print its version and its file, a line each.
    fn question(self) -> [&'static str; 2] {
        match self {
            Self::Python => {
                ["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3]); print(sys.executable)"]
            }
            Self::Node => ["-e", "console.log(process.versions.node + '\\n' + process.execPath)"],
        }
    }

    fn candidates(self, version: Option<&str>, code: &Path, path: &OsStr) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let mut names = Vec::new();
        match self {
            Self::Python => {
                let folders = [Some(code), code.parent()];
                all.extend(folders.into_iter().flatten().map(|dir| dir.join(".venv/bin/python")));
                names.extend(version.map(|version| format!("python{version}")));
                names.extend(["python3".to_owned(), "python".to_owned()]);
            }
            Self::Node => {
                names.extend(version.map(|version| format!("node{version}")));
                names.extend(["node".to_owned(), "nodejs".to_owned()]);
            }
        }
        all.retain(|file| is_executable(file));
        all.extend(names.iter().filter_map(|name| find_on_path(name, path)));
        all
    }
}

/// Finds a program: with a slash below the code folder, else on the path, else in the code folder itself.
pub fn find_program(name: &str, code: &Path, path: &OsStr) -> Option<PathBuf> {
    let local = Some(code.join(name)).filter(|file| is_executable(file));
    if name.contains('/') { local } else { find_on_path(name, path).or(local) }
}

fn find_on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(file).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == *b"\x7fELF"
}

/// Whether a full version begins with the demanded parts: `3.12.1` is `3.12`, not `3.1`.
fn matches(version: &str, wanted: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_by_whole_parts() {
        assert!(matches("3.12.1", "3.12") && matches("22.1.0", "22") && matches("3.12.1", "3.12.1"));
        assert!(!matches("3.12.1", "3.1") && !matches("3.12.1", "3.13") && !matches("2.0", "22"));
    }

    #[tokio::test]
    async fn a_version_that_nobody_has_is_named() {
        let path = std::env::var_os("PATH").unwrap();
        let found = Interpreters::default().find(Language::Python, Some("3.1"), Path::new("/"), &path).await;
        let error = found.unwrap_err();
        assert!(error.message.starts_with("python 3.1 is needed, but "), "{}", error.message);
    }
}
