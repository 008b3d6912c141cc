//! `/v1/deliveries`: what is owed, one by one, and given up by hand.
//!
//! Without addresses these are the debts and what runs; what only lies beyond a cursor is counted by its binding and
//! found by address.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use bellwire_dispatcher::explain;
use bellwire_ledger::flush::fingerprint;
use bellwire_ledger::{
    BindingRecord, Cursor, DeliveryKey, DeliveryQuery, EventHead, Owed, OwedDelivery, OwedKind, StoredEvent,
};
use bellwire_patterns::Pattern;
use bellwire_schemas::api::{CancelRequest, Changed, DeliveryView, ExplainedDelivery, List};
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{BindingId, BindingName};

use super::query::{ListQuery, write_cursor};
use crate::server::app::Shared;
use crate::server::auth::Caller;
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// Deliveries handled per step of a write, so that none holds the ledger for long.
const STEP: usize = 500;

/// Debts read from the ledger for one list answer; what is beyond comes with the next page.
const MAX_SCANNED: usize = 5_000;

/// A list that lacks fewer items than this is handed out as it is.
const SMALLEST_PAGE: usize = 50;

/// The states that a delivery that is owed can be in.
const STATES: [&str; 5] = ["waiting", "running", "retrying", "parked", "paused"];

/// `GET /v1/deliveries`.
pub async fn list(State(app): State<Reads>, uri: Uri) -> Result<Json<List<DeliveryView>>, Problem> {
    let asked = ListQuery::parse(&uri, &app.clock)?;
    let search = Search::new(&app, asked.selector).await?;
    if let Some(found) = search.named(&app).await? {
        let items = found.into_iter().map(|(_, view)| view).take(asked.limit).collect();
        return Ok(Json(List { items, next: None }));
    }
    let (mut items, mut scanned, mut after) = (Vec::new(), 0, asked.after);
    loop {
        // A page is never cut, because its cursor stands behind all of it; the last few would take many small ones.
        let room = asked.limit - items.len();
        let (found, read, next) = search.debts(&app, after, room).await?;
        scanned += read;
        items.extend(found.into_iter().map(|(_, view)| view));
        after = next;
        let nearly_full = !items.is_empty() && asked.limit.saturating_sub(items.len()) < SMALLEST_PAGE;
        if after.is_none() || nearly_full || scanned >= MAX_SCANNED {
            return Ok(Json(List { items, next: after.map(write_cursor) }));
        }
    }
}

/// `POST /v1/deliveries/cancel`: they end as discarded. An attempt that runs is broken off; if it ends
/// before that, its end counts.
pub async fn cancel(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CancelRequest>,
) -> Result<Json<Changed>, Problem> {
    if request.selector.is_empty() && !request.all {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "selector-required", "no delivery was chosen")
            .pointer("/selector")
            .hint("choose by address, binding, key, state or time; `all` takes every debt"));
    }
    if request.reason.trim().is_empty() && !request.dry_run {
        let problem =
            Problem::new(StatusCode::BAD_REQUEST, "reason-required", "a cancellation without a reason");
        return Err(problem.pointer("/reason"));
    }
    let reads = Reads::from(&app);
    let search = Search::new(&reads, request.selector).await?;
    let end = |keys: Vec<DeliveryKey>| {
        let (app, caller, reason) = (&app, &caller, &request.reason);
        async move {
            if request.dry_run {
                return Ok(keys.len() as u64);
            }
            let ended = app.ledger().cancel(&keys, reason, &caller.name, app.clock.now()).await?;
            app.dispatcher.cancel(&keys);
            Ok::<_, Problem>(ended)
        }
    };
    let mut count = 0;
    if let Some(found) = search.named(&reads).await? {
        for step in keys(found).chunks(STEP) {
            count += end(step.to_vec()).await?;
        }
    } else {
        let mut after = None;
        loop {
            let (found, _, next) = search.debts(&reads, after, STEP).await?;
            count += end(keys(found)).await?;
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    if !request.dry_run {
        let (by, reason) = (&caller.name, &request.reason);
        tracing::info!(target: "audit", verb = "cancel", count, by = %by, reason = %reason, "deliveries");
    }
    Ok(Json(Changed { count, dry_run: request.dry_run }))
}

type Found = (DeliveryKey, DeliveryView);

fn keys(found: Vec<Found>) -> Vec<DeliveryKey> {
    found.into_iter().map(|(key, _)| key).collect()
}

/// A selector, its names resolved.
struct Search {
    selector: Selector,
    binding: Option<BindingId>,
    pattern: Option<Pattern>,
    records: BTreeMap<BindingId, BindingRecord>,
}

impl Search {
    async fn new(app: &Reads, selector: Selector) -> Result<Self, Problem> {
        if selector.state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
            let detail = format!("what is owed is {}: nothing else", STATES.join(", "));
            return Err(Problem::bad_request(detail).pointer("state"));
        }
        let pattern = selector.filter.as_ref().map(Pattern::from_value).transpose();
        let pattern = pattern.map_err(|error| Problem::bad_request(error.to_string()).pointer("filter"))?;
        let binding = match &selector.binding {
            Some(name) => Some(app.binding(name).await?.id),
            None => None,
        };
        let records = app.ledger().bindings().await?.into_iter().map(|record| (record.id, record)).collect();
        Ok(Self { selector, binding, pattern, records })
    }

    /// What can be found one by one: by address, or because it runs. `None` when it takes a search through the debts.
    async fn named(&self, app: &Reads) -> Result<Option<Vec<Found>>, Problem> {
        let mut addresses = self.selector.addresses.clone();
        if addresses.is_empty() && self.selector.state.as_deref() == Some("running") {
            let live = app.dispatcher().map(|handle| handle.bindings()).unwrap_or_default();
            let ours = live.into_iter().filter(|live| self.binding.is_none_or(|id| id == live.id));
            addresses = ours.flat_map(|live| live.running).collect();
        } else if addresses.is_empty() {
            return Ok(None);
        }
        addresses.sort_by(|a, b| b.cmp(a));
        addresses.dedup();
        let mut found = Vec::new();
        for address in addresses {
            let Some(stored) = app.ledger().event(address).await? else { continue };
            let ledger = app.ledger().as_ref();
            let Some(all) = explain::explain(ledger, app.dispatcher(), address, app.clock.now()).await?
            else {
                continue;
            };
            for delivery in all.deliveries.iter().filter(|d| STATES.contains(&d.state.as_str())) {
                let Some(record) = self.records.values().find(|r| r.name == delivery.binding) else {
                    continue;
                };
                let key = DeliveryKey { binding: record.id, address };
                let view = match app.ledger().owed(key).await? {
                    Some(owed) => self.owed(&of_event(key, &stored, owed), delivery.state == "running"),
                    None => explained(&stored, delivery),
                };
                if self.fits(key, &view) && self.matches(&stored) {
                    found.push((key, view));
                }
            }
        }
        Ok(Some(found))
    }

    /// A page of debts: those that fit, how many were read, and where to go on.
    async fn debts(
        &self,
        app: &Reads,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Found>, usize, Option<Cursor>), Problem> {
        let reasons = self.selector.state.as_deref().map(reasons).unwrap_or_default();
        let (selector, binding) = (self.selector.clone(), self.binding);
        let page =
            app.ledger().deliveries(&DeliveryQuery { selector, binding, reasons, after, limit }).await?;
        let (read, mut found) = (page.items.len(), Vec::new());
        for debt in &page.items {
            let key = DeliveryKey { binding: debt.binding, address: debt.address };
            let runs = app.dispatcher().is_some_and(|handle| handle.is_running(key.binding, key.address));
            let view = self.owed(debt, runs);
            if !self.fits(key, &view) {
                continue;
            }
            if self.pattern.is_some() {
                let event = app.ledger().event(key.address).await?;
                if !event.is_some_and(|stored| self.matches(&stored)) {
                    continue;
                }
            }
            found.push((key, view));
        }
        Ok((found, read, page.next))
    }

    /// The conditions that can be told from the view.
    fn fits(&self, key: DeliveryKey, view: &DeliveryView) -> bool {
        let wanted = &self.selector;
        let paused = || self.records.get(&key.binding).is_some_and(|record| record.paused.is_some());
        let group = || view.error.as_ref().map(fingerprint);
        self.binding.is_none_or(|id| id == key.binding)
            && wanted.state.as_ref().is_none_or(|s| *s == view.state || (s == "paused" && paused()))
            && wanted.source.as_ref().is_none_or(|source| view.source.as_ref() == Some(source))
            && wanted.kind.as_ref().is_none_or(|kind| view.kind.as_ref() == Some(kind))
            && wanted.key.as_ref().is_none_or(|key| view.key.as_ref() == Some(key))
            && (wanted.ids.is_empty() || view.id.as_ref().is_some_and(|id| wanted.ids.contains(id)))
            && wanted.since.is_none_or(|since| view.accepted_at >= since)
            && wanted.until.is_none_or(|until| view.accepted_at < until)
            && wanted.error.as_ref().is_none_or(|error| group().as_ref() == Some(error))
    }

    fn matches(&self, stored: &StoredEvent) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&stored.event.envelope()))
    }

    fn owed(&self, debt: &OwedDelivery, runs: bool) -> DeliveryView {
        let (owed, head) = (&debt.owed, debt.event.as_ref());
        let (state, reason) = explain::words(&owed.reason);
        let name = self.records.get(&debt.binding).map(|record| record.name.clone());
        let is_timed = !runs && state != "parked" && owed.reason.kind() != OwedKind::Cancelled;
        DeliveryView {
            address: debt.address,
            binding: name.unwrap_or_else(|| BindingName::new(format!("#{}", debt.binding))),
            id: head.map(|head| head.id.clone()),
            source: head.map(|head| head.source.clone()),
            kind: head.map(|head| head.kind.clone()),
            key: owed.key.clone(),
            state: if runs { "running" } else { state }.into(),
            reason: Some(reason.into()),
            attempts: owed.attempts,
            accepted_at: debt.accepted_at,
            next_attempt_at: is_timed.then_some(owed.next_at),
            error: owed.error.clone(),
        }
    }
}

/// The reasons that make a state; none for those that have to do with more than the debt.
fn reasons(state: &str) -> Vec<OwedKind> {
    match state {
        "retrying" => vec![OwedKind::Retry, OwedKind::Redrive, OwedKind::Replay],
        "parked" => vec![OwedKind::Parked, OwedKind::Blocked],
        "waiting" => vec![OwedKind::Delayed, OwedKind::Debounced, OwedKind::Cancelled],
        _ => Vec::new(),
    }
}

fn of_event(key: DeliveryKey, stored: &StoredEvent, owed: Owed) -> OwedDelivery {
    let event = &stored.event;
    let head = EventHead { id: event.id.clone(), kind: event.kind.clone(), source: stored.source.clone() };
    let (binding, address, accepted_at) = (key.binding, key.address, stored.accepted_at);
    OwedDelivery { binding, address, accepted_at, owed, event: Some(head) }
}

/// A delivery without a debt: it runs, or lies beyond the cursor.
fn explained(stored: &StoredEvent, delivery: &ExplainedDelivery) -> DeliveryView {
    let last = delivery.attempts.last();
    DeliveryView {
        address: stored.address,
        binding: delivery.binding.clone(),
        id: Some(stored.event.id.clone()),
        source: Some(stored.source.clone()),
        kind: Some(stored.event.kind.clone()),
        key: stored.key.clone(),
        state: delivery.state.clone(),
        reason: delivery.reason.clone(),
        attempts: last.map_or(0, |attempt| attempt.number),
        accepted_at: stored.accepted_at,
        next_attempt_at: delivery.next_attempt_at,
        error: last.and_then(|attempt| attempt.error.clone()),
    }
}
