//! `/v1/deliveries`: what is owed, one by one, and given up by hand.
//!
//! A list shows debts and what runs. What only lies beyond a cursor is counted by its binding; it is listed by address,
//! and of a binding that the configuration has no more, because nobody will come to it. A cancellation takes all of
//! these. Read `search.rs` for what is found how, `ahead.rs` for what no cursor has come to, `view.rs` for the words.

mod ahead;
mod search;
#[cfg(test)]
mod tests;
mod view;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use bellwire_ledger::{Cursor, DeliveryKey};
use bellwire_schemas::Timestamp;
use bellwire_schemas::api::{CancelRequest, Changed, DeliveryView, List};

use super::query::{ListQuery, read_cursor, write_cursor};
use crate::server::app::Shared;
use crate::server::auth::Caller;
use crate::server::problem::Problem;
use crate::server::reads::Reads;
use search::{Found, Search};

/// Deliveries handled per step of a write, so that none holds the ledger for long.
const STEP: usize = 500;

/// Debts read from the ledger for one list answer; what is beyond comes with the next page.
const MAX_SCANNED: usize = 5_000;

/// A list that lacks fewer items than this is handed out as it is.
const SMALLEST_PAGE: usize = 50;

/// Events beyond cursors that one cancellation looks at; the answer says where to go on.
const MAX_LOOKED: usize = 100_000;

/// Deliveries beyond cursors that one cancellation takes; the answer says where to go on.
const MAX_TAKEN: u64 = 10_000;

/// The states that a delivery that is owed can be in.
const STATES: [&str; 5] = ["waiting", "running", "retrying", "parked", "paused"];

/// `GET /v1/deliveries`.
pub async fn list(State(app): State<Reads>, uri: Uri) -> Result<Json<List<DeliveryView>>, Problem> {
    let asked = ListQuery::parse(&uri, &app.clock)?;
    pages(&app, asked).await.map(Json)
}

/// `POST /v1/deliveries/cancel`: they end as discarded. An attempt that runs is broken off; if it ends
/// before that, its end counts.
pub async fn cancel(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CancelRequest>,
) -> Result<Json<Changed>, Problem> {
    let changed = give_up(&Reads::from(&app), &request, &caller.name).await?;
    if !request.dry_run {
        let (by, reason, count) = (&caller.name, &request.reason, changed.count);
        tracing::info!(target: "audit", verb = "cancel", count, by = %by, reason = %reason, "deliveries");
    }
    Ok(Json(changed))
}

/// One answer of the list: what was asked for by name, or a page of everything, newest event first.
async fn pages(app: &Reads, asked: ListQuery) -> Result<List<DeliveryView>, Problem> {
    let search = Search::new(app, asked.selector).await?;
    let views = |found: Vec<Found>| found.into_iter().map(|found| found.view);
    if let Some(found) = search.named(app).await? {
        return Ok(List { items: views(found).take(asked.limit).collect(), next: None });
    }
    let running = search.running(app).await?;
    let (mut items, mut scanned, mut after) = (Vec::new(), 0, asked.after);
    loop {
        let room = asked.limit - items.len();
        let (debts, read, next) = search.debts(app, after, room).await?;
        scanned += read;
        let runs = running.iter().filter(|found| after.is_none_or(|a| found.spot() < (a.at, a.address)));
        let mut streams = vec![(debts, next), (runs.cloned().collect(), None)];
        if let Some(mut orphans) = search.orphans(app, after).await? {
            let (found, read) = orphans.page(app, &search, room).await?;
            scanned += read;
            streams.push((found, orphans.after()));
        }
        let (found, next) = merge(streams, room);
        items.extend(views(found));
        after = next;
        let nearly_full = !items.is_empty() && asked.limit.saturating_sub(items.len()) < SMALLEST_PAGE;
        if after.is_none() || nearly_full || scanned >= MAX_SCANNED {
            return Ok(List { items, next: after.map(write_cursor) });
        }
    }
}

/// Pages of several lists as one of at most `room` items, and those that share the address of the last one: a cursor
/// names no binding. Nothing is taken from beyond the place where one of the pages ends early.
fn merge(streams: Vec<(Vec<Found>, Option<Cursor>)>, room: usize) -> (Vec<Found>, Option<Cursor>) {
    let ends = streams.iter().filter_map(|(_, next)| next.as_ref());
    let bound = ends.max_by_key(|end| (end.at, end.address)).copied();
    let mut all: Vec<Found> = streams.into_iter().flat_map(|(found, _)| found).collect();
    all.retain(|found| bound.is_none_or(|bound| found.spot() >= (bound.at, bound.address)));
    // Stable: of two that are the same, the one of the earlier list stays.
    all.sort_by_key(|found| (std::cmp::Reverse(found.spot()), found.key.binding));
    all.dedup_by_key(|found| found.key);
    let mut end = room.min(all.len());
    while end > 0 && end < all.len() && all[end].spot() == all[end - 1].spot() {
        end += 1;
    }
    if end == all.len() {
        return (all, bound);
    }
    all.truncate(end);
    let next = all.last().map(|found| Cursor { at: found.spot().0, address: found.spot().1 });
    (all, next)
}

/// Cancels what a request means, or counts it.
async fn give_up(app: &Reads, request: &CancelRequest, by: &str) -> Result<Changed, Problem> {
    if request.selector.is_empty() && !request.all {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "selector-required", "no delivery was chosen")
            .pointer("/selector")
            .hint("choose by address, binding, key, state or time; `all` takes everything that is owed"));
    }
    if request.reason.trim().is_empty() && !request.dry_run {
        let problem =
            Problem::new(StatusCode::BAD_REQUEST, "reason-required", "a cancellation without a reason");
        return Err(problem.pointer("/reason"));
    }
    let after = match request.after.as_deref().map(read_cursor) {
        Some(None) => return Err(Problem::bad_request("this cursor was not made here").pointer("/after")),
        Some(after) => after,
        None => None,
    };
    let search = Search::new(app, request.selector.clone()).await?;
    let changed = Changed { dry_run: request.dry_run, ..Changed::default() };
    let mut ending = Ending { app, request, by, now: app.clock.now(), changed };
    if let Some(found) = search.named(app).await? {
        for step in found.chunks(STEP) {
            ending.take(step).await?;
        }
        return Ok(ending.changed);
    }
    if after.is_none() {
        let mut more = None;
        loop {
            let (found, _, next) = search.debts(app, more, STEP).await?;
            ending.take(&found).await?;
            more = next;
            if more.is_none() {
                break;
            }
        }
    }
    beyond(&search, &mut ending, after).await?;
    Ok(ending.changed)
}

/// Goes on with what no cursor has come to, what runs included.
async fn beyond(search: &Search, ending: &mut Ending<'_>, after: Option<Cursor>) -> Result<(), Problem> {
    let app = ending.app;
    let Some(mut ahead) = search.ahead(app, after, ending.request.dry_run).await? else { return Ok(()) };
    let (mut looked, before) = (0, ending.changed.count);
    loop {
        let (found, read) = ahead.page(app, search, STEP).await?;
        looked += read;
        ending.take(&found).await?;
        let taken = ending.changed.count - before;
        match ahead.after() {
            None => return Ok(()),
            Some(next) if looked >= MAX_LOOKED || taken >= MAX_TAKEN => {
                ending.changed.next = Some(write_cursor(next));
                return Ok(());
            }
            Some(_) => {}
        }
    }
}

/// A cancellation under way.
struct Ending<'a> {
    app: &'a Reads,
    request: &'a CancelRequest,
    by: &'a str,
    now: Timestamp,
    changed: Changed,
}

impl Ending<'_> {
    /// Ends some, and counts which of them end later.
    async fn take(&mut self, found: &[Found]) -> Result<(), Problem> {
        for when in [When::Now, When::Resumed, When::Never] {
            let meant = found.iter().filter(|found| found.ends() == when);
            let count = if self.request.dry_run {
                meant.filter(|found| !found.requested).count() as u64
            } else {
                self.cancel(meant.map(|found| found.key).collect()).await?
            };
            let changed = &mut self.changed;
            changed.count += count;
            match when {
                When::Now => {}
                When::Resumed => changed.paused += count,
                When::Never => changed.inactive += count,
            }
        }
        Ok(())
    }

    async fn cancel(&self, keys: Vec<DeliveryKey>) -> Result<u64, Problem> {
        if keys.is_empty() {
            return Ok(0);
        }
        let ended = self.app.ledger().cancel(&keys, &self.request.reason, self.by, self.now).await?;
        if let Some(dispatcher) = self.app.dispatcher() {
            dispatcher.cancel(&keys);
        }
        Ok(ended)
    }
}

/// When a delivery ends that was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// At once, or as soon as the owner of its lane hears of it.
    Now,
    /// When its binding, which takes nothing on, goes on.
    Resumed,
    /// Its binding is not in the configuration any more, and has not come to it.
    Never,
}
