//! Bindings: declared, revised, paused. Where their accounts begin is worked out by the database, see
//! `migrations/postgres/0005_cluster.sql`.

use std::collections::{BTreeMap, HashSet};

use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, FunctionName, Lane, Seq, SourceName, Timestamp};
use postgres_types::Type;
use tokio_postgres::Row;

use super::Shared;
use super::codec::{Time, escape, unescape};
use super::connect::Param;
use super::fault::misread;
use crate::query::{REVISIONS, by_lane};
use crate::start::StoredStart;
use crate::{BindingRecord, BindingRevision, Error, Pause};

/// Columns of a binding with its newest revision, read by [`record`].
const RECORD: &str =
    "select b.id, b.name, s.name, r.function, r.filter, b.start, b.revision, b.paused_at, b.paused_by, b.paused_reason,
       b.active, r.tails
     from bellwire.binding b
     join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
     join bellwire.source s on s.id = r.source order by b.id";

/// All bindings ever declared, by number.
pub(super) async fn bindings(shared: &Shared) -> Result<Vec<BindingRecord>, Error> {
    shared.pool.ask(&shared.sql(RECORD), &[]).await?.iter().map(record).collect()
}

fn record(row: &Row) -> Result<BindingRecord, Error> {
    let text = |column: usize| -> Result<String, Error> {
        Ok(unescape(row.try_get(column).map_err(misread)?).into_owned())
    };
    let paused = match row.try_get::<_, Option<Time>>(7).map_err(misread)? {
        Some(since) => Some(Pause { since: since.0, by: text(8)?, reason: text(9)? }),
        None => None,
    };
    Ok(BindingRecord {
        id: BindingId(number_at(row, 0)?),
        name: text(1)?.as_str().into(),
        source: SourceName::new(text(2)?),
        function: FunctionName::new(text(3)?),
        filter: from_json(row.try_get(4).map_err(misread)?)?,
        start: from_json::<StoredStart>(row.try_get(5).map_err(misread)?)?.into(),
        revision: number_at(row, 6)?,
        paused,
        active: row.try_get(10).map_err(misread)?,
        since: since_at(row, 11)?,
    })
}

/// The tails that a revision begins at.
fn since_at(row: &Row, column: usize) -> Result<BTreeMap<Lane, Seq>, Error> {
    let tails: Option<Vec<i64>> = row.try_get(column).map_err(misread)?;
    Ok(by_lane(tails.into_iter().flatten().map(|tail| Seq(u64::try_from(tail).unwrap_or(0)))))
}

/// The newest revisions of a binding, oldest first.
pub(super) async fn revisions(shared: &Shared, binding: BindingId) -> Result<Vec<BindingRevision>, Error> {
    let Ok(id) = i32::try_from(binding.0) else { return Ok(Vec::new()) };
    let sql = shared.sql(
        "select r.revision, s.name, r.function, r.filter, r.since, r.tails
         from bellwire.binding_revision r join bellwire.source s on s.id = r.source
         where r.binding = $1 order by r.revision desc limit $2",
    );
    let limit = i64::try_from(REVISIONS).unwrap_or(i64::MAX);
    let rows = shared.pool.ask(&sql, &[(&id, Type::INT4), (&limit, Type::INT8)]).await?;
    let text = |row: &Row, column: usize| -> Result<String, Error> {
        Ok(unescape(row.try_get(column).map_err(misread)?).into_owned())
    };
    let revision = |row: &Row| {
        Ok(BindingRevision {
            revision: number_at(row, 0)?,
            source: SourceName::new(text(row, 1)?),
            function: FunctionName::new(text(row, 2)?),
            filter: from_json(row.try_get(3).map_err(misread)?)?,
            at: row.try_get::<_, Time>(4).map_err(misread)?.0,
            since: since_at(row, 5)?,
        })
    };
    rows.iter().rev().map(revision).collect()
}

fn number_at(row: &Row, column: usize) -> Result<u32, Error> {
    let number: i32 = row.try_get(column).map_err(misread)?;
    u32::try_from(number).map_err(|_| Error::Corrupt(format!("a binding has the number {number}")))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|e| Error::Corrupt(format!("read a binding: {e}")))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::Corrupt(format!("write a binding as JSON: {e}")))
}

/// The filter of one revision.
pub(super) async fn filter_of(
    shared: &Shared,
    binding: BindingId,
    revision: u32,
) -> Result<Option<Vec<serde_json::Value>>, Error> {
    let (Ok(id), Ok(revision)) = (i32::try_from(binding.0), i32::try_from(revision)) else { return Ok(None) };
    let sql = shared.sql("select filter from bellwire.binding_revision where binding = $1 and revision = $2");
    let rows = shared.pool.ask(&sql, &[(&id, Type::INT4), (&revision, Type::INT4)]).await?;
    rows.first().map(|row| from_json(row.try_get(0).map_err(misread)?)).transpose()
}

/// Makes the declared bindings the active ones; see [`crate::Ledger::declare_bindings`].
pub(super) async fn declare_bindings(
    shared: &Shared,
    declared: Vec<BindingRecord>,
    now: Timestamp,
) -> Result<Vec<BindingRecord>, Error> {
    shared.check_writable()?;
    let mut named = HashSet::new();
    if let Some(twice) = declared.iter().find(|b| !named.insert(&b.name)) {
        return Err(Error::Corrupt(format!("binding `{}` is declared twice", twice.name)));
    }
    let names: Vec<_> = declared.iter().map(|b| escape(b.name.as_str())).collect();
    let sources: Vec<_> = declared.iter().map(|b| escape(b.source.as_str())).collect();
    let functions: Vec<_> = declared.iter().map(|b| escape(b.function.as_str())).collect();
    let filters = declared.iter().map(|b| to_json(&b.filter)).collect::<Result<Vec<_>, _>>()?;
    let starts =
        declared.iter().map(|b| to_json(&StoredStart::from(b.start))).collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<_> = declared.iter().map(|b| parts_of(b.start)).collect();
    let kinds: Vec<i16> = parts.iter().map(|p| p.0).collect();
    let times: Vec<Option<Time>> = parts.iter().map(|p| p.1).collect();
    let lanes: Vec<i32> = parts.iter().map(|p| p.2).collect();
    let seqs: Vec<i64> = parts.iter().map(|p| p.3).collect();
    let params: [Param<'_>; 10] = [
        (&names, Type::TEXT_ARRAY),
        (&sources, Type::TEXT_ARRAY),
        (&functions, Type::TEXT_ARRAY),
        (&filters, Type::TEXT_ARRAY),
        (&starts, Type::TEXT_ARRAY),
        (&kinds, Type::INT2_ARRAY),
        (&times, Type::TIMESTAMPTZ_ARRAY),
        (&lanes, Type::INT4_ARRAY),
        (&seqs, Type::INT8_ARRAY),
        (&Time(now), Type::TIMESTAMPTZ),
    ];
    let sql = shared.sql("select bellwire.declare_bindings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    shared.pool.query(&sql, &params).await?;
    let all = bindings(shared).await?;
    let active = declared.iter().filter_map(|new| all.iter().find(|b| b.name == new.name));
    Ok(active.cloned().collect())
}

/// A start as the database takes it: kind, time, lane, place.
fn parts_of(start: Start) -> (i16, Option<Time>, i32, i64) {
    match start {
        Start::Now => (0, None, 0, 0),
        Start::Earliest => (1, None, 0, 0),
        Start::At(time) => (2, Some(Time(time)), 0, 0),
        Start::Address(at) => (3, None, i32::from(at.lane.0), i64::try_from(at.seq.0).unwrap_or(i64::MAX)),
    }
}

/// Pauses or resumes.
pub(super) async fn set_paused(
    shared: &Shared,
    binding: BindingId,
    pause: Option<Pause>,
) -> Result<(), Error> {
    shared.check_writable()?;
    let unknown = || Error::NotFound(format!("binding number {binding} was never declared"));
    let id = i32::try_from(binding.0).map_err(|_| unknown())?;
    let since = pause.as_ref().map(|p| Time(p.since));
    let by = pause.as_ref().map(|p| escape(&p.by));
    let reason = pause.as_ref().map(|p| escape(&p.reason));
    let params: [Param<'_>; 4] =
        [(&id, Type::INT4), (&since, Type::TIMESTAMPTZ), (&by, Type::TEXT), (&reason, Type::TEXT)];
    let sql = shared.sql("select bellwire.set_paused($1, $2, $3, $4)");
    if super::one::<bool>(&shared.pool.query(&sql, &params).await?, 0)? { Ok(()) } else { Err(unknown()) }
}
