//! `webhook`: HTTP doors at `/hooks/<path>`, each checking for itself where a request comes from.
//!
//! `verify.rs` judges signatures and nothing else; `envelope.rs` makes events; `door.rs` joins them and answers the
//! two handshakes (CloudEvents webhooks, Slack). Nothing is parsed before its signature holds.

mod config;
mod door;
pub mod envelope;
mod verify;

#[cfg(test)]
mod tests;

pub use config::WebhookConfig;
pub use door::WebhookDoor;
pub use verify::{Verified, sign, verify};

use std::sync::Arc;

use bellwire_schemas::service::{SourceSpec, WebhookSpec};

use crate::registry::{Auth, HOOKS, Opened};

/// Opens a webhook's door.
pub(crate) fn open(spec: &Arc<SourceSpec>, webhook: &WebhookSpec) -> Result<Opened, String> {
    let config = WebhookConfig::new(spec.clone(), webhook)?;
    let path = format!("{HOOKS}{}", config.spec.path);
    Ok(Opened::Door { path, auth: Auth::Door, door: Arc::new(WebhookDoor::new(config)) })
}
