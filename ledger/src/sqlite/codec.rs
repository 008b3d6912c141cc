//! How values lie in columns.

use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, ErrorInfo, FinalState, Lane, ReplayId, Seq, Timestamp};
use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::start::StoredStart;
use crate::{Error, LogOutcome, OwedReason};

/// Bits of a place that hold the seq.
const SEQ_BITS: u32 = 48;
const SEQ_MASK: i64 = (1 << SEQ_BITS) - 1;

/// The number of the reason of a debt that an operator cancelled.
pub(super) const CANCELLED: i64 = 8;

/// An address as one integer that orders as (lane, seq) does.
pub(super) fn place_of(address: Address) -> i64 {
    let seq = i64::try_from(address.seq.0).unwrap_or(SEQ_MASK).min(SEQ_MASK);
    (i64::from(address.lane.0) << SEQ_BITS) | seq
}

/// The address of a place.
pub(super) fn address_of(place: i64) -> Address {
    let lane = u16::try_from(place >> SEQ_BITS).unwrap_or(0);
    Address::new(Lane(lane), Seq(u64::try_from(place & SEQ_MASK).unwrap_or(0)))
}

/// Every place of a lane, as a closed range.
pub(super) fn places_of(lane: Lane) -> (i64, i64) {
    let first = i64::from(lane.0) << SEQ_BITS;
    (first, first | SEQ_MASK)
}

/// The number of a state in the tables.
pub(super) fn state_code(state: FinalState) -> i64 {
    match state {
        FinalState::Delivered => 1,
        FinalState::Filtered => 2,
        FinalState::Expired => 3,
        FinalState::Dead => 4,
        FinalState::Discarded => 5,
    }
}

/// The state of a number.
pub(super) fn state_of(code: i64) -> rusqlite::Result<FinalState> {
    let known = FinalState::ALL.into_iter().find(|s| state_code(*s) == code);
    known.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, code))
}

/// The number of an outcome in the log.
pub(super) fn outcome_code(outcome: LogOutcome) -> i64 {
    match outcome {
        LogOutcome::Failed => 0,
        LogOutcome::Final(state) => state_code(state),
    }
}

/// The outcome of a number.
pub(super) fn outcome_of(code: i64) -> rusqlite::Result<LogOutcome> {
    if code == 0 { Ok(LogOutcome::Failed) } else { state_of(code).map(LogOutcome::Final) }
}

/// A reason to be owed, as its number and the replay.
pub(super) fn reason_code(reason: &OwedReason) -> (i64, Option<&str>) {
    match reason {
        OwedReason::Retry => (0, None),
        OwedReason::Redrive => (1, None),
        OwedReason::Replay(id) => (2, Some(id.as_str())),
        OwedReason::Parked => (3, None),
        OwedReason::Blocked => (4, None),
        OwedReason::Delayed => (5, None),
        OwedReason::Debounced => (6, None),
        // 7 is a request: only operators write these.
        OwedReason::Cancelled => (CANCELLED, None),
    }
}

/// The reason of a number and a replay.
pub(super) fn reason_of(code: i64, replay: Option<String>) -> rusqlite::Result<OwedReason> {
    match (code, replay) {
        (0, None) => Ok(OwedReason::Retry),
        (1, None) => Ok(OwedReason::Redrive),
        (2, Some(id)) => Ok(OwedReason::Replay(ReplayId::new(id))),
        (3, None) => Ok(OwedReason::Parked),
        (4, None) => Ok(OwedReason::Blocked),
        (5, None) => Ok(OwedReason::Delayed),
        (6, None) => Ok(OwedReason::Debounced),
        (7 | CANCELLED, None) => Ok(OwedReason::Cancelled),
        (code, _) => Err(rusqlite::Error::IntegralValueOutOfRange(0, code)),
    }
}

/// JSON for a column.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::Corrupt(format!("write as JSON: {e}")))
}

/// JSON out of a column.
pub(super) fn json_at<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    from_json(row.get_ref(column)?).map_err(|e| conversion(column, e))
}

/// JSON out of a column that may be empty.
pub(super) fn json_or_none<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        value => from_json(value).map(Some).map_err(|e| conversion(column, e)),
    }
}

fn from_json<T: DeserializeOwned>(value: ValueRef<'_>) -> FromSqlResult<T> {
    let ValueRef::Text(text) = value else { return Err(FromSqlError::InvalidType) };
    serde_json::from_slice(text).map_err(|e| FromSqlError::Other(Box::new(e)))
}

fn conversion(column: usize, error: FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// A moment in a column.
pub(super) fn time_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_micros)
}

/// Bytes in a column; absent and empty differ.
pub(super) fn bytes_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Bytes>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Blob(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
        _ => Err(conversion(column, FromSqlError::InvalidType)),
    }
}

/// A start out of a column.
pub(super) fn start_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Start> {
    Ok(json_at::<StoredStart>(row, column)?.into())
}

/// A failure as JSON, or nothing.
pub(super) fn error_text(error: Option<&ErrorInfo>) -> Result<Option<String>, Error> {
    error.map(json).transpose()
}
