//! Debts and the delivery log, as they are asked for.

use bellwire_schemas::{Address, BindingId, Lane, ReplayId, Seq, Timestamp};
use postgres_types::Type;
use tokio_postgres::Row;

use super::codec::{Time, unescape};
use super::fault::misread;
use super::flush::{BLOCK, big, error_of, lane_number, lines_at, number, offset, place};
use super::{Shared, one};
use crate::{DeliveryKey, DueRetries, Error, LogEntry, Owed, OwedReason};

/// Debts that are due, and when to look again.
pub(super) async fn due(
    shared: &Shared,
    lane: Lane,
    binding: BindingId,
    now: Timestamp,
    limit: usize,
) -> Result<DueRetries, Error> {
    let sql = shared.sql(
        "select seq, attempts, next_at, since, error, reason, replay, key from bellwire.retry
         where binding = $1 and lane = $2 and reason not in (3, 4) order by next_at, seq limit $3",
    );
    let rows = i64::try_from(limit).unwrap_or(i64::MAX - 1).saturating_add(1);
    let (binding, lane) = (number(binding), lane_number(lane));
    let params = [(&binding as _, Type::INT4), (&lane as _, Type::INT2), (&rows as _, Type::INT8)];
    let mut answer = DueRetries::default();
    for row in shared.pool.ask(&sql, &params).await? {
        let owed = owed_at(&row)?;
        if owed.next_at > now || answer.due.len() == limit {
            answer.next_at = Some(owed.next_at);
            break;
        }
        answer.due.push(owed);
    }
    Ok(answer)
}

/// Debts in the order of places.
pub(super) async fn debts(
    shared: &Shared,
    lane: Lane,
    binding: BindingId,
    after: Seq,
    limit: usize,
) -> Result<Vec<Owed>, Error> {
    let sql = shared.sql(
        "select seq, attempts, next_at, since, error, reason, replay, key from bellwire.retry
         where binding = $1 and lane = $2 and seq > $3 order by seq limit $4",
    );
    let rows = i64::try_from(limit).unwrap_or(i64::MAX);
    let (binding, lane, after) = (number(binding), lane_number(lane), place(after));
    let params = [
        (&binding as _, Type::INT4),
        (&lane as _, Type::INT2),
        (&after as _, Type::INT8),
        (&rows as _, Type::INT8),
    ];
    shared.pool.ask(&sql, &params).await?.iter().map(owed_at).collect()
}

/// Whether some debts wait for their key.
pub(super) async fn has_parked(shared: &Shared, lane: Lane, binding: BindingId) -> Result<bool, Error> {
    let sql = shared.sql(
        "select exists (select from bellwire.retry where binding = $1 and lane = $2 and reason in (3, 4))",
    );
    let (binding, lane) = (number(binding), lane_number(lane));
    let params = [(&binding as _, Type::INT4), (&lane as _, Type::INT2)];
    one(&shared.pool.ask(&sql, &params).await?, 0)
}

/// A debt out of a row: seq, attempts, next_at, since, error, reason, replay, key.
pub(super) fn owed_at(row: &Row) -> Result<Owed, Error> {
    let replay: Option<&str> = row.try_get(6).map_err(misread)?;
    let reason = match (row.try_get::<_, i16>(5).map_err(misread)?, replay) {
        (0, None) => OwedReason::Retry,
        (1, None) => OwedReason::Redrive,
        (2, Some(id)) => OwedReason::Replay(ReplayId::new(unescape(id))),
        (3, None) => OwedReason::Parked,
        (4, None) => OwedReason::Blocked,
        (5, None) => OwedReason::Delayed,
        (6, None) => OwedReason::Debounced,
        (7 | 8, None) => OwedReason::Cancelled,
        (code, _) => return Err(Error::Corrupt(format!("a debt has reason {code}"))),
    };
    let time = |column| row.try_get::<_, Time>(column).map(|t| t.0).map_err(misread);
    Ok(Owed {
        seq: Seq(row.try_get::<_, i64>(0).map_err(misread)?.unsigned_abs()),
        attempts: row.try_get::<_, i32>(1).map_err(misread)?.unsigned_abs(),
        next_at: time(2)?,
        since: time(3)?,
        error: error_of(row.try_get(4).map_err(misread)?)?,
        reason,
        key: row.try_get::<_, Option<&str>>(7).map_err(misread)?.map(|key| unescape(key).into_owned()),
    })
}

/// The debt of one delivery.
pub(super) async fn owed(shared: &Shared, delivery: DeliveryKey) -> Result<Option<Owed>, Error> {
    let sql = shared.sql(
        "select seq, attempts, next_at, since, error, reason, replay, key from bellwire.retry
         where binding = $1 and lane = $2 and seq = $3",
    );
    let Address { lane, seq } = delivery.address;
    let (binding, lane, seq) = (number(delivery.binding), lane_number(lane), place(seq));
    let params = [(&binding as _, Type::INT4), (&lane as _, Type::INT2), (&seq as _, Type::INT8)];
    shared.pool.ask(&sql, &params).await?.first().map(owed_at).transpose()
}

/// The delivery log of one event while it is kept, oldest first. Lines of one moment come in the order in which they
/// were written.
pub(super) async fn log(
    shared: &Shared,
    address: Address,
    binding: Option<BindingId>,
) -> Result<Vec<(BindingId, LogEntry)>, Error> {
    let sql = shared.sql(
        "select l.binding, l.at, l.offsets, l.outcomes, l.attempts, l.started, l.ms, l.revisions, l.errors, l.workers,
           l.versions, l.replays
         from bellwire.delivery_log l where l.lane = $1 and l.block = $2 and ($3 is null or l.binding = $3)
           and $4 = any(l.offsets) and exists (select from bellwire.heads($1, array[$5]))
         order by l.gen, l.ctid",
    );
    let (lane, block) = (lane_number(address.lane), big(address.seq.0 / BLOCK));
    let (binding, offset, seq) = (binding.map(number), offset(address.seq), place(address.seq));
    let params = [
        (&lane as _, Type::INT2),
        (&block as _, Type::INT8),
        (&binding as _, Type::INT4),
        (&offset as _, Type::INT2),
        (&seq as _, Type::INT8),
    ];
    let mut log = Vec::new();
    for row in shared.pool.ask(&sql, &params).await? {
        let binding: i32 = row.try_get(0).map_err(misread)?;
        let lines = lines_at(&row, address.seq)?;
        log.extend(lines.into_iter().map(|line| (BindingId(binding.unsigned_abs()), line)));
    }
    log.sort_by_key(|(_, line)| line.at);
    Ok(log)
}
