//! `GET /v1/live`: facts as server-sent events. A reader that is too slow is told how many it missed.

use std::collections::BTreeSet;
use std::convert::Infallible;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use bellwire_ledger::EventQuery;
use bellwire_schemas::live::Fact;
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingName, FinalState, SourceName};
use futures::{Stream, StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;

use super::query::ListQuery;
use crate::server::app::Shared;
use crate::server::problem::Problem;

/// Events of the past that a resumed stream repeats at most.
const MAX_RESUMED: usize = 1_000;
/// Events chosen by type or id that one stream remembers; beyond, the oldest are forgotten.
const MAX_CHOSEN: usize = 10_000;

/// Streams facts that match the selector; `Last-Event-ID` repeats what was accepted after that address.
pub async fn live(
    State(app): State<Shared>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Problem> {
    let mut chosen = Chosen::new(ListQuery::parse(&uri, &app.clock)?.selector)?;
    let receiver = app.live.subscribe();
    let past = match headers.get("last-event-id").and_then(|id| id.to_str().ok()) {
        Some(id) => resume(&app, id.parse().map_err(Problem::bad_request)?).await?,
        None => Vec::new(),
    };
    let stop = app.stopping.clone();
    let fresh = stream::unfold(receiver, move |mut receiver| {
        let stop = stop.clone();
        async move {
            let received = tokio::select! {
                () = stop.cancelled() => return None,
                received = receiver.recv() => received,
            };
            let item = match received {
                Ok(fact) => Ok(fact),
                Err(RecvError::Lagged(missed)) => Err(missed),
                Err(RecvError::Closed) => return None,
            };
            Some((item, receiver))
        }
    });
    let facts = stream::iter(past.into_iter().map(Ok)).chain(fresh);
    let events = facts.filter_map(move |fact| {
        let event = match fact {
            Ok(fact) => chosen.takes(&fact).then(|| to_sse(&fact)),
            Err(missed) => Some(SseEvent::default().event("missed").data(missed.to_string())),
        };
        async move { event.map(Ok) }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn resume(app: &Shared, after: Address) -> Result<Vec<Fact>, Problem> {
    let Some(last) = app.ledger().event(after).await? else { return Ok(Vec::new()) };
    let query = EventQuery {
        ascending: true,
        after: Some(bellwire_ledger::Cursor { at: last.accepted_at, address: after }),
        limit: MAX_RESUMED,
        ..EventQuery::default()
    };
    let page = app.ledger().events(&query).await?;
    Ok(page
        .items
        .into_iter()
        .map(|stored| Fact::Accepted {
            at: stored.accepted_at,
            address: stored.address,
            source: stored.source.clone(),
            kind: stored.event.kind.clone(),
            subject: stored.event.subject.clone(),
            id: stored.event.id.clone(),
        })
        .collect())
}

fn to_sse(fact: &Fact) -> SseEvent {
    let event = SseEvent::default().data(serde_json::to_string(fact).unwrap_or_default());
    match fact.address() {
        Some(address) => event.id(address.to_string()),
        None => event,
    }
}

/// What a stream shows: a selector, and the events that it chose by type or id, so that what becomes of them is shown too.
struct Chosen {
    selector: Selector,
    events: BTreeSet<Address>,
}

impl Chosen {
    /// # Errors
    /// 400 naming a condition that facts do not carry.
    fn new(selector: Selector) -> Result<Self, Problem> {
        let unknown = [
            ("since", selector.since.is_some()),
            ("until", selector.until.is_some()),
            ("key", selector.key.is_some()),
            ("filter", selector.filter.is_some()),
            ("error", selector.error.is_some()),
        ];
        if let Some((name, _)) = unknown.into_iter().find(|(_, given)| *given) {
            let detail = format!("a live stream cannot choose by `{name}`");
            return Err(Problem::bad_request(detail)
                .pointer(name)
                .hint("choose by address, id, source, binding, type or state; `Last-Event-ID` resumes"));
        }
        Ok(Self { selector, events: BTreeSet::new() })
    }

    fn by_event(&self) -> bool {
        self.selector.kind.is_some() || !self.selector.ids.is_empty()
    }

    fn takes(&mut self, fact: &Fact) -> bool {
        let selector = &self.selector;
        let source_ok = |name: &SourceName| selector.source.as_ref().is_none_or(|s| s == name);
        let binding_ok = |name: &BindingName| {
            of_source(selector, name) && selector.binding.as_ref().is_none_or(|b| b == name)
        };
        let state_ok = |word: &str| selector.state.as_deref().is_none_or(|s| s == word);
        let address_ok =
            selector.addresses.is_empty() || fact.address().is_some_and(|a| selector.addresses.contains(&a));
        let event_ok = match (fact, fact.address()) {
            _ if !self.by_event() => true,
            (Fact::Accepted { kind, id, .. }, _) => {
                selector.kind.as_ref().is_none_or(|k| k == kind)
                    && (selector.ids.is_empty() || selector.ids.contains(id))
            }
            (_, Some(address)) => self.events.contains(&address),
            (_, None) => false,
        };
        let takes = address_ok
            && event_ok
            && match fact {
                Fact::Accepted { source, .. } | Fact::NotAccepted { source, .. } => {
                    source_ok(source) && selector.binding.is_none() && selector.state.is_none()
                }
                Fact::Attempt { binding, state, .. } => {
                    binding_ok(binding) && state_ok(state.map_or("retrying", FinalState::as_str))
                }
                Fact::Settled { binding, state, .. } => binding_ok(binding) && state_ok(state.as_str()),
                Fact::Condition { .. } => selector.state.is_none(),
            };
        if let Fact::Accepted { address, .. } = fact
            && event_ok
            && self.by_event()
        {
            if self.events.len() >= MAX_CHOSEN {
                self.events.pop_first();
            }
            self.events.insert(*address);
        }
        takes
    }
}

/// A binding is named `<target>:<source>` unless it was given a name of its own; then only its binding selects it.
fn of_source(selector: &Selector, binding: &BindingName) -> bool {
    selector.source.as_ref().is_none_or(|source| {
        binding.as_str().split_once(':').is_some_and(|(_, name)| name == source.as_str())
    })
}

#[cfg(test)]
mod tests {
    use bellwire_schemas::Timestamp;

    use super::*;

    #[test]
    fn a_type_chooses_the_events_and_what_becomes_of_them() {
        let at = Timestamp::from_millis(0);
        let accepted = |address: &str, kind: &str| Fact::Accepted {
            at,
            address: address.parse().unwrap(),
            source: SourceName::new("topic.t"),
            kind: kind.into(),
            subject: None,
            id: address.into(),
        };
        let settled = |address: &str| Fact::Settled {
            at,
            address: address.parse().unwrap(),
            binding: BindingName::new("f:topic.t"),
            state: FinalState::Filtered,
            reason: String::new(),
        };
        let mut chosen = Chosen::new(Selector { kind: Some("a".into()), ..Selector::default() }).unwrap();
        let facts = [accepted("1-1", "a"), accepted("1-2", "b"), settled("1-1"), settled("1-2")];
        assert_eq!(facts.map(|fact| chosen.takes(&fact)), [true, false, true, false]);
    }

    #[test]
    fn what_facts_do_not_carry_is_refused() {
        let selector = Selector { key: Some("k".into()), ..Selector::default() };
        assert!(Chosen::new(selector).is_err());
    }
}
