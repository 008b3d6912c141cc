//! The words for what is owed: state and reason code, the same in lists and in explanations. Pure.

use bellwire_ledger::{BindingRecord, Owed, OwedReason};

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
pub fn owed_words(owed: &Owed, held: Option<&'static str>) -> (&'static str, &'static str) {
    match (&owed.reason, held) {
        (OwedReason::Cancelled | OwedReason::Blocked, _) | (_, None) => words(owed),
        (_, Some(held)) => ("paused", held),
    }
}

/// The state and the reason code of a debt of a binding that nothing holds.
pub const fn words(owed: &Owed) -> (&'static str, &'static str) {
    match owed.reason {
        OwedReason::Retry => ("retrying", "retry"),
        OwedReason::Redrive => ("retrying", "redrive"),
        OwedReason::Replay(_) => ("retrying", "replay"),
        OwedReason::Parked => ("parked", "key-parked"),
        OwedReason::Blocked => ("parked", "key-blocked"),
        OwedReason::Delayed | OwedReason::Debounced if owed.attempts > 0 => ("retrying", "retry"),
        OwedReason::Delayed => ("waiting", "deliver-at"),
        OwedReason::Debounced => ("waiting", "debounce"),
        OwedReason::Cancelled => ("waiting", "cancel-requested"),
    }
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::{Seq, Timestamp};

    use super::*;

    #[test]
    fn a_held_binding_holds_what_would_go_on_with_it() {
        let owed = |reason, attempts| Owed {
            seq: Seq(1),
            attempts,
            next_at: Timestamp::from_millis(5),
            since: Timestamp::from_millis(1),
            error: None,
            reason,
            key: None,
        };
        let held = Some("binding-paused");
        assert_eq!(owed_words(&owed(OwedReason::Retry, 1), None), ("retrying", "retry"));
        assert_eq!(owed_words(&owed(OwedReason::Delayed, 0), None), ("waiting", "deliver-at"));
        assert_eq!(owed_words(&owed(OwedReason::Delayed, 1), None), ("retrying", "retry"));
        assert_eq!(owed_words(&owed(OwedReason::Retry, 1), held), ("paused", "binding-paused"));
        assert_eq!(owed_words(&owed(OwedReason::Parked, 0), held), ("paused", "binding-paused"));
        assert_eq!(owed_words(&owed(OwedReason::Blocked, 3), held), ("parked", "key-blocked"));
        assert_eq!(owed_words(&owed(OwedReason::Cancelled, 0), held), ("waiting", "cancel-requested"));
    }
}
