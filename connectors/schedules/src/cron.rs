//! A parsed cron expression and its search in wall-clock time; time zones are `zone.rs`.

use crate::ScheduleError;
use crate::days::DayRule;
use crate::field::{FIRST_YEAR, HOUR, LAST_YEAR, MINUTE, MONTH, SECOND, YEAR};
use jiff::civil::{Date, DateTime, Time};

/// The sets of values that a wall-clock time must be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cron {
    pub(crate) seconds: u64,
    pub(crate) minutes: u64,
    pub(crate) hours: u64,
    pub(crate) days: DayRule,
    pub(crate) months: u64,
    /// Sorted.
    pub(crate) years: Vec<u16>,
}

const AWS_FIELDS: &str = "cron(…) has six: minute hour day-of-month month day-of-week year";
const PLAIN_FIELDS: &str = "plain cron has five (minute hour day-of-month month day-of-week), six (with a leading \
     second) or seven (with a trailing year)";

/// The names for common schedules that every cron knows.
const NICKNAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Cron {
    /// Parses the inside of an AWS `cron(…)`: minute hour day-of-month month day-of-week year.
    pub(crate) fn aws(body: &str) -> Result<Self, ScheduleError> {
        let body = body.to_ascii_uppercase();
        let fields: Vec<&str> = body.split_whitespace().collect();
        let &[minute, hour, month_days, month, week_days, year] = &fields[..] else {
            return Err(ScheduleError::FieldCount { found: fields.len(), expected: AWS_FIELDS });
        };
        let days = DayRule::aws(month_days, week_days)?;
        Self::build(["0", minute, hour, month, year], days)
    }

    /// Parses plain cron: five fields, six with a leading second, seven with a trailing year, or a nickname.
    pub(crate) fn plain(text: &str) -> Result<Self, ScheduleError> {
        let named = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let text = named.map_or(text, |(_, fields)| *fields).to_ascii_uppercase();
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (second, rest) = match fields.len() {
            5 => ("0", &fields[..]),
            6 | 7 => (fields[0], &fields[1..]),
            found => return Err(ScheduleError::FieldCount { found, expected: PLAIN_FIELDS }),
        };
        let year = rest.get(5).copied().unwrap_or("*");
        let days = DayRule::plain(rest[2], rest[4])?;
        Self::build([second, rest[0], rest[1], rest[3], year], days)
    }

    fn build([second, minute, hour, month, year]: [&str; 5], days: DayRule) -> Result<Self, ScheduleError> {
        Ok(Self {
            seconds: SECOND.mask(second)?,
            minutes: MINUTE.mask(minute)?,
            hours: HOUR.mask(hour)?,
            days,
            months: MONTH.mask(month)?,
            years: YEAR.list(year)?,
        })
    }

    /// Says whether every hour of a day is named, so that the schedule means elapsed time, not a time of day.
    pub(crate) fn is_every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// Says whether a wall-clock time satisfies every field.
    pub(crate) fn matches(&self, time: DateTime) -> bool {
        time.subsec_nanosecond() == 0 && self.next_from(time) == Some(time)
    }

    /// Finds the first matching wall-clock time at or after `from`, a whole second.
    pub(crate) fn next_from(&self, from: DateTime) -> Option<DateTime> {
        let date = self.next_date(from.date())?;
        if date > from.date() {
            return Some(date.to_datetime(self.time_from([0, 0, 0])?));
        }
        let [hour, minute, second] = clock(from.time());
        match self.time_from([hour, minute, second]) {
            Some(time) => Some(date.to_datetime(time)),
            None => Some(self.next_date(date.tomorrow().ok()?)?.to_datetime(self.time_from([0, 0, 0])?)),
        }
    }

    /// Finds the last matching wall-clock time at or before `until`, a whole second.
    pub(crate) fn prev_until(&self, until: DateTime) -> Option<DateTime> {
        let date = self.prev_date(until.date())?;
        if date < until.date() {
            return Some(date.to_datetime(self.time_until([23, 59, 59])?));
        }
        match self.time_until(clock(until.time())) {
            Some(time) => Some(date.to_datetime(time)),
            None => Some(self.prev_date(date.yesterday().ok()?)?.to_datetime(self.time_until([23, 59, 59])?)),
        }
    }

    /// Looks at each month once up to the last year of the field, so that it ends soon without a match.
    fn next_date(&self, from: Date) -> Option<Date> {
        let from = from.max(Date::constant(FIRST_YEAR as i16, 1, 1));
        for year in self.years.iter().map(|year| *year as i16).filter(|year| *year >= from.year()) {
            let first = if year == from.year() { from.month() } else { 1 };
            for month in (first..=12).filter(|month| self.months & 1 << month != 0) {
                let in_first = year == from.year() && month == from.month();
                let after = if in_first { u32::MAX << from.day() } else { u32::MAX };
                let days = self.days.in_month(year, month) & after;
                if days != 0 {
                    return Date::new(year, month, days.trailing_zeros() as i8).ok();
                }
            }
        }
        None
    }

    fn prev_date(&self, until: Date) -> Option<Date> {
        let until = until.min(Date::constant(LAST_YEAR as i16, 12, 31));
        for year in self.years.iter().rev().map(|year| *year as i16).filter(|year| *year <= until.year()) {
            let last = if year == until.year() { until.month() } else { 12 };
            for month in (1..=last).rev().filter(|month| self.months & 1 << month != 0) {
                let in_last = year == until.year() && month == until.month();
                let before = if in_last { (2_u64 << until.day()) - 1 } else { u64::MAX };
                let days = u64::from(self.days.in_month(year, month)) & before;
                if days != 0 {
                    return Date::new(year, month, days.ilog2() as i8).ok();
                }
            }
        }
        None
    }

    fn time_from(&self, [hour, minute, second]: [u32; 3]) -> Option<Time> {
        let mut found = None;
        if self.hours & 1 << hour != 0 {
            if self.minutes & 1 << minute != 0 {
                found = bit_from(self.seconds, second).map(|second| (hour, minute, second));
            }
            let later = || Some((hour, bit_from(self.minutes, minute + 1)?, self.seconds.trailing_zeros()));
            found = found.or_else(later);
        }
        let later = || {
            let hour = bit_from(self.hours, hour + 1)?;
            Some((hour, self.minutes.trailing_zeros(), self.seconds.trailing_zeros()))
        };
        found.or_else(later).and_then(time)
    }

    fn time_until(&self, [hour, minute, second]: [u32; 3]) -> Option<Time> {
        let mut found = None;
        if self.hours & 1 << hour != 0 {
            if self.minutes & 1 << minute != 0 {
                found = bit_below(self.seconds, second + 1).map(|second| (hour, minute, second));
            }
            let earlier = || Some((hour, bit_below(self.minutes, minute)?, self.seconds.ilog2()));
            found = found.or_else(earlier);
        }
        let earlier = || Some((bit_below(self.hours, hour)?, self.minutes.ilog2(), self.seconds.ilog2()));
        found.or_else(earlier).and_then(time)
    }
}

fn clock(time: Time) -> [u32; 3] {
    [time.hour() as u32, time.minute() as u32, time.second() as u32]
}

fn time((hour, minute, second): (u32, u32, u32)) -> Option<Time> {
    Time::new(hour as i8, minute as i8, second as i8, 0).ok()
}

/// Finds the lowest bit at or above `from`, which is below 64.
fn bit_from(mask: u64, from: u32) -> Option<u32> {
    let rest = mask & (u64::MAX << from);
    (rest != 0).then(|| rest.trailing_zeros())
}

/// Finds the highest bit below `end`, which is below 64.
fn bit_below(mask: u64, end: u32) -> Option<u32> {
    (mask & ((1 << end) - 1)).checked_ilog2()
}
