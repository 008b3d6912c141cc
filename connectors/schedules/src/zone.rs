//! From wall-clock times to instants: what a schedule means where a zone changes its offset.
//!
//! The rule, for schedules that name hours of the day: a skipped local time runs once at the first valid
//! instant, a repeated one runs once, at its first occurrence. A schedule that names every hour means elapsed
//! time: it runs through both passes of a repeated hour and makes up for nothing in a skipped one, so that
//! "every five minutes" never pauses.

use crate::cron::Cron;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const TICK: SignedDuration = SignedDuration::from_nanos(1);

/// More than any offset from UTC (jiff's bound is under 26 h): so far before a wall-clock time read as UTC,
/// that time has not come yet in any zone.
const WIDEST_OFFSET: SignedDuration = SignedDuration::from_hours(26);

/// A span with one UTC offset, and the wall-clock times that belong to it.
#[derive(Debug)]
struct Segment {
    start: Timestamp,
    end: Timestamp,
    offset: Offset,
    /// First wall-clock time that counts in this segment. Later than the wall clock at `start` after a fold
    /// (the repeated times belong to the segment before), earlier after a gap (the skipped times belong here).
    window: DateTime,
    /// Wall clock of the segment before, at `start`.
    before: DateTime,
}

impl Segment {
    fn at(zone: &TimeZone, instant: Timestamp, every_hour: bool) -> Self {
        let start = match instant.checked_add(TICK) {
            Ok(after) => zone.preceding(after).next().map(|transition| transition.timestamp()),
            Err(_) => None,
        };
        let start = start.unwrap_or(Timestamp::MIN);
        let end = zone.following(instant).next().map_or(Timestamp::MAX, |transition| transition.timestamp());
        let offset = zone.to_offset(instant);
        let before = start.checked_sub(TICK).map_or(offset, |earlier| zone.to_offset(earlier));
        let before = before.to_datetime(start);
        let window = if every_hour { offset.to_datetime(start) } else { before };
        Self { start, end, offset, window, before }
    }

    /// Gives the instant of a wall-clock time of this segment; a skipped one runs at the segment's start.
    fn instant(&self, wall: DateTime) -> Option<Timestamp> {
        Some(self.offset.to_timestamp(wall).ok()?.max(self.start))
    }

    fn holds(&self, wall: DateTime) -> bool {
        wall < self.offset.to_datetime(self.end)
    }
}

/// Finds the first tick strictly after an instant.
pub(crate) fn next_after(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let every_hour = cron.is_every_hour();
    let mut segment = Segment::at(zone, after, every_hour);
    let mut from = floor(segment.offset.to_datetime(after)).checked_add(SECOND).ok()?.max(segment.window);
    // the segment after the first may show wall-clock times again that lie before `from`
    let mut revisit = every_hour;
    loop {
        let found = cron.next_from(from);
        match found {
            Some(wall) if segment.holds(wall) => return segment.instant(wall),
            None if !revisit => return None,
            _ if segment.end == Timestamp::MAX => return None,
            _ => {}
        }
        let skip_to = match found {
            Some(wall) if !revisit => {
                Offset::UTC.to_timestamp(wall).ok()?.saturating_sub(WIDEST_OFFSET).ok()?
            }
            _ => segment.end,
        };
        segment = Segment::at(zone, segment.end.max(skip_to), every_hour);
        from = match found {
            Some(wall) if !revisit => segment.window.max(wall),
            _ => segment.window,
        };
        revisit = false;
    }
}

/// Finds the last tick strictly before an instant.
pub(crate) fn prev_before(cron: &Cron, zone: &TimeZone, before: Timestamp) -> Option<Timestamp> {
    let every_hour = cron.is_every_hour();
    let mut segment = Segment::at(zone, before.checked_sub(TICK).ok()?, every_hour);
    let mut until = below(segment.offset.to_datetime(before))?;
    // repeated wall-clock times belong to the segment before
    let mut revisit = every_hour;
    loop {
        let found = cron.prev_until(until);
        match found {
            Some(wall) if wall >= segment.window => return segment.instant(wall),
            None if !revisit => return None,
            _ if segment.start == Timestamp::MIN => return None,
            _ => {}
        }
        let skip_to = match found {
            Some(wall) if !revisit => {
                Offset::UTC.to_timestamp(wall).ok()?.saturating_add(WIDEST_OFFSET).ok()?
            }
            _ => Timestamp::MAX,
        };
        let last = below(segment.before)?;
        segment = Segment::at(zone, segment.start.checked_sub(TICK).ok()?.min(skip_to), every_hour);
        until = match found {
            Some(wall) if !revisit => last.min(wall),
            _ => last,
        };
        revisit = false;
    }
}

/// Gives the one instant of a local time: its first occurrence, or the first valid instant if it is skipped.
pub(crate) fn instant_of(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            let before_gap = after.to_timestamp(wall).ok()?;
            zone.following(before_gap).next().map(|transition| transition.timestamp())
        }
    }
}

fn floor(wall: DateTime) -> DateTime {
    wall.with().subsec_nanosecond(0).build().unwrap_or(wall)
}

/// Gives the last whole second strictly before a wall-clock time.
fn below(wall: DateTime) -> Option<DateTime> {
    let whole = floor(wall);
    if whole < wall { Some(whole) } else { whole.checked_sub(SECOND).ok() }
}
