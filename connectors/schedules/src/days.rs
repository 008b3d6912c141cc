//! Which days of a month a schedule runs on: the two day fields and how they combine.

use crate::ScheduleError;
use crate::field::{AWS_DAY_OF_MONTH, AWS_DAY_OF_WEEK, DAY_OF_MONTH, DAY_OF_WEEK, FieldKind, number};
use jiff::civil::Date;

/// The day-of-month and day-of-week fields together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DayRule {
    pub(crate) month_days: MonthDays,
    pub(crate) week_days: WeekDays,
    /// Whether a day must satisfy both fields although both are restricted.
    both: bool,
}

/// The day-of-month field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MonthDays {
    /// Bit `n` is day `n`.
    pub(crate) days: u32,
    pub(crate) marks: Vec<MonthMark>,
    /// Whether the field is `?`.
    pub(crate) unset: bool,
}

/// A day that depends on the month's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MonthMark {
    /// `L`, `L-n`: so many days before the last.
    Last(u8),
    /// `LW`: the last day from Monday to Friday.
    LastWorkday,
    /// `nW`: the day from Monday to Friday nearest to day `n`, within the month.
    Nearest(u8),
}

/// The day-of-week field; Sunday is 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WeekDays {
    /// Bit `n` is weekday `n`.
    pub(crate) days: u8,
    pub(crate) marks: Vec<WeekMark>,
    /// Whether the field is `?`.
    pub(crate) unset: bool,
}

/// A weekday that depends on its place in the month, or counts from the end of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeekMark {
    /// `d#n`: the n-th weekday `d` of the month.
    Nth(u8, u8),
    /// `dL`: the last weekday `d` of the month.
    Last(u8),
    /// `L`, `L-n` in the AWS dialect: so many days before Saturday, every week.
    EndOfWeek(u8),
}

impl DayRule {
    /// Reads the two fields in the AWS dialect, where exactly one is `?`.
    pub(crate) fn aws(month_days: &str, week_days: &str) -> Result<Self, ScheduleError> {
        if (month_days == "?") == (week_days == "?") {
            return Err(ScheduleError::QuestionMark {
                day_of_month: month_days.to_owned(),
                day_of_week: week_days.to_owned(),
            });
        }
        let text = month_days;
        let month_days = MonthDays::parse(text, &AWS_DAY_OF_MONTH)?;
        // Quartz and AWS take L and W only alone
        if !month_days.marks.is_empty() && (month_days.days != 0 || month_days.marks.len() > 1) {
            let problem = "L and W must stand alone".to_owned();
            return Err(AWS_DAY_OF_MONTH.error(text, problem));
        }
        let week_days = WeekDays::parse_aws(week_days)?;
        Ok(Self { month_days, week_days, both: false })
    }

    /// Reads the two fields of plain cron. If both are restricted either may hold, as in every cron since
    /// Vixie's; a `+` before the weekday, or a weekday with `#` or `L`, narrows the day of month instead.
    pub(crate) fn plain(month_days: &str, week_days: &str) -> Result<Self, ScheduleError> {
        let (plus, week_days) = match week_days.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, week_days),
        };
        let month_days = MonthDays::parse(month_days, &DAY_OF_MONTH)?;
        let week_days = WeekDays::parse_plain(week_days)?;
        let both = plus || !week_days.marks.is_empty();
        Ok(Self { month_days, week_days, both })
    }

    /// Gives the days of one month as bits 1 to 31; 0 for a month that does not exist.
    pub(crate) fn in_month(&self, year: i16, month: i8) -> u32 {
        let Ok(first) = Date::new(year, month, 1) else { return 0 };
        let shape = Month {
            first: first.weekday().to_sunday_zero_offset() as u8,
            length: first.days_in_month() as u8,
        };
        match (self.month_days.is_any(), self.week_days.is_any()) {
            (true, true) => shape.all(),
            (true, false) => self.week_days.in_month(shape),
            (false, true) => self.month_days.in_month(shape),
            (false, false) if self.both => self.month_days.in_month(shape) & self.week_days.in_month(shape),
            (false, false) => self.month_days.in_month(shape) | self.week_days.in_month(shape),
        }
    }
}

impl MonthDays {
    fn parse(text: &str, kind: &FieldKind) -> Result<Self, ScheduleError> {
        let mut field = Self { unset: text == "?", ..Self::default() };
        if field.unset {
            return Ok(field);
        }
        for term in text.split(',') {
            match month_mark(term, kind)? {
                Some(mark) => field.marks.push(mark),
                None => field.days |= kind.mask(term)? as u32,
            }
        }
        Ok(field)
    }

    fn is_any(&self) -> bool {
        self.unset || self.days == u32::MAX - 1
    }

    fn in_month(&self, shape: Month) -> u32 {
        let marks = self.marks.iter().fold(0, |days, mark| days | shape.month_mark(*mark));
        (self.days | marks) & shape.all()
    }
}

impl WeekDays {
    fn parse_aws(text: &str) -> Result<Self, ScheduleError> {
        let mut field = Self { unset: text == "?", ..Self::default() };
        if field.unset {
            return Ok(field);
        }
        let kind = &AWS_DAY_OF_WEEK;
        let mark = match text.strip_prefix('L') {
            Some("") => Some(WeekMark::EndOfWeek(0)),
            Some(rest) => match rest.strip_prefix('-').and_then(number) {
                Some(back @ 0..=6) => Some(WeekMark::EndOfWeek(back as u8)),
                _ => return Err(kind.error(text, "after L only -0 to -6 may follow".into())),
            },
            None => None,
        };
        if let Some(mark) = mark {
            field.marks.push(mark);
        } else if let Some((day, nth)) = text.split_once('#') {
            field.marks.push(WeekMark::Nth(kind.value(day)? as u8 - 1, nth_of(kind, text, nth)?));
        } else if let Some(day) = text.strip_suffix('L') {
            field.marks.push(WeekMark::Last(kind.value(day)? as u8 - 1));
        } else {
            field.days = (kind.mask(text)? >> 1) as u8;
        }
        Ok(field)
    }

    fn parse_plain(text: &str) -> Result<Self, ScheduleError> {
        let mut field = Self { unset: text == "?", ..Self::default() };
        if field.unset {
            return Ok(field);
        }
        let kind = &DAY_OF_WEEK;
        for term in text.split(',') {
            if let Some((days, nth)) = term.split_once('#') {
                let nth = if nth == "L" { None } else { Some(nth_of(kind, term, nth)?) };
                let days = kind.term(days)?.into_iter().map(|day| day as u8);
                field.marks.extend(days.map(|day| match nth {
                    Some(nth) => WeekMark::Nth(day, nth),
                    None => WeekMark::Last(day),
                }));
            } else if let Some(day) = term.strip_suffix('L').or_else(|| term.strip_prefix('L')) {
                field.marks.push(WeekMark::Last(kind.normal(kind.value(day)?) as u8));
            } else {
                field.days |= kind.mask(term)? as u8;
            }
        }
        Ok(field)
    }

    fn is_any(&self) -> bool {
        self.unset || self.days == 0x7f
    }

    fn in_month(&self, shape: Month) -> u32 {
        let named = (1..=shape.length).filter(|day| self.days & 1 << shape.weekday(*day) != 0);
        let named = named.fold(0, |days, day| days | 1 << day);
        self.marks.iter().fold(named, |days, mark| days | shape.week_mark(*mark))
    }
}

/// The shape of one month, all that the marks depend on.
#[derive(Debug, Clone, Copy)]
struct Month {
    /// Weekday of day 1, Sunday is 0.
    first: u8,
    /// Days in the month.
    length: u8,
}

impl Month {
    fn all(self) -> u32 {
        ((1_u64 << (self.length + 1)) - 2) as u32
    }

    fn weekday(self, day: u8) -> u8 {
        (self.first + day - 1) % 7
    }

    fn month_mark(self, mark: MonthMark) -> u32 {
        let day = match mark {
            MonthMark::Last(back) => self.length.saturating_sub(back),
            MonthMark::LastWorkday => self.nearest_workday(self.length),
            MonthMark::Nearest(day) if day <= self.length => self.nearest_workday(day),
            MonthMark::Nearest(_) => 0,
        };
        if day == 0 { 0 } else { 1 << day }
    }

    /// Never leaves the month: 1W on a Saturday is Monday the 3rd.
    fn nearest_workday(self, day: u8) -> u8 {
        match self.weekday(day) {
            6 if day == 1 => 3,
            6 => day - 1,
            0 if day == self.length => day - 2,
            0 => day + 1,
            _ => day,
        }
    }

    fn week_mark(self, mark: WeekMark) -> u32 {
        let (weekday, first, last) = match mark {
            WeekMark::Nth(weekday, nth) => (weekday, nth * 7 - 6, nth * 7),
            WeekMark::Last(weekday) => (weekday, self.length - 6, self.length),
            WeekMark::EndOfWeek(back) => (6 - back, 1, self.length),
        };
        (first..=last.min(self.length))
            .filter(|day| self.weekday(*day) == weekday)
            .fold(0, |days, day| days | 1 << day)
    }
}

fn month_mark(term: &str, kind: &FieldKind) -> Result<Option<MonthMark>, ScheduleError> {
    let bad = |problem: &str| Err(kind.error(term, problem.to_owned()));
    if term == "LW" {
        return Ok(Some(MonthMark::LastWorkday));
    }
    if let Some(rest) = term.strip_prefix('L') {
        let back = rest.strip_prefix('-').and_then(number);
        return match (rest, back) {
            ("", _) => Ok(Some(MonthMark::Last(0))),
            (_, Some(back @ 0..=30)) => Ok(Some(MonthMark::Last(back as u8))),
            _ => bad("after L only W or -0 to -30 may follow"),
        };
    }
    match term.strip_suffix('W').map(number) {
        Some(Some(day @ 1..=31)) => Ok(Some(MonthMark::Nearest(day as u8))),
        Some(_) => bad("before W a day from 1 to 31 must stand"),
        None => Ok(None),
    }
}

fn nth_of(kind: &FieldKind, term: &str, text: &str) -> Result<u8, ScheduleError> {
    match number(text) {
        Some(nth @ 1..=5) => Ok(nth as u8),
        _ => Err(kind.error(term, "after # a number from 1 to 5 must stand".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(mask: u32) -> Vec<u32> {
        (1..=31).filter(|day| mask & 1 << day != 0).collect()
    }

    fn check_plain(month_days: &str, week_days: &str, year: i16, month: i8, expected: &[u32]) {
        let rule = DayRule::plain(month_days, week_days).unwrap();
        assert_eq!(days(rule.in_month(year, month)), expected, "{month_days} {week_days} {year}-{month}");
    }

    fn check_aws(month_days: &str, week_days: &str, year: i16, month: i8, expected: &[u32]) {
        let rule = DayRule::aws(month_days, week_days).unwrap();
        assert_eq!(days(rule.in_month(year, month)), expected, "{month_days} {week_days} {year}-{month}");
    }

    #[test]
    fn marks_follow_the_shape_of_the_month() {
        // August 2026 starts on a Saturday and ends on a Monday
        check_aws("1W", "?", 2026, 8, &[3]);
        check_aws("L-30", "?", 2026, 8, &[1]);
        check_aws("L-30", "?", 2026, 9, &[]);
        check_aws("31W", "?", 2026, 9, &[]);
        // May 2026 ends on a Sunday
        check_aws("31W", "?", 2026, 5, &[29]);
        check_aws("LW", "?", 2026, 5, &[29]);
        check_aws("?", "L", 2026, 8, &[1, 8, 15, 22, 29]);
        check_aws("?", "L-1", 2026, 8, &[7, 14, 21, 28]);
        check_aws("?", "2#5", 2026, 8, &[31]);
        check_aws("?", "2#5", 2026, 9, &[]);
        check_aws("?", "FRIL", 2026, 8, &[28]);
        check_plain("*", "5L,1#L,L3", 2026, 8, &[26, 28, 31]);
    }

    #[test]
    fn two_restricted_fields_mean_either_unless_narrowed() {
        check_plain("13", "FRI", 2026, 2, &[6, 13, 20, 27]);
        check_plain("13", "+FRI", 2026, 2, &[13]);
        check_plain("13", "+FRI", 2026, 8, &[]);
        check_plain("1-7", "MON-FRI#1", 2026, 8, &[3, 4, 5, 6, 7]);
        check_plain("1-31", "SUN", 2026, 8, &[2, 9, 16, 23, 30]);
        check_plain("?", "?", 2026, 2, &(1..=28).collect::<Vec<_>>());
    }

    #[test]
    fn bad_day_fields_are_refused() {
        for (month_days, week_days) in
            [("*", "*"), ("?", "?"), ("3L", "?"), ("L-31", "?"), ("32W", "?"), ("0W", "?"), ("L,5", "?")]
        {
            assert!(DayRule::aws(month_days, week_days).is_err(), "{month_days} {week_days}");
        }
        for week_days in ["8", "2#6", "2#0", "3#1,6#3", "L-7", "MON-FRI#1", "0", "+MON", "NOT"] {
            assert!(DayRule::aws("?", week_days).is_err(), "{week_days}");
        }
        for week_days in ["8", "L", "5#6", "#1", "++1", "?,1"] {
            assert!(DayRule::plain("*", week_days).is_err(), "{week_days}");
        }
    }
}
