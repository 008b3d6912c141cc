//! Behind PgBouncer, which hands each statement to whichever server process is free.

use std::sync::Arc;

use bellwire_schemas::Lane;
use bellwire_test_servers::{Options, Pgbouncer, Postgres};

use super::stored::Stored;
use crate::conformance::build::*;
use crate::{Arrival, Ledger, PositionAdvance, PostgresLedger, PostgresOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_changes_nothing() {
    let server = Postgres::start(&Options::default()).unwrap();
    let pooler = Pgbouncer::start(&server).unwrap();
    let options = PostgresOptions { lanes: 2, ..PostgresOptions::default() };
    let mut ledgers: Vec<Arc<dyn Ledger>> = Vec::new();
    for _ in 0..2 {
        ledgers.push(Arc::new(PostgresLedger::open(&pooler.url(), options.clone()).await.unwrap()));
    }
    let mut writers = tokio::task::JoinSet::new();
    for caller in 0..6_u16 {
        let ledger = ledgers[usize::from(caller) % 2].clone();
        writers.spawn(async move {
            let mut told = Vec::new();
            for n in 0..30_u64 {
                let id = format!("{caller}-{n}");
                let shared = format!("shared {}-{n}", caller / 2);
                let mut append = batch(vec![
                    event(&id).lane(Lane(caller % 2 + 1)),
                    event(&shared).lane(Lane(1)).once(&shared, 1_000_000),
                ]);
                let shard = format!("s{caller}");
                append.positions = vec![PositionAdvance { shard, expected: n, value: id.clone() }];
                let answer = ledger.append(append, at(n as i64)).await.unwrap();
                told.extend([(id, answer.items[0]), (shared, answer.items[1])]);
            }
            told
        });
    }
    let told: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let stored = Stored::read(&client, "bellwire").await;
    stored.assert_once();
    told.iter().for_each(|(id, item)| stored.assert_told(id, *item));
    assert_eq!(stored.ids.len(), 6 * 30 + 3 * 30);
    let duplicates = told.iter().filter(|(_, item)| matches!(item, Arrival::Duplicate(_))).count();
    assert_eq!(duplicates, 3 * 30);
    assert_eq!(ledgers[0].position("s3").await.unwrap().unwrap().version, 30);
    for ledger in ledgers {
        ledger.close().await;
    }
}
