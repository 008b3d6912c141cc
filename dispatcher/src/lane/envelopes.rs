//! Each event is parsed once for the filters of all bindings of a lane.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwire_ledger::StoredEvent;
use bellwire_schemas::Seq;
use serde_json::Value;

/// Places kept; readers that keep up are within a read of each other.
const KEPT: usize = 512;
/// Larger payloads are parsed each time: parsed JSON takes several times its text, and this bounds the memory.
const MAX_BYTES: usize = 8 << 10;

type Slots = Vec<Option<(Seq, Arc<Value>)>>;

/// Recently parsed envelopes, by place.
#[derive(Default)]
pub(crate) struct Envelopes(Mutex<Slots>);

impl Envelopes {
    /// The envelope that a filter sees.
    pub(crate) fn of(&self, event: &StoredEvent) -> Arc<Value> {
        let seq = event.address.seq;
        let slot = usize::try_from(seq.0 % KEPT as u64).unwrap_or(0);
        if let Some(Some((kept, envelope))) = self.lock().get(slot)
            && *kept == seq
        {
            return Arc::clone(envelope);
        }
        let envelope = Arc::new(event.event.envelope());
        if event.event.data.as_ref().is_none_or(|data| data.len() <= MAX_BYTES) {
            let mut slots = self.lock();
            if slots.is_empty() {
                slots.resize_with(KEPT, || None);
            }
            slots[slot] = Some((seq, Arc::clone(&envelope)));
        }
        envelope
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
