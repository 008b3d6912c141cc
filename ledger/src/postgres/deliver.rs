//! Deliveries: checkpoints, flushes, debts, the log.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn checkpoint(
    _shared: &Shared,
    _lane: Lane,
    _binding: BindingId,
) -> Result<Checkpoint, Error> {
    Err(unfinished())
}

pub(super) async fn flush(_shared: &Shared, _flush: Flush) -> Result<FlushOutcome, Error> {
    Err(unfinished())
}

pub(super) async fn due(
    _shared: &Shared,
    _lane: Lane,
    _binding: BindingId,
    _now: Timestamp,
    _limit: usize,
) -> Result<DueRetries, Error> {
    Err(unfinished())
}

pub(super) async fn log(
    _shared: &Shared,
    _address: Address,
    _binding: Option<BindingId>,
) -> Result<Vec<(BindingId, LogEntry)>, Error> {
    Err(unfinished())
}

pub(super) async fn owed(_shared: &Shared, _delivery: DeliveryKey) -> Result<Option<Owed>, Error> {
    Err(unfinished())
}
