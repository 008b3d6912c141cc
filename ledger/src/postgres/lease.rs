//! Controllers and the lanes they own.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn heartbeat(_shared: &Shared, _beat: &Heartbeat) -> Result<Cluster, Error> {
    Err(unfinished())
}

pub(super) async fn leave(_shared: &Shared, _controller: ControllerId) -> Result<(), Error> {
    Err(unfinished())
}

pub(super) async fn acquire(
    _shared: &Shared,
    _controller: ControllerId,
    _lane: Lane,
    _now: Timestamp,
) -> Result<Option<Epoch>, Error> {
    Err(unfinished())
}

pub(super) async fn release(_shared: &Shared, _lane: Lane, _epoch: Epoch) -> Result<(), Error> {
    Err(unfinished())
}
