//! How one binding looks: its state, where it stands, how it delivers.

use std::time::Duration;

use bellwire_schemas::api::{BindingDetail, BindingStatus, PolicyView, SendingView};
use bellwire_schemas::{Address, ByteSize, Span};

use crate::cli::commands::status::why;
use crate::cli::text::{Paint, Style, clean};
use crate::cli::times::{Times, count, duration};

/// Everything, for `show`.
pub fn whole(binding: &BindingDetail, times: &Times, paint: Paint) -> Vec<String> {
    let status = &binding.status;
    let mut lines = vec![head(status, times, paint)];
    let mut rows = vec![("source", status.source.to_string()), ("function", status.function.to_string())];
    let from = match binding.effective_from.as_slice() {
        [] => String::new(),
        places => format!(", in force from {}", list(places)),
    };
    rows.push(("revision", format!("{}{from}", status.revision)));
    rows.push(("position", list(&binding.position)));
    rows.push(("owed", owed(status, times)));
    rows.push((
        "ended",
        format!(
            "{} delivered, {} filtered, {} expired, {} dead, {} discarded",
            count(status.delivered),
            count(status.filtered),
            count(status.expired),
            count(status.dead),
            count(status.discarded)
        ),
    ));
    if let Some(limit) = status.limit {
        rows.push(("target", format!("stands {limit} at once now")));
    }
    if let Some(policy) = &binding.policy {
        rows.extend(policy_rows(policy));
    }
    lines.extend(rows.iter().map(|(name, value)| format!("  {name:<10} {}", clean(value))));
    lines
}

/// Where it stands, for `pause`.
pub fn paused(binding: &BindingDetail, times: &Times, paint: Paint) -> Vec<String> {
    let status = &binding.status;
    vec![
        head(status, times, paint),
        format!("  stands at  {}", list(&binding.position)),
        format!("  owed       {}", clean(&owed(status, times))),
    ]
}

/// What the pause was, and what gathered in it, for `resume`.
pub fn resumed(binding: &BindingDetail, times: &Times, paint: Paint) -> Vec<String> {
    let status = &binding.status;
    let was = match &binding.was_paused {
        None => "it was not paused".into(),
        Some(pause) => {
            let reason =
                if pause.reason.is_empty() { String::new() } else { format!(" (\"{}\")", pause.reason) };
            format!("was paused since {} by {}{reason}", times.at(pause.since), pause.by)
        }
    };
    let goes_on = if status.reason.as_deref() == Some("binding-disabled") {
        "stays still: the configuration disables it. Change `enabled: false` in its entry; owed"
    } else {
        "goes on with"
    };
    vec![
        head(status, times, paint),
        format!("  {}", clean(&was)),
        format!("  {goes_on} {}", clean(&owed(status, times))),
    ]
}

/// What to do about a state.
pub fn remark(status: &BindingStatus) -> Option<String> {
    if status.pause.is_some() {
        Some(format!("go on: bellwire bindings resume {}", status.name))
    } else if status.dead > 0 {
        Some(format!("why: bellwire dead-letters groups --binding {}", status.name))
    } else {
        None
    }
}

fn head(status: &BindingStatus, times: &Times, paint: Paint) -> String {
    let state = paint.style(Paint::state(&status.state), &status.state).into_owned();
    let why = match why(status, times) {
        why if why.is_empty() => why,
        why => format!(": {}", clean(&why)),
    };
    format!("{}   {state}{why}", paint.style(Style::Bold, &clean(status.name.as_str())))
}

fn owed(status: &BindingStatus, times: &Times) -> String {
    let oldest =
        status.oldest_owed_at.map(|at| format!(", oldest accepted {}", times.at(at))).unwrap_or_default();
    // What runs is owed until it ends: a part of the others, not one more.
    let running = match status.running {
        0 => String::new(),
        1 => ", 1 of them running".into(),
        running => format!(", {} of them running", count(running)),
    };
    format!(
        "{} ({} waiting and {} retrying{running}){oldest}",
        count(status.waiting + status.retrying),
        count(status.waiting),
        count(status.retrying)
    )
}

fn policy_rows(policy: &PolicyView) -> Vec<(&'static str, String)> {
    let mut rows =
        vec![("batch", batch(policy)), ("ordering", policy.ordering.clone()), ("retry", retry(policy))];
    let limits = [
        policy.concurrency.map(|n| format!("{n} at once")),
        policy.rate.clone(),
        policy.max_age_ms.map(|ms| format!("not older than {}", span(ms))),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        rows.push(("limits", limits.join(", ")));
    }
    if let Some(debounce) = &policy.debounce {
        let most = debounce.max_wait_ms.map(|ms| format!(", at most {} after the first", span(ms)));
        rows.push(("debounce", format!("{}{}", span(debounce.wait_ms), most.unwrap_or_default())));
    }
    rows.extend(policy.singleton.clone().map(|word| ("singleton", word)));
    let sends = |sending: &SendingView| format!("{} ({})", sending.to, sending.payload);
    rows.extend(policy.on_success.as_ref().map(|sending| ("on success", sends(sending))));
    rows.extend(policy.on_failure.as_ref().map(|sending| ("on failure", sends(sending))));
    rows.extend(policy.filter.iter().map(|pattern| ("filter", pattern.to_string())));
    rows.extend(policy.input.as_ref().map(|input| ("input", input.to_string())));
    rows
}

fn batch(policy: &PolicyView) -> String {
    let batch = &policy.batch;
    if batch.size == 1 {
        return "1".into();
    }
    let window = match batch.window_ms {
        0 => "what is there".to_owned(),
        ms => format!("waits {} for more", duration(Duration::from_millis(ms))),
    };
    let bisect = if batch.bisect { "halved when it fails" } else { "never halved" };
    format!("up to {} events or {}, {window}, {bisect}", count(batch.size.into()), ByteSize(batch.max_bytes))
}

fn retry(policy: &PolicyView) -> String {
    let retry = &policy.retry;
    let attempts = match retry.attempts {
        Some(1) => return format!("1 attempt, {}", after(&retry.exhausted)),
        Some(attempts) => format!("{} attempts", count(attempts.into())),
        None => "attempts without end".into(),
    };
    let end = if retry.attempts.is_some() { format!(", {}", after(&retry.exhausted)) } else { String::new() };
    let never = match retry.non_retryable.as_slice() {
        [] => String::new(),
        names => format!("; at once for {}", names.join(", ")),
    };
    let (min, max) = (span(retry.min_delay_ms), span(retry.max_delay_ms));
    format!("{attempts}, up to {min} apart at first and {max} at last{end}{never}")
}

fn after(exhausted: &str) -> &'static str {
    if exhausted == "block-key" { "then its key is blocked" } else { "then a dead letter" }
}

/// A duration as the configuration writes it.
fn span(ms: u64) -> Span {
    Span(Duration::from_millis(ms))
}

fn list(places: &[Address]) -> String {
    places.iter().map(Address::to_string).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::Timestamp;
    use jiff::tz::TimeZone;
    use serde_json::{Value, json};

    use super::*;

    fn times() -> Times {
        Times { now: Timestamp::parse("2026-03-02T12:00:00Z").unwrap(), zone: TimeZone::UTC, iso: false }
    }

    fn binding(more: Value) -> BindingDetail {
        let mut whole = json!({
            "name": "price:orders", "source": "orders", "function": "price", "state": "ok", "reason": null,
            "detail": null, "revision": 7, "running": 3, "waiting": 1_041, "retrying": 2, "delivered": 9, "filtered": 0,
            "expired": 0, "dead": 0, "discarded": 0, "oldest_owed_at": "2026-03-02T11:59:00Z",
            "position": ["1-42", "2-17"],
        });
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_policy_is_told_in_words() {
        let shown = binding(json!({
            "state": "waiting", "reason": "breaker-open", "detail": "503 from app", "limit": 4,
            "open_since": "2026-03-02T11:56:00Z", "next_probe_at": "2026-03-02T12:00:08Z",
            "drains_by": "2026-03-02T14:32:00Z", "effective_from": ["1-40", "2-1"],
            "policy": {
                "filter": [{"type": ["a"]}], "ordering": "key", "max_age_ms": 86_400_000, "concurrency": 20,
                "batch": {"size": 500, "max_bytes": 6_291_456, "window_ms": 200, "bisect": true},
                "retry": {
                    "attempts": 12, "min_delay_ms": 1_000, "max_delay_ms": 300_000,
                    "non_retryable": ["ValidationError"], "exhausted": "block-key"
                },
                "rate": "50/s", "debounce": {"wait_ms": 5_000, "max_wait_ms": 60_000}, "singleton": "skip",
                "on_success": {"to": "destination.audit", "payload": "record"}, "on_failure": null,
            },
        }));
        let expected = [
            "price:orders   waiting: 503 from app; open since 11:56:00, next probe in 8 s, drains by 14:32:00",
            "  source     orders",
            "  function   price",
            "  revision   7, in force from 1-40  2-1",
            "  position   1-42  2-17",
            "  owed       1,043 (1,041 waiting and 2 retrying, 3 of them running), oldest accepted 11:59:00.000 (60 s ago)",
            "  ended      9 delivered, 0 filtered, 0 expired, 0 dead, 0 discarded",
            "  target     stands 4 at once now",
            "  batch      up to 500 events or 6MB, waits 200 ms for more, halved when it fails",
            "  ordering   key",
            "  retry      12 attempts, up to 1s apart at first and 5m at last, then its key is blocked; at once for \
             ValidationError",
            "  limits     20 at once, 50/s, not older than 1d",
            "  debounce   5s, at most 1m after the first",
            "  singleton  skip",
            "  on success destination.audit (record)",
            "  filter     {\"type\":[\"a\"]}",
        ];
        assert_eq!(whole(&shown, &times(), Paint(false)), expected);
    }

    #[test]
    fn pause_and_resume_say_what_gathers() {
        let pause = json!({"since": "2026-03-02T11:30:00Z", "by": "ana", "reason": "db migration"});
        let shown = binding(json!({
            "state": "paused", "reason": "binding-paused", "pause": pause,
            "detail": "since 2026-03-02T11:30:00.000Z by ana (\"db migration\")",
        }));
        let expected = [
            "price:orders   paused: since 11:30 UTC by ana (\"db migration\")",
            "  stands at  1-42  2-17",
            "  owed       1,043 (1,041 waiting and 2 retrying, 3 of them running), oldest accepted 11:59:00.000 (60 s ago)",
        ];
        assert_eq!(paused(&shown, &times(), Paint(false)), expected);
        assert_eq!(remark(&shown.status).unwrap(), "go on: bellwire bindings resume price:orders");
        let lines = resumed(&binding(json!({ "was_paused": pause })), &times(), Paint(false));
        assert_eq!(lines[0], "price:orders   ok");
        assert_eq!(lines[1], "  was paused since 11:30:00.000 (30 m ago) by ana (\"db migration\")");
        assert!(lines[2].starts_with("  goes on with 1,043 (1,041 waiting"), "{}", lines[2]);
        assert_eq!(resumed(&binding(json!({})), &times(), Paint(false))[1], "  it was not paused");
        let still =
            json!({"state": "paused", "reason": "binding-disabled", "was_paused": pause, "running": 0});
        let lines = resumed(&binding(still), &times(), Paint(false));
        assert!(lines[2].starts_with("  stays still: the configuration disables it."), "{}", lines[2]);
        assert!(lines[2].contains("owed 1,043 (1,041 waiting and 2 retrying), oldest"), "{}", lines[2]);
    }
}
