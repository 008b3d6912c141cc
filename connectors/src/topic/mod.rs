//! `topic`: our own bus, filled by `POST /topics/<name>`. The HTTP server checks the token; this door takes
//! CloudEvents in any mode, or any body as one event. Read `envelope.rs`.

mod config;
mod door;
pub mod envelope;

pub use config::TopicConfig;
pub use door::TopicDoor;

use std::sync::Arc;

use bellwire_schemas::service::SourceSpec;

use crate::registry::{Auth, Opened, TOPICS};

/// Opens the door of a topic.
pub(crate) fn open(spec: &Arc<SourceSpec>, topic: &str) -> Result<Opened, String> {
    let config = TopicConfig::new(spec.clone(), topic)?;
    let path = format!("{TOPICS}/{}", config.topic);
    Ok(Opened::Door { path, auth: Auth::Token, door: Arc::new(TopicDoor::new(config)) })
}
