//! Wildcards: `*` stands for any text, `\*` and `\\` for the characters themselves.

/// A wildcard, cut at its stars. Matching is linear in the text: the ends are anchored, and what lies between is
/// found leftmost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wildcard {
    /// The literal texts before, between and after the stars; one more than there are stars.
    parts: Vec<String>,
}

impl Wildcard {
    /// Reads a wildcard. The error says what is wrong: two stars in a row, or a backslash before anything but `*`
    /// and `\`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut after_star = false;
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            let part = parts.len() - 1;
            match c {
                '*' if after_star => {
                    return Err(format!("two wildcard characters in a row at position {at}"));
                }
                '*' => parts.push(String::new()),
                '\\' => match chars.next() {
                    Some((_, escaped @ ('*' | '\\'))) => parts[part].push(escaped),
                    _ => return Err(format!("only '*' and '\\' can follow a backslash (position {at})")),
                },
                other => parts[part].push(other),
            }
            after_star = c == '*';
        }
        Ok(Self { parts })
    }

    /// Whether the whole text fits.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let Some(((first, last), between)) = ends(&self.parts) else {
            return self.parts.first().is_some_and(|only| only == text);
        };
        let Some(mut rest) = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
            return false;
        };
        for part in between {
            match rest.split_once(part.as_str()) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }

    /// The literal texts before, between and after the stars.
    pub(crate) fn parts(&self) -> &[String] {
        &self.parts
    }
}

/// First and last part with those between; `None` when there is no star.
fn ends(parts: &[String]) -> Option<((&str, &str), &[String])> {
    match parts {
        [first, between @ .., last] => Some(((first, last), between)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text_and_ends_are_anchored() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*", "abc", true),
            ("12*4*", "12345", true),
            ("*bc", "abcbc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a\\\\*", "a\\z", true),
            ("d*ff", "def", false),
            ("*次期*", "a次期b", true),
        ] {
            assert_eq!(Wildcard::read(pattern).unwrap().matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn refuses_double_stars_and_unknown_escapes() {
        for pattern in ["a**", "\\", "a\\d", "x*\\"] {
            assert!(Wildcard::read(pattern).is_err(), "{pattern}");
        }
    }
}
