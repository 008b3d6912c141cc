//! The two forms without fields: `rate(N unit)` and `at(yyyy-mm-ddThh:mm:ss)`.

use crate::ScheduleError;
use jiff::Timestamp;
use jiff::civil::DateTime;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Longest period: a hundred years of 365 days. Beyond it lies a slip of the pen, not a schedule.
const MAX_PERIOD_SECONDS: i64 = 100 * 365 * 86_400;

/// A fixed period counted from an anchor; a day is always 24 hours, as in EventBridge Scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    period_seconds: i64,
}

impl Rate {
    /// Parses `rate(N unit)` by the rules of EventBridge `PutRule`: a positive whole number, one blank, and
    /// minute, hour or day, in the singular for 1 and in the plural for all else.
    pub(crate) fn parse(text: &str) -> Result<Self, ScheduleError> {
        let fail = |problem: String| Err(ScheduleError::Rate { text: text.to_owned(), problem });
        let body = text.strip_prefix("rate(").and_then(|rest| rest.strip_suffix(')'));
        let Some((value, unit)) = body.and_then(|body| body.split_once(' ')) else {
            return fail("use rate(N unit), for example rate(5 minutes)".into());
        };
        let number = match value.bytes().all(|byte| byte.is_ascii_digit()) {
            true => value.parse::<i64>().ok().filter(|number| *number > 0),
            false => None,
        };
        let Some(number) = number else {
            return fail(format!("`{value}` is not a positive whole number: use rate(5 minutes)"));
        };
        let unit_seconds = match unit.strip_suffix('s').unwrap_or(unit) {
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            "second" => {
                return fail("seconds are no rate unit: use cron with seconds, `*/30 * * * * *`".into());
            }
            _ => return fail(format!("`{unit}` is not a unit: use minutes, hours or days")),
        };
        match (number, unit.ends_with('s')) {
            (1, true) => return fail(format!("use singular for 1: rate(1 {})", unit.trim_end_matches('s'))),
            (2.., false) => return fail(format!("use plural: rate({number} {unit}s)")),
            _ => {}
        }
        match number.checked_mul(unit_seconds) {
            Some(period_seconds) if period_seconds <= MAX_PERIOD_SECONDS => Ok(Self { period_seconds }),
            _ => fail("the period is longer than 100 years".into()),
        }
    }

    /// Gives the first tick after an instant; the anchor is the first tick of all.
    pub(crate) fn next_after(self, after: Timestamp, anchor: Timestamp) -> Option<Timestamp> {
        let elapsed = after.as_nanosecond() - anchor.as_nanosecond();
        let passed = if elapsed < 0 { 0 } else { elapsed / self.period_nanos() + 1 };
        Timestamp::from_nanosecond(anchor.as_nanosecond() + passed * self.period_nanos()).ok()
    }

    /// Gives the last tick before an instant, none before the anchor.
    pub(crate) fn prev_before(self, before: Timestamp, anchor: Timestamp) -> Option<Timestamp> {
        let elapsed = before.as_nanosecond() - anchor.as_nanosecond();
        if elapsed <= 0 {
            return None;
        }
        let passed = (elapsed - 1) / self.period_nanos();
        Timestamp::from_nanosecond(anchor.as_nanosecond() + passed * self.period_nanos()).ok()
    }

    fn period_nanos(self) -> i128 {
        i128::from(self.period_seconds) * NANOS_PER_SECOND
    }
}

/// Parses `at(yyyy-mm-ddThh:mm:ss)` to its local time; a zone or a fraction of a second is refused.
pub(crate) fn parse_at(text: &str) -> Result<DateTime, ScheduleError> {
    let fail = || ScheduleError::At { text: text.to_owned() };
    let body = text.strip_prefix("at(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(fail)?;
    let pattern = b"0000-00-00T00:00:00";
    let fits = |(byte, like): (u8, &u8)| match like {
        b'0' => byte.is_ascii_digit(),
        mark => byte == *mark,
    };
    // 60 is a leap second to the parser, which would move it to 59
    if body.len() != pattern.len() || !body.bytes().zip(pattern).all(fits) || body.ends_with("60") {
        return Err(fail());
    }
    body.parse().map_err(|_| fail())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_the_rules_of_put_rule() {
        for text in ["rate(1 minute)", "rate(2 minutes)", "rate(1 hour)", "rate(24 hours)", "rate(1 day)"] {
            assert!(Rate::parse(text).is_ok(), "{text}");
        }
        for text in [
            "rate(10 seconds)",
            "rate(10 years)",
            "rate(10 minute)",
            "rate()",
            "rate(10)",
            "rate(10 minutess)",
            "rate(foo minutes)",
            "rate(0 minutes)",
            "rate(-10 minutes)",
            "rate(+10 minutes)",
            "rate(10 MINUTES)",
            "rate( 10 minutes )",
            "rate(10  minutes)",
            "rate(99999999999999999999 days)",
            "rate(9223372036854775807 days)",
            "rate(s s)",
        ] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
        let error = Rate::parse("rate(1 minutes)").unwrap_err().to_string();
        assert_eq!(error, "`rate(1 minutes)`: use singular for 1: rate(1 minute)");
        let error = Rate::parse("rate(10 hour)").unwrap_err().to_string();
        assert_eq!(error, "`rate(10 hour)`: use plural: rate(10 hours)");
    }

    #[test]
    fn at_wants_a_date_and_a_time_that_exist() {
        assert!(parse_at("at(2028-02-29T23:59:59)").is_ok());
        for body in [
            "2027-02-29T00:00:00",
            "2027-01-01",
            "2027-01-01T00:00:00Z",
            "2027-01-01T00:00:60",
            "2027-01-01 00:00:00",
            "2027-01-01T00:00:00.5",
        ] {
            assert!(parse_at(&format!("at({body})")).is_err(), "{body}");
        }
    }
}
