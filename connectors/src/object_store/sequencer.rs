//! The order of two records of one key.

use std::cmp::Ordering;

/// Longest sequencer compared, in characters; AWS writes 16 to 18.
const MAX_CHARS: usize = 256;

/// Compares two sequencers of the same key and store: as hexadecimal text, the shorter one padded with zeros on the
/// right (Amazon S3 user guide, "Event message structure"). `None` when one is no hexadecimal text. Sequencers of
/// different stores cannot be compared.
pub fn compare_sequencers(one: &str, other: &str) -> Option<Ordering> {
    let hex = |text: &str| {
        (!text.is_empty() && text.len() <= MAX_CHARS && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| text.to_ascii_lowercase())
    };
    let (one, other) = (hex(one)?, hex(other)?);
    let width = one.len().max(other.len());
    Some(format!("{one:0<width$}").cmp(&format!("{other:0<width$}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_one_is_padded_on_the_right() {
        for (one, other, expected) in [
            ("0055AED6DCD90281E5", "0055AED6DCD90281E6", Some(Ordering::Less)),
            ("0a", "0A0", Some(Ordering::Equal)),
            ("1", "0fff", Some(Ordering::Greater)),
            ("15CFEDF8D5304D1A", "15cfedf8d5304d1a", Some(Ordering::Equal)),
            ("", "1", None),
            ("xyz", "1", None),
        ] {
            assert_eq!(compare_sequencers(one, other), expected, "{one} {other}");
        }
    }
}
