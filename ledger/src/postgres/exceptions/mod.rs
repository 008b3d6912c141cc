//! Dead letters, duplicates, quarantine, refusals: what people look through. Lists of dead letters are in
//! `list.rs`, those of owed deliveries in `owed.rs`.

mod list;
mod owed;

use bellwire_schemas::{Address, Lane, Seq, SourceName, Timestamp};
use postgres_types::Type;
use tokio_postgres::Row;

use super::Shared;
use super::codec::{Time, escape, unescape};
use super::connect::Param;
use super::fault::misread;
use crate::{DeadLetter, DeliveryKey, Duplicate, Error, QuarantineRecord, Refusal};

pub(super) use list::dead_letters;
pub(super) use owed::deliveries;

/// Rows of an answer where the contract names the figure.
const MANY: usize = 1_000;
/// Bytes of quarantined messages after which an answer ends: 64 MiB.
const QUARANTINE_BYTES: i64 = 64 << 20;

/// One dead letter.
pub(super) async fn dead_letter(shared: &Shared, delivery: DeliveryKey) -> Result<Option<DeadLetter>, Error> {
    let Some((binding, lane, seq)) = key_of(delivery) else { return Ok(None) };
    let sql = format!("{} where d.binding = $1 and d.lane = $2 and d.seq = $3", list::DEAD_LETTER);
    let params: [Param<'_>; 3] = [(&binding, Type::INT4), (&lane, Type::INT2), (&seq, Type::INT8)];
    let rows = shared.pool.ask(&shared.schema.replace(&sql), &params).await?;
    rows.first().map(list::dead_letter_of).transpose()
}

/// A delivery as the tables name it; nothing when they have no such numbers.
fn key_of(delivery: DeliveryKey) -> Option<(i32, i16, i64)> {
    let (lane, seq) = place_of(delivery.address)?;
    Some((i32::try_from(delivery.binding.0).ok()?, lane, seq))
}

fn place_of(address: Address) -> Option<(i16, i64)> {
    Some((i16::try_from(address.lane.0).ok()?, i64::try_from(address.seq.0).ok()?))
}

fn address_of(lane: i16, seq: i64) -> Address {
    Address::new(Lane(u16::try_from(lane).unwrap_or(0)), Seq(u64::try_from(seq).unwrap_or(0)))
}

fn text_at(row: &Row, column: usize) -> Result<String, Error> {
    Ok(unescape(row.try_get(column).map_err(misread)?).into_owned())
}

fn time_at(row: &Row, column: usize) -> Result<Timestamp, Error> {
    Ok(row.try_get::<_, Time>(column).map_err(misread)?.0)
}

fn duplicate_of(row: &Row) -> Result<Duplicate, Error> {
    Ok(Duplicate {
        at: time_at(row, 0)?,
        id: text_at(row, 1)?,
        source: SourceName::new(text_at(row, 2)?),
        first: address_of(row.try_get(3).map_err(misread)?, row.try_get(4).map_err(misread)?),
    })
}

/// Later arrivals of an event.
pub(super) async fn duplicates(shared: &Shared, first: Address) -> Result<Vec<Duplicate>, Error> {
    let Some((lane, seq)) = place_of(first) else { return Ok(Vec::new()) };
    let sql = shared.sql(
        "select d.at, d.id, s.name, d.lane, d.seq
         from bellwire.duplicate d join bellwire.source s on s.id = d.source
         where d.lane = $1 and d.seq = $2 order by d.at, d.append_id, d.ord limit 100",
    );
    let rows = shared.pool.ask(&sql, &[(&lane, Type::INT2), (&seq, Type::INT8)]).await?;
    rows.iter().map(duplicate_of).collect()
}

/// Later arrivals with an id.
pub(super) async fn duplicates_of_id(
    shared: &Shared,
    id: &str,
    source: Option<&SourceName>,
) -> Result<Vec<Duplicate>, Error> {
    let sql = shared.sql(
        "select d.at, d.id, s.name, d.lane, d.seq
         from bellwire.duplicate d join bellwire.source s on s.id = d.source
         where d.id = $1 and ($2::text is null or s.name = $2)
         order by d.at desc, d.append_id desc, d.ord desc limit 100",
    );
    let source = source.map(|source| escape(source.as_str()));
    let rows = shared.pool.ask(&sql, &[(&escape(id), Type::TEXT), (&source, Type::TEXT)]).await?;
    rows.iter().map(duplicate_of).collect()
}

/// Quarantined messages, newest first.
pub(super) async fn quarantined(
    shared: &Shared,
    source: Option<&SourceName>,
    limit: usize,
) -> Result<Vec<QuarantineRecord>, Error> {
    let sql = shared.sql(
        "select q.id, q.at, s.name, q.reason, q.bytes, q.meta from (
           select w.*, sum(length(w.bytes)) over (order by w.id desc) - length(w.bytes) as before from (
             select * from bellwire.quarantine
             where $1::text is null or source = (select id from bellwire.source where name = $1)
             order by id desc limit $2) w) q
         join bellwire.source s on s.id = q.source where q.before < $3 order by q.id desc",
    );
    let source = source.map(|source| escape(source.as_str()));
    let limit = i64::try_from(limit.min(MANY)).unwrap_or(i64::MAX);
    let params: [Param<'_>; 3] =
        [(&source, Type::TEXT), (&limit, Type::INT8), (&QUARANTINE_BYTES, Type::INT8)];
    let rows = shared.pool.ask(&sql, &params).await?;
    rows.iter()
        .map(|row| {
            Ok(QuarantineRecord {
                id: u64::try_from(row.try_get::<_, i64>(0).map_err(misread)?).unwrap_or(0),
                at: time_at(row, 1)?,
                source: SourceName::new(text_at(row, 2)?),
                reason: text_at(row, 3)?,
                bytes: bytes::Bytes::copy_from_slice(row.try_get(4).map_err(misread)?),
                meta: text_at(row, 5)?,
            })
        })
        .collect()
}

/// Refusals since a time.
pub(super) async fn refusals(shared: &Shared, since: Timestamp) -> Result<Vec<Refusal>, Error> {
    let sql = shared.sql(
        "select source, reason, count, last_at, last_peer from bellwire.refusal where last_at >= $1
         order by last_at desc, source collate \"C\", reason collate \"C\" limit 1000",
    );
    let rows = shared.pool.ask(&sql, &[(&Time(since), Type::TIMESTAMPTZ)]).await?;
    rows.iter()
        .map(|row| {
            Ok(Refusal {
                source: text_at(row, 0)?,
                reason: text_at(row, 1)?,
                count: u64::try_from(row.try_get::<_, i64>(2).map_err(misread)?).unwrap_or(0),
                last_at: time_at(row, 3)?,
                last_peer: text_at(row, 4)?,
            })
        })
        .collect()
}
