//! The limit: a bare INSERT of the arrays that the ledger itself wrote, one connection per lane, a prepared statement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::ours::Case;
use super::rounds::{Ran, Round, Whistle, round};
use super::server::{SCHEMA, Server};

/// How many different rows are inserted in turn.
const DIFFERENT: i64 = 8;

/// A bare table of the same form as the ledger's, and connections that fill it.
pub struct Raw {
    rows: Arc<Vec<Arrays>>,
    lanes: Vec<Arc<Writer>>,
}

/// The columns of one row that differ from row to row, as the ledger stored them.
struct Arrays {
    sources: Vec<i32>,
    types: Vec<String>,
    ids: Vec<String>,
    keys: Option<Vec<Option<String>>>,
    attributes: Vec<String>,
    metas: Option<Vec<Option<String>>>,
    data: Option<Vec<Option<Vec<u8>>>>,
    sig: Option<Vec<u8>>,
}

struct Writer {
    client: Client,
    insert: Statement,
    lane: i16,
}

impl Raw {
    /// A new table like the one that `ours` has just filled with batches of the case's size.
    pub async fn new(server: &Server, case: Case) -> anyhow::Result<Self> {
        let control = server.connect().await?;
        let child: String = control
            .query_one(
                &format!(
                    "select inhrelid::regclass::text from pg_inherits where inhparent = '{SCHEMA}.event_batch'::regclass \
                     order by inhrelid limit 1"
                ),
                &[],
            )
            .await?
            .get(0);
        control
            .batch_execute(&format!(
                "drop table if exists bench_raw; create table bench_raw (like {child} including all)"
            ))
            .await?;
        let rows = Arc::new(stored(&control, &child, case.batch).await?);
        let mut lanes = Vec::new();
        for lane in 1..=case.lanes {
            let client = server.connect().await?;
            let insert = client
                .prepare(
                    "insert into bench_raw (gen, lane, first_seq, count, append_id, appended_at, sources, types, ids, \
                     keys, attributes, metas, data, sig) \
                     values (1, $1, $2, $3, $4, clock_timestamp(), $5, $6, $7, $8, $9, $10, $11, $12)",
                )
                .await?;
            lanes.push(Arc::new(Writer { client, insert, lane: lane as i16 }));
        }
        Ok(Self { rows, lanes })
    }

    /// One round of inserts into the emptied table.
    pub async fn round(&self, server: &Server, case: Case, length: Duration) -> anyhow::Result<Round> {
        server.control().batch_execute("truncate bench_raw").await?;
        round(server, length, |whistle| {
            let run = |writer: &Arc<Writer>| {
                insert_all(Arc::clone(writer), Arc::clone(&self.rows), case.batch, whistle.clone())
            };
            self.lanes.iter().map(run).collect()
        })
        .await
    }
}

async fn stored(control: &Client, child: &str, batch: usize) -> anyhow::Result<Vec<Arrays>> {
    let rows = control
        .query(
            &format!(
                "select sources, types, ids, keys, attributes, metas, data, sig from {child} \
                 where count = $1::int8 limit $2"
            ),
            &[&(batch as i64), &DIFFERENT],
        )
        .await?;
    anyhow::ensure!(!rows.is_empty(), "the ledger stored no batch of {batch} events to compare with");
    let arrays = rows.iter().map(|row| Arrays {
        sources: row.get(0),
        types: row.get(1),
        ids: row.get(2),
        keys: row.get(3),
        attributes: row.get(4),
        metas: row.get(5),
        data: row.get(6),
        sig: row.get(7),
    });
    Ok(arrays.collect())
}

async fn insert_all(
    writer: Arc<Writer>,
    rows: Arc<Vec<Arrays>>,
    batch: usize,
    whistle: Whistle,
) -> anyhow::Result<Ran> {
    let (mut ran, mut seq, count) = (Ran::new(), 1_i64, batch as i32);
    for a in rows.iter().cycle() {
        if whistle.blown() {
            break;
        }
        let sent = Instant::now();
        let id = Uuid::now_v7();
        writer
            .client
            .execute(
                &writer.insert,
                &[
                    &writer.lane,
                    &seq,
                    &count,
                    &id,
                    &a.sources,
                    &a.types,
                    &a.ids,
                    &a.keys,
                    &a.attributes,
                    &a.metas,
                    &a.data,
                    &a.sig,
                ],
            )
            .await?;
        ran.call(sent, batch);
        seq += i64::from(count);
    }
    ran.end(Vec::new());
    Ok(ran)
}
