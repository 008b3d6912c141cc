//! The lines of a file, for showing, with literal secrets blotted out.

use std::collections::BTreeMap;

use crate::tree::Pos;

/// The lines of a file, for showing; literal secrets are blotted out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The file as it was named.
    pub file: String,
    lines: Vec<String>,
    blots: BTreeMap<usize, Vec<(Pos, Blot)>>,
}

/// Which part of a value nobody may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blot {
    /// All of it.
    Whole,
    /// The default of a reference.
    Default,
    /// User and password of a URL.
    Password,
}

impl SourceText {
    /// Splits a text into lines.
    pub fn new(file: &str, text: &str) -> Self {
        let lines = text.lines().map(str::to_owned).collect();
        Self { file: file.into(), lines, blots: BTreeMap::new() }
    }

    /// A line, from 1.
    pub(crate) fn line(&self, line: usize) -> Option<&str> {
        self.lines.get(line.checked_sub(1)?).map(String::as_str)
    }

    /// Notes that a value is to be blotted out; [`SourceText::finish`] does it.
    pub(crate) fn blot(&mut self, at: Pos, blot: Blot) {
        for line in 0..at.lines.max(1) {
            let place = if line == 0 { at } else { Pos::new(at.line + line, 1, usize::MAX) };
            self.blots.entry(place.line).or_default().push((place, blot));
        }
    }

    /// Writes `*` over everything that was noted, each line once.
    pub(crate) fn finish(&mut self) {
        for (line, blots) in std::mem::take(&mut self.blots) {
            let Some(text) = line.checked_sub(1).and_then(|i| self.lines.get_mut(i)) else { continue };
            let mut chars: Vec<char> = text.chars().collect();
            for (at, blot) in blots {
                let start = at.column.saturating_sub(1).min(chars.len());
                let end = start.saturating_add(at.length).min(chars.len());
                let value = &mut chars[start..end];
                let (from, to) = blot.range(value);
                value[from..to].iter_mut().filter(|c| !c.is_whitespace()).for_each(|c| *c = '*');
            }
            *text = chars.into_iter().collect();
        }
    }

    /// The place without the spaces that a parser counts to a quoted value.
    pub(crate) fn trimmed(&self, at: Pos) -> Pos {
        let Some(text) = self.line(at.line) else { return at };
        let inside = text.chars().skip(at.column.saturating_sub(1)).take(at.length);
        let length = inside.enumerate().filter(|(_, c)| !c.is_whitespace()).last().map_or(1, |(i, _)| i + 1);
        Pos { length, ..at }
    }
}

impl Blot {
    fn range(self, value: &[char]) -> (usize, usize) {
        let find = |c: char| value.iter().position(|v| *v == c);
        match self {
            Self::Whole => (0, value.len()),
            Self::Default => find(',').map_or((0, 0), |comma| (comma + 1, value.len())),
            Self::Password => {
                let scheme = value.windows(3).position(|w| w == [':', '/', '/']);
                let end = value.iter().rposition(|v| *v == '@');
                match (scheme, end) {
                    // A password may also stand among the parameters.
                    _ if value.windows(9).any(|w| w.iter().collect::<String>() == "password=") => {
                        (0, value.len())
                    }
                    (Some(scheme), Some(end)) if scheme + 3 < end => (scheme + 3, end),
                    _ => (0, 0),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blotted_out_over_several_lines() {
        let mut text = SourceText::new("f", "secret: |\n  one\n  two\nnext: url://a:b@c\n");
        text.blot(Pos { lines: 3, ..Pos::new(1, 9, 9) }, Blot::Whole);
        text.blot(Pos::new(4, 7, 11), Blot::Password);
        text.blot(Pos::new(9, 1, 1), Blot::Whole);
        text.finish();
        assert_eq!(text.lines, ["secret: *", "  ***", "  ***", "next: url://***@c"]);
    }
}
