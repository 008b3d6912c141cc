//! Events by selector.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn events(_shared: &Shared, _query: &EventQuery) -> Result<Page<StoredEvent>, Error> {
    Err(unfinished())
}
