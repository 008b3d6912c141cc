//! Behind PgBouncer, which hands each statement to whichever server process is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bellwire_schemas::service::Start;
use bellwire_schemas::{ControllerId, FinalState, Lane};
use bellwire_test_servers::{Options, Pgbouncer, Postgres};

use super::stored::Stored;
use super::{OnServer, server};
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::postgres::url::Target;
use crate::{
    Append, Appended, Arrival, Flush, FlushOutcome, Ledger, PositionAdvance, PostgresLedger, PostgresOptions,
};

/// The ledger of [`OnServer`] with a pooler in between.
struct Pooled {
    inner: OnServer,
    _pooler: Pgbouncer,
}

#[async_trait]
impl Subject for Pooled {
    const IN_UNITS: bool = true;
    const IS_SHARED: bool = true;

    async fn new(lanes: u16) -> Self {
        let target = Target::parse(&server()).unwrap();
        let port = target.config.get_ports().first().copied().unwrap_or(5432);
        let pooler = Pgbouncer::before(([127, 0, 0, 1], port).into()).unwrap();
        let url = pooler.url_of(target.config.get_dbname().unwrap_or("postgres"));
        let options = PostgresOptions { lanes, ..PostgresOptions::default() };
        Self { inner: OnServer::at(url, options).await, _pooler: pooler }
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.inner.ledger()
    }

    async fn reopen(&mut self) {
        self.inner.reopen().await;
    }

    async fn beside(&self) -> Option<Arc<dyn Ledger>> {
        self.inner.beside().await
    }

    async fn turn(&mut self) {
        self.inner.turn().await;
    }

    async fn expire(&mut self, controller: ControllerId) -> bool {
        self.inner.expire(controller).await
    }
}

mod contract {
    use super::Pooled;

    crate::conformance::suite!(Pooled);
}

async fn insist(ledger: &PostgresLedger, append: &Append) -> Appended {
    loop {
        match ledger.append(append.clone(), at(1)).await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

/// Server processes behind the pooler are ended all the time, while two handles append and the owner of a lane flushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_processes_behind_the_pooler_end() {
    let server = Postgres::start(&Options::default()).unwrap();
    let pooler = Pgbouncer::start(&server).unwrap();
    let options = PostgresOptions { lanes: 2, ..PostgresOptions::default() };
    let ana = PostgresLedger::open(&pooler.url(), options.clone()).await.unwrap();
    let ben = PostgresLedger::open(&pooler.url(), options).await.unwrap();
    let handle: Arc<dyn Ledger> = Arc::new(ana.clone());
    let binding = declare(&handle, vec![binding("b:orders", Start::Earliest)]).await[0];
    let epoch = own(&handle, L1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for caller in 0..4_u16 {
        let (ledger, stop) = (if caller % 2 == 0 { ana.clone() } else { ben.clone() }, stop.clone());
        writers.spawn(async move {
            let mut told = Vec::new();
            while !stop.load(Ordering::Relaxed) || told.len() < 20 {
                let id = format!("{caller}-{}", told.len());
                let answer = insist(&ledger, &batch(vec![event(&id).lane(Lane(caller / 2 + 1))])).await;
                told.push((id, answer.items[0]));
            }
            told
        });
    }
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let end = "select count(*) from (select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() \
               and backend_type = 'client backend' order by random() limit 1) x";
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    let (mut ended, mut version, mut mark) = (0_i64, 0, 0);
    for _ in 0..60 {
        pace.tick().await;
        ended += client.query_one(end, &[]).await.unwrap().get::<_, i64>(0);
        let Ok(tail) = ana.tail(L1).await else { continue };
        if tail.0 > mark {
            version += 1;
            let part = (mark + 1..=tail.0)
                .fold(share(binding, version, tail.0), |part, seq| part.ends(seq, FinalState::Delivered));
            mark = tail.0;
            let flush = Flush { lane: L1, epoch, at: at(0), bindings: vec![part] };
            loop {
                match ana.flush(flush.clone()).await {
                    Ok(outcome) => break assert_eq!(outcome, FlushOutcome::Flushed),
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let told: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    let stored = Stored::read(&client, "bellwire").await;
    stored.assert_once();
    told.iter().for_each(|(id, item)| stored.assert_told(id, *item));
    assert_eq!(stored.ids.len(), told.len());
    let stood = ana.checkpoint(L1, binding).await.unwrap();
    assert_eq!((stood.version, stood.mark.0), (version, mark));
    let lines = "select count(*) from bellwire.delivery_log l, unnest(l.offsets) o";
    assert_eq!(client.query_one(lines, &[]).await.unwrap().get::<_, i64>(0), i64::try_from(mark).unwrap());
    assert!(ended > 20 && version > 5, "{ended} ended, {version} flushes");
}

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
