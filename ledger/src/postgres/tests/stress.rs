//! Several controllers that write at once while their connections are ended at random and generations and dedup buckets
//! change: no hole, no overlap, nothing twice, every answer right.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bellwire_schemas::Lane;
use rand::Rng;

use super::stored::Stored;
use super::{OnServer, server};
use crate::conformance::build::*;
use crate::{Append, Appended, Arrival, Error, Ledger, PositionAdvance, PostgresLedger, PostgresOptions};

const LANES: u16 = 3;
const SECONDS: u64 = 6;

/// What the writers share.
struct Ground {
    stop: AtomicBool,
    clock: AtomicU64,
}

impl Ground {
    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn now(&self) -> i64 {
        self.clock.fetch_add(1, Ordering::Relaxed) as i64
    }
}

/// What was told to writers: ids with their items.
type Told = Vec<(String, Arrival)>;

fn lanes_of(n: u64) -> [Lane; 2] {
    let first = Lane((n % u64::from(LANES)) as u16 + 1);
    let second = if n.is_multiple_of(4) { Lane(((n + 1) % u64::from(LANES)) as u16 + 1) } else { first };
    [first, second]
}

/// The same append until it is answered.
async fn insist(ground: &Ground, ledger: &PostgresLedger, append: &Append) -> Result<Appended, Error> {
    loop {
        match ledger.append(append.clone(), at(ground.now())).await {
            Err(Error::Unavailable(_)) => {}
            other => return other,
        }
    }
}

/// One of two that move the same shard, each the other's zombie.
async fn move_on(ground: Arc<Ground>, ledger: PostgresLedger, shard: String) -> Told {
    let mut told = Vec::new();
    while ground.runs() {
        let Ok(position) = ledger.position(&shard).await else { continue };
        let version = position.map_or(0, |p| p.version);
        let id = format!("{shard}:{version}");
        let mut append = batch(vec![event(&id).lane(lanes_of(version)[0])]);
        append.positions =
            vec![PositionAdvance { shard: shard.clone(), expected: version, value: id.clone() }];
        match insist(&ground, &ledger, &append).await {
            Ok(answer) => told.push((id, answer.items[0])),
            Err(Error::PositionConflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    told
}

/// Brings in identities that others bring in too.
async fn repeat(ground: Arc<Ground>, ledger: PostgresLedger, most: Arc<AtomicU64>) -> Told {
    let mut told = Vec::new();
    while ground.runs() {
        let newest = most.fetch_add(1, Ordering::Relaxed);
        let pick: Vec<u64> = (0..4).map(|_| newest.saturating_sub(rand::rng().random_range(0..12))).collect();
        let ids: Vec<_> = pick.iter().map(|n| format!("d{n}")).collect();
        let events = pick.iter().zip(&ids).map(|(n, id)| event(id).lane(lanes_of(*n)[0]).once(id, 1_000_000));
        let answer = insist(&ground, &ledger, &batch(events.collect())).await.unwrap();
        told.extend(ids.into_iter().zip(answer.items));
    }
    told
}

/// Relies on nothing but the id of its append.
async fn plain(ground: Arc<Ground>, ledger: PostgresLedger, name: u64) -> Told {
    let mut told = Vec::new();
    for n in 0.. {
        if !ground.runs() {
            break;
        }
        let ids = [format!("p{name}-{n}-a"), format!("p{name}-{n}-b")];
        let events = ids.iter().zip(lanes_of(n + name)).map(|(id, lane)| event(id).lane(lane));
        let answer = insist(&ground, &ledger, &batch(events.collect())).await.unwrap();
        told.extend(ids.into_iter().zip(answer.items));
    }
    told
}

/// Ends connections of the ledgers at random, changes generations and buckets; returns how many were ended.
async fn trouble(ground: Arc<Ground>, subject: &OnServer, name: &str) -> (u64, i64) {
    let client = subject.connect().await;
    let schema = &subject.options.schema;
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    let (mut ended, mut generation, mut bucket) = (0, 1, 1);
    let end = "select count(*) from (select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = $1 order by random() limit 1) x";
    for tick in 0..SECONDS * 40 {
        pace.tick().await;
        ended += client.query_one(end, &[&name]).await.unwrap().get::<_, i64>(0) as u64;
        if tick % 10 == 3 {
            let next = format!("select {schema}.create_generation({generation} + 1)");
            client.batch_execute(&next).await.unwrap();
            let rotate = format!("select {schema}.rotate({generation})");
            // It gives up when traffic holds the lanes for too long.
            if client.query_one(&rotate, &[]).await.is_ok_and(|row| row.get(0)) {
                generation += 1;
            }
        }
        if tick % 30 == 8 {
            client.batch_execute(&format!("select {schema}.create_bucket({bucket} + 1)")).await.unwrap();
            let open = format!("select {schema}.open_bucket({bucket})");
            if client.query_one(&open, &[]).await.is_ok_and(|row| row.get(0)) {
                bucket += 1;
            }
        }
    }
    ground.stop.store(true, Ordering::Relaxed);
    (ended, generation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_breaks() {
    let subject = OnServer::with(PostgresOptions { lanes: LANES, ..PostgresOptions::default() }).await;
    let name = subject.options.schema.clone();
    let mark = if server().contains('?') { '&' } else { '?' };
    let url = format!("{}{mark}application_name={name}", server());
    let mut ledgers = Vec::new();
    for _ in 0..3 {
        ledgers.push(PostgresLedger::open(&url, subject.options.clone()).await.unwrap());
    }
    let ground = Arc::new(Ground { stop: AtomicBool::new(false), clock: AtomicU64::new(0) });
    let most = Arc::new(AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for (n, ledger) in ledgers.iter().enumerate() {
        for shard in ["x", "y"] {
            writers.spawn(move_on(ground.clone(), ledger.clone(), shard.into()));
        }
        writers.spawn(repeat(ground.clone(), ledger.clone(), most.clone()));
        writers.spawn(repeat(ground.clone(), ledger.clone(), most.clone()));
        writers.spawn(plain(ground.clone(), ledger.clone(), n as u64));
        writers.spawn(plain(ground.clone(), ledger.clone(), n as u64 + 10));
    }
    let (ended, generations) = trouble(ground, &subject, &name).await;
    let told: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    let stored = Stored::read(&subject.connect().await, &name).await;
    stored.assert_once();
    let mut first: HashMap<&str, Arrival> = HashMap::new();
    for (id, item) in &told {
        stored.assert_told(id, *item);
        if let Some(other) = first.insert(id, *item) {
            let both = matches!((item, other), (Arrival::Accepted(_), Arrival::Accepted(_)));
            assert!(!both, "{id} was accepted twice");
        }
    }
    // Whoever asks for one shard's position has an event for every step of it.
    for shard in ["x", "y"] {
        let version = ledgers[0].position(shard).await.unwrap().map_or(0, |p| p.version);
        let steps = stored.ids.values().filter(|id| id.starts_with(&format!("{shard}:"))).count() as u64;
        assert_eq!(steps, version, "shard {shard}");
    }
    let ids: std::collections::HashSet<_> = told.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), stored.ids.len(), "an event is there that nobody was told of");
    println!("{} events, {ended} connections ended, {generations} generations", stored.ids.len());
    assert!(ended > 50 && generations > 5, "{ended} connections ended, {generations} generations");
}
