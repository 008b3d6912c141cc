//! The start of a binding: which ones a new binding may have, and how it is stored: as JSON, with its time in microseconds,
//! which JSON would round to milliseconds.

use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, Lane, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{BindingRecord, Error};

/// Refuses a start of a new binding beyond the next place of its lane, or in the future: events that come before it would be
/// delivered all the same. `migrations/postgres/0018_starts.sql` says the same in the same words.
pub(crate) fn check<E: From<Error>>(
    new: &BindingRecord,
    now: Timestamp,
    tail: impl FnOnce(Lane) -> Result<Seq, E>,
) -> Result<(), E> {
    let name = &new.name;
    match new.start {
        Start::Address(at) => {
            let next = Address::new(at.lane, Seq(tail(at.lane)?.0 + 1));
            if at.seq > next.seq {
                return Err(E::from(Error::NotFound(format!(
                    "binding `{name}`: start {at} lies beyond the end of lane {}, whose next event will be {next}: name \
                     that address or one before it, or `now`",
                    at.lane
                ))));
            }
        }
        Start::At(time) if time > now => {
            return Err(E::from(Error::NotFound(format!(
                "binding `{name}`: start {time} lies in the future: name a time that has passed, or `now`"
            ))));
        }
        Start::At(_) | Start::Now | Start::Earliest => {}
    }
    Ok(())
}

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
