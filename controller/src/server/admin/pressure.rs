//! Which sources do not take events in, and whose fault that is: the ledger fills up because some binding is behind.

use bellwire_connectors::pressure::LEDGER_FULL;
use bellwire_schemas::Timestamp;
use bellwire_schemas::api::{BindingStatus, LedgerStatus, SourceStatus};

use crate::cli::times::{age, count, size};

/// Adds to the reason of each source that waits for a full ledger which binding fills it. A ledger at its limit shows
/// even while nobody sends.
pub fn explain(
    sources: &mut [SourceStatus],
    ledger: &LedgerStatus,
    bindings: &[BindingStatus],
    now: Timestamp,
) {
    if let Some(max) = ledger.max_size_bytes.filter(|max| ledger.size_bytes >= *max) {
        for source in sources.iter_mut().filter(|source| source.state == "ok") {
            source.state = "paused".into();
            source.reason =
                Some(format!("{LEDGER_FULL}: {} of {} are used", size(ledger.size_bytes), size(max)));
        }
    }
    let Some(blame) = blame(bindings, now) else { return };
    for reason in sources.iter_mut().filter(|source| is_full(source)).filter_map(|s| s.reason.as_mut()) {
        if let Some(rest) = reason.strip_prefix(LEDGER_FULL).and_then(|rest| rest.strip_prefix(": ")) {
            *reason = format!("{LEDGER_FULL}: {blame}; {rest}");
        }
    }
}

fn is_full(source: &SourceStatus) -> bool {
    source.state == "paused" && source.reason.as_ref().is_some_and(|reason| reason.starts_with(LEDGER_FULL))
}

/// The binding whose backlog is the oldest, in words.
fn blame(bindings: &[BindingStatus], now: Timestamp) -> Option<String> {
    let behind = bindings.iter().filter(|binding| binding.waiting + binding.retrying > 0);
    let (oldest, binding) = behind.filter_map(|b| Some((b.oldest_owed_at?, b))).min_by_key(|(at, _)| *at)?;
    let waits = match binding.waiting + binding.retrying {
        1 => "1 delivery waits".into(),
        owed => format!("{} deliveries wait", count(owed)),
    };
    let state = match binding.state.as_str() {
        "ok" => String::new(),
        state => format!(" ({state})"),
    };
    Some(format!("{waits} for {}{state}, the oldest for {}", binding.name, age(now.since(oldest))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(10 * 3_600_000);

    fn source(name: &str, state: &str, reason: Option<&str>) -> SourceStatus {
        let text = json!({"name": name, "kind": "topic", "state": state, "reason": reason, "entrance": "",
            "accepted": 0, "duplicate": 0, "quarantined": 0, "refused": 0, "last_at": null});
        serde_json::from_value(text).unwrap()
    }

    fn binding(name: &str, state: &str, waiting: u64, hours: Option<i64>) -> BindingStatus {
        let oldest = hours.map(|hours| NOW.minus(std::time::Duration::from_secs(hours as u64 * 3_600)));
        let text = json!({"name": name, "source": "s", "function": "f", "state": state, "reason": null,
            "detail": null, "revision": 1, "running": 0, "waiting": waiting, "retrying": 0, "delivered": 0,
            "filtered": 0, "expired": 0, "dead": 0, "discarded": 0, "oldest_owed_at": oldest});
        serde_json::from_value(text).unwrap()
    }

    fn ledger(size_bytes: u64, max_size_bytes: Option<u64>) -> LedgerStatus {
        LedgerStatus { url: String::new(), size_bytes, max_size_bytes, retention_ms: 0 }
    }

    #[test]
    fn a_full_ledger_names_the_binding_that_is_behind() {
        let mut sources = [
            source("a", "paused", Some("ledger-full: 1 of 1 bytes are used")),
            source("b", "paused", Some("enabled: false")),
            source("c", "failing", Some("away")),
        ];
        let bindings = [
            binding("x:a", "ok", 9, Some(1)),
            binding("price:orders", "paused", 1_204_113, Some(3)),
            binding("z:a", "ok", 0, None),
        ];
        explain(&mut sources, &ledger(1, None), &bindings, NOW);
        let expected = "ledger-full: 1,204,113 deliveries wait for price:orders (paused), the oldest for 3 h; 1 of 1 \
            bytes are used";
        assert_eq!(sources[0].reason.as_deref(), Some(expected));
        assert_eq!(sources[1].reason.as_deref(), Some("enabled: false"));
    }

    #[test]
    fn a_ledger_at_its_limit_shows_without_traffic() {
        let mut sources = [source("a", "ok", None), source("b", "stalled", Some("stuck"))];
        explain(&mut sources, &ledger(2 << 30, Some(2 << 30)), &[], NOW);
        assert_eq!(sources[0].reason.as_deref(), Some("ledger-full: 2 GB of 2 GB are used"));
        assert_eq!(sources[1].state, "stalled");
        let mut sources = [source("a", "ok", None), source("b", "paused", Some("memory: too many"))];
        explain(&mut sources, &ledger(1, Some(2)), &[binding("x:a", "ok", 9, Some(1))], NOW);
        assert_eq!(
            (sources[0].state.as_str(), sources[1].reason.as_deref()),
            ("ok", Some("memory: too many"))
        );
    }
}
