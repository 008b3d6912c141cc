//! Text on its way to a terminal: colours when wanted, no control characters from outside, tables.

use std::borrow::Cow;

/// The marks of the live log and of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Less important.
    Dim,
    /// A heading or a name.
    Bold,
    /// Good.
    Green,
    /// Wants attention.
    Yellow,
    /// Wrong.
    Red,
}

/// Whether colours are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    /// The text in a style, as ANSI sequences or plain.
    pub fn style<'a>(self, style: Style, text: &'a str) -> Cow<'a, str> {
        let code = match style {
            Style::Plain => return Cow::Borrowed(text),
            Style::Dim => "2",
            Style::Bold => "1",
            Style::Green => "32",
            Style::Yellow => "33",
            Style::Red => "31",
        };
        if self.0 && !text.is_empty() {
            Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
        } else {
            Cow::Borrowed(text)
        }
    }

    /// The style of a delivery's, source's or binding's state.
    pub fn state(state: &str) -> Style {
        match state {
            "delivered" | "ok" | "done" | "accepted" => Style::Green,
            "dead" | "failing" | "stalled" | "cannot-start" | "refused" | "quarantined" => Style::Red,
            "retrying" | "paused" | "parked" | "expired" | "waiting" | "cancelled" => Style::Yellow,
            "filtered" | "discarded" | "inactive" | "duplicate" => Style::Dim,
            _ => Style::Plain,
        }
    }
}

/// One line of foreign text: control characters and line breaks cannot move the cursor or hide what follows.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(unsafe_for_a_terminal) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push_str("    "),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            c if unsafe_for_a_terminal(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// C0, DEL, C1 controls, and the characters that reorder or hide text.
fn unsafe_for_a_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text cut to a number of characters, with `…` where something is missing.
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.chars().count() <= most {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().take(most.saturating_sub(1)).chain(['…']).collect())
}

/// Columns under upper-case headings; text comes in as it is and is cleaned here.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// A table with these headings; a heading that begins with `>` aligns its column to the right.
    pub fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.iter().map(|h| h.trim_start_matches('>')).collect(),
            right: head.iter().map(|h| h.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of plain cells.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.styled(cells.map(|cell| (cell, Style::Plain)));
    }

    /// Adds a row of cells with their styles.
    pub fn styled<const N: usize>(&mut self, cells: [(String, Style); N]) {
        self.rows.push(cells.into_iter().map(|(text, style)| (clean(&text).into_owned(), style)).collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines; with a terminal's width the last column is cut to fit.
    pub fn lines(&self, paint: Paint, width: Option<usize>) -> Vec<String> {
        let columns = self.head.len();
        let mut widths: Vec<usize> = self.head.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (at, (text, _)) in row.iter().enumerate() {
                widths[at] = widths[at].max(text.chars().count());
            }
        }
        if let Some(width) = width {
            let others: usize = widths[..columns - 1].iter().map(|w| w + 2).sum();
            widths[columns - 1] = widths[columns - 1].min(width.saturating_sub(others).max(20));
        }
        let head = self.head.iter().map(|h| (String::from(*h), Style::Dim)).collect::<Vec<_>>();
        std::iter::once(&head).chain(&self.rows).map(|row| self.line(row, &widths, paint)).collect()
    }

    fn line(&self, row: &[(String, Style)], widths: &[usize], paint: Paint) -> String {
        let mut line = String::new();
        for (at, (text, style)) in row.iter().enumerate() {
            let text = cut(text, widths[at]);
            let gap = " ".repeat(widths[at] - text.chars().count());
            let last = at + 1 == row.len();
            let painted = paint.style(*style, &text);
            match self.right[at] {
                true => line.extend([gap.as_str(), &painted]),
                false if last => line.push_str(&painted),
                false => line.extend([&*painted, gap.as_str()]),
            }
            if !last {
                line.push_str("  ");
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_headings() {
        let mut table = Table::new(&["GROUP", ">COUNT", "ERROR"]);
        table.row(["e41c".into(), "38".into(), "ValidationError: total missing".into()]);
        table.row(["07bd".into(), "2".into(), String::new()]);
        let lines = table.lines(Paint(false), None);
        assert_eq!(
            lines,
            ["GROUP  COUNT  ERROR", "e41c      38  ValidationError: total missing", "07bd       2"]
        );
        let narrow = table.lines(Paint(false), Some(37));
        assert_eq!(narrow[1], "e41c      38  ValidationError: total…");
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(clean("cat.jpg"), "cat.jpg");
        assert_eq!(clean("a\x1b[2Jb\nc\td\u{202e}e"), "a\\u{1b}[2Jb\\nc    d\\u{202e}e");
    }

    #[test]
    fn colours_only_when_wanted() {
        assert_eq!(Paint(true).style(Style::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint(false).style(Style::Red, "x"), "x");
        assert_eq!(cut("äöü", 2), "ä…");
    }
}
