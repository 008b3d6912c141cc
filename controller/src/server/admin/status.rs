//! `GET /v1/status`: one picture of sources, bindings, functions, lanes, and what is wrong on top.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use bellwire_ledger::{ArrivalTotals, BindingRecord, BindingTotals, Pause};
use bellwire_schemas::api::{
    BindingStatus, FunctionStatus, LedgerStatus, PauseView, Problem as Trouble, SourceStatus, Status,
};
use bellwire_schemas::service::Target;
use bellwire_schemas::{FinalState, SourceName};

use bellwire_workers::Condition;

use super::owed::{Blocked, Orphan};
use super::{cluster, pressure};
use crate::server::app::{App, Shared};
use crate::server::problem::Problem;

/// `GET /v1/status`.
pub async fn status(State(app): State<Shared>) -> Result<Json<Status>, Problem> {
    Ok(Json(collect(&app).await?))
}

/// Gathers the whole picture.
///
/// # Errors
/// When the ledger does not answer.
pub async fn collect(app: &App) -> Result<Status, Problem> {
    let arrivals = app.ledger().arrivals().await?;
    let mut sources = sources(app, &arrivals);
    let Standing { bindings, blocked, orphans } = standing(app).await?;
    let functions = functions(app);
    let lanes = cluster::lanes(app).await?;
    let ledger = LedgerStatus {
        url: app.settings.ledger.url.to_string(),
        size_bytes: app.ledger().size_bytes().await?,
        max_size_bytes: app.settings.ledger.max_size.map(|size| size.0),
        retention_ms: u64::try_from(app.settings.ledger.retention.as_millis()).unwrap_or(u64::MAX),
    };
    pressure::explain(&mut sources, &ledger, &bindings, app.clock.now());
    let mut troubles = cluster::troubles(app, &lanes);
    troubles.extend(problems(&sources, &bindings, &functions, &blocked));
    troubles.extend(orphans.iter().filter_map(|orphan| orphan.trouble(app.settings.ledger.retention)));
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        services: app.declared().services.clone(),
        started_at: app.started_at,
        listen: app.listen.clone(),
        ledger,
        sources,
        bindings,
        functions,
        controllers: cluster::controllers(app),
        lease_left_ms: cluster::lease_left_ms(app),
        lanes,
        problems: troubles,
    })
}

/// How every binding stands.
///
/// # Errors
/// When the ledger does not answer.
pub async fn collect_bindings(app: &App) -> Result<Vec<BindingStatus>, Problem> {
    Ok(standing(app).await?.bindings)
}

/// How every binding stands, and what an operator has to decide about.
struct Standing {
    bindings: Vec<BindingStatus>,
    blocked: Vec<Blocked>,
    orphans: Vec<Orphan>,
}

async fn standing(app: &App) -> Result<Standing, Problem> {
    let totals = app.ledger().totals().await?;
    let records = app.ledger().bindings().await?;
    let mut bindings = bindings(app, &records, &totals);
    let (mut blocked, mut orphans) = (Vec::new(), Vec::new());
    for (record, binding) in records.iter().zip(&mut bindings) {
        let owed = binding.waiting + binding.retrying;
        if !record.active && owed > 0 {
            orphans.push(Orphan::find(app.ledger().as_ref(), record, owed).await?);
        }
        let policies = &app.declared().policies;
        let policy = policies.get(&record.name);
        let may_block = policy.map_or(!record.active, |policy| policy.retry.exhausted == "block-key");
        if binding.retrying == 0 || !may_block {
            continue;
        }
        if let Some(found) = Blocked::find(app.ledger().as_ref(), record).await? {
            binding.blocked_keys = found.keys;
            if binding.state == "ok" {
                (binding.reason, binding.detail) = (Some("key-blocked".into()), Some(found.detail()));
            }
            blocked.push(found);
        }
    }
    Ok(Standing { bindings, blocked, orphans })
}

/// A pause as the API shows it.
pub fn pause_view(pause: &Pause) -> PauseView {
    PauseView { since: pause.since, by: pause.by.clone(), reason: pause.reason.clone() }
}

fn sources(app: &App, arrivals: &BTreeMap<SourceName, ArrivalTotals>) -> Vec<SourceStatus> {
    app.intake
        .status()
        .into_iter()
        .map(|report| {
            let totals = arrivals.get(&report.name).copied().unwrap_or_default();
            SourceStatus {
                kind: report.kind.into(),
                state: report.state.into(),
                reason: report.reason,
                since: report.since,
                restarts: report.restarts,
                entrance: report.entrance,
                accepted: totals.accepted,
                duplicate: totals.duplicate,
                quarantined: totals.quarantined,
                refused: report.counts.refused,
                last_at: totals.last_at,
                name: report.name,
            }
        })
        .collect()
}

fn bindings(
    app: &App,
    records: &[BindingRecord],
    totals: &BTreeMap<bellwire_schemas::BindingId, BindingTotals>,
) -> Vec<BindingStatus> {
    let live: BTreeMap<_, _> = app.dispatcher.bindings().into_iter().map(|b| (b.id, b)).collect();
    let none = BindingTotals::default();
    let now = app.clock.now();
    records
        .iter()
        .map(|record| {
            let totals = totals.get(&record.id).unwrap_or(&none);
            let ended = |state: FinalState| totals.ended.get(&state).copied().unwrap_or(0);
            let live = live.get(&record.id);
            let state = match live {
                Some(live) => live.state.to_string(),
                None if record.active => "waiting".into(),
                None => "inactive".into(),
            };
            let running = live.map_or(0, |l| l.running.len() as u64);
            BindingStatus {
                name: record.name.clone(),
                source: record.source.clone(),
                function: record.function.clone(),
                state,
                reason: live.and_then(|l| l.reason.map(String::from)),
                detail: live.and_then(|l| l.detail.clone()),
                revision: record.revision,
                running,
                waiting: totals.waiting,
                retrying: totals.retrying,
                delivered: ended(FinalState::Delivered),
                filtered: ended(FinalState::Filtered),
                expired: ended(FinalState::Expired),
                dead: ended(FinalState::Dead),
                discarded: ended(FinalState::Discarded),
                // In the future while nothing is owed but what waits for its time.
                oldest_owed_at: totals.oldest_owed.filter(|at| *at <= now),
                pause: record.paused.as_ref().map(pause_view),
                open_since: live.and_then(|l| l.open_since),
                next_probe_at: live.and_then(|l| l.next_probe_at),
                drains_by: live.filter(|l| !matches!(l.state, "paused" | "inactive")).and_then(|_| {
                    let due = (totals.waiting + totals.retrying).saturating_sub(totals.delayed);
                    app.dispatcher.drains_by(record.id, due)
                }),
                limit: live.and_then(|l| l.limit),
                blocked_keys: 0,
            }
        })
        .collect()
}

fn functions(app: &App) -> Vec<FunctionStatus> {
    let declared = app.declared();
    let live: BTreeMap<_, _> = app.dispatcher.functions().into_iter().map(|f| (f.name.clone(), f)).collect();
    app.workers
        .status()
        .into_iter()
        .filter_map(|status| {
            let spec = declared.functions.get(&status.name)?;
            let error = match status.condition {
                Condition::Ok => None,
                Condition::CannotStart { error, .. } => Some(error),
            };
            let live = live.get(&status.name);
            let state = match live {
                _ if error.is_some() => "cannot-start",
                Some(live) => live.state.trim_start_matches("function-"),
                None => "ok",
            };
            Some(FunctionStatus {
                target: target(&spec.target),
                version: status.version,
                state: state.into(),
                error,
                idle: status.idle,
                busy: status.busy,
                invocations: status.invocations,
                concurrency: spec.concurrency,
                limit: live.and_then(|live| live.limit),
                slots: live.and_then(|live| live.slots),
                open_since: live.and_then(|live| live.since),
                next_probe_at: live.and_then(|live| live.until),
                name: status.name,
            })
        })
        .collect()
}

/// What runs, in a few words: `python3 thumbnail.handler`.
pub fn target(target: &Target) -> String {
    match target {
        Target::Python { handler, version } => {
            format!("python{} {handler}", version.as_deref().unwrap_or("3"))
        }
        Target::Node { handler, version } => format!("nodejs{} {handler}", version.as_deref().unwrap_or("")),
        Target::Command(command) => command.join(" "),
        Target::Url(url) => url.clone(),
        Target::Destination(destination) => destination.word().to_owned(),
    }
}

fn problems(
    sources: &[SourceStatus],
    bindings: &[BindingStatus],
    functions: &[FunctionStatus],
    blocked: &[Blocked],
) -> Vec<Trouble> {
    let failing = sources.iter().filter_map(source_trouble);
    let stalled = bindings.iter().filter(|b| b.state == "stalled").map(|b| Trouble {
        subject: b.name.to_string(),
        code: "stalled".into(),
        detail: format!(
            "{} wait, and nothing moves: {}",
            count_of(b.waiting + b.retrying, "delivery", "deliveries"),
            b.detail.as_deref().or(b.reason.as_deref()).unwrap_or("no reason known")
        ),
    });
    let broken = functions.iter().filter_map(|f| {
        let error = f.error.as_ref()?;
        Some(Trouble {
            subject: f.name.to_string(),
            code: "cannot-start".into(),
            detail: format!(
                "{} cannot start: {}. Save a fix to go on; nothing is lost",
                f.name,
                error.headline()
            ),
        })
    });
    let waiting = bindings
        .iter()
        .filter(|b| b.state == "waiting" && b.reason.as_deref() != Some("function-cannot-start"));
    let waiting = waiting.map(|b| Trouble {
        subject: b.name.to_string(),
        code: b.reason.clone().unwrap_or_else(|| "waiting".into()),
        detail: b.detail.clone().unwrap_or_else(|| "the binding does not deliver".into()),
    });
    let dead = bindings.iter().filter(|b| b.dead > 0).map(|b| Trouble {
        subject: b.name.to_string(),
        code: "dead-letters".into(),
        detail: format!(
            "{}: bellwire dead-letters groups --binding {}",
            count_of(b.dead, "dead letter", "dead letters"),
            b.name
        ),
    });
    let blocked = blocked.iter().map(Blocked::trouble);
    failing.chain(stalled).chain(broken).chain(waiting).chain(blocked).chain(dead).collect()
}

/// What is wrong with a source. One that a configuration disabled is not wrong; one that something holds back is.
fn source_trouble(source: &SourceStatus) -> Option<Trouble> {
    let reason = source.reason.as_deref();
    let (code, otherwise) = match source.state.as_str() {
        "failing" => ("source-failing", "intake fails"),
        "stalled" => ("source-stalled", "events wait at the source, and none comes in"),
        "paused" if reason.is_some_and(|reason| reason != "enabled: false") => ("source-paused", ""),
        _ => return None,
    };
    let detail = match reason {
        Some(reason) if code == "source-paused" => format!("takes nothing in for now: {reason}"),
        Some(reason) => reason.to_owned(),
        None => otherwise.to_owned(),
    };
    Some(Trouble { subject: source.name.to_string(), code: code.into(), detail })
}

/// A number with its noun.
pub fn count_of(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
