//! `/v1/dead-letters`: what was given up, in groups or one by one, tried again or discarded.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use bellwire_ledger::{DeadLetter, DeadLetterQuery, DeliveryKey, DeliveryQuery, OwedKind};
use bellwire_patterns::Pattern;
use bellwire_schemas::api::{Changed, DeadLetterAction, DeadLetterGroup, DeadLetterView, List};
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingId, BindingName, FinalState};

use super::events::detail;
use super::query::{ListQuery, write_cursor};
use crate::server::app::Shared;
use crate::server::auth::Caller;
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// Dead letters handled per step of a write, so that none holds the ledger for long.
const STEP: usize = 500;

type Names = BTreeMap<BindingId, BindingName>;

/// `GET /v1/dead-letters`.
pub async fn list(State(app): State<Reads>, uri: Uri) -> Result<Json<List<DeadLetterView>>, Problem> {
    let asked = ListQuery::parse(&uri, &app.clock)?;
    let names = names(&app).await?;
    let (mut query, pattern) = resolve(&app, asked.selector, asked.limit).await?;
    query.after = asked.after;
    let page = app.ledger().dead_letters(&query).await?;
    let chosen = page.items.iter().filter(|dead| fits(&pattern, dead));
    let items = chosen.map(|dead| view(dead, &names, false)).collect();
    Ok(Json(List { items, next: page.next.map(write_cursor) }))
}

/// `GET /v1/dead-letters/{address}@{binding}`; the binding may be left out when only one gave the event up.
pub async fn show(
    State(app): State<Reads>,
    Path(which): Path<String>,
) -> Result<Json<DeadLetterView>, Problem> {
    let (address, binding) = match which.split_once('@') {
        Some((address, binding)) => (address, Some(BindingName::new(binding))),
        None => (which.as_str(), None),
    };
    let address: Address = address.parse().map_err(Problem::bad_request)?;
    let names = names(&app).await?;
    let selector = Selector { addresses: vec![address], binding, ..Selector::default() };
    let (query, _) = resolve(&app, selector, 2).await?;
    let page = app.ledger().dead_letters(&query).await?;
    match page.items.as_slice() {
        [] => Err(Problem::not_found(format!("no dead letter at {which}"))
            .hint(format!("bellwire explain {address}"))),
        [dead] => Ok(Json(view(dead, &names, true))),
        several => {
            let bindings: Vec<_> =
                several.iter().map(|d| format!("{address}@{}", name_of(&names, d.binding))).collect();
            Err(Problem::new(
                StatusCode::CONFLICT,
                "ambiguous-id",
                format!("several bindings gave {address} up"),
            )
            .hint(format!("ask for one of {}", bindings.join(", "))))
        }
    }
}

/// `GET /v1/dead-letters/groups`: largest first.
pub async fn groups(State(app): State<Reads>, uri: Uri) -> Result<Json<List<DeadLetterGroup>>, Problem> {
    let asked = ListQuery::parse(&uri, &app.clock)?;
    let names = names(&app).await?;
    let mut groups: BTreeMap<(String, BindingId), DeadLetterGroup> = BTreeMap::new();
    let (mut query, pattern) = resolve(&app, asked.selector, STEP).await?;
    loop {
        let page = app.ledger().dead_letters(&query).await?;
        for dead in page.items.iter().filter(|dead| fits(&pattern, dead)) {
            let group =
                groups.entry((dead.fingerprint.clone(), dead.binding)).or_insert_with(|| DeadLetterGroup {
                    group: dead.fingerprint.clone(),
                    count: 0,
                    first_at: dead.died_at,
                    last_at: dead.died_at,
                    error: dead.error.headline(),
                    binding: name_of(&names, dead.binding),
                    example: dead.event.address,
                });
            group.count += 1;
            group.first_at = group.first_at.min(dead.died_at);
            group.last_at = group.last_at.max(dead.died_at);
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let mut items: Vec<_> = groups.into_values().collect();
    items.sort_by_key(|group| std::cmp::Reverse(group.count));
    items.truncate(asked.limit);
    Ok(Json(List { items, next: None }))
}

/// `POST /v1/dead-letters/redrive`: back to the debts, with all attempts again. Takes what blocks its key, too: that
/// is given up as well, but for the place it holds.
pub async fn redrive(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(action): Json<DeadLetterAction>,
) -> Result<Json<Changed>, Problem> {
    let changed = act(&app, action, Act::Redrive, &caller).await?;
    app.dispatcher.poke();
    Ok(Json(changed))
}

/// `POST /v1/dead-letters/discard`: given up for good, with a reason.
pub async fn discard(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(action): Json<DeadLetterAction>,
) -> Result<Json<Changed>, Problem> {
    if action.reason.trim().is_empty() && !action.dry_run {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "reason-required", "a discard without a reason");
        return Err(problem.pointer("/reason"));
    }
    Ok(Json(act(&app, action, Act::Discard, &caller).await?))
}

#[derive(Clone, Copy)]
enum Act {
    Redrive,
    Discard,
}

async fn act(app: &Shared, action: DeadLetterAction, act: Act, caller: &Caller) -> Result<Changed, Problem> {
    if action.selector.is_empty() && !action.all {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "selector-required", "no dead letter was chosen")
            .pointer("/selector")
            .hint("choose by address, binding, error or time; `all` takes all"));
    }
    let now = app.clock.now();
    let (mut query, pattern) = resolve(&Reads::from(app), action.selector, STEP).await?;
    // What dies again while this runs is not taken a second time.
    query.selector.until = Some(query.selector.until.unwrap_or(now).min(now));
    let mut count = 0;
    loop {
        let page = app.ledger().dead_letters(&query).await?;
        let chosen = page.items.iter().filter(|dead| fits(&pattern, dead));
        let keys: Vec<_> =
            chosen.map(|d| DeliveryKey { binding: d.binding, address: d.event.address }).collect();
        count += match act {
            _ if action.dry_run => keys.len() as u64,
            Act::Redrive => app.ledger().redrive(&keys, now).await?,
            Act::Discard => app.ledger().discard(&keys, &action.reason, &caller.name, now).await?,
        };
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    if let Act::Redrive = act {
        count += redrive_blocked(app, &query, &pattern, action.dry_run).await?;
    }
    if !action.dry_run {
        let verb = match act {
            Act::Redrive => "redrive",
            Act::Discard => "discard",
        };
        tracing::info!(target: "audit", verb, count, by = %caller.name, reason = %action.reason, "dead letters");
    }
    Ok(Changed { count, dry_run: action.dry_run, ..Changed::default() })
}

/// Redrives what blocks its key and is meant by a query of dead letters.
async fn redrive_blocked(
    app: &Shared,
    dead: &DeadLetterQuery,
    pattern: &Option<Pattern>,
    dry_run: bool,
) -> Result<u64, Problem> {
    let (selector, reasons) = (dead.selector.clone(), vec![OwedKind::Blocked]);
    let mut query = DeliveryQuery { selector, binding: dead.binding, reasons, after: None, limit: STEP };
    let mut count = 0;
    loop {
        let page = app.ledger().deliveries(&query).await?;
        let mut keys = Vec::new();
        for debt in &page.items {
            let meant = match pattern {
                None => true,
                Some(pattern) => {
                    let stored = app.ledger().event(debt.address).await?;
                    stored.is_some_and(|stored| pattern.matches(&stored.event.envelope()))
                }
            };
            if meant {
                keys.push(DeliveryKey { binding: debt.binding, address: debt.address });
            }
        }
        count += match dry_run {
            true => keys.len() as u64,
            false => app.ledger().redrive(&keys, app.clock.now()).await?,
        };
        query.after = page.next;
        if query.after.is_none() {
            return Ok(count);
        }
    }
}

/// The query of a selector, and the pattern that the ledger does not check itself.
async fn resolve(
    app: &Reads,
    selector: Selector,
    limit: usize,
) -> Result<(DeadLetterQuery, Option<Pattern>), Problem> {
    if selector.state.as_deref().is_some_and(|state| state != FinalState::Dead.as_str()) {
        let detail = "every dead letter is in the state `dead`: leave `state` out";
        return Err(Problem::bad_request(detail).pointer("state"));
    }
    let pattern = selector.filter.as_ref().map(Pattern::from_value).transpose();
    let pattern = pattern.map_err(|error| Problem::bad_request(error.to_string()).pointer("filter"))?;
    let binding = match &selector.binding {
        Some(name) => Some(app.binding(name).await?.id),
        None => None,
    };
    Ok((DeadLetterQuery { selector, binding, after: None, limit }, pattern))
}

fn fits(pattern: &Option<Pattern>, dead: &DeadLetter) -> bool {
    pattern.as_ref().is_none_or(|pattern| pattern.matches(&dead.event.event.envelope()))
}

async fn names(app: &Reads) -> Result<Names, Problem> {
    Ok(app.ledger().bindings().await?.into_iter().map(|b| (b.id, b.name)).collect())
}

fn name_of(names: &Names, id: BindingId) -> BindingName {
    names.get(&id).cloned().unwrap_or_else(|| BindingName::new(format!("#{id}")))
}

fn view(dead: &DeadLetter, names: &Names, whole: bool) -> DeadLetterView {
    DeadLetterView {
        address: dead.event.address,
        binding: name_of(names, dead.binding),
        source: dead.event.source.clone(),
        kind: dead.event.event.kind.clone(),
        subject: dead.event.event.subject.clone(),
        attempts: dead.attempts,
        accepted_at: dead.event.accepted_at,
        first_at: dead.first_at,
        died_at: dead.died_at,
        group: dead.fingerprint.clone(),
        error: dead.error.clone(),
        logs: dead.logs.clone(),
        event: whole.then(|| detail(&dead.event)),
    }
}
