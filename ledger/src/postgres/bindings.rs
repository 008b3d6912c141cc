//! Bindings: declared, revised, paused; and where their accounts begin.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn declare_bindings(
    _shared: &Shared,
    _bindings: Vec<BindingRecord>,
    _now: Timestamp,
) -> Result<Vec<BindingRecord>, Error> {
    Err(unfinished())
}

pub(super) async fn bindings(_shared: &Shared) -> Result<Vec<BindingRecord>, Error> {
    Err(unfinished())
}

pub(super) async fn filter_of(
    _shared: &Shared,
    _binding: BindingId,
    _revision: u32,
) -> Result<Option<Vec<serde_json::Value>>, Error> {
    Err(unfinished())
}

pub(super) async fn set_paused(
    _shared: &Shared,
    _binding: BindingId,
    _pause: Option<Pause>,
) -> Result<(), Error> {
    Err(unfinished())
}
