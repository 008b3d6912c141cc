//! Events made before the clock starts: orders as a shop would send them, about 300 bytes of JSON each.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{Append, DedupKey, NewEvent};
use bellwire_schemas::{Event, Lane, SourceName};
use bytes::Bytes;
use uuid::Uuid;

/// Different events per lane; they come round again under new append ids.
const DIFFERENT: usize = 4_096;
/// Events prepared for one round at most, so that memory stays bounded: about 100 bytes each.
const PREPARED: usize = 3_000_000;

/// The events of one lane.
pub struct Ring {
    events: Vec<NewEvent>,
}

impl Ring {
    /// Makes the events of a lane.
    pub fn new(lane: Lane) -> Self {
        let source = SourceName::new("topic.orders");
        let events = (0..DIFFERENT as u64)
            .map(|number| NewEvent {
                source: source.clone(),
                lane,
                key: None,
                dedup: None,
                event: Arc::new(order(u64::from(lane.0) << 32 | number)),
            })
            .collect();
        Self { events }
    }

    /// An append of `batch` events, the `nth` of its kind. With `once`, each event has a dedup key never used before.
    pub fn append(&self, nth: usize, batch: usize, once: bool) -> Append {
        let append_id = Uuid::now_v7();
        let from = nth.wrapping_mul(batch) % DIFFERENT;
        let events = (0..batch).map(|i| {
            let mut new = self.events[(from + i) % DIFFERENT].clone();
            new.dedup = once
                .then(|| DedupKey { value: format!("{append_id}-{i}"), window: Duration::from_secs(86_400) });
            new
        });
        Append { append_id, events: events.collect(), positions: Vec::new(), quarantined: Vec::new() }
    }

    /// As many appends as `length` can use at a rate of `per_s` for this runner, but no more than one of `runners`
    /// may hold.
    pub fn appends(
        &self,
        batch: usize,
        once: bool,
        length: Duration,
        per_s: f64,
        runners: usize,
    ) -> Vec<Append> {
        let events = (per_s * length.as_secs_f64()) as usize;
        let count = events.min(PREPARED / runners.max(1)).div_ceil(batch).max(1);
        (0..count).map(|nth| self.append(nth, batch, once)).collect()
    }
}

/// An order whose text does not repeat, so that compression has no easy game.
fn order(number: u64) -> Event {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes());
    let customer = Uuid::new_v5(&id, b"customer");
    let bits = id.as_u128();
    let pick = |shift: u32, below: u128| (bits >> shift) % below;
    let data = format!(
        "{{\"order\":\"{id}\",\"customer\":\"{customer}\",\"email\":\"c{}@shop.example\",\
         \"items\":[{{\"sku\":\"A-{:06}\",\"quantity\":{},\"price\":{}}},{{\"sku\":\"B-{:06}\",\"quantity\":{},\
         \"price\":{}}}],\"total\":{},\"currency\":\"EUR\",\"paid\":true,\"note\":\"leave at door {}\"}}",
        pick(0, 1_000_000),
        pick(10, 1_000_000),
        1 + pick(30, 9),
        pick(34, 100_000),
        pick(50, 1_000_000),
        1 + pick(70, 9),
        pick(74, 100_000),
        pick(90, 1_000_000),
        pick(100, 400),
    );
    Event {
        id: id.to_string(),
        source: "topic:orders".into(),
        kind: "shop.order.placed".into(),
        time: format!("2026-01-01T{:02}:{:02}:{:02}Z", pick(1, 24), pick(7, 60), pick(13, 60)),
        datacontenttype: Some("application/json".into()),
        data: Some(Bytes::from(data)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_of_about_300_bytes() {
        for number in 0..100 {
            let event = order(number);
            let size = event.data.as_ref().unwrap().len();
            assert!((270..=330).contains(&size), "{size}");
            assert!(event.data_json().is_some());
        }
    }

    #[test]
    fn appends_never_share_an_id_or_a_dedup_key() {
        let ring = Ring::new(Lane(1));
        let appends = ring.appends(3, true, Duration::from_secs(1), 30.0, 1);
        let ids: std::collections::BTreeSet<_> = appends.iter().map(|a| a.append_id).collect();
        let keys: std::collections::BTreeSet<_> =
            appends.iter().flat_map(|a| &a.events).map(|e| e.dedup.as_ref().unwrap().value.clone()).collect();
        assert_eq!((ids.len(), keys.len()), (10, 30));
    }
}
