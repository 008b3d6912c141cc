//! What every stage of reading one file shares: where it lies, the world around it, what was found.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::Mode;
use crate::diagnostic::{Code, Diagnostic, Severity, SourceText, shown};
use crate::tree::Pos;

/// The world around a file: variables, files, folders. Injected, so that tests need neither.
pub trait Env {
    /// An environment variable.
    fn var(&self, name: &str) -> Option<String>;

    /// The content of a file, of which at most one byte more than [`crate::MAX_BYTES`] need be read.
    ///
    /// # Errors
    /// As the file system says.
    fn read_file(&self, path: &Path) -> io::Result<FileText>;

    /// Whether a regular file lies there.
    fn is_file(&self, path: &Path) -> bool;

    /// Whether a folder lies there.
    fn is_folder(&self, path: &Path) -> bool;
}

/// What [`Env::read_file`] found.
#[derive(Clone, Debug, Default)]
pub struct FileText {
    /// The content.
    pub bytes: Vec<u8>,
    /// Whether users beside owner and group may read it.
    pub others_can_read: bool,
}

/// The real environment and file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read_file(&self, path: &Path) -> io::Result<FileText> {
        let file = std::fs::File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        let mut bytes = Vec::new();
        file.take(crate::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(FileText { bytes, others_can_read: others_can_read(&meta) })
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

#[cfg(unix)]
fn others_can_read(meta: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o004 != 0
}

#[cfg(not(unix))]
fn others_can_read(_: &std::fs::Metadata) -> bool {
    false
}

pub(crate) struct Context<'a> {
    pub file: String,
    /// The folder that relative paths start from.
    pub base: PathBuf,
    pub mode: Mode,
    pub env: &'a dyn Env,
    pub text: SourceText,
    pub found: Vec<Diagnostic>,
    /// Files that references named, for the watcher.
    pub read: BTreeSet<PathBuf>,
    /// Paths of the values that the structural check took out: nothing more is said about their absence.
    pub dropped: BTreeSet<String>,
    /// What references stood for: never shown in a message.
    pub hidden: BTreeSet<String>,
    /// Findings beyond [`MAX_FINDINGS`] end here, counted.
    pub spilled: (usize, Option<Diagnostic>),
}

/// More findings than anybody reads; bounds the work on a hostile file.
const MAX_FINDINGS: usize = 100;

/// Shorter values from references are no secrets, and blotting them out would spoil messages.
const SHORTEST_HIDDEN: usize = 6;

impl Context<'_> {
    /// Adds an error; the answer is there to add help to.
    pub fn error(&mut self, code: Code, at: Pos, path: &str, message: String) -> &mut Diagnostic {
        self.add(Severity::Error, code, at, path, message)
    }

    /// Adds a warning.
    pub fn warn(&mut self, code: Code, at: Pos, path: &str, message: String) -> &mut Diagnostic {
        self.add(Severity::Warning, code, at, path, message)
    }

    pub fn failed(&self) -> bool {
        self.found.iter().any(|d| d.severity == Severity::Error)
    }

    /// Remembers what a reference stood for.
    pub fn hide(&mut self, value: &str) {
        if value.len() >= SHORTEST_HIDDEN {
            self.hidden.insert(value.to_owned());
        }
    }

    /// Whether something at or below this path was taken out.
    pub fn dropped(&self, path: &str) -> bool {
        self.dropped
            .iter()
            .any(|d| d.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
    }

    /// An absolute path from one in the file.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path.strip_prefix("./").unwrap_or(path))
    }

    fn add(
        &mut self,
        severity: Severity,
        code: Code,
        at: Pos,
        path: &str,
        message: String,
    ) -> &mut Diagnostic {
        let full = self.found.len() >= MAX_FINDINGS;
        let hidden = if full { None } else { Some(self.hidden.iter()) };
        let message = hidden.into_iter().flatten().fold(message, |text, h| text.replace(h.as_str(), "***"));
        // A value behind an alias or in `defaults` is met several times and reported once.
        let same = |d: &Diagnostic| (d.line, d.column, &d.message) == (at.line, at.column, &message);
        if let Some(index) = self.found.iter().position(same) {
            return &mut self.found[index];
        }
        let finding = Diagnostic {
            severity,
            code,
            message,
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            length: if full { 0 } else { self.text.trimmed(at).length },
            path: if path.len() > 120 { shown(path) } else { path.to_owned() },
            help: None,
        };
        if full {
            self.spilled.0 += 1;
            return self.spilled.1.insert(finding);
        }
        let index = self.found.len();
        self.found.push(finding);
        &mut self.found[index]
    }
}
