//! The schema: numbered files, each applied in one transaction with its number, by one program at a time.
//!
//! Each step is one message of several statements, which the server runs as one transaction: a program killed at any
//! moment leaves a step done or not begun, also behind a pooler.

use std::time::Duration;

use postgres_types::Type;
use sha2::{Digest, Sha256};

use super::fault::{Fault, misread};
use super::pool::Pool;
use super::{Schema, connector_of, reader_of};
use crate::Error;
use crate::sqlite::SchemaStatus;

/// Names and texts, in order.
type Steps = &'static [(&'static str, &'static str)];

/// Every step from an empty schema to the newest. Never edited once released.
pub(super) const MIGRATIONS: Steps = &[
    ("tables", include_str!("../../../migrations/postgres/0001_tables.sql")),
    ("append", include_str!("../../../migrations/postgres/0002_append.sql")),
    ("generations", include_str!("../../../migrations/postgres/0003_generations.sql")),
    ("delivery", include_str!("../../../migrations/postgres/0004_delivery.sql")),
    ("cluster", include_str!("../../../migrations/postgres/0005_cluster.sql")),
    ("accounts", include_str!("../../../migrations/postgres/0006_accounts.sql")),
    ("views", include_str!("../../../migrations/postgres/0007_views.sql")),
    ("operators", include_str!("../../../migrations/postgres/0008_operators.sql")),
    ("retention", include_str!("../../../migrations/postgres/0009_retention.sql")),
    ("outbox", include_str!("../../../migrations/postgres/0010_outbox.sql")),
    ("debts", include_str!("../../../migrations/postgres/0011_debts.sql")),
    ("cancel", include_str!("../../../migrations/postgres/0012_cancel.sql")),
    ("revisions", include_str!("../../../migrations/postgres/0013_revisions.sql")),
    ("slots", include_str!("../../../migrations/postgres/0014_slots.sql")),
    ("parked", include_str!("../../../migrations/postgres/0015_parked.sql")),
    ("dedup", include_str!("../../../migrations/postgres/0016_dedup.sql")),
    ("totals", include_str!("../../../migrations/postgres/0017_totals.sql")),
    ("starts", include_str!("../../../migrations/postgres/0018_starts.sql")),
];

/// How long one step may take, waiting for running controllers included.
const STEP: Duration = Duration::from_secs(300);

/// Another program applied the step while we waited for it.
const APPLIED: &str = "BW021";

/// Brings the schema of a ledger, new or old, to the newest; returns what it was before.
///
/// # Errors
/// [`Error::Incompatible`] when it is newer than this program or not ours, [`Error::Unavailable`] when the server
/// cannot be reached.
pub async fn migrate(url: &str) -> Result<SchemaStatus, Error> {
    let (connector, schema) = connector_of(url, None)?;
    let pool = Pool::open(connector).await?;
    bring_up(&pool, &schema).await
}

/// Reads the schema version of a ledger without changing it. A newer one is no error here.
///
/// # Errors
/// [`Error::Unavailable`] when the server cannot be reached.
pub async fn schema_status(url: &str) -> Result<SchemaStatus, Error> {
    let (connector, schema) = reader_of(url, None)?;
    let pool = Pool::open(connector).await?;
    Ok(SchemaStatus { current: applied(&pool, &schema, MIGRATIONS).await?, newest: newest() })
}

/// Applies what is missing; returns what was there before.
pub(super) async fn bring_up(pool: &Pool, schema: &Schema) -> Result<SchemaStatus, Error> {
    bring_up_to(pool, schema, MIGRATIONS).await
}

/// The same with given steps.
pub(super) async fn bring_up_to(pool: &Pool, schema: &Schema, steps: Steps) -> Result<SchemaStatus, Error> {
    let mut before = None;
    loop {
        let current = applied(pool, schema, steps).await?;
        before.get_or_insert(current);
        check_not_newer(schema, current, steps)?;
        let Some((name, sql)) = steps.get(current as usize) else {
            return Ok(SchemaStatus { current: before.unwrap_or(current), newest: newest() });
        };
        match pool.batch(&schema.replace(&step(schema, current + 1, name, sql)), STEP).await {
            Err(fault) if fault.code() == APPLIED => {}
            Err(Fault::Server { code, message, .. }) if code == "42P07" => {
                return Err(Error::Incompatible(format!(
                    "schema `{schema}` holds tables of another program ({message}): choose another schema"
                )));
            }
            other => other?,
        }
    }
}

/// Refuses a schema that this program cannot read as it is.
pub(super) async fn check_readable(pool: &Pool, schema: &Schema) -> Result<(), Error> {
    let current = applied(pool, schema, MIGRATIONS).await?;
    check_not_newer(schema, current, MIGRATIONS)?;
    if current < newest() {
        return Err(Error::Incompatible(format!(
            "the ledger in schema `{schema}` has schema version {current}, this program reads {}: `bellwire migrate` \
             brings an older one up",
            newest()
        )));
    }
    Ok(())
}

fn check_not_newer(schema: &Schema, current: u32, steps: Steps) -> Result<(), Error> {
    if current as usize > steps.len() {
        return Err(Error::Incompatible(format!(
            "the ledger in schema `{schema}` has schema version {current}, this program knows {}: use the newer program",
            steps.len()
        )));
    }
    Ok(())
}

fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The version applied, after a look at whether its steps are those of this program.
async fn applied(pool: &Pool, schema: &Schema, steps: Steps) -> Result<u32, Error> {
    let table = schema.replace("bellwire.migration");
    let there = pool.ask("select to_regclass($1) is not null", &[(&table, Type::TEXT)]).await?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let sql = schema.replace("select version, checksum from bellwire.migration order by version");
    let mut newest = 0;
    for row in pool.ask(&sql, &[]).await? {
        let version: i32 = row.try_get(0).map_err(misread)?;
        let sum: String = row.try_get(1).map_err(misread)?;
        newest = u32::try_from(version).unwrap_or(0);
        let ours = steps.get(newest.wrapping_sub(1) as usize);
        if ours.is_some_and(|(_, sql)| checksum(sql) != sum) {
            return Err(Error::Incompatible(format!(
                "step {version} of schema `{schema}` was applied by a program whose step {version} is another: use that \
                 program"
            )));
        }
    }
    Ok(newest)
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The text of one step, with `bellwire.` for the schema.
fn step(schema: &Schema, version: u32, name: &str, sql: &str) -> String {
    let sum = checksum(sql);
    format!(
        "select pg_advisory_xact_lock(hashtextextended('migration of bellwire.', 0));
         do $step$ begin
           if to_regclass('bellwire.migration') is null then
             if not exists (select from pg_namespace where nspname = '{schema}') then
               create schema \"{schema}\";
             end if;
             create table bellwire.migration (
               version    int primary key,
               name       text not null,
               checksum   text not null,
               applied_at timestamptz not null default clock_timestamp()
             );
           end if;
           if exists (select from bellwire.migration where version >= {version}) then
             raise exception using errcode = '{APPLIED}', message = 'applied by another program meanwhile';
           end if;
         end $step$;
         {sql}
         ;insert into bellwire.migration (version, name, checksum) values ({version}, '{name}', '{sum}');"
    )
}
