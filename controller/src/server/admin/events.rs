//! `/v1/events`: lists, one event, why it was or was not delivered, and why an id is not there.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwire_dispatcher::explain;
use bellwire_ledger::{EventQuery, StoredEvent};
use bellwire_patterns::Pattern;
use bellwire_schemas::api::{Absence, EventDetail, EventView, Explanation, List, QuarantineView};
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, SourceName};
use serde::Deserialize;
use serde_json::Value;

use super::query::{ListQuery, write_cursor};
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// Events read from the ledger for one list answer; what is beyond comes with the next page.
const MAX_SCANNED: usize = 20_000;

/// `GET /v1/events`.
pub async fn list(State(app): State<Reads>, uri: Uri) -> Result<Json<List<EventView>>, Problem> {
    let asked = ListQuery::parse(&uri, &app.clock)?;
    let test = Test::new(&app, &asked.selector).await?;
    let mut query = EventQuery {
        selector: asked.selector,
        ascending: asked.ascending,
        after: asked.after,
        limit: asked.limit.max(100),
    };
    let (mut items, mut scanned) = (Vec::new(), 0);
    loop {
        let page = app.ledger().events(&query).await?;
        scanned += page.items.len();
        let more = page.next.is_some();
        for event in page.items {
            query.after = Some(bellwire_ledger::Cursor { at: event.accepted_at, address: event.address });
            if test.holds(&app, &event).await? {
                items.push(view(&event));
                if items.len() == asked.limit {
                    return Ok(Json(List { items, next: query.after.map(write_cursor) }));
                }
            }
        }
        if !more || scanned >= MAX_SCANNED {
            return Ok(Json(List { items, next: query.after.filter(|_| more).map(write_cursor) }));
        }
    }
}

/// `GET /v1/events/{id or address}`.
pub async fn show(
    State(app): State<Reads>,
    Path(which): Path<String>,
    uri: Uri,
) -> Result<Json<EventDetail>, Problem> {
    let event = find(&app, &which, &uri).await?;
    Ok(Json(detail(&event)))
}

/// `GET /v1/events/{id or address}/explanation`.
pub async fn explanation(
    State(app): State<Reads>,
    Path(which): Path<String>,
    uri: Uri,
) -> Result<Json<Explanation>, Problem> {
    let event = find(&app, &which, &uri).await?;
    let found =
        explain::explain(app.ledger().as_ref(), app.dispatcher(), event.address, app.clock.now()).await?;
    found.map(Json).ok_or_else(|| Problem::not_found(format!("{which} left the ledger just now")))
}

/// The query of [`absence`].
#[derive(Debug, Deserialize)]
pub struct AbsenceQuery {
    id: String,
    source: Option<SourceName>,
}

/// `GET /v1/absences`.
pub async fn absence(
    State(app): State<Reads>,
    axum::extract::Query(query): axum::extract::Query<AbsenceQuery>,
) -> Result<Json<Absence>, Problem> {
    let day_ago = app.clock.now().minus(std::time::Duration::from_secs(86_400));
    let last = app
        .ledger()
        .events(&EventQuery {
            selector: Selector { source: query.source.clone(), ..Selector::default() },
            limit: 1,
            ..EventQuery::default()
        })
        .await?;
    let of_source = |name: &str| query.source.as_ref().is_none_or(|s| s.as_str() == name);
    let refused = app.ledger().refusals(day_ago).await?;
    let quarantined = app.ledger().quarantined(query.source.as_ref(), 1_000).await?;
    let healthy = query.source.as_ref().and_then(|name| {
        app.running.as_ref()?.intake.status().into_iter().find(|s| s.name == *name).map(|s| s.state == "ok")
    });
    Ok(Json(Absence {
        id: query.id,
        source: query.source.clone(),
        retention_ms: u64::try_from(app.retention.as_millis()).unwrap_or(u64::MAX),
        last_accepted: last.items.first().map(|e| (e.event.id.clone(), e.accepted_at)),
        healthy,
        refused: refused
            .into_iter()
            .filter(|r| of_source(&r.source))
            .map(|r| (r.reason, r.count, r.last_at, r.last_peer))
            .collect(),
        quarantined: quarantined.iter().filter(|q| q.at >= day_ago).count() as u64,
    }))
}

/// `GET /v1/quarantined`.
pub async fn quarantined(State(app): State<Reads>, uri: Uri) -> Result<Json<List<QuarantineView>>, Problem> {
    let asked = ListQuery::parse(&uri, &app.clock)?;
    let records = app.ledger().quarantined(asked.selector.source.as_ref(), asked.limit).await?;
    let items = records
        .into_iter()
        .map(|record| {
            let text = std::str::from_utf8(&record.bytes).ok().map(String::from);
            QuarantineView {
                id: record.id,
                at: record.at,
                source: record.source,
                reason: record.reason,
                base64: text.is_none().then(|| STANDARD.encode(&record.bytes)),
                text,
                meta: serde_json::from_str(&record.meta).unwrap_or(Value::Null),
            }
        })
        .collect();
    Ok(Json(List { items, next: None }))
}

/// The list form of an event.
pub fn view(stored: &StoredEvent) -> EventView {
    EventView {
        address: stored.address,
        id: stored.event.id.clone(),
        source: stored.source.clone(),
        kind: stored.event.kind.clone(),
        subject: stored.event.subject.clone(),
        key: stored.key.clone(),
        accepted_at: stored.accepted_at,
        data_bytes: stored.event.data.as_ref().map_or(0, |d| d.len() as u64),
    }
}

/// The whole event.
pub fn detail(stored: &StoredEvent) -> EventDetail {
    let event = &stored.event;
    let text = event.data.as_deref().and_then(|d| std::str::from_utf8(d).ok());
    let data = event.data_json().or_else(|| text.map(Value::from));
    EventDetail {
        event: view(stored),
        attributes: event.attributes(),
        data_base64: event.data.as_deref().filter(|_| data.is_none()).map(|d| STANDARD.encode(d)),
        data,
        meta: event.meta.clone(),
    }
}

/// The conditions that the ledger does not check itself.
struct Test {
    pattern: Option<Pattern>,
    binding: Option<bellwire_ledger::BindingRecord>,
    state: Option<String>,
    error: Option<String>,
}

impl Test {
    async fn new(app: &Reads, selector: &Selector) -> Result<Self, Problem> {
        let pattern = match &selector.filter {
            Some(value) => Some(
                Pattern::from_value(value)
                    .map_err(|e| Problem::bad_request(e.to_string()).pointer("filter"))?,
            ),
            None => None,
        };
        let binding = match &selector.binding {
            Some(name) => Some(app.binding(name).await?),
            None => None,
        };
        Ok(Self { pattern, binding, state: selector.state.clone(), error: selector.error.clone() })
    }

    async fn holds(&self, app: &Reads, event: &StoredEvent) -> Result<bool, Problem> {
        if self.binding.as_ref().is_some_and(|b| b.source != event.source) {
            return Ok(false);
        }
        if self.pattern.as_ref().is_some_and(|p| !p.matches(&event.event.envelope())) {
            return Ok(false);
        }
        if self.state.is_none() && self.error.is_none() {
            return Ok(true);
        }
        let found =
            explain::explain(app.ledger().as_ref(), app.dispatcher(), event.address, app.clock.now()).await?;
        Ok(found.is_some_and(|explanation| {
            explanation.deliveries.iter().any(|d| {
                self.binding.as_ref().is_none_or(|b| b.name == d.binding)
                    && self.state.as_ref().is_none_or(|state| d.state == *state)
                    && (self.error.is_none() || d.group == self.error)
            })
        }))
    }
}

/// One event by address, or by id when the id is unique.
async fn find(app: &Reads, which: &str, uri: &Uri) -> Result<StoredEvent, Problem> {
    if let Ok(address) = which.parse::<Address>()
        && let Some(event) = app.ledger().event(address).await?
    {
        return Ok(event);
    }
    let mut selector = ListQuery::parse(uri, &app.clock)?.selector;
    selector.ids = vec![which.into()];
    let mut page = app.ledger().events(&EventQuery { selector, limit: 2, ..EventQuery::default() }).await?;
    if page.items.len() > 1 {
        let places: Vec<_> = page.items.iter().map(|e| format!("{} ({})", e.address, e.source)).collect();
        let detail = format!("`{which}` lies at {}", places.join(" and "));
        return Err(Problem::new(StatusCode::CONFLICT, "ambiguous-id", detail).hint("ask by address"));
    }
    page.items.pop().ok_or_else(|| Problem::not_found(format!("no event has the address or id `{which}`")))
}
