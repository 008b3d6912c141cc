//! What is wrong with a file, and how a person and a machine read it.

use std::fmt::{self, Write as _};

use serde::Serialize;

pub use crate::source_text::SourceText;

/// Column at which `file:line:column` starts behind a title, so that a list of errors lines up.
const PLACE_COLUMN: usize = 76;

/// Longest part of a source line that is shown, in characters.
const SHOWN_LINE: usize = 160;

/// Whether a finding stops the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// Said aloud, and that is all.
    Warning,
}

/// The kind of finding: stable words for scripts, unlike the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The file cannot be read: absent, not UTF-8, too large, empty.
    Unreadable,
    /// Not YAML, or YAML of a kind that is refused (several documents, tags, merge keys, bombs).
    Syntax,
    /// A key written twice in one map.
    DuplicateKey,
    /// A key that does not exist here.
    UnknownKey,
    /// A key or value that the surface has, but this release does not.
    NotSupportedYet,
    /// A value of the wrong type.
    WrongType,
    /// A required key is absent.
    MissingKey,
    /// A value of the right type that makes no sense.
    BadValue,
    /// Two parts of the file contradict each other.
    Conflict,
    /// A `${…}` that cannot be resolved.
    BadReference,
    /// A secret written into the file.
    LiteralSecret,
}

/// One finding, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether it stops the start.
    pub severity: Severity,
    /// Its kind.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// The file as it was named.
    pub file: String,
    /// The line, from 1; 0 when the finding is about the whole file.
    pub line: usize,
    /// The column in characters, from 1; 0 when the finding is about the whole file.
    pub column: usize,
    /// How many characters are meant.
    pub length: usize,
    /// The map or list around it, such as `functions.price.events[0]`; empty at the top.
    #[serde(rename = "in")]
    pub path: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Everything that was found in one or several files, at least one error among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The findings: by file, then by place.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts they point into.
    pub sources: Vec<SourceText>,
}

impl Report {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// The findings as a person reads them, one after the other; the caller adds what follows from them.
    pub fn render(&self, color: bool) -> String {
        render(&self.diagnostics, &self.sources, color)
    }

    /// `2 errors`, `1 error and 3 warnings`: the beginning of the caller's last line.
    pub fn tally(&self) -> String {
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let errors = self.errors();
        let warnings = self.diagnostics.len() - errors;
        match (errors, warnings) {
            (_, 0) => plural(errors, "error"),
            (0, _) => plural(warnings, "warning"),
            _ => format!("{} and {}", plural(errors, "error"), plural(warnings, "warning")),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// Renders findings with the lines they point at.
pub fn render(diagnostics: &[Diagnostic], sources: &[SourceText], color: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let source = sources.iter().find(|s| s.file == diagnostic.file);
        title(&mut out, diagnostic, color);
        if let Some(source) = source {
            excerpt(&mut out, diagnostic, source, color);
        }
        if let Some(help) = &diagnostic.help {
            let _ = writeln!(out, "   {}: {help}", paint("help", "36", color));
        }
    }
    out
}

/// Makes a piece of the user's text fit for a message: no control characters, at most 60 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String =
        text.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

fn title(out: &mut String, d: &Diagnostic, color: bool) {
    let (word, paint_code) = match d.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let place = if d.line == 0 { d.file.clone() } else { format!("{}:{}:{}", d.file, d.line, d.column) };
    let length = word.len() + 2 + d.message.chars().count();
    let gap = PLACE_COLUMN.saturating_sub(length).max(2);
    let _ = writeln!(out, "{}: {}{}{place}", paint(word, paint_code, color), d.message, " ".repeat(gap));
}

fn excerpt(out: &mut String, d: &Diagnostic, source: &SourceText, color: bool) {
    let Some(line) = source.line(d.line) else { return };
    // Long lines are shown from a little before the place that is meant.
    let skip = (d.column + d.length.min(40)).saturating_sub(SHOWN_LINE);
    let cut = |text: &str| -> String {
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        text.chars().skip(skip).take(SHOWN_LINE).map(clean).collect::<String>().trim_end().to_owned()
    };
    if let Some(before) = source.line(d.line - 1).map(cut).filter(|text| !text.is_empty()) {
        let _ = writeln!(out, "{:>5} | {before}", d.line - 1);
    }
    let text = cut(line);
    let _ = writeln!(out, "{:>5} | {text}", d.line);
    let start = (d.column - 1).saturating_sub(skip);
    let room = text.chars().count().saturating_sub(start).max(1);
    let carets = "^".repeat(d.length.clamp(1, room));
    let place = if d.path.is_empty() { String::new() } else { format!(" in {}", d.path) };
    let _ = writeln!(out, "      | {}{}{place}", " ".repeat(start), paint(&carets, "31", color));
}

fn paint(text: &str, code: &str, color: bool) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
