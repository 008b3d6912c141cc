//! What reading handlers are handed: a ledger, and the running controller where there is one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use bellwire_dispatcher::Handle;
use bellwire_ledger::{BindingRecord, Ledger};
use bellwire_schemas::{BindingName, Clock};

use super::app::Shared;
use super::problem::Problem;

/// The ledger of a running controller, or of one that is gone.
#[derive(Clone)]
pub struct Reads {
    ledger: Arc<dyn Ledger>,
    /// The time.
    pub clock: Clock,
    /// How long events are kept after nobody owes them.
    pub retention: Duration,
    /// The controller, which knows what is running and waiting now.
    pub running: Option<Shared>,
}

impl Reads {
    /// A ledger without a controller.
    pub fn post_mortem(ledger: Arc<dyn Ledger>, retention: Duration) -> Self {
        Self { ledger, clock: Clock::system(), retention, running: None }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// The dispatcher, where one runs.
    pub fn dispatcher(&self) -> Option<&Handle> {
        self.running.as_ref().map(|app| &app.dispatcher)
    }

    /// A binding by name, active or not.
    ///
    /// # Errors
    /// 404 with the names that are known.
    pub async fn binding(&self, name: &BindingName) -> Result<BindingRecord, Problem> {
        let all = self.ledger().bindings().await?;
        let known: Vec<_> = all.iter().map(|b| b.name.to_string()).collect();
        all.into_iter().find(|b| b.name == *name).ok_or_else(|| {
            Problem::not_found(format!("no binding is called `{name}`"))
                .hint(format!("known: {}", known.join(", ")))
        })
    }
}

impl From<&Shared> for Reads {
    fn from(app: &Shared) -> Self {
        Self {
            ledger: Arc::clone(app.ledger()),
            clock: app.clock.clone(),
            retention: app.settings.ledger.retention,
            running: Some(Arc::clone(app)),
        }
    }
}

impl FromRef<Shared> for Reads {
    fn from_ref(app: &Shared) -> Self {
        Self::from(app)
    }
}
