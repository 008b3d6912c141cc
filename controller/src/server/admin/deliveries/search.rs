//! What a selector finds: by address, what runs, debts.

use std::collections::{BTreeMap, BTreeSet};

use bellwire_dispatcher::{BindingLive, explain};
use bellwire_ledger::flush::fingerprint;
use bellwire_ledger::{BindingRecord, Cursor, DeliveryKey, DeliveryQuery, EventQuery, OwedKind, StoredEvent};
use bellwire_patterns::Pattern;
use bellwire_schemas::api::DeliveryView;
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingId, Timestamp};

use super::ahead::Ahead;
use super::view::{self, Side};
use super::{STATES, When};
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// Running deliveries without a debt that one list shows at most.
const MAX_RUNNING: usize = 1_000;

/// Events asked for at once by their addresses.
const CHUNK: usize = 200;

/// A delivery that is meant.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which one.
    pub key: DeliveryKey,
    /// How it looks.
    pub view: DeliveryView,
    /// Its state, but for what holds its whole binding.
    pub own: &'static str,
    /// Why its binding takes nothing on, while that is so.
    pub held: Option<&'static str>,
    /// The cursor has not passed it, so that it can only be asked to end.
    pub ahead: bool,
    /// That was asked before.
    pub requested: bool,
}

impl Found {
    /// What lists are ordered by.
    pub fn spot(&self) -> (Timestamp, Address) {
        (self.view.accepted_at, self.key.address)
    }

    /// When it ends if it is cancelled.
    pub fn ends(&self) -> When {
        match self.held {
            Some(why) if self.ahead && self.view.state != "running" => match why {
                "binding-inactive" => When::Never,
                _ => When::Resumed,
            },
            _ => When::Now,
        }
    }
}

/// A selector, its names resolved.
pub struct Search {
    pub(super) selector: Selector,
    binding: Option<BindingId>,
    pattern: Option<Pattern>,
    records: BTreeMap<BindingId, BindingRecord>,
    live: BTreeMap<BindingId, BindingLive>,
}

impl Search {
    /// Resolves the names of a selector.
    ///
    /// # Errors
    /// 400 for a state that is not owed or a pattern that cannot be read, 404 for an unknown binding; when the ledger
    /// does not answer.
    pub async fn new(app: &Reads, selector: Selector) -> Result<Self, Problem> {
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
        let live = app.dispatcher().map(|handle| handle.bindings()).unwrap_or_default();
        let live = live.into_iter().map(|live| (live.id, live)).collect();
        Ok(Self { selector, binding, pattern, records, live })
    }

    /// What can be found one by one: by address, or because it runs. `None` when it takes a search through the debts.
    pub async fn named(&self, app: &Reads) -> Result<Option<Vec<Found>>, Problem> {
        let mut addresses = self.selector.addresses.clone();
        if addresses.is_empty() && self.wants("running") && self.selector.state.is_some() {
            addresses = self.chosen_live().flat_map(|live| live.running.clone()).collect();
        } else if addresses.is_empty() {
            return Ok(None);
        }
        addresses.sort_by(|a, b| b.cmp(a));
        addresses.dedup();
        let mut found = Vec::new();
        for address in addresses {
            let Some(stored) = app.ledger().event(address).await? else { continue };
            for record in self.chosen() {
                let delivery = self.delivery(app, &stored, record).await?;
                found.extend(delivery.filter(|found| self.means(found, &stored)));
            }
        }
        Ok(Some(found))
    }

    /// What runs without a debt, newest event first; debts that run are among the debts.
    pub async fn running(&self, app: &Reads) -> Result<Vec<Found>, Problem> {
        let mut found = Vec::new();
        if !self.wants("running") {
            return Ok(found);
        }
        for live in self.chosen_live() {
            let Some(record) = self.records.get(&live.id) else { continue };
            let mut fresh = Vec::new();
            for lane in live.running.iter().map(|address| address.lane).collect::<BTreeSet<_>>() {
                let checkpoint = app.ledger().checkpoint(lane, live.id).await?;
                let ours = live.running.iter().filter(|address| address.lane == lane);
                fresh.extend(ours.filter(|address| !checkpoint.passed(address.seq)));
            }
            fresh.truncate(MAX_RUNNING.saturating_sub(found.len()));
            for chunk in fresh.chunks(CHUNK) {
                let selector = Selector { addresses: chunk.to_vec(), ..Selector::default() };
                let query = EventQuery { selector, limit: CHUNK, ..EventQuery::default() };
                let events = app.ledger().events(&query).await?.items;
                let runs =
                    events.iter().map(|stored| (view::ahead(stored, record, Some(live), true), stored));
                found
                    .extend(runs.filter(|(found, stored)| self.means(found, stored)).map(|(found, _)| found));
            }
        }
        Ok(found)
    }

    /// A page of debts: those that fit, how many were read, and where to go on.
    pub async fn debts(
        &self,
        app: &Reads,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Found>, usize, Option<Cursor>), Problem> {
        let reasons = self.selector.state.as_deref().map(reasons).unwrap_or_default();
        let (selector, binding) = (self.selector.clone(), self.binding);
        let page =
            app.ledger().deliveries(&DeliveryQuery { selector, binding, reasons, after, limit }).await?;
        let (read, mut all) = (page.items.len(), Vec::new());
        for debt in &page.items {
            let runs = is_running(app, DeliveryKey { binding: debt.binding, address: debt.address });
            let found = view::owed(debt, self.side(debt.binding), runs);
            if !self.fits(&found) {
                continue;
            }
            if self.pattern.is_some() {
                let event = app.ledger().event(debt.address).await?;
                if !event.is_some_and(|stored| self.means(&found, &stored)) {
                    continue;
                }
            }
            all.push(found);
        }
        Ok((all, read, page.next))
    }

    /// What no cursor has come to, what runs included, oldest first; `None`: nothing of that kind is meant, or there is
    /// none. `marked`: what was asked to end before is found out.
    pub async fn ahead(
        &self,
        app: &Reads,
        after: Option<Cursor>,
        marked: bool,
    ) -> Result<Option<Ahead>, Problem> {
        let could_wait = ["waiting", "paused"].iter().any(|state| self.wants(state));
        if !could_wait || self.selector.error.is_some() {
            return Ok(None);
        }
        let chosen = self.chosen().cloned().collect();
        let Some(mut ahead) = Ahead::new(app, self, chosen, true, after).await? else { return Ok(None) };
        if marked {
            ahead.mark(app).await?;
        }
        Ok(Some(ahead))
    }

    /// The same, newest first, of the one binding that was named, when the configuration has it no more: nobody will
    /// come to it, so that it is listed.
    pub async fn orphans(&self, app: &Reads, after: Option<Cursor>) -> Result<Option<Ahead>, Problem> {
        let could_wait = ["waiting", "paused"].iter().any(|state| self.wants(state));
        let named = self.binding.and_then(|id| self.records.get(&id)).filter(|record| !record.active);
        match named {
            Some(record) if could_wait && self.selector.error.is_none() => {
                Ahead::new(app, self, vec![record.clone()], false, after).await
            }
            _ => Ok(None),
        }
    }

    /// Whether a delivery, and its event, are meant.
    pub fn means(&self, found: &Found, stored: &StoredEvent) -> bool {
        self.fits(found)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&stored.event.envelope()))
    }

    /// How a binding stands now.
    pub fn live(&self, binding: BindingId) -> Option<&BindingLive> {
        self.live.get(&binding)
    }

    /// The conditions that can be told from the view. What a whole binding holds back is also in its own state.
    fn fits(&self, found: &Found) -> bool {
        let (wanted, view) = (&self.selector, &found.view);
        let is = |state: &str| {
            let held = found.held.is_some() && view.state != "running";
            state == view.state || (held && (state == found.own || state == "paused"))
        };
        let group = || view.error.as_ref().map(fingerprint);
        self.binding.is_none_or(|id| id == found.key.binding)
            && wanted.state.as_deref().is_none_or(is)
            && wanted.source.as_ref().is_none_or(|source| view.source.as_ref() == Some(source))
            && wanted.kind.as_ref().is_none_or(|kind| view.kind.as_ref() == Some(kind))
            && wanted.key.as_ref().is_none_or(|key| view.key.as_ref() == Some(key))
            && (wanted.ids.is_empty() || view.id.as_ref().is_some_and(|id| wanted.ids.contains(id)))
            && wanted.since.is_none_or(|since| view.accepted_at >= since)
            && wanted.until.is_none_or(|until| view.accepted_at < until)
            && wanted.error.as_ref().is_none_or(|error| group().as_ref() == Some(error))
    }

    /// One delivery, if it is owed.
    async fn delivery(
        &self,
        app: &Reads,
        stored: &StoredEvent,
        record: &BindingRecord,
    ) -> Result<Option<Found>, Problem> {
        let key = DeliveryKey { binding: record.id, address: stored.address };
        let runs = is_running(app, key);
        if let Some(owed) = app.ledger().owed(key).await? {
            let debt = view::of_event(key, stored, owed);
            let found = view::owed(&debt, self.side(record.id), runs);
            return Ok(Some(found));
        }
        if record.source != stored.source {
            return Ok(None);
        }
        let checkpoint = app.ledger().checkpoint(key.address.lane, record.id).await?;
        if checkpoint.passed(key.address.seq) {
            return Ok(None);
        }
        let mut found = view::ahead(stored, record, self.live(record.id), runs);
        if app.dispatcher().is_some() && found.view.state == "waiting" {
            // Whether it waits for its key, a rate or a slot takes a closer look.
            let (ledger, now) = (app.ledger().as_ref(), app.clock.now());
            let all = explain::explain(ledger, app.dispatcher(), key.address, now).await?;
            let told = all.and_then(|all| all.deliveries.into_iter().find(|d| d.binding == record.name));
            if let Some(told) = told.filter(|told| told.state == "waiting") {
                (found.view.reason, found.view.next_attempt_at) = (told.reason, told.next_attempt_at);
            }
        }
        Ok(Some(found))
    }

    /// The bindings that are meant.
    fn chosen(&self) -> impl Iterator<Item = &BindingRecord> {
        self.records.values().filter(|record| self.binding.is_none_or(|id| id == record.id))
    }

    fn chosen_live(&self) -> impl Iterator<Item = &BindingLive> {
        self.live.values().filter(|live| self.binding.is_none_or(|id| id == live.id))
    }

    fn side(&self, binding: BindingId) -> Side<'_> {
        Side { record: self.records.get(&binding), live: self.live(binding) }
    }

    fn wants(&self, state: &str) -> bool {
        self.selector.state.as_deref().is_none_or(|wanted| wanted == state)
    }
}

/// Whether an attempt of a delivery runs here.
pub fn is_running(app: &Reads, key: DeliveryKey) -> bool {
    app.dispatcher().is_some_and(|handle| handle.is_running(key.binding, key.address))
}

/// The reasons that make a state; none for those that have to do with more than the debt.
fn reasons(state: &str) -> Vec<OwedKind> {
    match state {
        "retrying" => {
            vec![OwedKind::Retry, OwedKind::Redrive, OwedKind::Replay, OwedKind::Delayed, OwedKind::Debounced]
        }
        "parked" => vec![OwedKind::Parked, OwedKind::Blocked],
        "waiting" => vec![OwedKind::Delayed, OwedKind::Debounced, OwedKind::Cancelled],
        _ => Vec::new(),
    }
}
