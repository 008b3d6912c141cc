//! One cron field: `*`, values, names, ranges, lists and steps, expanded to the values they name.

use crate::ScheduleError;

/// First year a schedule can name; the lower bound of the AWS year field.
pub(crate) const FIRST_YEAR: u16 = 1970;
/// Last year a schedule can name; the upper bound of the AWS year field.
pub(crate) const LAST_YEAR: u16 = 2199;

/// What one field may hold.
#[derive(Debug)]
pub(crate) struct FieldKind {
    /// Name used in error messages.
    pub(crate) name: &'static str,
    min: u16,
    max: u16,
    /// Three-letter names; the first one stands for `min`.
    names: &'static [&'static str],
    /// Whether `22-2` may run past the end.
    wraps: bool,
    /// Whether `max + 1` is another way to write `min` (Sunday as 7).
    second_sunday: bool,
    /// Whether `L` may end a range (`29-L`).
    range_to_last: bool,
    /// Further forms, for error messages.
    extras: &'static str,
}

const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const PLAIN: FieldKind = FieldKind {
    name: "",
    min: 0,
    max: 59,
    names: &[],
    wraps: true,
    second_sunday: false,
    range_to_last: false,
    extras: "",
};

pub(crate) const SECOND: FieldKind = FieldKind { name: "second", ..PLAIN };
pub(crate) const MINUTE: FieldKind = FieldKind { name: "minute", ..PLAIN };
pub(crate) const HOUR: FieldKind = FieldKind { name: "hour", max: 23, ..PLAIN };
pub(crate) const MONTH: FieldKind = FieldKind { name: "month", min: 1, max: 12, names: MONTHS, ..PLAIN };
pub(crate) const YEAR: FieldKind =
    FieldKind { name: "year", min: FIRST_YEAR, max: LAST_YEAR, wraps: false, ..PLAIN };
pub(crate) const DAY_OF_MONTH: FieldKind = FieldKind {
    name: "day-of-month",
    min: 1,
    max: 31,
    range_to_last: true,
    extras: ", ?, L, L-3, LW, 15W",
    ..PLAIN
};
pub(crate) const AWS_DAY_OF_MONTH: FieldKind = FieldKind { range_to_last: false, ..DAY_OF_MONTH };
pub(crate) const DAY_OF_WEEK: FieldKind = FieldKind {
    name: "day-of-week",
    max: 6,
    names: DAYS,
    second_sunday: true,
    extras: " (0 and 7 = SUN), ?, 5#2, 5L, +5",
    ..PLAIN
};
pub(crate) const AWS_DAY_OF_WEEK: FieldKind = FieldKind {
    name: "day-of-week",
    min: 1,
    max: 7,
    names: DAYS,
    extras: " (1 = SUN), ?, L, 6L, 6#2",
    ..PLAIN
};

impl FieldKind {
    /// Expands a list to its values, sorted, each once.
    pub(crate) fn list(&self, text: &str) -> Result<Vec<u16>, ScheduleError> {
        let mut values = Vec::new();
        for term in text.split(',') {
            values.extend(self.term(term)?);
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    /// Expands a list to a bit set; only for fields whose values are below 64.
    pub(crate) fn mask(&self, text: &str) -> Result<u64, ScheduleError> {
        Ok(self.list(text)?.into_iter().fold(0, |mask, value| mask | 1 << value))
    }

    /// Expands one term: `*`, `5`, `5-9`, each perhaps with `/step`; `5/step` runs to the end of the field.
    pub(crate) fn term(&self, term: &str) -> Result<Vec<u16>, ScheduleError> {
        let (base, step) = match term.split_once('/') {
            Some((base, step)) => (base, Some(self.step(term, step)?)),
            None => (term, None),
        };
        let stride = usize::from(step.unwrap_or(1));
        if base == "*" {
            return Ok((self.min..=self.max).step_by(stride).collect());
        }
        if let Some((low, high)) = base.split_once('-') {
            let high = if self.range_to_last && high == "L" { self.max } else { self.value(high)? };
            return self.range(term, self.value(low)?, high, stride);
        }
        let value = self.normal(self.value(base)?);
        Ok(match step {
            Some(_) => (value..=self.max).step_by(stride).collect(),
            None => vec![value],
        })
    }

    /// Reads one value: a number or a three-letter name.
    pub(crate) fn value(&self, text: &str) -> Result<u16, ScheduleError> {
        if let Some(index) = self.names.iter().position(|name| *name == text) {
            return Ok(self.min + index as u16);
        }
        let top = self.max + u16::from(self.second_sunday);
        match number(text) {
            Some(value) if (self.min..=top).contains(&value) => Ok(value),
            Some(value) => Err(self.error(text, format!("{value} is out of range"))),
            None if text == "?" => Err(self.error(
                text,
                "`?` stands only in the day fields, alone; an AWS expression is written cron(…)".into(),
            )),
            None if text.is_empty() => Err(self.error(text, "a value is missing".into())),
            None => Err(self.error(text, "not a value of this field".into())),
        }
    }

    /// Folds the second way to write Sunday into the first.
    pub(crate) fn normal(&self, value: u16) -> u16 {
        if value > self.max { self.min } else { value }
    }

    /// Builds the error for this field.
    pub(crate) fn error(&self, text: &str, problem: String) -> ScheduleError {
        let names = match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!(" or {first}-{last}"),
            _ => String::new(),
        };
        let allowed =
            format!("{}-{}{names}, *, lists a,b, ranges a-b, steps a/n{}", self.min, self.max, self.extras);
        ScheduleError::Field { field: self.name, text: text.to_owned(), problem, allowed }
    }

    fn range(&self, term: &str, low: u16, high: u16, stride: usize) -> Result<Vec<u16>, ScheduleError> {
        let low = if low == high { low } else { self.normal(low) };
        let size = self.max - self.min + 1;
        let end = match low <= high {
            true => high,
            false if self.wraps => high + size,
            false => return Err(self.error(term, "the range runs backwards".into())),
        };
        Ok((low..=end)
            .step_by(stride)
            .map(|value| if value > self.max { value - size } else { value })
            .collect())
    }

    /// A step longer than the field would silently never step: `*/90` minutes is an hour, not 90 minutes.
    fn step(&self, term: &str, text: &str) -> Result<u16, ScheduleError> {
        let size = self.max - self.min + 1;
        // Quartz's bounds: 59 minutes, 23 hours, 31 days, 12 months, 7 weekdays
        let longest = if self.min == 0 && !self.second_sunday { size - 1 } else { size };
        match number(text) {
            Some(step) if (1..=longest).contains(&step) => Ok(step),
            Some(_) => Err(self.error(term, format!("the step must be 1 to {longest}"))),
            None => Err(self.error(term, "the step after `/` must be a number".into())),
        }
    }
}

/// Reads up to four decimal digits and nothing else.
pub(crate) fn number(text: &str) -> Option<u16> {
    let plain = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &FieldKind, text: &str, expected: &[u16]) {
        assert_eq!(kind.list(text).unwrap(), expected, "{} {text}", kind.name);
    }

    #[test]
    fn lists_ranges_and_steps_name_their_values() {
        check(&MINUTE, "5,4", &[4, 5]);
        check(&MINUTE, "0-29/10", &[0, 10, 20]);
        check(&MINUTE, "15/50", &[15]);
        check(&HOUR, "22-2", &[0, 1, 2, 22, 23]);
        check(&HOUR, "8-8", &[8]);
        check(&MONTH, "APR-MAR/3", &[1, 4, 7, 10]);
        check(&MONTH, "MAR/4", &[3, 7, 11]);
        check(&YEAR, "2025,2021-2023", &[2021, 2022, 2023, 2025]);
    }

    #[test]
    fn sunday_has_two_numbers_in_plain_cron() {
        check(&DAY_OF_WEEK, "7-MON", &[0, 1]);
        check(&DAY_OF_WEEK, "7-7", &[0]);
        check(&DAY_OF_WEEK, "0-7", &[0, 1, 2, 3, 4, 5, 6]);
        check(&DAY_OF_WEEK, "FRI-7", &[0, 5, 6]);
        check(&DAY_OF_WEEK, "1/2", &[1, 3, 5]);
        check(&AWS_DAY_OF_WEEK, "SAT-SUN", &[1, 7]);
    }

    #[test]
    fn wrong_values_name_the_field_and_what_is_allowed() {
        let error = MINUTE.list("71").unwrap_err().to_string();
        assert_eq!(
            error,
            "minute `71`: 71 is out of range; allowed: 0-59, *, lists a,b, ranges a-b, steps a/n"
        );
        for text in ["", "1,", "*/0", "*/60", "5-", "-5", "1/2/3", "+1", "JANU", "12345", "1 2"] {
            assert!(MINUTE.list(text).is_err(), "{text}");
        }
        assert!(YEAR.list("2025-2020").is_err());
        assert!(YEAR.list("2000-2200").is_err());
    }
}
