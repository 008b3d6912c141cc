//! A tick, as an event. Pure.

use bellwire_schemas::{Event, SourceName, Timestamp};
use bytes::Bytes;
use serde_json::json;

use super::Timer;
use crate::Draft;

/// `type` of every tick.
pub const TYPE: &str = "schedule.tick";

/// The event of a tick: its id, and its dedup key, are schedule and tick.
pub fn draft(source: &SourceName, tick: Timestamp) -> Draft {
    let time = text(tick);
    let event = Event {
        id: format!("{source}/{time}"),
        source: format!("schedule:{source}"),
        kind: TYPE.into(),
        subject: Some(time.clone()),
        time: time.clone(),
        datacontenttype: Some("application/json".into()),
        data: Some(Bytes::from(json!({ "scheduled_time": time }).to_string())),
        ..Event::default()
    };
    Draft { event, key: None, dedup: Some(time), keep_bad: true }
}

/// A tick's time as RFC 3339 in UTC, without a fraction where there is none.
pub fn text(tick: Timestamp) -> String {
    tick.to_jiff().to_string()
}

impl Timer {
    /// The event of a tick of this timer.
    pub fn envelope(&self, tick: Timestamp) -> Draft {
        draft(&self.source.name, tick)
    }
}
