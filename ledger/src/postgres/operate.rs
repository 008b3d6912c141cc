//! What operators do: redrive, discard, replay; and requests refused at the door.

use bellwire_schemas::{Address, ReplayId, Timestamp};
use postgres_types::Type;
use tokio_postgres::Row;

use super::codec::{Time, escape};
use super::fault::misread;
use super::flush::{Debts, big, check_lane, error_text, lane_number, number, place};
use super::{Shared, one};
use crate::flush::{Verb, given_up};
use crate::{DeliveryKey, Error, Owed, Refusal, ReplayRecord, ReplayState};

/// Microseconds in an hour.
const HOUR: i64 = 3_600_000_000;
/// Replays in one list.
const MANY: i64 = 1_000;

/// Deliveries as columns.
struct Keys {
    bindings: Vec<i32>,
    lanes: Vec<i16>,
    seqs: Vec<i64>,
}

impl Keys {
    fn new(keys: &[DeliveryKey]) -> Self {
        Self {
            bindings: keys.iter().map(|k| number(k.binding)).collect(),
            lanes: keys.iter().map(|k| lane_number(k.address.lane)).collect(),
            seqs: keys.iter().map(|k| place(k.address.seq)).collect(),
        }
    }
}

/// Dead letters back into the debts.
pub(super) async fn redrive(shared: &Shared, dead: &[DeliveryKey], now: Timestamp) -> Result<u64, Error> {
    shared.check_writable()?;
    let keys = Keys::new(dead);
    let sql = shared.sql("select bellwire.redrive($1, $2, $3, $4)");
    let params = [
        (&keys.bindings as _, Type::INT4_ARRAY),
        (&keys.lanes as _, Type::INT2_ARRAY),
        (&keys.seqs as _, Type::INT8_ARRAY),
        (&Time(now) as _, Type::TIMESTAMPTZ),
    ];
    Ok(one::<i64>(&shared.pool.query(&sql, &params).await?, 0)?.unsigned_abs())
}

/// Ends dead letters or debts as discarded, or debts and what is still waiting as cancelled.
pub(super) async fn give_up(
    shared: &Shared,
    verb: Verb,
    deliveries: &[DeliveryKey],
    reason: &str,
    by: &str,
    now: Timestamp,
) -> Result<u64, Error> {
    shared.check_writable()?;
    let keys = Keys::new(deliveries);
    let error = error_text(Some(&given_up(verb, reason, by)))?;
    let sql = shared.sql(match verb {
        Verb::Discard => "select bellwire.discard($1, $2, $3, $4, $5)",
        Verb::Cancel => "select bellwire.cancel($1, $2, $3, $4, $5)",
    });
    let params = [
        (&keys.bindings as _, Type::INT4_ARRAY),
        (&keys.lanes as _, Type::INT2_ARRAY),
        (&keys.seqs as _, Type::INT8_ARRAY),
        (&Time(now) as _, Type::TIMESTAMPTZ),
        (&error as _, Type::TEXT),
    ];
    Ok(one::<i64>(&shared.pool.query(&sql, &params).await?, 0)?.unsigned_abs())
}

/// Stores a replay and the debts it enqueues.
pub(super) async fn save_replay(
    shared: &Shared,
    replay: &ReplayRecord,
    owed: &[(Address, Owed)],
) -> Result<u64, Error> {
    shared.check_writable()?;
    let mut debts = Debts::default();
    for (address, debt) in owed {
        check_lane(shared, address.lane)?;
        debts.add(Some(debt))?;
    }
    let lanes: Vec<i16> = owed.iter().map(|(address, _)| lane_number(address.lane)).collect();
    let seqs: Vec<i64> = owed.iter().map(|(address, _)| place(address.seq)).collect();
    let corrupt = |e| Error::Corrupt(format!("write a replay as JSON: {e}"));
    let record = serde_json::to_string(replay).map_err(corrupt)?;
    let id = escape(replay.id.as_str());
    let (version, binding, state) = (big(replay.version), number(replay.binding), word(replay.state));
    let (since, until) = (replay.selector.since.map(Time), replay.selector.until.map(Time));
    let sql = shared.sql(
        "select bellwire.save_replay($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    );
    let created = Time(replay.created_at);
    let mut params = vec![
        (&id as _, Type::TEXT),
        (&version as _, Type::INT8),
        (&binding as _, Type::INT4),
        (&state as _, Type::TEXT),
        (&created as _, Type::TIMESTAMPTZ),
        (&since as _, Type::TIMESTAMPTZ),
        (&until as _, Type::TIMESTAMPTZ),
        (&record as _, Type::TEXT),
        (&lanes as _, Type::INT2_ARRAY),
        (&seqs as _, Type::INT8_ARRAY),
    ];
    debts.push(&mut params);
    Ok(one::<i64>(&shared.pool.query(&sql, &params).await?, 0)?.unsigned_abs())
}

fn word(state: ReplayState) -> &'static str {
    match state {
        ReplayState::Running => "running",
        ReplayState::Paused => "paused",
        ReplayState::Cancelled => "cancelled",
        ReplayState::Done => "done",
    }
}

/// All replays, newest first.
pub(super) async fn replays(shared: &Shared) -> Result<Vec<ReplayRecord>, Error> {
    let sql = shared.sql(
        "select record, created_at, since, until from bellwire.replay order by created_at desc, n desc limit $1",
    );
    shared.pool.ask(&sql, &[(&MANY, Type::INT8)]).await?.iter().map(replay_at).collect()
}

/// One replay.
pub(super) async fn replay(shared: &Shared, id: &ReplayId) -> Result<Option<ReplayRecord>, Error> {
    let sql = shared.sql("select record, created_at, since, until from bellwire.replay where id = $1");
    let rows = shared.pool.ask(&sql, &[(&escape(id.as_str()), Type::TEXT)]).await?;
    rows.first().map(replay_at).transpose()
}

/// The record, with the moments that JSON would round to milliseconds.
fn replay_at(row: &Row) -> Result<ReplayRecord, Error> {
    let text: &str = row.try_get(0).map_err(misread)?;
    let mut replay: ReplayRecord =
        serde_json::from_str(text).map_err(|e| Error::Corrupt(format!("read a replay from JSON: {e}")))?;
    let time = |column| row.try_get::<_, Option<Time>>(column).map(|t| t.map(|t| t.0)).map_err(misread);
    replay.created_at = row.try_get::<_, Time>(1).map_err(misread)?.0;
    (replay.selector.since, replay.selector.until) = (time(2)?, time(3)?);
    Ok(replay)
}

/// Adds a refused request to its row.
pub(super) async fn note_refusal(shared: &Shared, refusal: Refusal) -> Result<(), Error> {
    shared.check_writable()?;
    let sql = shared.sql("select bellwire.note_refusal($1, $2, $3, $4, $5, $6)");
    let hour = refusal.last_at.micros().div_euclid(HOUR);
    let (source, reason, peer) =
        (escape(&refusal.source), escape(&refusal.reason), escape(&refusal.last_peer));
    let params = [
        (&hour as _, Type::INT8),
        (&source as _, Type::TEXT),
        (&reason as _, Type::TEXT),
        (&big(refusal.count) as _, Type::INT8),
        (&Time(refusal.last_at) as _, Type::TIMESTAMPTZ),
        (&peer as _, Type::TEXT),
    ];
    shared.pool.query(&sql, &params).await?;
    Ok(())
}
