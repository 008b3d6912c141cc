//! What the handlers of both doors share: the rooms, and who may enter.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use axum::http::StatusCode;
use bellwire_connectors::Intake;
use bellwire_dispatcher::Handle;
use bellwire_ledger::{BindingRecord, EventQuery, Feed, Ledger};
use bellwire_schemas::api::{Listen, PolicyView};
use bellwire_schemas::live::Fact;
use bellwire_schemas::selector::Selector;
use bellwire_schemas::service::{ControllerSpec, FunctionSpec, Service};
use bellwire_schemas::{BindingName, Clock, FunctionName, SourceName, Timestamp};
use bellwire_workers::Workers;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::auth::Tokens;
use super::ingress;
use super::metrics::Observed;
use super::problem::Problem;

/// A handler's view of the controller.
pub type Shared = Arc<App>;

/// The rooms of one running controller.
pub struct App {
    /// Fresh events and the ledger behind them.
    pub feed: Arc<Feed>,
    /// The doors in.
    pub intake: Arc<Intake>,
    /// The hands.
    pub dispatcher: Handle,
    /// The workers.
    pub workers: Arc<Workers>,
    /// Facts as they happen.
    pub live: broadcast::Sender<Fact>,
    /// Measurements since start.
    pub observed: Arc<Observed>,
    /// Who may call.
    pub tokens: Arc<Tokens>,
    /// The controller part of the configuration.
    pub settings: ControllerSpec,
    /// The service part, replaced by a reload.
    pub services: RwLock<Arc<Declared>>,
    /// Base URLs of the doors.
    pub listen: Listen,
    /// Since when.
    pub started_at: Timestamp,
    /// The time.
    pub clock: Clock,
    /// Cancelled when the controller begins to end.
    pub stopping: CancellationToken,
}

/// What the service files declare, by name.
#[derive(Debug, Default)]
pub struct Declared {
    /// Names of the services.
    pub services: Vec<String>,
    /// The functions.
    pub functions: BTreeMap<FunctionName, FunctionSpec>,
    /// The kind word of each source.
    pub kinds: BTreeMap<SourceName, &'static str>,
    /// How each binding delivers.
    pub policies: BTreeMap<BindingName, PolicyView>,
}

impl Declared {
    /// Indexes service files.
    pub fn new(services: &[Service]) -> Self {
        Self {
            services: services.iter().map(|s| s.name.clone()).collect(),
            functions: services
                .iter()
                .flat_map(|s| &s.functions)
                .map(|f| (f.name.clone(), f.clone()))
                .collect(),
            kinds: services
                .iter()
                .flat_map(|s| &s.sources)
                .map(|s| (s.name.clone(), s.kind.word()))
                .collect(),
            policies: services
                .iter()
                .flat_map(|s| &s.bindings)
                .map(|b| (b.name.clone(), PolicyView::from(b)))
                .collect(),
        }
    }
}

impl App {
    /// The ledger.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        self.feed.ledger()
    }

    /// What is declared now.
    pub fn declared(&self) -> Arc<Declared> {
        Arc::clone(&self.services.read().expect("no code panics while it holds this lock"))
    }

    /// A function by name.
    pub fn function(&self, name: &FunctionName) -> Option<FunctionSpec> {
        self.declared().functions.get(name).cloned()
    }

    /// The kind word of a source: `kafka`, `s3`, `topic` and so on.
    pub fn source_kind(&self, name: &SourceName) -> Option<&'static str> {
        self.declared().kinds.get(name).copied()
    }

    /// The largest body that the ingress door reads.
    pub fn body_limit(&self) -> u64 {
        ingress::body_limit(self.settings.event_size.0)
    }

    /// The binding that a selector can only mean: the one of its source, or the only one there is.
    ///
    /// # Errors
    /// 400 with the candidates when there are several.
    pub async fn only_binding(&self, selector: &Selector) -> Result<BindingRecord, Problem> {
        let all = self.ledger().bindings().await?;
        let source = match &selector.source {
            Some(source) => Some(source.clone()),
            None => self.only_source(selector).await?,
        };
        let mut fits: Vec<_> =
            all.into_iter().filter(|b| b.active && source.as_ref().is_none_or(|s| *s == b.source)).collect();
        if fits.len() == 1 {
            return Ok(fits.remove(0));
        }
        let names: Vec<_> = fits.iter().map(|b| b.name.to_string()).collect();
        Err(Problem::new(StatusCode::BAD_REQUEST, "bad-request", "say to which binding")
            .pointer("/to")
            .hint(format!("one of {}", names.join(", "))))
    }

    /// The one source of the events that a selector names by address or id.
    async fn only_source(&self, selector: &Selector) -> Result<Option<SourceName>, Problem> {
        if selector.addresses.is_empty() && selector.ids.is_empty() {
            return Ok(None);
        }
        let query = EventQuery { selector: selector.clone(), limit: 1_000, ..EventQuery::default() };
        let mut sources: Vec<_> =
            self.ledger().events(&query).await?.items.into_iter().map(|event| event.source).collect();
        sources.sort();
        sources.dedup();
        Ok(sources.pop().filter(|_| sources.is_empty()))
    }
}
