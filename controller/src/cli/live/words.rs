//! The words of one line of the live log.

use std::time::Duration;

use bellwire_schemas::live::Fact;
use bellwire_schemas::{ErrorInfo, FinalState};

use crate::cli::text::{clean, cut};
use crate::cli::times::{duration, millis};

/// Characters of one line of foreign text.
const MAX_LINE_CHARS: usize = 400;

/// What happened in an attempt: time taken, error, what is next.
pub fn attempt_words(fact: &Fact) -> String {
    let Fact::Attempt { at, attempt, attempts, duration_ms, init_ms, state, error, next_at, .. } = fact
    else {
        return String::new();
    };
    let headline = error.as_ref().map(|e| line(&e.headline())).unwrap_or_default();
    let took = format!("{:>10}", millis(*duration_ms));
    match state {
        Some(FinalState::Dead) => {
            let tries = if *attempt == 1 { "1 try".into() } else { format!("{attempt} tries") };
            format!("dead letter after {tries}: {headline}")
        }
        Some(FinalState::Delivered) => {
            let again = if *attempt > 1 { format!("  try {attempt}") } else { String::new() };
            let init = init_ms.map(|ms| format!("  (start {})", millis(ms))).unwrap_or_default();
            format!("{took}{again}{init}")
        }
        Some(state) => format!("{took}  {}: {headline}", state.as_str()),
        None => {
            let of = attempts.map(|n| format!(" of {n}")).unwrap_or_default();
            let burns = error.as_ref().is_none_or(|e| e.class.burns_attempt());
            let tries = if burns { format!("try {attempt}{of}") } else { "does not count".into() };
            let next = next_at.map_or(Duration::ZERO, |next| next.since(*at));
            let again =
                if next_at.is_some() { format!(", again in {}", duration(next)) } else { String::new() };
            format!("{took}  {headline:<27}  {tries}{again}")
        }
    }
}

/// The first line of foreign text, cleaned and cut.
pub fn line(text: &str) -> String {
    clean(&cut(text.lines().next().unwrap_or(""), MAX_LINE_CHARS)).into_owned()
}

/// What the function itself printed: the report of the error, which runtimes print last (`[ERROR] ValueError: …` with
/// the stack), says nothing that the error does not say.
pub fn own_output<'a>(logs: &'a [String], error: Option<&ErrorInfo>) -> Vec<&'a str> {
    let mut lines: Vec<&str> = logs.iter().flat_map(|l| l.lines()).filter(|l| !l.trim().is_empty()).collect();
    let report = error.map(|e| format!("[ERROR] {}", e.kind));
    if let Some(start) = report.and_then(|report| lines.iter().rposition(|l| l.starts_with(&report))) {
        lines.truncate(start);
    }
    lines
}

/// Where in the user's code an error came from: `thumbnail.py:14 in handler`.
pub fn place(error: &ErrorInfo) -> Option<String> {
    let python = |text: &str| {
        let (file, rest) = text.trim().strip_prefix("File \"")?.split_once("\", line ")?;
        let (number, function) = rest.split_once(", in ").unwrap_or((rest, "?"));
        let function = function.lines().next().unwrap_or("?");
        Some(format!("{}:{number} in {function}", file_name(file)))
    };
    let node = |text: &str| {
        let frame = text.trim().strip_prefix("at ")?;
        let (function, spot) = frame.trim_end_matches(')').split_once(" (").unwrap_or(("?", frame));
        let mut parts = spot.rsplitn(3, ':');
        let (_, number, file) = (parts.next()?, parts.next()?, parts.next()?);
        Some(format!("{}:{number} in {function}", file_name(file)))
    };
    let found =
        error.stack.iter().rev().find_map(|l| python(l)).or_else(|| error.stack.iter().find_map(|l| node(l)));
    found.map(|place| line(&place))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
