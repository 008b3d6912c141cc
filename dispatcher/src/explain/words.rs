//! The words for what is owed: state and reason code, the same in lists and in explanations. Pure.

use bellwire_ledger::{BindingRecord, OwedReason};

use crate::binding::Held;
use crate::status::BindingLive;

/// Why a binding takes nothing on, as a reason code (`binding-paused`, `binding-disabled`, `binding-inactive`); `None`:
/// it does. By the ledger's record, and by the configuration in force where a dispatcher runs.
pub fn held(record: &BindingRecord, live: Option<&BindingLive>) -> Option<&'static str> {
    match live {
        _ if !record.active => Some(Held::Inactive.as_str()),
        Some(live) if matches!(live.state, "paused" | "inactive") => live.reason,
        _ => record.paused.as_ref().map(|_| Held::Paused.as_str()),
    }
}

/// The state and the reason code of a debt; `held`: what [`held`] says of its binding. A request to cancel, and a key
/// that waits for an operator, are what they are in a paused binding, too: going on would not change them.
pub fn owed_words(reason: &OwedReason, held: Option<&'static str>) -> (&'static str, &'static str) {
    match (reason, held) {
        (OwedReason::Cancelled | OwedReason::Blocked, _) | (_, None) => words(reason),
        (_, Some(held)) => ("paused", held),
    }
}

/// The state and the reason code of a debt of a binding that nothing holds.
pub const fn words(reason: &OwedReason) -> (&'static str, &'static str) {
    match reason {
        OwedReason::Retry => ("retrying", "retry"),
        OwedReason::Redrive => ("retrying", "redrive"),
        OwedReason::Replay(_) => ("retrying", "replay"),
        OwedReason::Parked => ("parked", "key-parked"),
        OwedReason::Blocked => ("parked", "key-blocked"),
        OwedReason::Delayed => ("waiting", "deliver-at"),
        OwedReason::Debounced => ("waiting", "debounce"),
        OwedReason::Cancelled => ("waiting", "cancel-requested"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_binding_holds_what_would_go_on_with_it() {
        let held = Some("binding-paused");
        assert_eq!(owed_words(&OwedReason::Retry, None), ("retrying", "retry"));
        assert_eq!(owed_words(&OwedReason::Retry, held), ("paused", "binding-paused"));
        assert_eq!(owed_words(&OwedReason::Parked, held), ("paused", "binding-paused"));
        assert_eq!(owed_words(&OwedReason::Blocked, held), ("parked", "key-blocked"));
        assert_eq!(owed_words(&OwedReason::Cancelled, held), ("waiting", "cancel-requested"));
    }
}
