//! Retention and size.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn retain(_shared: &Shared, _before: Timestamp, _now: Timestamp) -> Result<Retained, Error> {
    Err(unfinished())
}

pub(super) async fn size_bytes(_shared: &Shared) -> Result<u64, Error> {
    Err(unfinished())
}
