//! Times and durations: how they are typed, how they are shown.

use std::time::Duration;

use bellwire_schemas::{Span, Timestamp};
use jiff::tz::TimeZone;

/// The furthest a relative time reaches back: beyond it the ledger has nothing.
const LONGEST_AGO: Duration = Duration::from_secs(100 * 365 * 86_400);
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A moment as the user typed it: `2h` (that long ago) or RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// That long before now.
    Ago(Duration),
    /// That moment.
    At(Timestamp),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(Span(ago)) = text.parse::<Span>() {
            return Ok(Self::Ago(ago.min(LONGEST_AGO)));
        }
        Timestamp::parse(text)
            .map(Self::At)
            .map_err(|_| format!("`{text}` is no time: write how long ago (30s, 15m, 2h, 7d) or RFC 3339 (2026-01-31T09:00:00Z)"))
    }
}

impl Moment {
    /// The moment itself, seen from `now`.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => now.minus(ago),
            Self::At(at) => at,
        }
    }
}

/// How times are shown: seen from one moment, in one time zone.
#[derive(Clone, Debug)]
pub struct Times {
    /// The moment everything is seen from.
    pub now: Timestamp,
    /// The zone of clock times.
    pub zone: TimeZone,
    /// RFC 3339 everywhere instead (`--time iso`).
    pub iso: bool,
}

impl Times {
    /// Clock time with milliseconds: `12:00:01.204`.
    pub fn clock(&self, at: Timestamp) -> String {
        if self.iso { at.to_string() } else { self.format(at, "%H:%M:%S%.3f") }
    }

    /// A moment and its distance: `12:00:01.204 (1 m ago)`, `yesterday 18:02:44`, `2026-01-31 18:02:44`, `tomorrow
    /// 00:19:43 (in 8 h)`, `2027-11-16 00:19:43 (in 359 d)`.
    pub fn at(&self, at: Timestamp) -> String {
        if self.iso {
            return at.to_string();
        }
        match self.days_before(at) {
            0 => format!("{} ({})", self.clock(at), self.distance(at)),
            1 => self.format(at, "yesterday %H:%M:%S"),
            -1 => format!("{} ({})", self.format(at, "tomorrow %H:%M:%S"), self.distance(at)),
            ..-1 => format!("{} ({})", self.format(at, "%Y-%m-%d %H:%M:%S"), self.distance(at)),
            _ => self.format(at, "%Y-%m-%d %H:%M:%S"),
        }
    }

    /// Short, for columns: `18:02:44` today, else `2 d ago`, `in 3 d`.
    pub fn short(&self, at: Timestamp) -> String {
        if self.iso {
            at.to_string()
        } else if self.days_before(at) == 0 {
            self.format(at, "%H:%M:%S")
        } else {
            self.distance(at)
        }
    }

    /// A time to come, short: `18:02:44` today, else with its date, `2027-11-16 10:46`.
    pub fn due(&self, at: Timestamp) -> String {
        if self.iso || self.days_before(at) == 0 {
            return self.short(at);
        }
        self.format(at, "%Y-%m-%d %H:%M")
    }

    /// The distance alone: `12 s ago`, `in 6 s`.
    pub fn distance(&self, at: Timestamp) -> String {
        if self.iso {
            return at.to_string();
        }
        if at > self.now {
            format!("in {}", duration(at.since(self.now)))
        } else {
            format!("{} ago", age(self.now.since(at)))
        }
    }

    /// A sentence of the API with its moments as people of this zone say them: `next 2026-11-23T06:00:00.000Z` is
    /// `next Mon 07:00 CET`.
    pub fn told(&self, text: &str) -> String {
        if self.iso {
            return text.to_owned();
        }
        let word = |word: &str| match Timestamp::parse(word) {
            Ok(at) => self.named(at),
            Err(_) => word.to_owned(),
        };
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// A moment with its zone, the day only where it is not today's: `07:00 CET`, `Mon 07:00 CET`.
    fn named(&self, at: Timestamp) -> String {
        let zoned = |at: Timestamp| at.to_jiff().to_zoned(self.zone.clone());
        let (then, now) = (zoned(at), zoned(self.now));
        let away = now.date().until(then.date()).map_or(i32::MAX, |span| span.get_days().abs());
        let day = match away {
            0 => "",
            1..=6 => "%a ",
            _ => "%Y-%m-%d ",
        };
        let clock = if then.second() == 0 { "%H:%M %Z" } else { "%H:%M:%S %Z" };
        then.strftime(&format!("{day}{clock}")).to_string()
    }

    /// Calendar days from `at` to now; less than 0 for days to come.
    fn days_before(&self, at: Timestamp) -> i32 {
        let date = |at: Timestamp| at.to_jiff().to_zoned(self.zone.clone()).date();
        date(at).until(date(self.now)).map_or(i32::MAX, |span| span.get_days())
    }

    fn format(&self, at: Timestamp, pattern: &str) -> String {
        at.to_jiff().to_zoned(self.zone.clone()).strftime(pattern).to_string()
    }
}

/// A duration in one unit, as short as it says enough: `182 ms`, `1.6 s`, `31 m`, `2 h`, `3 d`.
pub fn duration(length: Duration) -> String {
    let ms = length.as_millis();
    let seconds = length.as_secs();
    match seconds {
        0 if ms < 500 => format!("{ms} ms"),
        0..10 => format!("{:.1} s", length.as_secs_f64()).replace(".0 s", " s"),
        _ => age(length),
    }
}

/// A duration in whole units: `0 s`, `12 s`, `31 m`, `2 h`, `3 d`.
pub fn age(length: Duration) -> String {
    match length.as_secs() {
        s @ ..120 => format!("{s} s"),
        s if s < 2 * HOUR => format!("{} m", s / MINUTE),
        s if s < 2 * DAY => format!("{} h", s / HOUR),
        s => format!("{} d", s / DAY),
    }
}

/// Milliseconds as the log shows them, always in `ms`.
pub fn millis(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { duration(Duration::from_millis(ms)) }
}

/// A number with separators: `1,204,113`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size: `512 B`, `3.1 MB` (1 KB = 1,024 B, as in the configuration).
pub fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    match units.into_iter().find(|(factor, _)| bytes >= *factor) {
        Some((factor, unit)) => {
            let tenths = bytes.saturating_mul(10) / factor;
            if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            }
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn times() -> Times {
        Times { now: at("2026-03-02T12:01:01.204Z"), zone: TimeZone::UTC, iso: false }
    }

    #[test]
    fn moments_are_relative_or_rfc_3339() {
        let now = at("2026-03-02T12:00:00Z");
        let read = |text: &str| text.parse::<Moment>().map(|m| m.resolve(now).to_string());
        assert_eq!(read("2h").as_deref(), Ok("2026-03-02T10:00:00.000Z"));
        assert_eq!(read("0s").as_deref(), Ok("2026-03-02T12:00:00.000Z"));
        assert_eq!(read("2026-03-01T00:00:00+02:00").as_deref(), Ok("2026-02-28T22:00:00.000Z"));
        assert!(read("9999999999d").is_ok(), "far beyond any retention");
        for bad in ["", "2", "yesterday", "2 h", "-2h", "2026-03-01", "2026-03-01T00:00:00"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sentences_of_the_api_name_moments_in_the_local_zone() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let times = Times { now: at("2026-03-06T12:01:01.204Z"), zone, iso: false };
        for (text, told) in [
            ("next 2026-03-09T06:00:00.000Z", "next Mon 07:00 CET"),
            ("next 2026-03-06T12:02:00Z", "next 13:02 CET"),
            ("next 2026-04-01T05:00:00Z", "next 2026-04-01 07:00 CEST"),
            ("since 2026-03-06T07:56:05.100Z by ana (\"db\")", "since 08:56:05 CET by ana (\"db\")"),
            ("POST /hooks/2026", "POST /hooks/2026"),
        ] {
            assert_eq!(times.told(text), told);
        }
        let iso = Times { iso: true, ..times };
        assert_eq!(iso.told("next 2026-03-09T06:00:00.000Z"), "next 2026-03-09T06:00:00.000Z");
    }

    #[test]
    fn times_are_shown_from_now() {
        let times = times();
        assert_eq!(times.at(at("2026-03-02T12:00:01.204Z")), "12:00:01.204 (60 s ago)");
        assert_eq!(times.at(at("2026-03-01T18:02:44Z")), "yesterday 18:02:44");
        assert_eq!(times.at(at("2026-02-27T18:02:44Z")), "2026-02-27 18:02:44");
        assert_eq!(times.at(at("2026-03-02T12:01:07.204Z")), "12:01:07.204 (in 6 s)");
        assert_eq!(times.at(at("2026-03-03T00:19:43Z")), "tomorrow 00:19:43 (in 12 h)");
        assert_eq!(times.at(at("2027-02-24T00:19:43Z")), "2027-02-24 00:19:43 (in 358 d)");
        assert_eq!(times.short(at("2027-02-24T00:19:43Z")), "in 358 d");
        assert_eq!(times.short(at("2026-03-02T08:00:00Z")), "08:00:00");
        assert_eq!(times.short(at("2026-02-28T12:00:00Z")), "2 d ago");
        assert_eq!(times.due(at("2027-02-24T10:46:00Z")), "2027-02-24 10:46");
        assert_eq!(times.due(at("2026-03-02T13:00:00Z")), "13:00:00");
        let iso = Times { iso: true, ..times };
        assert_eq!(iso.at(at("2026-03-01T18:02:44Z")), "2026-03-01T18:02:44.000Z");
    }

    #[test]
    fn a_zone_moves_the_clock_and_the_day() {
        let zone = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::fixed(jiff::tz::offset(1)));
        let times = Times { zone, ..times() };
        assert_eq!(times.clock(at("2026-03-02T12:00:01.204Z")), "13:00:01.204");
        assert_eq!(times.at(at("2026-03-01T23:30:00Z")), "00:30:00.000 (12 h ago)");
    }

    #[test]
    fn durations_counts_and_sizes() {
        let show = |ms| duration(Duration::from_millis(ms));
        let shown = [0, 182, 700, 1_640, 2_000, 12_400, 119_000, 1_860_000, 7_200_000, 259_200_000].map(show);
        assert_eq!(shown, ["0 ms", "182 ms", "0.7 s", "1.6 s", "2 s", "12 s", "119 s", "31 m", "2 h", "3 d"]);
        assert_eq!([0, 999, 1_000, 1_204_113].map(count), ["0", "999", "1,000", "1,204,113"]);
        assert_eq!([12, 2_048, 3_250_586, 20 << 30].map(size), ["12 B", "2 KB", "3.1 MB", "20 GB"]);
    }
}
