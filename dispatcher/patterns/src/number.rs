//! When two numbers are the same.
//!
//! event-ruler 2 compares numbers as doubles, but only those whose literal a double can hold: a literal that would
//! be rounded is compared by its spelling alone. The same is done here.

/// A number as a pattern or an event spells it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Number {
    /// The value, when no digit was lost on the way to it.
    pub(crate) value: Option<f64>,
    /// The spelling; kept only where it decides, that is where `value` is absent.
    literal: Option<String>,
}

impl Number {
    /// Reads a JSON number literal.
    pub(crate) fn from_literal(literal: &str) -> Self {
        match comparable(literal) {
            Some(value) => Self { value: Some(value), literal: None },
            None => Self { value: None, literal: Some(literal.to_owned()) },
        }
    }

    /// Takes a number that `serde_json` has parsed.
    pub(crate) fn from_json(number: &serde_json::Number) -> Self {
        match number.as_f64() {
            Some(value) if number.is_f64() => Self { value: Some(value), literal: None },
            _ => Self::from_literal(&number.to_string()),
        }
    }

    /// Whether both are the same number, or, where doubles cannot tell, spelled alike.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self.value, other.value) {
            (Some(a), Some(b)) => a == b,
            (None, None) => self.literal == other.literal,
            _ => false,
        }
    }
}

/// The double that a literal stands for, or `None` when it is out of range or would be rounded.
fn comparable(literal: &str) -> Option<f64> {
    let value: f64 = literal.parse().ok()?;
    let exact = value.is_finite() && decimal(literal)? == decimal(&format!("{value:e}"))?;
    exact.then_some(value)
}

/// Sign, significant digits and the exponent of the last of them: equal for equal decimals.
fn decimal(literal: &str) -> Option<(bool, String, i64)> {
    let (negative, unsigned) = match literal.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, literal),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0').trim_end_matches('0');
    if digits.is_empty() {
        return Some((false, String::new(), 0));
    }
    let trailing = all.len() - all.trim_end_matches('0').len();
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    Some((negative, digits.to_owned(), exponent.checked_add(i64::try_from(trailing).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_that_a_double_holds_are_compared_by_value() {
        for (a, b) in [("1", "1.0"), ("300", "3e2"), ("-0.0", "0"), ("0.1", "1e-1"), ("1E-320", "1e-320")] {
            assert!(Number::from_literal(a).same(&Number::from_literal(b)), "{a} and {b}");
        }
    }

    #[test]
    fn literals_that_would_be_rounded_are_compared_by_spelling() {
        let long = Number::from_literal("9007199254740993");
        assert_eq!(long.value, None);
        assert!(!long.same(&Number::from_literal("9007199254740992")));
        assert!(long.same(&Number::from_literal("9007199254740993")));
        for literal in ["1E-325", "2.0e422", "0.10000000000000000000001", "1e99999999999999999999"] {
            assert_eq!(Number::from_literal(literal).value, None, "{literal}");
        }
    }
}
