//! `POST /v1/verifications`: the sums that prove every event accounted for.

use serde::{Deserialize, Serialize};

use crate::{BindingName, SourceName};

/// The proof, or what is missing in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Whether every sum adds up.
    pub complete: bool,
    /// What arrived, per source.
    pub sources: Vec<SourceSum>,
    /// What became of it, per binding.
    pub bindings: Vec<BindingSum>,
}

/// Arrivals of one source: received = accepted + duplicate + quarantined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSum {
    /// The source.
    pub source: SourceName,
    /// All arrivals.
    pub received: u64,
    /// Stored.
    pub accepted: u64,
    /// Not stored again.
    pub duplicate: u64,
    /// Kept aside with the reason.
    pub quarantined: u64,
}

/// Deliveries of one binding: accepted = delivered + filtered + expired + dead + discarded + owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingSum {
    /// The binding.
    pub binding: BindingName,
    /// Events of its source from its start on.
    pub accepted: u64,
    /// Deliveries that ended so.
    pub delivered: u64,
    /// Deliveries that ended so.
    pub filtered: u64,
    /// Deliveries that ended so.
    pub expired: u64,
    /// Deliveries that ended so.
    pub dead: u64,
    /// Deliveries that ended so.
    pub discarded: u64,
    /// Deliveries that have not ended: waiting, running, retrying.
    pub owed: u64,
    /// `accepted` minus all others; anything but 0 is a gap.
    pub gap: i64,
}
