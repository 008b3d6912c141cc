use bellwire_schemas::{ErrorInfo, Lane, Seq};

use super::*;

fn at(ms: i64) -> Timestamp {
    // 12:00:00 UTC
    Timestamp::from_millis(1_767_268_800_000 + ms)
}

fn address(seq: u64) -> Address {
    Address::new(Lane(1), Seq(seq))
}

fn renderer(bindings: &[(&str, &str, &str)]) -> Renderer {
    let bindings = bindings
        .iter()
        .map(|(b, s, f)| Known { binding: (*b).into(), source: (*s).into(), function: (*f).into() })
        .collect();
    Renderer::new(Options { paint: Paint(false), zone: TimeZone::UTC, iso: false, bindings })
}

fn thumbnails() -> Renderer {
    renderer(&[
        ("thumbnail:s3.photos", "s3.photos", "thumbnail"),
        ("report:schedule.report", "schedule.report", "report"),
        ("report:webhook.github", "webhook.github", "report"),
    ])
}

fn accepted(ms: i64, seq: u64, kind: &str, subject: &str) -> Fact {
    Fact::Accepted {
        at: at(ms),
        address: address(seq),
        source: "s3.photos".into(),
        kind: format!("com.amazonaws.s3.{kind}"),
        subject: Some(subject.into()),
        id: format!("id-{seq}"),
    }
}

fn failure(kind: &str, message: &str) -> ErrorInfo {
    ErrorInfo { class: FailureClass::Function, kind: kind.into(), message: message.into(), stack: Vec::new() }
}

struct Try {
    ms: i64,
    seq: u64,
    attempt: u32,
    took: u64,
    state: Option<FinalState>,
    error: Option<ErrorInfo>,
    next: Option<i64>,
    logs: Vec<String>,
    init: Option<u64>,
}

impl Default for Try {
    fn default() -> Self {
        let state = Some(FinalState::Delivered);
        Self {
            ms: 0,
            seq: 1,
            attempt: 1,
            took: 5,
            state,
            error: None,
            next: None,
            logs: Vec::new(),
            init: None,
        }
    }
}

fn attempt(t: Try) -> Fact {
    Fact::Attempt {
        at: at(t.ms),
        address: address(t.seq),
        binding: "thumbnail:s3.photos".into(),
        function: "thumbnail".into(),
        attempt: t.attempt,
        attempts: Some(4),
        duration_ms: t.took,
        init_ms: t.init,
        state: t.state,
        error: t.error,
        next_at: t.next.map(at),
        logs: t.logs,
    }
}

fn settled(ms: i64, seq: u64, binding: &str, state: FinalState, reason: &str) -> Fact {
    Fact::Settled { at: at(ms), address: address(seq), binding: binding.into(), state, reason: reason.into() }
}

fn condition(ms: i64, subject: &str, state: &str, detail: &str) -> Fact {
    Fact::Condition { at: at(ms), subject: subject.into(), state: state.into(), detail: detail.into() }
}

fn play(renderer: &mut Renderer, facts: &[Fact]) -> String {
    let lines: Vec<_> = facts.iter().flat_map(|f| renderer.push(f, at(0))).collect();
    lines.join("\n")
}

#[test]
fn the_screen_of_dev() {
    let io = || Some(failure("IOError", "disk says no"));
    let mut dead = failure("ValueError", "not an image");
    dead.stack = vec![
        "Traceback (most recent call last):".into(),
        "  File \"/app/thumbnail.py\", line 14, in handler\n    raise ValueError".into(),
    ];
    let retry = |ms, number, took, next| {
        attempt(Try {
            ms,
            seq: 2,
            attempt: number,
            took,
            state: None,
            error: io(),
            next: Some(next),
            ..Try::default()
        })
    };
    let facts = [
        accepted(1_204, 1, "ObjectCreated:Put", "cat.jpg"),
        attempt(Try {
            ms: 1_391,
            took: 182,
            init: Some(147),
            logs: vec!["wrote out/cat.json 640×480".into()],
            ..Try::default()
        }),
        accepted(2_010, 2, "ObjectCreated:Put", "flaky.jpg"),
        retry(2_019, 1, 7, 2_719),
        retry(2_741, 2, 6, 4_341),
        attempt(Try { ms: 4_350, seq: 2, attempt: 3, took: 11, ..Try::default() }),
        accepted(5_002, 3, "ObjectCreated:Put", "poison.jpg"),
        attempt(Try {
            ms: 12_871,
            seq: 3,
            attempt: 4,
            state: Some(FinalState::Dead),
            error: Some(dead),
            ..Try::default()
        }),
        accepted(13_100, 4, "ObjectRemoved:Delete", "cat.jpg"),
        settled(
            13_101,
            4,
            "thumbnail:s3.photos",
            FinalState::Filtered,
            "type is \"ObjectRemoved:Delete\", wanted x",
        ),
    ];
    let expected = "\
12:00:01.204  1-1  s3.photos  ObjectCreated:Put  cat.jpg
12:00:01.391  1-1  ✓ thumbnail      182 ms  (start 147 ms)
              │ wrote out/cat.json 640×480
12:00:02.010  1-2  s3.photos  ObjectCreated:Put  flaky.jpg
12:00:02.019  1-2  ↻ thumbnail        7 ms  IOError: disk says no        try 1 of 4, again in 0.7 s
12:00:02.741  1-2  ↻ thumbnail        6 ms  IOError: disk says no        try 2 of 4, again in 1.6 s
12:00:04.350  1-2  ✓ thumbnail       11 ms  try 3
12:00:05.002  1-3  s3.photos  ObjectCreated:Put  poison.jpg
12:00:12.871  1-3  ✗ thumbnail  dead letter after 4 tries: ValueError: not an image
              │ thumbnail.py:14 in handler → see it: bellwire dead-letters show 1-3    after the fix: … redrive 1-3
12:00:13.100  1-4  s3.photos  ObjectRemoved:Delete  cat.jpg
              ◦ nobody wanted it: thumbnail filtered (type) → bellwire explain 1-4";
    assert_eq!(play(&mut thumbnails(), &facts), expected);
}

#[test]
fn nobody_wanted_it_needs_every_reader_to_say_no() {
    let two = [("a:s3.photos", "s3.photos", "a"), ("b:s3.photos", "s3.photos", "b")];
    let no = |seq, binding, reason| settled(1, seq, binding, FinalState::Filtered, reason);
    let mut log = renderer(&two);
    let facts = [accepted(0, 1, "x", "k"), no(1, "a:s3.photos", "type is 1")];
    assert!(!play(&mut log, &facts).contains("nobody"));
    let line = play(&mut log, &[no(1, "b:s3.photos", "data.ref is absent, wanted x")]);
    assert_eq!(
        line,
        "              ◦ nobody wanted it: a filtered (type), b filtered (data.ref) → bellwire explain 1-1"
    );
    let mut log = renderer(&two);
    let delivered = Fact::Attempt {
        at: at(1),
        address: address(1),
        binding: "b:s3.photos".into(),
        function: "b".into(),
        attempt: 1,
        attempts: None,
        duration_ms: 1,
        init_ms: None,
        state: Some(FinalState::Delivered),
        error: None,
        next_at: None,
        logs: Vec::new(),
    };
    let facts = [accepted(0, 1, "x", "k"), delivered, no(1, "a:s3.photos", "type is 1")];
    assert!(!play(&mut log, &facts).contains("nobody"));
    let unread = Fact::Accepted {
        at: at(0),
        address: address(9),
        source: "topic.lonely".into(),
        kind: "topic.event".into(),
        subject: None,
        id: "x".into(),
    };
    assert!(play(&mut log, &[unread]).contains("nobody wanted it: no binding reads topic.lonely"));
}

#[test]
fn a_function_that_cannot_start_is_shown_once() {
    let error = ErrorInfo {
        class: FailureClass::CannotStart,
        kind: "ImportError".into(),
        message: "no module named PIL".into(),
        stack: vec!["  File \"thumbnail.py\", line 1, in <module>".into()],
    };
    let crash = |ms| {
        attempt(Try { ms, state: None, error: Some(error.clone()), next: Some(ms + 1_000), ..Try::default() })
    };
    let mut log = thumbnails();
    let facts = [crash(0), crash(1_000), condition(1_001, "thumbnail", "cannot-start", "again")];
    let expected = "\
12:00:00.000  ✗ thumbnail cannot start
              │ ImportError: no module named PIL
              │   File \"thumbnail.py\", line 1, in <module>
              paused: thumbnail cannot start; save a fix to resume";
    assert_eq!(play(&mut log, &facts), expected);
    let facts = [condition(2_000, "thumbnail", "reloaded", "reloaded thumbnail, version 5c10"), crash(3_000)];
    assert!(
        play(&mut log, &facts)
            .starts_with("12:00:02.000  ↺ reloaded thumbnail, version 5c10\n12:00:03.000  ✗")
    );
}

#[test]
fn conditions_and_refusals_have_their_lines() {
    let refused = Fact::NotAccepted {
        at: at(0),
        source: "webhook.github".into(),
        arrival: "refused".into(),
        detail: "the signature does not fit".into(),
    };
    let facts = [
        refused,
        condition(1, "thumbnail:s3.photos", "paused", "by ana: db migration"),
        condition(2, "thumbnail:s3.photos", "resumed", ""),
        condition(3, "bellwire.yaml", "reload-failed", "error: unknown key `tiemout`\n   12 | tiemout: 3s"),
        settled(4, 7, "report:webhook.github", FinalState::Expired, "older than 5m"),
    ];
    let expected = "\
12:00:00.000       webhook.github  refused: the signature does not fit
12:00:00.001  ‖ thumbnail:s3.photos paused: by ana: db migration
12:00:00.002  ▸ thumbnail:s3.photos resumed
12:00:00.003  ✗ not reloaded, the last good configuration keeps running
              │ error: unknown key `tiemout`
              │    12 | tiemout: 3s
12:00:00.004  1-7  ◦ report  expired: older than 5m";
    assert_eq!(play(&mut thumbnails(), &facts), expected);
}

#[test]
fn a_rush_is_counted_and_a_calm_is_named_again() {
    let mut log = thumbnails();
    let mut lines = Vec::new();
    for i in 0..120_u32 {
        let ms = i64::from(i) * 5;
        lines.extend(log.push(&accepted(ms, u64::from(i) + 1, "x", "k"), at(ms)));
        let state = if i % 10 == 0 { Some(FinalState::Dead) } else { Some(FinalState::Delivered) };
        lines.extend(log.push(&attempt(Try { ms, seq: u64::from(i) + 1, state, ..Try::default() }), at(ms)));
    }
    assert!(lines.len() < 130, "{}", lines.len());
    assert!(lines.last().unwrap().contains("more than 50 events a second: counting"));
    let counted = log.tick(at(1_000));
    assert_eq!(
        counted,
        [
            "12:00:01.000  ≡ s3.photos  70 accepted   in 1 s",
            "12:00:01.000  ≡ thumbnail  63 delivered  7 dead   in 1 s"
        ]
    );
    assert!(log.tick(at(1_500)).is_empty());
    assert!(log.tick(at(2_001)).is_empty(), "a silent second counts nothing");
    let shown = log.push(&accepted(2_100, 900, "x", "k"), at(2_100));
    assert_eq!(shown, ["12:00:02.100  1-900  s3.photos  x  k"]);
}

#[test]
fn output_is_bounded_and_harmless() {
    let mut logs: Vec<String> = (0..50).map(|i| format!("line {i}")).collect();
    logs[0] = "\x1b[2J\x1b]0;title\x07".into();
    logs[1] = "x".repeat(10_000);
    let text = play(&mut thumbnails(), &[attempt(Try { logs, ..Try::default() })]);
    assert!(!text.contains('\x1b') && text.contains("\\u{1b}[2J"), "{text}");
    assert!(text.lines().all(|l| l.chars().count() < 450));
    assert!(text.ends_with("│ … 30 more lines"), "{text}");
}

#[test]
fn memory_of_open_events_is_bounded() {
    let mut log = thumbnails();
    for i in 0..30_000_u64 {
        let ms = i64::try_from(i).unwrap() * 100;
        log.push(&accepted(ms, i, "x", "k"), at(ms));
    }
    assert!(log.open.len() <= MAX_OPEN && log.open_order.len() <= MAX_OPEN);
}

#[test]
fn the_place_of_an_error_is_found_in_both_languages() {
    let error = |stack: &[&str]| ErrorInfo {
        stack: stack.iter().map(|s| (*s).into()).collect(),
        ..failure("E", "m")
    };
    let node =
        error(&["Error: m", "    at handler (/app/src/index.js:10:3)", "    at run (/b/runtime.js:1:1)"]);
    assert_eq!(place(&node).as_deref(), Some("index.js:10 in handler"));
    let python = error(&["File \"/b/boot.py\", line 1, in run", "File \"/app/a.py\", line 2, in handler"]);
    assert_eq!(place(&python).as_deref(), Some("a.py:2 in handler"));
    assert_eq!(place(&error(&["nothing", "at"])), None);
}

#[test]
fn the_report_of_an_error_is_not_shown_twice() {
    let mut error = failure("ValueError", "not an image");
    error.stack = vec!["  File \"/app/thumbnail.py\", line 14, in handler".into()];
    let logs =
        ["working", "[ERROR] ValueError: not an image", "Traceback (most recent call last):", "  File …"];
    let logs = logs.map(String::from).to_vec();
    let first = attempt(Try { state: None, error: Some(error), logs, next: Some(500), ..Try::default() });
    let expected = "\
12:00:00.000  1-1  ↻ thumbnail        5 ms  ValueError: not an image     try 1 of 4, again in 0.5 s
              │ working
              │ thumbnail.py:14 in handler";
    assert_eq!(play(&mut thumbnails(), &[first]), expected);
}
