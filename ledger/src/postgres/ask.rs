//! Questions about events, places and positions.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn position(_shared: &Shared, _shard: &str) -> Result<Option<Position>, Error> {
    Err(unfinished())
}

pub(super) async fn tail(_shared: &Shared, _lane: Lane) -> Result<Seq, Error> {
    Err(unfinished())
}

pub(super) async fn tails(_shared: &Shared) -> Result<Vec<Seq>, Error> {
    Err(unfinished())
}

pub(super) async fn read(
    _shared: &Shared,
    _lane: Lane,
    _from: Seq,
    _limit: usize,
    _bytes: usize,
) -> Result<Vec<StoredEvent>, Error> {
    Err(unfinished())
}

pub(super) async fn event(_shared: &Shared, _address: Address) -> Result<Option<StoredEvent>, Error> {
    Err(unfinished())
}
