//! `GET /v1/live`: facts as server-sent events. A reader that is too slow is told how many it missed.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use bellwire_ledger::EventQuery;
use bellwire_schemas::Address;
use bellwire_schemas::live::Fact;
use bellwire_schemas::selector::Selector;
use futures::{Stream, StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;

use super::query::ListQuery;
use crate::server::app::Shared;
use crate::server::problem::Problem;

/// Events of the past that a resumed stream repeats at most.
const MAX_RESUMED: usize = 1_000;

/// Streams facts that match the selector; `Last-Event-ID` repeats what was accepted after that address.
pub async fn live(
    State(app): State<Shared>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Problem> {
    let selector = ListQuery::parse(&uri, &app.clock)?.selector;
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
            Ok(fact) => matches(&selector, &fact).then(|| to_sse(&fact)),
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

fn matches(selector: &Selector, fact: &Fact) -> bool {
    let address_ok =
        selector.addresses.is_empty() || fact.address().is_some_and(|a| selector.addresses.contains(&a));
    let wanted_source =
        |name: &bellwire_schemas::SourceName| selector.source.as_ref().is_none_or(|s| s == name);
    let wanted_binding =
        |name: &bellwire_schemas::BindingName| selector.binding.as_ref().is_none_or(|b| b == name);
    address_ok
        && match fact {
            Fact::Accepted { source, kind, .. } => {
                wanted_source(source)
                    && selector.binding.is_none()
                    && selector.state.is_none()
                    && selector.kind.as_ref().is_none_or(|k| k == kind)
            }
            Fact::NotAccepted { source, .. } => {
                wanted_source(source) && selector.binding.is_none() && selector.state.is_none()
            }
            Fact::Attempt { binding, state, .. } => {
                let word = state.map_or("retrying", bellwire_schemas::FinalState::as_str);
                of_source(selector, binding)
                    && wanted_binding(binding)
                    && selector.state.as_deref().is_none_or(|s| s == word)
            }
            Fact::Settled { binding, state, .. } => {
                of_source(selector, binding)
                    && wanted_binding(binding)
                    && selector.state.as_deref().is_none_or(|s| s == state.as_str())
            }
            Fact::Condition { .. } => selector.state.is_none(),
        }
}

/// A binding is named `<target>:<source>` unless it was given a name of its own; then only its binding selects it.
fn of_source(selector: &Selector, binding: &bellwire_schemas::BindingName) -> bool {
    selector.source.as_ref().is_none_or(|source| {
        binding.as_str().split_once(':').is_some_and(|(_, name)| name == source.as_str())
    })
}
