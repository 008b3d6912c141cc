//! What operators do: redrive, discard, replay; and requests refused at the door.

use super::Shared;
use super::fault::unfinished;
use crate::*;
use bellwire_schemas::*;
use std::collections::BTreeMap;

pub(super) async fn redrive(_shared: &Shared, _dead: &[DeliveryKey], _now: Timestamp) -> Result<u64, Error> {
    Err(unfinished())
}

pub(super) async fn discard(
    _shared: &Shared,
    _deliveries: &[DeliveryKey],
    _reason: &str,
    _by: &str,
    _now: Timestamp,
) -> Result<u64, Error> {
    Err(unfinished())
}

pub(super) async fn save_replay(
    _shared: &Shared,
    _replay: &ReplayRecord,
    _owed: &[(Address, Owed)],
) -> Result<u64, Error> {
    Err(unfinished())
}

pub(super) async fn replays(_shared: &Shared) -> Result<Vec<ReplayRecord>, Error> {
    Err(unfinished())
}

pub(super) async fn replay(_shared: &Shared, _id: &ReplayId) -> Result<Option<ReplayRecord>, Error> {
    Err(unfinished())
}

pub(super) async fn note_refusal(_shared: &Shared, _refusal: Refusal) -> Result<(), Error> {
    Err(unfinished())
}
