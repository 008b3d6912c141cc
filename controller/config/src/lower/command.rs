//! A command line to words: spaces and quotes as a shell reads them, and nothing else of a shell.

/// Splits a line at spaces; quotes and backslashes keep things together.
///
/// # Errors
/// When a quote or a backslash has no end.
pub(super) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => {
                word.get_or_insert_default().push(chars.next().ok_or("nothing follows the last backslash")?)
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match chars.next().ok_or("a quote does not end")? {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match chars.next().ok_or("a quote does not end")? {
            '"' => return Ok(()),
            // POSIX 2.2.3: within double quotes a backslash only escapes these.
            '\\' => match chars.next().ok_or("a quote does not end")? {
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_as_a_shell_would() {
        let check = |line: &str, words: &[&str]| assert_eq!(split(line).unwrap(), words, "{line}");
        check("./bootstrap --port 1", &["./bootstrap", "--port", "1"]);
        check("  a  'b c' \"d\\\"e\" f\\ g ''", &["a", "b c", "d\"e", "f g", ""]);
        check("a$HOME|b 'x'y", &["a$HOME|b", "xy"]);
        check("", &[]);
        assert!(split("a 'b").is_err());
        assert!(split("a \"b").is_err());
        assert!(split("a \\").is_err());
    }
}
