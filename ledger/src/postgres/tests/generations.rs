//! Generations and dedup buckets that open and leave while events come and are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bellwire_schemas::{Address, Lane, Seq};
use tokio::time::Instant;

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::postgres::{PostgresLedger, PostgresOptions, upkeep};
use crate::{Arrival, Error, Ledger, Retained, StoredEvent};

/// Events as they were acknowledged.
type Told = BTreeMap<Address, String>;

/// Appends small batches until told to stop; returns what was acknowledged, and the longest that an append took.
async fn write(
    ledger: PostgresLedger,
    name: usize,
    clock: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
) -> (Told, Duration) {
    let (mut told, mut longest) = (Told::new(), Duration::ZERO);
    for n in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let events = (0..1 + n % 4).map(|k| {
            let lane = Lane(1 + ((name + n + k) % 4) as u16);
            event(&format!("{name}-{n}-{k}")).lane(lane)
        });
        let events: Vec<_> = events.collect();
        let ids: Vec<_> = events.iter().map(|e| e.event.id.clone()).collect();
        let since = Instant::now();
        let answer = ledger.append(batch(events), at(clock.load(Ordering::Relaxed))).await.unwrap();
        longest = longest.max(since.elapsed());
        told.extend(accepted(&answer).into_iter().zip(ids));
    }
    (told, longest)
}

/// Follows a lane until told to stop and the tail is reached, skipping what retention removed.
async fn follow(ledger: PostgresLedger, lane: Lane, stop: Arc<AtomicBool>) -> Vec<StoredEvent> {
    let mut seen: Vec<StoredEvent> = Vec::new();
    loop {
        let ending = stop.load(Ordering::Relaxed);
        let next = seen.last().map_or(Seq(1), |e| e.address.seq.next());
        let more = ledger.read(lane, next, 50, usize::MAX).await.unwrap();
        if more.is_empty() && ending {
            return seen;
        }
        seen.extend(more);
        tokio::task::yield_now().await;
    }
}

async fn stored(ledger: &PostgresLedger) -> Told {
    let mut all = Told::new();
    for lane in (1..=4).map(Lane) {
        let events = ledger.read(lane, Seq(1), usize::MAX, usize::MAX).await.unwrap();
        all.extend(events.into_iter().map(|e| (e.address, e.event.id.clone())));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_loses_and_doubles_nothing() {
    let subject = OnServer::new(4).await;
    let (stop, clock) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let handles = [subject.ledger.clone(), subject.another().await];
    let writers: Vec<_> =
        (0..6).map(|n| tokio::spawn(write(handles[n % 2].clone(), n, clock.clone(), stop.clone()))).collect();
    let read_all = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(follow(handles[1].clone(), L1, read_all.clone()));
    let mut longest = Duration::ZERO;
    for _ in 0..15 {
        let since = Instant::now();
        // Both want to at once; at most one does. Neither is refused for longer than it tries.
        let (one, other) =
            tokio::join!(upkeep::rotate(&handles[0].shared), upkeep::rotate(&handles[1].shared));
        one.and(other).unwrap();
        longest = longest.max(since.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let (mut told, mut slowest) = (Told::new(), Duration::ZERO);
    for writer in writers {
        let (mine, longest) = writer.await.unwrap();
        slowest = slowest.max(longest);
        for (address, id) in mine {
            assert_eq!(told.insert(address, id), None, "{address} was given twice");
        }
    }
    read_all.store(true, Ordering::Relaxed);
    let generations = subject.number("select count(*) from bellwire.generation").await;
    println!(
        "{generations} generations, {} events, slowest append {slowest:?}, both rotated in {longest:?}",
        told.len()
    );
    assert!(generations > 15, "{generations}");
    assert!(stored(&handles[0]).await == told, "what is stored is what was told");
    let lane: Vec<_> = told.keys().filter(|a| a.lane == L1).copied().collect();
    assert!(lane.iter().zip(1..).all(|(address, n)| address.seq == Seq(n)), "no gaps");
    let read: Vec<_> = reader.await.unwrap().iter().map(|e| e.address).collect();
    assert!(read == lane, "a reader misses nothing on its way: {} of {}", read.len(), lane.len());
    // Lenient, because other tests may have the machine: by itself a rotation keeps nobody waiting for 100 ms.
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_leave_under_load() {
    let subject = OnServer::new(4).await;
    let (stop, clock) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let handles = [subject.ledger.clone(), subject.another().await];
    let writers: Vec<_> =
        (0..4).map(|n| tokio::spawn(write(handles[n % 2].clone(), n, clock.clone(), stop.clone()))).collect();
    let reader = tokio::spawn(follow(handles[0].clone(), L2, stop.clone()));
    let mut removed = 0;
    for n in 1..=8 {
        upkeep::rotate(&handles[0].shared).await.unwrap();
        clock.store(n, Ordering::Relaxed);
        removed += handles[1].retain(at(n - 1), at(n)).await.unwrap().events;
    }
    stop.store(true, Ordering::Relaxed);
    let mut told = Told::new();
    for writer in writers {
        told.extend(writer.await.unwrap().0);
    }
    let read = reader.await.unwrap();
    assert!(read.is_sorted_by(|a, b| a.address < b.address), "in order");
    assert!(read.iter().all(|e| told.get(&e.address) == Some(&e.event.id)), "what was read was told");
    let left = stored(&handles[0]).await;
    assert!(removed > 0, "generations left");
    assert_eq!(left.len() as u64 + removed, told.len() as u64);
    assert!(left.iter().all(|(address, id)| told.get(address) == Some(id)));
    assert_eq!(handles[0].retain(at(99), at(99)).await.unwrap().events, left.len() as u64);
    assert_eq!(stored(&handles[1]).await, Told::new());
    let orders = &handles[0].arrivals().await.unwrap()[&orders()];
    assert_eq!(orders.accepted, told.len() as u64, "what came is counted for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_holds_a_generation_holds_up_retention_only() {
    let mut subject = OnServer::new(2).await;
    let ledger = subject.ledger();
    fill(&ledger, 0, 5).await;
    subject.turn().await;
    let schema = subject.options.schema.clone();
    // A snapshot that never touched the tables holds up nothing.
    let idle = subject.connect().await;
    idle.batch_execute("begin isolation level repeatable read; select count(*) from pg_class").await.unwrap();
    let reader = subject.connect().await;
    let look = format!("begin; select count(*) from {schema}.event_batch");
    reader.batch_execute(&look).await.unwrap();
    let pid: i32 = reader.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let retaining = ledger.retain(at(50), at(50));
    let appending = async {
        let mut longest = Duration::ZERO;
        for n in 0..20 {
            let since = Instant::now();
            fill(&ledger, 100 + n, 1).await;
            longest = longest.max(since.elapsed());
        }
        longest
    };
    let (retained, longest) = tokio::join!(retaining, appending);
    assert_eq!(retained.unwrap(), Retained::default());
    println!("slowest append while a drop was tried: {longest:?}");
    assert!(longest < Duration::from_secs(20), "{longest:?}");
    let client = subject.connect().await;
    let holder = client.query_one(&format!("select {schema}.holder_of(1)"), &[]).await.unwrap();
    let holder: String = holder.get(0);
    assert!(holder.starts_with(&format!("session {pid} of ")), "{holder}");
    assert_eq!(ledger.read(L1, Seq(1), 5, usize::MAX).await.unwrap().len(), 5);
    reader.batch_execute("commit").await.unwrap();
    assert_eq!(ledger.retain(at(50), at(50)).await.unwrap().events, 5);
    assert_eq!(ledger.read(L1, Seq(1), 1, usize::MAX).await.unwrap()[0].address, addr(1, 6));
    idle.batch_execute("commit").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_holds_over_buckets_until_its_windows_end() {
    let subject = OnServer::new(2).await;
    let handles = [subject.ledger.clone(), subject.another().await];
    let once = |n: i64, lane| event(&format!("e{n}")).lane(lane).once(&format!("k{n}"), 100);
    let mut firsts = Vec::new();
    for n in 0..30 {
        // Both handles bring the same event while the buckets change.
        let change = async {
            if n % 10 == 5 {
                let bucket = subject.number("select max(bucket)::bigint from bellwire.dedup_bucket").await;
                subject.sql(&format!("select bellwire.create_bucket({bucket} + 1)")).await;
                while subject.number(&format!("select bellwire.open_bucket({bucket})::int::bigint")).await
                    == 0
                {}
            }
        };
        let (one, other, ()) = tokio::join!(
            handles[0].append(batch(vec![once(n, L1)]), at(n)),
            handles[1].append(batch(vec![once(n, L2)]), at(n)),
            change
        );
        let first = match (one.unwrap().items[0], other.unwrap().items[0]) {
            (Arrival::Accepted(first), Arrival::Duplicate(same)) => (first, same),
            (Arrival::Duplicate(same), Arrival::Accepted(first)) => (first, same),
            other => panic!("{other:?}"),
        };
        assert_eq!(first.0, first.1);
        firsts.push(first.0);
    }
    let buckets = || subject.number("select count(*) from bellwire.dedup_bucket");
    assert_eq!(buckets().await, 4);
    for (n, first) in firsts.iter().enumerate() {
        let again = handles[n % 2].append(batch(vec![once(n as i64, L1)]), at(60)).await.unwrap();
        assert_eq!(again.items, [Arrival::Duplicate(*first)]);
    }
    handles[0].retain(at(0), at(99)).await.unwrap();
    assert_eq!(buckets().await, 4, "the windows of the first bucket end at 100 to 105");
    handles[1].retain(at(0), at(110)).await.unwrap();
    assert_eq!(buckets().await, 3);
    let again = handles[0].append(batch(vec![once(0, L1), once(29, L1)]), at(110)).await.unwrap();
    assert!(matches!(again.items[..], [Arrival::Accepted(_), Arrival::Duplicate(_)]), "{again:?}");
}

#[tokio::test]
async fn a_full_ledger_takes_events_again_after_retention() {
    let options = PostgresOptions { lanes: 2, max_bytes: Some(4 << 20), ..PostgresOptions::default() };
    let subject = OnServer::with(options).await;
    let ledger = subject.ledger();
    let limits = upkeep::Limits::of(&subject.options);
    let noise = |n: u64| {
        let words =
            (0..25_000_u64).flat_map(|i| (i ^ n << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        bytes::Bytes::from(words.collect::<Vec<_>>())
    };
    let mut stored = 0;
    let refused = loop {
        let big = event("big").with(|e| e.data = Some(noise(stored)));
        match ledger.append(batch(vec![big]), at(stored as i64)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "4 MiB hold fewer than 100 events of 200 kB");
        upkeep::look(&subject.ledger.shared, limits).await.unwrap();
    };
    assert!(matches!(refused, Error::Full(_)), "{refused:?}");
    assert!(ledger.size_bytes().await.unwrap() >= 4 << 20);
    // Positions still move and flushes still go on; only events are refused.
    assert_eq!(ledger.retain(at(1_000), at(1_000)).await.unwrap().events, stored);
    assert!(ledger.size_bytes().await.unwrap() < 4 << 20);
    assert_eq!(fill(&ledger, 2_000, 1).await, [addr(1, stored + 1)]);
}

#[tokio::test]
async fn generations_open_by_size_and_age_and_are_made_ahead() {
    let subject = OnServer::new(2).await;
    let (ledger, shared) = (subject.ledger(), &subject.ledger.shared);
    let newest = || subject.number("select max(gen)::bigint from bellwire.generation");
    let made = "select (to_regclass('bellwire.event_batch_2') is not null)::int::bigint";
    let options = |bytes, age| PostgresOptions {
        generation_bytes: Some(bytes),
        generation_age: Duration::from_secs(age),
        ..subject.options.clone()
    };
    let (large, old, none) = (options(1, 3_600), options(1 << 30, 0), options(1 << 30, 3_600));
    for options in [&large, &old, &none] {
        upkeep::look(shared, upkeep::Limits::of(options)).await.unwrap();
    }
    assert_eq!(
        (newest().await, subject.number(made).await),
        (1, 1),
        "an empty one stays, and the next one is made ahead"
    );
    fill(&ledger, 0, 1).await;
    upkeep::look(shared, upkeep::Limits::of(&none)).await.unwrap();
    assert_eq!(newest().await, 1);
    for (n, options) in [&large, &old].into_iter().enumerate() {
        upkeep::look(shared, upkeep::Limits::of(options)).await.unwrap();
        fill(&ledger, 1 + n as i64, 1).await;
    }
    assert_eq!(newest().await, 3);
    assert_eq!(ledger.read(L1, Seq(1), 9, usize::MAX).await.unwrap().len(), 3);
}
