//! How a delivery looks in lists: the words of `explain`, for what is owed.

use bellwire_dispatcher::{BindingLive, explain};
use bellwire_ledger::{BindingRecord, DeliveryKey, EventHead, Owed, OwedDelivery, OwedKind, StoredEvent};
use bellwire_schemas::BindingName;
use bellwire_schemas::api::DeliveryView;

use super::search::Found;

/// The binding of a delivery, as the ledger knows it and as it stands now.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Absent for a number that was never declared.
    pub record: Option<&'a BindingRecord>,
    /// Absent without a controller.
    pub live: Option<&'a BindingLive>,
}

impl Side<'_> {
    /// Why the binding takes nothing on, whatever is owed to it.
    pub fn held(&self) -> Option<&'static str> {
        explain::held(self.record?, self.live)
    }
}

/// A debt, or a request to cancel what the cursor has not passed.
pub fn owed(debt: &OwedDelivery, side: Side<'_>, runs: bool) -> Found {
    let (owed, head) = (&debt.owed, debt.event.as_ref());
    let (held, kind) = (side.held(), owed.reason.kind());
    let (own, why) = explain::words(owed);
    let (state, reason) = if runs { ("running", why) } else { explain::owed_words(owed, held) };
    let is_timed = !matches!(state, "running" | "parked" | "paused") && kind != OwedKind::Cancelled;
    let view = DeliveryView {
        address: debt.address,
        binding: side
            .record
            .map_or_else(|| BindingName::new(format!("#{}", debt.binding)), |record| record.name.clone()),
        id: head.map(|head| head.id.clone()),
        source: head.map(|head| head.source.clone()),
        kind: head.map(|head| head.kind.clone()),
        key: owed.key.clone(),
        state: state.into(),
        reason: Some(reason.into()),
        attempts: owed.attempts,
        accepted_at: debt.accepted_at,
        next_attempt_at: is_timed.then_some(owed.next_at),
        error: owed.error.clone(),
    };
    Found {
        key: DeliveryKey { binding: debt.binding, address: debt.address },
        view,
        own,
        held,
        ahead: false,
        requested: kind == OwedKind::Cancelled,
    }
}

/// A delivery without a debt: it runs, or the cursor has not come to it.
pub fn ahead(stored: &StoredEvent, record: &BindingRecord, live: Option<&BindingLive>, runs: bool) -> Found {
    let held = Side { record: Some(record), live }.held();
    let waits = live.filter(|live| live.state == "waiting");
    let (state, reason) = match held {
        _ if runs => ("running", None),
        Some(held) => ("paused", Some(held)),
        None => ("waiting", waits.map_or(live.map(|_| "concurrency"), |live| live.reason)),
    };
    let view = DeliveryView {
        address: stored.address,
        binding: record.name.clone(),
        id: Some(stored.event.id.clone()),
        source: Some(stored.source.clone()),
        kind: Some(stored.event.kind.clone()),
        key: stored.key.clone(),
        state: state.into(),
        reason: reason.map(Into::into),
        attempts: 0,
        accepted_at: stored.accepted_at,
        next_attempt_at: waits.filter(|_| state == "waiting").and_then(|live| live.next_at),
        error: None,
    };
    Found {
        key: DeliveryKey { binding: record.id, address: stored.address },
        view,
        own: if runs { "running" } else { "waiting" },
        held,
        ahead: true,
        requested: false,
    }
}

/// A debt with what its event says.
pub fn of_event(key: DeliveryKey, stored: &StoredEvent, owed: Owed) -> OwedDelivery {
    let event = &stored.event;
    let head = EventHead { id: event.id.clone(), kind: event.kind.clone(), source: stored.source.clone() };
    let (binding, address, accepted_at) = (key.binding, key.address, stored.accepted_at);
    OwedDelivery { binding, address, accepted_at, owed, event: Some(head) }
}
