//! The accounts: totals and arrivals.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn totals(_shared: &Shared) -> Result<BTreeMap<BindingId, BindingTotals>, Error> {
    Err(unfinished())
}

pub(super) async fn arrivals(_shared: &Shared) -> Result<BTreeMap<SourceName, ArrivalTotals>, Error> {
    Err(unfinished())
}
