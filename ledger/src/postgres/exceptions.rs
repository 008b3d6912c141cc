//! Dead letters, duplicates, quarantine, refusals: what people look through.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn dead_letter(
    _shared: &Shared,
    _delivery: DeliveryKey,
) -> Result<Option<DeadLetter>, Error> {
    Err(unfinished())
}

pub(super) async fn dead_letters(
    _shared: &Shared,
    _query: &DeadLetterQuery,
) -> Result<Page<DeadLetter>, Error> {
    Err(unfinished())
}

pub(super) async fn duplicates(_shared: &Shared, _first: Address) -> Result<Vec<Duplicate>, Error> {
    Err(unfinished())
}

pub(super) async fn duplicates_of_id(
    _shared: &Shared,
    _id: &str,
    _source: Option<&SourceName>,
) -> Result<Vec<Duplicate>, Error> {
    Err(unfinished())
}

pub(super) async fn quarantined(
    _shared: &Shared,
    _source: Option<&SourceName>,
    _limit: usize,
) -> Result<Vec<QuarantineRecord>, Error> {
    Err(unfinished())
}

pub(super) async fn refusals(_shared: &Shared, _since: Timestamp) -> Result<Vec<Refusal>, Error> {
    Err(unfinished())
}
