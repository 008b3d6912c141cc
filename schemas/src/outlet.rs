//! The contract of outlets: what carries results out of the ledger to a broker.

use std::sync::Arc;

use async_trait::async_trait;

use crate::Event;

/// What is sent out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The event. Its data is the message's body, byte for byte; its attributes travel beside it as the CloudEvents
    /// binding of the protocol says (binary mode).
    pub event: Arc<Event>,
    /// The ordering key, if there is one.
    pub key: Option<String>,
}

/// An open way to one destination.
///
/// At least once: a message whose fate is unknown is sent again, with the same CloudEvents id.
#[async_trait]
pub trait Outlet: Send + Sync + 'static {
    /// Sends one message; returns once the broker has confirmed that it keeps it, and says where in a few words
    /// (`order-audit/3@1742`). Cancel-safe. Bounded in time by the caller as well as by itself.
    ///
    /// # Errors
    /// [`OutletError`].
    async fn send(&self, message: &Outgoing) -> Result<String, OutletError>;
}

/// Why a message was not sent, or perhaps not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutletError {
    /// The broker cannot be reached, or takes nothing now: the message may be sent again later.
    #[error("{0}")]
    Unavailable(String),
    /// The broker never takes this message: too large, no such queue, not allowed.
    #[error("{0}")]
    Refused(String),
}
