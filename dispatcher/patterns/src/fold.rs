//! Ignoring case, character by character.
//!
//! As in event-ruler, a pattern's character accepts its own lower-case and upper-case forms, whatever their length
//! in bytes, and nothing else; no locale, no full Unicode folding.

/// Whether `text` is `pattern`, but for case.
pub(crate) fn equals(text: &str, pattern: &str) -> bool {
    prefix(text, pattern).is_some_and(str::is_empty)
}

/// Whether `text` begins with `pattern`, but for case.
pub(crate) fn starts_with(text: &str, pattern: &str) -> bool {
    prefix(text, pattern).is_some()
}

/// Whether `text` ends with `pattern`, but for case.
pub(crate) fn ends_with(text: &str, pattern: &str) -> bool {
    pattern
        .chars()
        .rev()
        .try_fold(text, |rest, c| forms(c).into_iter().find_map(|form| rest.strip_suffix(form.as_str())))
        .is_some()
}

fn prefix<'a>(text: &'a str, pattern: &str) -> Option<&'a str> {
    pattern
        .chars()
        .try_fold(text, |rest, c| forms(c).into_iter().find_map(|form| rest.strip_prefix(form.as_str())))
}

fn forms(c: char) -> [String; 2] {
    [c.to_lowercase().collect(), c.to_uppercase().collect()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_ignored_even_where_the_forms_differ_in_length() {
        assert!(equals("RuNnInG", "running"));
        assert!(equals("STRASSE", "straße"));
        assert!(equals("ⱥ", "Ⱥ"));
        assert!(starts_with("EvEnTbridge", "EventB"));
        assert!(ends_with("photo.PNG", ".png"));
        assert!(!equals("running!", "running"));
        assert!(!ends_with("ng", "png"));
    }
}
