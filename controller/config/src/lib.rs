//! `bellwire.yaml`: from text to what the other rooms read, or to a list of everything that is wrong with it.
//!
//! One way in ([`load`], [`load_many`]; [`parse`] for a text at hand) and five stages, each in its file: `yaml.rs`
//! reads a tree that knows its lines, `check.rs` walks it along the schema of `shape/`, `defaults.rs` fills it,
//! `lower/` judges what needs more than one key. References are resolved from an [`Env`] that the caller hands
//! in. This room refuses to guess: unknown keys, impossible combinations and keys of later releases are errors,
//! and it opens no connection and starts nothing. Read `shape/file.rs` first.

mod check;
mod context;
mod defaults;
pub mod diagnostic;
mod expand;
mod files;
mod hints;
mod lower;
mod reference;
mod reference_page;
mod schema;
mod shape;
mod source_text;
mod tree;
mod yaml;

use std::path::PathBuf;

use bellwire_schemas::service::{ControllerSpec, Service};

pub use context::{Env, FileText, SystemEnv};
pub use diagnostic::{Diagnostic, Report, Severity, SourceText};
pub use files::{load, load_many, parse};
pub use lower::door_of_flag;
pub use reference_page::reference_page;
pub use schema::json_schema;
pub use yaml::{MAX_BYTES, MAX_DEPTH, MAX_WEIGHT};

/// How strict the file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `dev`, and `check` of what `dev` reads: secrets in the file are a warning, private addresses may be called.
    Dev,
    /// `run` and `apply`: secrets are references without a default.
    Run,
}

/// One or several files, read and judged.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The services, in the order of the files.
    pub services: Vec<Service>,
    /// How this process runs; the defaults where no file says anything.
    pub controller: ControllerSpec,
    /// What was said and stops nothing.
    pub warnings: Vec<Diagnostic>,
    /// The files that were read, those behind `${file:…}` last: what a watcher watches.
    pub files: Vec<PathBuf>,
    sources: Vec<SourceText>,
    expanded: String,
}

impl Loaded {
    /// The warnings as a person reads them.
    pub fn render_warnings(&self, color: bool) -> String {
        diagnostic::render(&self.warnings, &self.sources, color)
    }
}

/// The files with every default written out, `defaults:` merged, references as written and secrets blotted out;
/// several files are several YAML documents.
pub fn expand(loaded: &Loaded) -> String {
    loaded.expanded.clone()
}
