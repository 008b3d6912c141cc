//! `status`: one screen, what is wrong on top.

use std::time::Duration;

use bellwire_schemas::api::{BindingStatus, ControllerStatus, FunctionStatus, SourceStatus, Status};

use crate::cli::Context;
use crate::cli::client::Reply;
use crate::cli::exit::{Answer, Exit};
use crate::cli::out::Out;
use crate::cli::text::{Paint, Style, Table, clean};
use crate::cli::times::{Times, age, count, size};

/// A backlog that is gone before this is none.
const WORTH_TELLING: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(context: &Context) -> Answer {
    let out = &context.out;
    let found: Reply<Status> = context.client()?.get("/v1/status", &[]).await?;
    if out.json {
        out.body(&found.body)?;
        return Ok(Exit::Done);
    }
    let (status, times) = (&found.value, out.times());
    head(status, &times, out.paint).iter().try_for_each(|line| out.line(line))?;
    for table in [
        source_table(&status.sources, &times),
        binding_table(&status.bindings, &times),
        function_table(&status.functions),
        controller_table(&status.controllers, &times),
    ] {
        if !table.is_empty() {
            out.line("")?;
            out.table(&table, "")?;
        }
    }
    lanes(out, status)?;
    Ok(Exit::Done)
}

/// Who answers, and what is wrong.
fn head(status: &Status, times: &Times, paint: Paint) -> Vec<String> {
    let services = clean(&status.services.join(", ")).into_owned();
    let up = age(times.now.since(status.started_at));
    let ledger = &status.ledger;
    let cap = ledger.max_size_bytes.map(|max| format!(" of {}", size(max))).unwrap_or_default();
    let mut lines = vec![
        format!("bellwire {}   {}   up {up}", clean(&status.version), paint.style(Style::Bold, &services)),
        format!(
            "  ledger   {}  {}{cap}, kept {}",
            clean(&ledger.url),
            size(ledger.size_bytes),
            age(std::time::Duration::from_millis(ledger.retention_ms))
        ),
        format!("  ingress  {}   admin  {}", clean(&status.listen.ingress), clean(&status.listen.admin)),
    ];
    if status.problems.is_empty() {
        lines.push(format!("  {} nothing is wrong", paint.style(Style::Green, "✓")));
    }
    for problem in &status.problems {
        let mark = paint.style(Style::Red, "✗").into_owned();
        // Other problems may quote a function.
        let told = |line: &str| match problem.code.as_str() {
            "key-blocked" => times.told(line),
            _ => line.to_owned(),
        };
        let mut detail = problem.detail.lines();
        let first = detail.next().unwrap_or(&problem.code);
        lines.push(format!(
            "  {mark} {}: {}",
            paint.style(Style::Bold, &clean(&problem.subject)),
            clean(&told(first))
        ));
        lines.extend(detail.take(10).map(|line| format!("      {}", clean(&told(line)))));
    }
    lines
}

/// One row per source.
pub(super) fn source_table(sources: &[SourceStatus], times: &Times) -> Table {
    let head = [
        "SOURCE",
        "KIND",
        "STATE",
        ">ACCEPTED",
        ">DUPLICATE",
        ">QUARANTINED",
        ">REFUSED",
        "LAST",
        "ENTRANCE",
    ];
    let mut table = Table::new(&head);
    for source in sources {
        let entrance = times.told(&source.entrance);
        let entrance = match &source.reason {
            Some(reason) => format!("{entrance}  {reason}"),
            None => entrance,
        };
        let plain = |text: String| (text, Style::Plain);
        table.styled([
            (source.name.to_string(), Style::Bold),
            plain(source.kind.clone()),
            (source.state.clone(), Paint::state(&source.state)),
            plain(count(source.accepted)),
            plain(count(source.duplicate)),
            some(source.quarantined),
            some(source.refused),
            plain(source.last_at.map(|at| times.short(at)).unwrap_or_default()),
            plain(entrance),
        ]);
    }
    table
}

/// One row per binding.
pub(super) fn binding_table(bindings: &[BindingStatus], times: &Times) -> Table {
    let head = [
        "BINDING",
        "STATE",
        ">RUNNING",
        ">WAITING",
        ">RETRYING",
        "OLDEST",
        ">DELIVERED",
        ">FILTERED",
        ">EXPIRED",
        ">DEAD",
        ">DISCARDED",
        "DETAIL",
    ];
    let mut table = Table::new(&head);
    for binding in bindings {
        let plain = |text: String| (text, Style::Plain);
        let oldest = binding.oldest_owed_at.map(|at| age(times.now.since(at))).unwrap_or_default();
        table.styled([
            (binding.name.to_string(), Style::Bold),
            (binding.state.clone(), Paint::state(&binding.state)),
            plain(count(binding.running)),
            plain(count(binding.waiting)),
            plain(count(binding.retrying)),
            plain(oldest),
            plain(count(binding.delivered)),
            plain(count(binding.filtered)),
            plain(count(binding.expired)),
            some(binding.dead),
            plain(count(binding.discarded)),
            plain(why(binding, times)),
        ]);
    }
    table
}

/// Why a binding does not deliver, times as people read them; empty when it does.
pub(super) fn why(binding: &BindingStatus, times: &Times) -> String {
    let text = binding.detail.as_ref().or(binding.reason.as_ref());
    let text = match text {
        // Only the words of a pause and of blocked keys are ours; any other detail may quote a function.
        Some(text) if binding.state == "paused" || binding.reason.as_deref() == Some("key-blocked") => {
            times.told(text)
        }
        Some(text) => text.clone(),
        None => String::new(),
    };
    let open = if binding.reason.as_deref() == Some("breaker-open") { "open since" } else { "since" };
    let drains_by = binding.drains_by.filter(|at| at.since(times.now) >= WORTH_TELLING);
    let moments = [
        binding.open_since.map(|at| format!("{open} {}", times.short(at))),
        binding.next_probe_at.map(|at| format!("next probe {}", times.distance(at))),
        drains_by.map(|at| format!("drains by {}", times.due(at))),
    ];
    let moments: Vec<String> = moments.into_iter().flatten().collect();
    match (text.is_empty(), moments.is_empty()) {
        (_, true) => text,
        (true, false) => moments.join(", "),
        (false, false) => format!("{text}; {}", moments.join(", ")),
    }
}

/// One row per function.
pub(super) fn function_table(functions: &[FunctionStatus]) -> Table {
    let mut table =
        Table::new(&["FUNCTION", "VERSION", "STATE", ">BUSY", ">IDLE", ">MOST", ">INVOCATIONS", "RUNS"]);
    for function in functions {
        let runs = match &function.error {
            Some(error) => format!("{}  {}", function.target, error.headline()),
            None => function.target.clone(),
        };
        let plain = |text: String| (text, Style::Plain);
        table.styled([
            (function.name.to_string(), Style::Bold),
            plain(function.version.clone()),
            (function.state.clone(), Paint::state(&function.state)),
            plain(function.busy.to_string()),
            plain(function.idle.to_string()),
            plain(match function.limit {
                Some(limit) => format!("{limit} of {}", function.concurrency),
                None => function.concurrency.to_string(),
            }),
            plain(count(function.invocations)),
            plain(runs),
        ]);
    }
    table
}

/// One row per controller; empty while there is one only.
fn controller_table(controllers: &[ControllerStatus], times: &Times) -> Table {
    let mut table = Table::new(&["CONTROLLER", "STATE", "LANES", "VERSION", "UP"]);
    if controllers.len() < 2 {
        return table;
    }
    for controller in controllers {
        let plain = |text: String| (text, Style::Plain);
        let lanes: Vec<_> = controller.lanes.iter().map(u16::to_string).collect();
        let name =
            if controller.is_self { format!("{} *", controller.name) } else { controller.name.clone() };
        table.styled([
            (name, Style::Bold),
            plain(if controller.leaving { "leaving" } else { "ok" }.into()),
            plain(if lanes.is_empty() { "none".into() } else { lanes.join(" ") }),
            plain(controller.version.clone()),
            plain(controller.since.map(|since| age(times.now.since(since))).unwrap_or_default()),
        ]);
    }
    table
}

fn lanes(out: &Out, status: &Status) -> Result<(), crate::cli::exit::Failure> {
    if status.lanes.is_empty() {
        return Ok(());
    }
    let lane = |lane: &bellwire_schemas::api::LaneStatus| {
        let owner = if lane.owner.is_none() && !lane.owned { " (no owner)" } else { "" };
        format!("{}-{}{owner}", lane.lane, lane.tail)
    };
    out.line("")?;
    out.line(format!(
        "newest address of each lane: {}",
        status.lanes.iter().map(lane).collect::<Vec<_>>().join("  ")
    ))
}

/// A number that is bad unless it is zero.
fn some(number: u64) -> (String, Style) {
    (count(number), if number > 0 { Style::Red } else { Style::Plain })
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::Timestamp;
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_stands_on_top() {
        let status: Status = serde_json::from_value(json!({
            "version": "0.1.0", "services": ["thumbnails"], "started_at": "2026-03-02T11:57:00Z",
            "listen": {"ingress": "http://127.0.0.1:7070", "admin": "http://127.0.0.1:7071"},
            "ledger": {"url": "sqlite:ledger.db", "size_bytes": 65_536, "max_size_bytes": null, "retention_ms": 604_800_000},
            "sources": [{
                "name": "s3.photos", "kind": "s3", "state": "ok", "reason": null, "entrance": "POST /s3",
                "accepted": 4, "duplicate": 0, "quarantined": 0, "refused": 0, "last_at": "2026-03-02T11:59:58Z"
            }],
            "bindings": [], "functions": [], "lanes": [],
            "problems": [
                {"subject": "thumbnail", "code": "cannot-start", "detail": "cannot start: ImportError\nline 1"},
                {"subject": "b:s", "code": "key-blocked", "detail": "1 key is blocked since 2026-03-02T11:00:00Z\nwhich: x"}
            ]
        }))
        .unwrap();
        let times =
            Times { now: Timestamp::parse("2026-03-02T12:00:00Z").unwrap(), zone: TimeZone::UTC, iso: false };
        let lines = head(&status, &times, Paint(false));
        let expected = [
            "bellwire 0.1.0   thumbnails   up 3 m",
            "  ledger   sqlite:ledger.db  64 KB, kept 7 d",
            "  ingress  http://127.0.0.1:7070   admin  http://127.0.0.1:7071",
            "  ✗ thumbnail: cannot start: ImportError",
            "      line 1",
            "  ✗ b:s: 1 key is blocked since 11:00 UTC",
            "      which: x",
        ];
        assert_eq!(lines, expected);
        assert_eq!(
            source_table(&status.sources, &times).lines(Paint(false), None)[1],
            "s3.photos  s3    ok            4          0            0        0  11:59:58  POST /s3"
        );
    }
}
