//! `explain`: why an event was, or was not, delivered; and why an id is not there.

use std::time::Duration;

use bellwire_schemas::api::{Absence, ExplainedDelivery, Explanation};
use bellwire_schemas::{Address, Timestamp};
use clap::Args;

use super::events::WhichArgs;
use crate::cli::Context;
use crate::cli::client::{Client, Reply, segment};
use crate::cli::exit::{Answer, Exit};
use crate::cli::text::{Paint, Style, clean};
use crate::cli::times::{Times, age, count, duration, millis};

/// Attempts listed one by one; more are counted.
const MAX_TRIES: usize = 8;

/// Flags of `explain`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bellwire explain 1-4\n  bellwire explain evt_5512 --source webhook.stripe\n\n\
    Exit code 1: the event was never seen."
)]
pub struct ExplainArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Runs the command.
pub async fn run(context: &Context, args: ExplainArgs) -> Answer {
    let (client, out, which) = (context.client()?, &context.out, &args.which);
    // `1-3@binding`, as the live log and the lists print it, is understood as well.
    let event = which.which.split_once('@').map_or(which.which.as_str(), |(address, _)| address);
    let path = format!("/v1/events/{}/explanation", segment(event));
    let found = match client.get::<Explanation>(&path, &which.query()).await {
        Ok(found) => found,
        Err(failure) if failure.exit == Exit::No => return absent(context, &client, event, which).await,
        Err(failure) => return Err(failure),
    };
    if out.json {
        out.body(&found.body)?;
    } else {
        render(&found.value, &out.times(), out.paint).iter().try_for_each(|line| out.line(line))?;
    }
    Ok(Exit::Done)
}

async fn absent(context: &Context, client: &Client, event: &str, which: &WhichArgs) -> Answer {
    let out = &context.out;
    let mut query = which.query();
    query.push(("id", event.into()));
    let found: Reply<Absence> = client.get("/v1/absences", &query).await?;
    if out.json {
        out.body(&found.body)?;
    } else {
        render_absence(&found.value, &out.times(), out.paint).iter().try_for_each(|line| out.line(line))?;
    }
    Ok(Exit::No)
}

/// One line under the event: whose, which word, what, and what stands at the right.
struct Row {
    name: String,
    word: String,
    text: String,
    right: String,
}

/// The lines of an explanation.
pub fn render(explanation: &Explanation, times: &Times, paint: Paint) -> Vec<String> {
    let event = &explanation.event;
    let mut head = format!(
        "{}  {}  {}",
        paint.style(Style::Bold, &event.address.to_string()),
        clean(event.source.as_str()),
        clean(&event.kind)
    );
    let subject = event.subject.as_deref();
    head.extend(subject.map(|s| format!("  {}", clean(s))));
    head.extend(event.key.as_deref().filter(|k| Some(*k) != subject).map(|k| format!("  key {}", clean(k))));
    head.push_str(&format!("   id {}   accepted {}", clean(&event.id), times.at(event.accepted_at)));
    let mut rows = Vec::new();
    if !event.duplicates.is_empty() {
        rows.push(duplicates(explanation, times));
    }
    for delivery in &explanation.deliveries {
        rows.extend(delivery_rows(explanation, delivery, times));
    }
    if explanation.deliveries.is_empty() {
        let text = format!("no binding reads {} at this place", event.source);
        rows.push(Row { name: "nobody".into(), word: String::new(), text, right: String::new() });
    }
    let mut lines = vec![head];
    lines.extend(lay_out(&rows, paint));
    lines
}

fn duplicates(explanation: &Explanation, times: &Times) -> Row {
    let all = &explanation.event.duplicates;
    let shown: Vec<_> = all.iter().take(MAX_TRIES).map(|d| times.short(d.at)).collect();
    let more = if all.len() > MAX_TRIES { ", …" } else { "" };
    let arrivals = if all.len() == 1 {
        "1 later arrival was".into()
    } else {
        format!("{} later arrivals were", all.len())
    };
    let text = format!("{arrivals} recognised as the same and not stored again: {}{more}", shown.join(", "));
    Row { name: "duplicates".into(), word: String::new(), text, right: String::new() }
}

fn delivery_rows(explanation: &Explanation, delivery: &ExplainedDelivery, times: &Times) -> Vec<Row> {
    let ended = delivery.ended_at.map(|at| times.clock(at)).unwrap_or_default();
    let why = || delivery.detail.clone().or_else(|| delivery.reason.clone()).unwrap_or_default();
    let (text, right) = match delivery.state.as_str() {
        "delivered" => (delivered(delivery), ended),
        "filtered" if delivery.reason.as_deref() == Some("filter-mismatch") => {
            (why(), format!("rule of revision {}", delivery.revision))
        }
        "dead" => {
            (dead(delivery, times), delivery.group.as_ref().map(|g| format!("group {g}")).unwrap_or_default())
        }
        "retrying" => retrying(delivery, times),
        "paused" if delivery.reason.as_deref() == Some("binding-paused") => {
            (format!("{} → bellwire bindings resume {}", times.told(&why()), delivery.binding), String::new())
        }
        "paused" if delivery.reason.as_deref() == Some("binding-inactive") => {
            (format!("{}: declare it again, and it goes on", why()), String::new())
        }
        "running" | "waiting" | "parked" | "paused" => (owed(delivery, times), String::new()),
        _ => (why(), ended),
    };
    let name = delivery.binding.to_string();
    let mut rows = vec![Row { name, word: delivery.state.clone(), text, right }];
    let failures = delivery.attempts.iter().filter(|a| a.error.is_some()).count();
    if failures > 0 && (delivery.attempts.len() > 1 || delivery.state == "running") {
        rows.push(Row {
            name: String::new(),
            word: "tries".into(),
            text: tries(delivery, times),
            right: String::new(),
        });
    }
    if let [first, ..] = delivery.followers.as_slice() {
        rows.push(Row {
            name: String::new(),
            word: "followers".into(),
            text: followers(explanation, delivery, *first),
            right: String::new(),
        });
    }
    if delivery.reason.as_deref() == Some("key-blocked") {
        let which = format!("{}@{}", explanation.event.address, delivery.binding);
        let text = format!(
            "bellwire dead-letters redrive {which}, or bellwire deliveries cancel {which} --reason …"
        );
        rows.push(Row { name: String::new(), word: "next".into(), text, right: String::new() });
    }
    // What no attempt was made of could only be asked to end, and nobody would hear it.
    if delivery.reason.as_deref() == Some("binding-inactive") && !delivery.attempts.is_empty() {
        let which = format!("{}@{}", explanation.event.address, delivery.binding);
        let text = format!("give it up: bellwire deliveries cancel {which} --reason …");
        rows.push(Row { name: String::new(), word: "or".into(), text, right: String::new() });
    }
    if delivery.state == "dead" {
        let text = format!("bellwire dead-letters show {}", explanation.event.address);
        rows.push(Row { name: String::new(), word: "next".into(), text, right: String::new() });
    }
    rows
}

/// Who waits behind a delivery of the same key.
fn followers(explanation: &Explanation, delivery: &ExplainedDelivery, first: Address) -> String {
    let of = explanation.event.key.as_deref().map(|key| format!(" of key {key}")).unwrap_or_default();
    match delivery.followers.len() {
        1 => format!("1 event{of} waits behind it: {first}"),
        number => {
            let shown: Vec<_> = delivery.followers.iter().take(MAX_TRIES).map(Address::to_string).collect();
            let more = if number > MAX_TRIES { ", …" } else { "" };
            let number = if number >= 100 { "100 or more".into() } else { number.to_string() };
            format!("{number} events{of} wait behind it: {}{more}", shown.join(", "))
        }
    }
}

fn delivered(delivery: &ExplainedDelivery) -> String {
    let Some(last) = delivery.attempts.last() else {
        return delivery.detail.clone().unwrap_or_default();
    };
    let of = delivery.attempts_allowed.map(|n| format!(" of {n}")).unwrap_or_default();
    let replay = last.replay.as_ref().map(|r| format!(", replay {r}")).unwrap_or_default();
    format!("try {}{of}, {}{}{replay}", last.number, millis(last.duration_ms), ran(delivery))
}

/// Version and worker of the last attempt.
fn ran(delivery: &ExplainedDelivery) -> String {
    let version = delivery.version.as_ref().map(|v| format!(", version {v}")).unwrap_or_default();
    let worker = delivery.attempts.last().and_then(|a| a.worker.as_ref());
    format!("{version}{}", worker.map(|w| format!(", worker {w}")).unwrap_or_default())
}

fn dead(delivery: &ExplainedDelivery, times: &Times) -> String {
    let number = delivery.attempts.last().map_or(0, |a| a.number);
    let tries = if number == 1 { "1 try".into() } else { format!("{number} tries") };
    let first = delivery.attempts.iter().rfind(|a| a.number == 1).map(|a| a.started_at);
    let over = first.zip(delivery.ended_at).filter(|_| number > 1);
    let over = over.map(|(first, end)| format!(" over {}", duration(end.since(first)))).unwrap_or_default();
    let at = delivery.ended_at.map(|at| format!(", gave up {}", times.short(at))).unwrap_or_default();
    let last = delivery.attempts.last().and_then(|a| a.error.as_ref()).map(|e| e.headline());
    let cause = last.or_else(|| delivery.detail.clone()).unwrap_or_default();
    format!("{tries}{over}{at}: {cause}")
}

/// What is tried again, and what holds it back once its time has come.
fn retrying(delivery: &ExplainedDelivery, times: &Times) -> (String, String) {
    let used = delivery.attempts.iter().filter(|a| a.error.as_ref().is_none_or(|e| e.class.burns_attempt()));
    let used = used.map(|a| a.number).next_back().unwrap_or(0);
    let used = match delivery.attempts_allowed {
        Some(allowed) => format!("{used} of {allowed} tries used"),
        None => format!("{used} tries so far"),
    };
    let next = match delivery.reason.as_deref() {
        None | Some("retry" | "redrive" | "replay") => {
            delivery.next_attempt_at.map(|at| next_at(at, times)).unwrap_or_default()
        }
        Some(_) => format!("; {}", owed(delivery, times)),
    };
    let last = delivery
        .attempts
        .last()
        .and_then(|a| a.error.as_ref())
        .map(|e| format!("last: {}{}", e.headline(), ran(delivery)));
    let right = last.or_else(|| delivery.detail.clone()).unwrap_or_default();
    (format!("{used}{next}"), right)
}

fn next_at(at: Timestamp, times: &Times) -> String {
    if at <= times.now { ", next now".into() } else { format!(", next at {}", times.at(at)) }
}

fn owed(delivery: &ExplainedDelivery, times: &Times) -> String {
    let reason = delivery.reason.as_deref().unwrap_or_default();
    let text = delivery.detail.clone().unwrap_or_default();
    if let Some(ahead) = delivery.behind {
        let runs = if reason == "key-in-flight" { ", which runs" } else { "" };
        return format!("waits behind {ahead}, of the same key{runs}");
    }
    let text = match (reason, &delivery.waits_for) {
        ("key-blocked", _) => return format!("blocks its key until you decide: {text}"),
        ("breaker-open" | "throttled" | "function-cannot-start" | "destination-unavailable", _) => {
            return left_alone(delivery, reason, times);
        }
        // These are words of ours alone; others may quote a function.
        ("rate" | "cancel-requested", _) => times.told(&text),
        _ if !text.is_empty() => text,
        ("", Some(what)) => format!("waits for {what}"),
        (_, Some(what)) => format!("{reason}: waits for {what}"),
        (_, None) => reason.to_owned(),
    };
    let is_its_own = matches!(reason, "deliver-at" | "debounce");
    let next = delivery.next_attempt_at.filter(|at| *at > times.now || is_its_own);
    let next = next.map(|at| match reason {
        "batch-window" => format!(", until {}", times.at(at)),
        _ => next_at(at, times),
    });
    text + &next.unwrap_or_default()
}

/// A function that is left alone: what it said, since when, and when it is asked again.
fn left_alone(delivery: &ExplainedDelivery, reason: &str, times: &Times) -> String {
    let said = delivery.detail.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
    let since = delivery.held_since.map(|at| format!(" since {}", times.short(at))).unwrap_or_default();
    let probe = delivery.next_attempt_at.map(|at| format!(", next probe {}", times.distance(at)));
    format!("{reason}{since}{}{said}", probe.unwrap_or_default())
}

/// The attempts, oldest first: `09:14:07 Timeout · 09:14:38 success`.
fn tries(delivery: &ExplainedDelivery, times: &Times) -> String {
    let skipped = delivery.attempts.len().saturating_sub(MAX_TRIES);
    let shown = delivery.attempts.iter().skip(skipped).map(|attempt| {
        let outcome = attempt.error.as_ref().map_or(attempt.outcome.as_str(), |e| e.kind.as_str());
        format!("{} {outcome}", times.short(attempt.started_at))
    });
    let before = (skipped > 0).then(|| format!("{skipped} before"));
    before.into_iter().chain(shown).collect::<Vec<_>>().join(" · ")
}

fn lay_out(rows: &[Row], paint: Paint) -> Vec<String> {
    let length = |text: &str| clean(text).chars().count();
    let names = rows.iter().map(|r| length(&r.name)).max().unwrap_or(0).max(10);
    let texts =
        rows.iter().filter(|r| !r.right.is_empty()).map(|r| length(&r.text)).max().unwrap_or(0).min(70);
    let line = |row: &Row| {
        let gap = |wanted: usize, text: &str| " ".repeat(wanted.saturating_sub(length(text)));
        let mut line = format!("  {}{}", clean(&row.name), gap(names, &row.name));
        if !row.word.is_empty() {
            let word = paint.style(Paint::state(&row.word), &row.word);
            line.push_str(&format!("   {word}{}", gap(9, &row.word)));
        }
        line.push_str(&format!("   {}", clean(&row.text)));
        if !row.right.is_empty() {
            line.push_str(&format!(
                "{}   {}",
                gap(texts, &row.text),
                paint.style(Style::Dim, &clean(&row.right))
            ));
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}

/// The lines about an id that is not there.
pub fn render_absence(absence: &Absence, times: &Times, paint: Paint) -> Vec<String> {
    let place = absence.source.as_ref().map(|s| format!(" on {}", clean(s.as_str()))).unwrap_or_default();
    let kept = age(Duration::from_millis(absence.retention_ms));
    let what = if absence.id.parse::<bellwire_schemas::Address>().is_ok() { "at address or" } else { "" };
    let what = format!("no event {what} with id {}", clean(&absence.id)).replace("  ", " ");
    let mut lines = vec![format!(
        "{} {what}{place} in the last {kept} (retention)",
        paint.style(Style::Red, "never seen:")
    )];
    if let Some((id, at)) = &absence.last_accepted {
        let health = match absence.healthy {
            Some(true) => "; the source takes events in",
            Some(false) => "; the source does NOT take events in: bellwire status",
            None => "",
        };
        lines.push(format!("  last accepted   {}, {}{health}", clean(id), times.distance(*at)));
    } else {
        lines.push(format!("  last accepted   nothing yet{place}"));
    }
    for (reason, number, last, from) in &absence.refused {
        let requests = if *number == 1 { "1 request".into() } else { format!("{} requests", count(*number)) };
        let (last, from) = (times.short(*last), clean(from));
        let text =
            format!("{requests} since yesterday: {} (last {last}, from {from}): could be it", clean(reason));
        lines.push(format!("  refused         {text}"));
    }
    if absence.quarantined > 0 {
        let number = count(absence.quarantined);
        lines.push(format!(
            "  quarantined     {number} since yesterday: could be among them (GET /v1/quarantined)"
        ));
    }
    lines
}

#[cfg(test)]
mod tests;
