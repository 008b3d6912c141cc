//! How the start of a binding is stored: as JSON, with its time in microseconds, which JSON would round to milliseconds.

use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, Timestamp};
use serde::{Deserialize, Serialize};

/// A start as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoredStart {
    Now,
    Earliest,
    At(i64),
    Address(Address),
}

impl From<Start> for StoredStart {
    fn from(start: Start) -> Self {
        match start {
            Start::Now => Self::Now,
            Start::Earliest => Self::Earliest,
            Start::At(time) => Self::At(time.micros()),
            Start::Address(address) => Self::Address(address),
        }
    }
}

impl From<StoredStart> for Start {
    fn from(start: StoredStart) -> Self {
        match start {
            StoredStart::Now => Self::Now,
            StoredStart::Earliest => Self::Earliest,
            StoredStart::At(micros) => Self::At(Timestamp::from_micros(micros)),
            StoredStart::Address(address) => Self::Address(address),
        }
    }
}
