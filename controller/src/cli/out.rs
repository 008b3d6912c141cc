//! Where a command's words go: the answer to stdout, everything else to stderr, JSON untouched.

use std::io::{self, IsTerminal, Write};

use bellwire_schemas::{Clock, Timestamp};
use clap::ValueEnum;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::exit::Failure;
use super::text::{Paint, Style, Table};
use super::times::Times;

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How times are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TimeFormat {
    /// Clock times of this machine's zone, and distances.
    #[default]
    Relative,
    /// RFC 3339, UTC.
    Iso,
}

/// What a command writes with.
#[derive(Clone, Debug)]
pub struct Out {
    /// The API's body instead of tables.
    pub json: bool,
    /// No remarks, only the answer.
    pub quiet: bool,
    /// Colours of stdout.
    pub paint: Paint,
    /// The time.
    pub clock: Clock,
    zone: TimeZone,
    iso: bool,
    width: Option<usize>,
}

impl Out {
    /// An output as the global flags ask for.
    pub fn new(json: bool, quiet: bool, color: Color, time: TimeFormat) -> Self {
        let terminal = io::stdout().is_terminal();
        let paint = Paint(match color {
            Color::Auto => terminal && !no_color(),
            Color::Always => true,
            Color::Never => false,
        });
        let width = terminal.then(terminal_width).flatten();
        let iso = time == TimeFormat::Iso;
        Self { json, quiet, paint, clock: Clock::system(), zone: TimeZone::system(), iso, width }
    }

    /// Colours of stderr, for errors.
    pub fn paint_errors(&self, color: Color) -> Paint {
        match color {
            Color::Auto => Paint(io::stderr().is_terminal() && !no_color()),
            Color::Always => Paint(true),
            Color::Never => Paint(false),
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How times are shown now.
    pub fn times(&self) -> Times {
        Times { now: self.now(), zone: self.zone.clone(), iso: self.iso }
    }

    /// Writes a line of the answer.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn line(&self, line: impl AsRef<str>) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(line.as_ref().as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(())
    }

    /// Writes a body of the API as it came.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn body(&self, body: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(body.trim_ascii_end())?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
        Ok(())
    }

    /// Writes an answer that no API gave, as JSON.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn value(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.body(&serde_json::to_vec(value)?)
    }

    /// Writes a table, or the words for an empty one.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn table(&self, table: &Table, empty: &str) -> Result<(), Failure> {
        if table.is_empty() {
            self.note(empty);
            return Ok(());
        }
        table.lines(self.paint, self.width).iter().try_for_each(|line| self.line(line))
    }

    /// Text in a style.
    pub fn style(&self, style: Style, text: &str) -> String {
        self.paint.style(style, text).into_owned()
    }

    /// A remark on stderr; `--quiet` and `--json` leave it out.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Whether a question can be asked and answered.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a yes-or-no question on the terminal; anything but `y` or `yes` is no.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub fn ask(&self, question: &str) -> Result<bool, Failure> {
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let _ = io::stderr().flush();
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_some_and(|t| t == "dumb")
}

/// The width of the terminal behind stdout, in columns.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns >= 40)
}
