//! A timer's settings, parsed: its ticks as one ordered sequence.

use std::sync::Arc;
use std::time::Duration;

use bellwire_schedules::Schedule;
use bellwire_schemas::Timestamp;
use bellwire_schemas::service::{Missed, ScheduleSpec, SourceSpec};
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// A schedule source, ready to compute ticks.
#[derive(Clone, Debug)]
pub struct Timer {
    /// The source.
    pub source: Arc<SourceSpec>,
    /// What happens to ticks that were missed.
    pub missed: Missed,
    /// A tick is emitted up to this much later.
    pub jitter: Duration,
    schedules: Vec<Schedule>,
    zone: TimeZone,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    fingerprint: String,
}

impl Timer {
    /// Parses expressions and zone.
    ///
    /// # Errors
    /// Names the expression or zone that is wrong.
    pub fn new(source: Arc<SourceSpec>, spec: &ScheduleSpec) -> Result<Self, String> {
        if spec.expressions.is_empty() {
            return Err("a schedule needs an expression".into());
        }
        let schedules = spec.expressions.iter().map(|e| Schedule::parse(e)).collect::<Result<_, _>>();
        let zone = bellwire_schedules::time_zone(&spec.timezone).map_err(|e| e.to_string())?;
        let rule = format!("{:?} {} {:?}", spec.expressions, spec.timezone, spec.start);
        Ok(Self {
            source,
            missed: spec.missed,
            jitter: spec.jitter,
            schedules: schedules.map_err(|e| e.to_string())?,
            zone,
            start: spec.start,
            end: spec.end,
            fingerprint: hex::encode(&Sha256::digest(rule)[..4]),
        })
    }

    /// Changes when the ticks do: expressions, zone or start. Stored beside the position, so that a new rule does not
    /// make ticks for the time before it was written.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The first tick after a moment, of any expression, within start and end.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let floor = self.start.map_or(after, |start| after.max(start.minus(Duration::from_micros(1))));
        let next = |schedule: &Schedule| schedule.next_after(floor.to_jiff(), &self.zone, self.anchor());
        let tick = Timestamp::from_jiff(self.schedules.iter().filter_map(next).min()?);
        // Outside the calendar's range a tick would not move forward: then there is none.
        (tick > after && self.end.is_none_or(|end| tick <= end)).then_some(tick)
    }

    /// The last tick at or before a moment, within start and end.
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        let ceiling = self.end.map_or(until, |end| until.min(end)).plus(Duration::from_micros(1));
        let last = |schedule: &Schedule| schedule.prev_before(ceiling.to_jiff(), &self.zone, self.anchor());
        let tick = Timestamp::from_jiff(self.schedules.iter().filter_map(last).max()?);
        self.start.is_none_or(|start| tick >= start).then_some(tick)
    }

    /// When a tick is emitted: its time plus a delay below the jitter, the same on every controller.
    pub fn due(&self, tick: Timestamp) -> Timestamp {
        let width = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        if width == 0 {
            return tick;
        }
        let hash = Sha256::digest(format!("{}/{}", self.source.name, tick.micros()));
        let mut head = [0; 8];
        head.copy_from_slice(&hash[..8]);
        tick.plus(Duration::from_millis(u64::from_be_bytes(head) % width))
    }

    /// The first tick of a rate.
    fn anchor(&self) -> jiff::Timestamp {
        self.start.unwrap_or_default().to_jiff()
    }
}
