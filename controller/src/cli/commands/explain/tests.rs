use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-03-02T12:01:01.204Z";

fn times() -> Times {
    Times { now: Timestamp::parse(NOW).unwrap(), zone: TimeZone::UTC, iso: false }
}

fn event(duplicates: Value) -> Value {
    json!({
        "id": "b0c1-9e", "address": "1-1", "source": "s3.photos", "type": "com.amazonaws.s3.ObjectCreated:Put",
        "subject": "cat.jpg", "key": "cat.jpg", "accepted_at": "2026-03-02T12:00:01.204Z", "intake": "accepted",
        "duplicates": duplicates
    })
}

fn delivery(binding: &str, state: &str, rest: Value) -> Value {
    let mut base = json!({
        "binding": binding, "state": state, "reason": null, "detail": null, "revision": 7, "version": "3f9a",
        "ended_at": null, "next_attempt_at": null, "waits_for": null, "attempts_allowed": 4, "group": null,
        "attempts": []
    });
    for (name, value) in rest.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

fn attempt(number: u32, second: u32, error: Option<&str>) -> Value {
    let info = error.map(|e| json!({"class": "function", "type": e, "message": "disk says no"}));
    json!({
        "number": number, "started_at": format!("2026-03-02T12:00:{second:02}.000Z"), "duration_ms": 182,
        "outcome": if error.is_some() { "failure" } else { "success" }, "error": info, "worker": "2"
    })
}

fn shown(event: Value, deliveries: &[Value]) -> String {
    let explanation = serde_json::from_value(json!({"event": event, "deliveries": deliveries})).unwrap();
    render(&explanation, &times(), Paint(false)).join("\n")
}

const HEAD: &str = "1-1  s3.photos  com.amazonaws.s3.ObjectCreated:Put  cat.jpg   id b0c1-9e   accepted 12:00:01.204 (60 s ago)";

#[test]
fn delivered_and_filtered() {
    let ended = "2026-03-02T12:00:01.391Z";
    let text = shown(
        event(json!([])),
        &[
            delivery(
                "archive:s3.photos",
                "filtered",
                json!({
                    "reason": "filter-mismatch", "detail": "subject \"cat.jpg\" does not match {\"prefix\": \"raw/\"}"
                }),
            ),
            delivery(
                "thumbnail:s3.photos",
                "delivered",
                json!({"ended_at": ended, "attempts": [attempt(1, 1, None)]}),
            ),
        ],
    );
    let expected = format!("{HEAD}
  archive:s3.photos     filtered    subject \"cat.jpg\" does not match {{\"prefix\": \"raw/\"}}   rule of revision 7
  thumbnail:s3.photos   delivered   try 1 of 4, 182 ms, version 3f9a, worker 2            12:00:01.391");
    assert_eq!(text, expected);
}

#[test]
fn retrying_dead_and_paused() {
    let two = json!([attempt(1, 2, Some("IOError")), attempt(2, 31, Some("IOError"))]);
    let text = shown(
        event(json!([])),
        &[
            delivery(
                "a:s3.photos",
                "retrying",
                json!({"next_attempt_at": "2026-03-02T12:01:07.204Z", "attempts": two}),
            ),
            delivery(
                "b:s3.photos",
                "dead",
                json!({
                    "ended_at": "2026-03-02T12:00:32.000Z", "group": "e41c", "attempts": two
                }),
            ),
            delivery(
                "c:s3.photos",
                "paused",
                json!({
                    "reason": "binding-paused", "detail": "since 08:56 by ana (\"db migration\")"
                }),
            ),
            delivery("d:s3.photos", "waiting", json!({"reason": "concurrency", "waits_for": "d"})),
        ],
    );
    let expected = format!("{HEAD}
  a:s3.photos   retrying    2 of 4 tries used, next at 12:01:07.204 (in 6 s)                 last: IOError: disk says no, version 3f9a, worker 2
                tries       12:00:02 IOError · 12:00:31 IOError
  b:s3.photos   dead        2 tries over 30 s, gave up 12:00:32: IOError: disk says no   group e41c
                tries       12:00:02 IOError · 12:00:31 IOError
                next        bellwire dead-letters show 1-1
  c:s3.photos   paused      since 08:56 by ana (\"db migration\") → bellwire bindings resume c:s3.photos
  d:s3.photos   waiting     concurrency: waits for d");
    let squeezed =
        |s: &str| s.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(squeezed(&text), squeezed(&expected));
}

#[test]
fn duplicates_and_events_that_nobody_reads() {
    let later = json!([{"at": "2026-03-02T12:00:05Z", "id": "x"}, {"at": "2026-03-02T12:00:09Z", "id": "x"}]);
    let text = shown(event(later), &[]);
    let expected = format!(
        "{HEAD}
  duplicates   2 later arrivals were recognised as the same and not stored again: 12:00:05, 12:00:09
  nobody       no binding reads s3.photos at this place"
    );
    assert_eq!(text, expected);
}

#[test]
fn an_absence_says_what_could_be_it() {
    let absence: Absence = serde_json::from_value(json!({
        "id": "evt_9999", "source": "webhook.stripe", "retention_ms": 604_800_000_u64,
        "last_accepted": ["evt_5630", "2026-03-02T12:00:49.204Z"], "healthy": true,
        "refused": [["bad-signature", 4, "2026-03-02T07:58:00Z", "203.0.113.9"]], "quarantined": 2
    }))
    .unwrap();
    let expected = "\
never seen: no event with id evt_9999 on webhook.stripe in the last 7 d (retention)
  last accepted   evt_5630, 12 s ago; the source takes events in
  refused         4 requests since yesterday: bad-signature (last 07:58:00, from 203.0.113.9): could be it
  quarantined     2 since yesterday: could be among them (GET /v1/quarantined)";
    assert_eq!(render_absence(&absence, &times(), Paint(false)).join("\n"), expected);
}

#[test]
fn keys_name_who_waits_for_whom() {
    let mut of_key = event(json!([]));
    of_key["key"] = "8812".into();
    let head = "1-1  s3.photos  com.amazonaws.s3.ObjectCreated:Put  cat.jpg  key 8812   id b0c1-9e   accepted \
                12:00:01.204 (60 s ago)";
    let blocked = json!({
        "reason": "key-blocked", "detail": "ValidationError: total missing", "followers": ["1-7", "1-9"]
    });
    let text = shown(
        of_key,
        &[
            delivery("a:orders", "parked", blocked),
            delivery("b:orders", "parked", json!({"reason": "key-parked", "behind": "1-0"})),
            delivery("c:orders", "filtered", json!({"reason": "debounced", "detail": "a later event came"})),
        ],
    );
    let expected = format!("{head}
  a:orders     parked      blocks its key until you decide: ValidationError: total missing
               followers   2 events of key 8812 wait behind it: 1-7, 1-9
               next        bellwire dead-letters redrive 1-1@a:orders, or bellwire deliveries cancel 1-1@a:orders --reason …
  b:orders     parked      waits behind 1-0, of the same key
  c:orders     filtered    a later event came");
    assert_eq!(text, expected);
}

#[test]
fn what_waits_says_for_what() {
    let waiting = |binding: &str, reason: &str, rest: Value| {
        let mut delivery = delivery(binding, "waiting", json!({"reason": reason}));
        for (name, value) in rest.as_object().unwrap() {
            delivery[name] = value.clone();
        }
        delivery
    };
    let next = "2026-03-02T12:01:05.204Z";
    let open = json!({
        "detail": "Unreachable: gone", "held_since": "2026-03-02T11:58:00Z", "next_attempt_at": next, "waits_for": "b"
    });
    let rate = json!({
        "detail": "limited by rate 1/h, the next one may start at 2026-03-02T13:00:00.000Z", "waits_for": "g:s"
    });
    let cancelled =
        "cancelled at 2026-03-02T12:00:00.000Z and ends when the binding is resumed: wrong (by ben)";
    let whole = json!({"detail": "a batch of 10 that is not full waits 1m", "next_attempt_at": next});
    let full = json!({"detail": "all 2 slots of function d are taken"});
    let text = shown(
        event(json!([])),
        &[
            waiting("a:s", "batch-window", whole),
            waiting("b:s", "breaker-open", open),
            waiting("c:s", "cancel-requested", json!({"detail": cancelled})),
            waiting("d:s", "concurrency", full),
            waiting("e:s", "deliver-at", json!({"next_attempt_at": "2027-02-24T00:19:43Z"})),
            waiting("f:s", "key-in-flight", json!({"detail": "1-0 of the same key runs", "behind": "1-0"})),
            waiting("g:s", "rate", rate),
        ],
    );
    let expected = format!(
        "{HEAD}
  a:s          waiting     a batch of 10 that is not full waits 1m, until 12:01:05.204 (in 4 s)
  b:s          waiting     breaker-open since 11:58:00, next probe in 4 s: Unreachable: gone
  c:s          waiting     cancelled at 12:00 UTC and ends when the binding is resumed: wrong (by ben)
  d:s          waiting     all 2 slots of function d are taken
  e:s          waiting     deliver-at, next at 2027-02-24 00:19:43 (in 358 d)
  f:s          waiting     waits behind 1-0, of the same key, which runs
  g:s          waiting     limited by rate 1/h, the next one may start at 13:00 UTC"
    );
    assert_eq!(text, expected);
}

#[test]
fn a_retry_that_is_due_says_what_holds_it_and_a_lost_binding_what_to_do() {
    let tried = json!([attempt(1, 2, Some("IOError"))]);
    let gone = json!({
        "reason": "binding-inactive", "detail": "the configuration has this binding no more", "attempts": tried
    });
    let rated = json!({
        "reason": "rate", "detail": "limited by rate 1/h, the next one may start at 2026-03-02T13:00:00.000Z",
        "next_attempt_at": "2026-03-02T12:00:31.000Z", "waits_for": "b:s", "attempts": tried
    });
    let text =
        shown(event(json!([])), &[delivery("a:s", "paused", gone), delivery("b:s", "retrying", rated)]);
    let expected = format!("{HEAD}
  a:s          paused      the configuration has this binding no more: declare it again, and it goes on
               or          give it up: bellwire deliveries cancel 1-1@a:s --reason …
  b:s          retrying    1 of 4 tries used; limited by rate 1/h, the next one may start at 13:00 UTC   last: IOError: disk says no, version 3f9a, worker 2");
    assert_eq!(text, expected);
}
