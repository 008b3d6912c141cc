//! Append: events, positions, dedup keys and quarantine of one batch, all or nothing.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn append(_shared: &Shared, _append: Append, _now: Timestamp) -> Result<Appended, Error> {
    Err(unfinished())
}
