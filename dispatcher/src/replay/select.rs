//! Which recorded events a replay means, read lane by lane in the order of places.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use bellwire_ledger::{BindingRecord, DeadLetterQuery, EventQuery, Ledger, LogOutcome, StoredEvent};
use bellwire_patterns::{Pattern, PatternSet};
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingId, FinalState, Lane, Seq, SourceName};
use serde_json::Value;

use super::Error;

/// Events read at once.
const READ_EVENTS: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Items asked for at once where the ledger lists.
const PAGE: usize = 100;
/// Most events that a selector of ids, addresses or dead letters may name at once.
const MAX_SET: usize = 1_000_000;
/// Times of acceptance in a lane may step back by this much when a clock is set; looked for on both sides.
const CLOCK_STEP: Duration = Duration::from_secs(3_600);

/// A selector made ready.
pub(super) struct Selection {
    selector: Selector,
    source: SourceName,
    filter: PatternSet,
    also: Option<Pattern>,
    state: Option<FinalState>,
    state_of: BindingId,
    /// The only candidates, when the selector names them; otherwise the lanes are read.
    set: Option<BTreeSet<Address>>,
}

/// Part of a lane.
pub(super) struct Chunk {
    /// The events that are meant.
    pub(super) events: Vec<StoredEvent>,
    /// The last place looked at.
    pub(super) last: Seq,
}

impl Selection {
    pub(super) async fn new(
        ledger: &dyn Ledger,
        selector: &Selector,
        binding: &BindingRecord,
    ) -> Result<Self, Error> {
        Self::resume(ledger, selector, binding, None).await
    }

    /// As new, with the set that an earlier step found.
    pub(super) async fn resume(
        ledger: &dyn Ledger,
        selector: &Selector,
        binding: &BindingRecord,
        set: Option<&BTreeSet<Address>>,
    ) -> Result<Self, Error> {
        let refuse = |what: String| Error::Selector(what);
        let filter = PatternSet::from_value(&Value::Array(binding.filter.clone()))
            .map_err(|e| refuse(format!("filter of binding `{}`: {e}", binding.name)))?;
        let also = selector.filter.as_ref().map(Pattern::from_value).transpose();
        let also = also.map_err(|e| refuse(format!("filter of the selector: {e}")))?;
        let state = match (&selector.state, &selector.error) {
            (None, None) => None,
            (None, Some(_)) => Some(FinalState::Dead),
            (Some(word), _) => Some(final_state(word)?),
        };
        let state_of = match &selector.binding {
            Some(name) if *name != binding.name => {
                let all = ledger.bindings().await?;
                all.iter().find(|b| b.name == *name).map(|b| b.id).ok_or_else(|| {
                    refuse(format!("no binding is called `{name}`: `bellwire bindings list` names them"))
                })?
            }
            _ => binding.id,
        };
        let source = selector.source.clone().unwrap_or_else(|| binding.source.clone());
        let mut selection =
            Self { selector: selector.clone(), source, filter, also, state, state_of, set: set.cloned() };
        if selection.set.is_none() {
            selection.set = selection.named(ledger).await?;
        }
        Ok(selection)
    }

    pub(super) fn set(&self) -> Option<&BTreeSet<Address>> {
        self.set.as_ref()
    }

    /// The place before the first one that can be meant.
    pub(super) async fn start(&self, ledger: &dyn Ledger, lane: Lane, until: Seq) -> Result<Seq, Error> {
        let Some(since) = self.selector.since.filter(|_| self.set.is_none()) else { return Ok(Seq(0)) };
        let since = since.minus(CLOCK_STEP);
        let (mut low, mut high) = (1, until.0.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match ledger.read(lane, Seq(middle), 1, 1).await?.first() {
                Some(event) if event.accepted_at < since => low = event.address.seq.0.max(middle) + 1,
                _ => high = middle,
            }
        }
        Ok(Seq((low - 1).min(until.0)))
    }

    /// The next part after `from`, at most `most` events of it.
    pub(super) async fn next(
        &self,
        ledger: &dyn Ledger,
        lane: Lane,
        from: Seq,
        until: Seq,
        most: usize,
    ) -> Result<Chunk, Error> {
        let mut chunk = Chunk { events: Vec::new(), last: until };
        let candidates = self.candidates(ledger, lane, from, until, most.min(READ_EVENTS)).await?;
        if candidates.is_empty() {
            return Ok(chunk);
        }
        for event in candidates {
            let after = self.selector.until.is_some_and(|end| event.accepted_at > end.plus(CLOCK_STEP));
            if event.address.seq > until || (after && self.set.is_none()) {
                chunk.last = until;
                break;
            }
            chunk.last = event.address.seq;
            if self.means(ledger, &event).await? {
                chunk.events.push(event);
            }
        }
        Ok(chunk)
    }

    async fn candidates(
        &self,
        ledger: &dyn Ledger,
        lane: Lane,
        from: Seq,
        until: Seq,
        most: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let Some(set) = &self.set else {
            return Ok(ledger.read(lane, from.next(), most.max(1), READ_BYTES).await?);
        };
        let range = (Bound::Excluded(Address::new(lane, from)), Bound::Included(Address::new(lane, until)));
        let mut events = Vec::new();
        for address in set.range(range) {
            if let Some(event) = ledger.event(*address).await? {
                events.push(event);
            }
            if events.len() >= most.max(1) {
                break;
            }
        }
        Ok(events)
    }

    /// The addresses that the selector names, or `None` when it describes events by their content only.
    async fn named(&self, ledger: &dyn Ledger) -> Result<Option<BTreeSet<Address>>, Error> {
        let selector = &self.selector;
        if !selector.addresses.is_empty() {
            return Ok(Some(selector.addresses.iter().copied().collect()));
        }
        if !selector.ids.is_empty() {
            return self.by_id(ledger).await.map(Some);
        }
        if self.state == Some(FinalState::Dead) {
            return self.dead(ledger).await.map(Some);
        }
        Ok(None)
    }

    async fn by_id(&self, ledger: &dyn Ledger) -> Result<BTreeSet<Address>, Error> {
        let selector = Selector { ids: self.selector.ids.clone(), ..Selector::default() };
        let mut query = EventQuery { selector, ascending: true, after: None, limit: PAGE };
        let mut set = BTreeSet::new();
        loop {
            let page = ledger.events(&query).await?;
            set.extend(page.items.iter().map(|event| event.address));
            match bounded(&set)?.then_some(page.next).flatten() {
                Some(next) => query.after = Some(next),
                None => return Ok(set),
            }
        }
    }

    async fn dead(&self, ledger: &dyn Ledger) -> Result<BTreeSet<Address>, Error> {
        let selector = Selector { error: self.selector.error.clone(), ..Selector::default() };
        let mut query = DeadLetterQuery { selector, binding: Some(self.state_of), after: None, limit: PAGE };
        let mut set = BTreeSet::new();
        loop {
            let page = ledger.dead_letters(&query).await?;
            set.extend(page.items.iter().map(|dead| dead.event.address));
            match bounded(&set)?.then_some(page.next).flatten() {
                Some(next) => query.after = Some(next),
                None => return Ok(set),
            }
        }
    }

    async fn means(&self, ledger: &dyn Ledger, event: &StoredEvent) -> Result<bool, Error> {
        let s = &self.selector;
        let inside =
            s.since.is_none_or(|t| event.accepted_at >= t) && s.until.is_none_or(|t| event.accepted_at < t);
        let named = (s.addresses.is_empty() || s.addresses.contains(&event.address))
            && (s.ids.is_empty() || s.ids.contains(&event.event.id));
        let plain = event.source == self.source
            && s.kind.as_ref().is_none_or(|kind| *kind == event.event.kind)
            && s.key.as_ref().is_none_or(|key| event.key.as_ref() == Some(key));
        if !(inside && named && plain) {
            return Ok(false);
        }
        if self.also.is_some() || !self.filter.patterns().is_empty() {
            let envelope = event.event.envelope();
            let filter = self.filter.patterns().is_empty() || self.filter.matches(&envelope);
            if !filter || !self.also.as_ref().is_none_or(|pattern| pattern.matches(&envelope)) {
                return Ok(false);
            }
        }
        match self.state {
            None => Ok(true),
            // The set of dead letters was read from the ledger.
            Some(FinalState::Dead) if self.set.is_some() && s.addresses.is_empty() && s.ids.is_empty() => {
                Ok(true)
            }
            Some(state) => Ok(self.last_state(ledger, event.address).await? == Some(state)),
        }
    }

    async fn last_state(&self, ledger: &dyn Ledger, address: Address) -> Result<Option<FinalState>, Error> {
        let log = ledger.log(address, Some(self.state_of)).await?;
        Ok(log.iter().rev().find_map(|(_, entry)| match entry.outcome {
            LogOutcome::Final(state) => Some(state),
            LogOutcome::Failed => None,
        }))
    }
}

fn final_state(word: &str) -> Result<FinalState, Error> {
    FinalState::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        Error::Selector(format!(
            "state `{word}` cannot be replayed: choose delivered, filtered, expired, dead or discarded; what is owed is delivered anyway"
        ))
    })
}

fn bounded(set: &BTreeSet<Address>) -> Result<bool, Error> {
    if set.len() > MAX_SET {
        return Err(Error::Selector(format!(
            "more than {MAX_SET} events are meant: choose fewer, by time or source"
        )));
    }
    Ok(true)
}
