//! Flushes that the suite of the contract cannot provoke: lost by the server, of unknown outcome, in another generation,
//! by two owners at once, and many debts.

use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, ControllerId, Epoch, FinalState, Lane, Seq};
use bellwire_test_servers::{Options, Pgbouncer, Postgres};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::postgres::flush::confirm;
use crate::{
    Checkpoint, DeliveryKey, Error, Flush, FlushOutcome, Ledger, OwedReason, PostgresLedger, PostgresOptions,
    StoredEvent,
};

/// A ledger with one binding, its lane owned, and events in it.
struct World {
    ledger: PostgresLedger,
    sql: Client,
    schema: String,
    binding: BindingId,
    epoch: Epoch,
    version: u64,
    mark: u64,
}

async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl World {
    async fn new(url: &str, schema: &str, events: u64) -> Self {
        Self::behind(url, url, schema, events).await
    }

    /// The ledger goes by one way, the test's own questions by another.
    async fn behind(url: &str, direct: &str, schema: &str, events: u64) -> Self {
        let options = PostgresOptions { lanes: 1, schema: schema.into(), ..PostgresOptions::default() };
        let ledger = PostgresLedger::open(url, options).await.unwrap();
        let handle: Arc<dyn Ledger> = Arc::new(ledger.clone());
        let binding = declare(&handle, vec![binding("b:orders", Start::Earliest)]).await[0];
        let epoch = own(&handle, L1).await;
        let sql = client(direct).await;
        let world = Self { ledger, sql, schema: schema.into(), binding, epoch, version: 0, mark: 0 };
        world.put(events).await;
        world
    }

    async fn on(subject: &OnServer, events: u64) -> Self {
        Self::new(&super::server(), &subject.options.schema, events).await
    }

    async fn run(&self, sql: &str) {
        self.sql.batch_execute(&sql.replace("bellwire.", &format!("{}.", self.schema))).await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        let sql = sql.replace("bellwire.", &format!("{}.", self.schema));
        self.sql.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// Events behind the tail, in the open generation.
    async fn put(&self, events: u64) {
        self.run(&format!(
            "insert into bellwire.event_batch (gen, lane, first_seq, count, append_id, appended_at, sources, types, ids,
               attributes)
             select (select max(gen) from bellwire.generation), 1, bellwire.tail_of(1::smallint) + 1, {events},
               gen_random_uuid(), now(), array[(select id from bellwire.source where name = 'orders')], array['t'],
               array_agg(n::text), array_agg('{{\"source\":\"s\",\"time\":\"t\"}}'::text)
             from generate_series(1, {events}) n"
        ))
        .await;
    }

    /// A flush that delivers the next places.
    fn next(&mut self, places: u64) -> Flush {
        self.version += 1;
        let first = self.mark + 1;
        self.mark += places;
        let mut part = share(self.binding, self.version, self.mark);
        for seq in first..=self.mark {
            part = part.ends(seq, FinalState::Delivered);
        }
        self.with(part)
    }

    fn with(&self, part: crate::BindingFlush) -> Flush {
        Flush { lane: L1, epoch: self.epoch, at: at(0), bindings: vec![part] }
    }

    async fn flush(&mut self, places: u64) {
        let flush = self.next(places);
        assert_eq!(self.ledger.flush(flush).await.unwrap(), FlushOutcome::Flushed);
    }

    /// As the dispatcher does: until there is an answer.
    async fn insist(&self, flush: &Flush) -> FlushOutcome {
        loop {
            match self.ledger.flush(flush.clone()).await {
                Ok(outcome) => return outcome,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Every place up to the mark has one line, and the account says so.
    async fn assert_whole(&self) {
        let lines = "select l.block * 4096 + o as seq from bellwire.delivery_log l, unnest(l.offsets) o";
        let places = format!("select count(distinct seq) from ({lines}) x");
        assert_eq!(self.number(&places).await, self.mark as i64, "places with a line");
        assert_eq!(
            self.number(&format!("select count(*) from ({lines}) x")).await,
            self.mark as i64,
            "lines"
        );
        let stood = self.ledger.checkpoint(L1, self.binding).await.unwrap();
        assert_eq!((stood.version, stood.mark.0), (self.version, self.mark));
        let handle: Arc<dyn Ledger> = Arc::new(self.ledger.clone());
        assert_sums(&handle).await;
    }

    fn unconfirmed(&self) -> usize {
        self.ledger.shared.deliveries.unconfirmed().len()
    }
}

/// An event as it would be read back.
fn stored_at(seq: u64) -> StoredEvent {
    StoredEvent {
        address: addr(1, seq),
        source: orders(),
        accepted_at: at(0),
        key: None,
        event: event("x").event,
    }
}

/// A server that writes its log only when a commit waits for it.
fn lazy_server() -> Postgres {
    Postgres::start(&Options::default().set("wal_writer_delay", "10s").set("wal_writer_flush_after", "1GB"))
        .unwrap()
}

/// The server stops without warning and loses asynchronous flushes, while their owner lives on.
#[tokio::test(flavor = "multi_thread")]
async fn flushes_that_a_crash_took_are_sent_again() {
    let mut server = lazy_server();
    let mut world = World::new(&server.url(), "bellwire", 10_000).await;
    let mut ways = [false, true, false].into_iter().peekable();
    let mut crashes = 0;
    while let Some(found_by_heartbeat) = ways.peek().copied() {
        crashes += 1;
        assert!(crashes <= 12, "hardly any crash took anything");
        world.flush(10).await;
        confirm(&world.ledger.shared).await.unwrap();
        assert_eq!(world.unconfirmed(), 0);
        let durable = world.version;
        for _ in 0..5 {
            world.flush(100).await;
        }
        server.kill();
        let refused = world.ledger.flush(world.with(share(world.binding, world.version, world.mark))).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        server.start_again().unwrap();
        world.sql = client(&server.url()).await;
        let stood = world.ledger.checkpoint(L1, world.binding).await.unwrap();
        assert!((durable..=world.version).contains(&stood.version), "what was confirmed stays: {stood:?}");
        // Any other commit of the server, such as one of its upkeep, makes all that came before it durable too: then this
        // crash took nothing, and another one has to.
        if stood.version < world.version {
            ways.next();
        }
        if found_by_heartbeat {
            confirm(&world.ledger.shared).await.unwrap();
            world.assert_whole().await;
        }
        let next = world.next(7);
        assert_eq!(world.insist(&next).await, FlushOutcome::Flushed);
        world.assert_whole().await;
    }
    confirm(&world.ledger.shared).await.unwrap();
    assert_eq!(world.unconfirmed(), 0);
}

/// A dead letter is durable when its flush is answered, and everything flushed before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_outlives_a_crash() {
    let mut server = lazy_server();
    let mut world = World::new(&server.url(), "bellwire", 100).await;
    world.flush(10).await;
    (world.version, world.mark) = (2, 11);
    let part = share(world.binding, 2, 11).kills(stored_at(11), 50);
    assert_eq!(world.ledger.flush(world.with(part)).await.unwrap(), FlushOutcome::Flushed);
    server.kill();
    server.start_again().unwrap();
    world.sql = client(&server.url()).await;
    world.assert_whole().await;
    assert_eq!(world.number("select count(*) from bellwire.dead").await, 1);
}

/// Checkpoints that were durable are gone, as after a fail-over to a server that had fallen behind: the owner gives the
/// lane up instead of leaving a hole.
#[tokio::test]
async fn lost_history_ends_the_ownership() {
    let subject = OnServer::new(1).await;
    let mut world = World::on(&subject, 100).await;
    world.flush(10).await;
    world.flush(10).await;
    confirm(&world.ledger.shared).await.unwrap();
    world
        .run("delete from bellwire.checkpoint where ver = 2; delete from bellwire.delivery_log where ver = 2")
        .await;
    let next = world.next(10);
    assert_eq!(world.ledger.flush(next).await.unwrap(), FlushOutcome::Fenced);
    // The next owner begins where it stands.
    let handle: Arc<dyn Ledger> = Arc::new(world.ledger.clone());
    world.epoch = own(&handle, L1).await;
    let Checkpoint { version, mark, .. } = world.ledger.checkpoint(L1, world.binding).await.unwrap();
    (world.version, world.mark) = (version, mark.0);
    world.flush(10).await;
    world.assert_whole().await;
}

/// Callers that go away, and connections that are cut, leave nobody knowing what happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_unknown_outcome_is_written_once() {
    let subject = OnServer::new(1).await;
    let mut world = World::on(&subject, 20_000).await;
    let killer = super::connect().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let schema = world.schema.clone();
    let cutting = tokio::spawn(async move {
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
          where pid <> pg_backend_pid() and query like '%' || $1 || '%flush_%'";
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            killer.query(cut, &[&schema]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    });
    for n in 0u64..150 {
        let flush = world.next(1 + n * 7 % 60);
        if n % 3 == 0 {
            let gone = world.ledger.flush(flush.clone());
            let _ = tokio::time::timeout(Duration::from_micros(n * 37 % 3_000), gone).await;
        }
        assert_eq!(world.insist(&flush).await, FlushOutcome::Flushed);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    cutting.await.unwrap();
    world.assert_whole().await;
}

/// The open generation changes between flushes, and old ones go.
#[tokio::test]
async fn flushes_follow_the_open_generation() {
    let subject = OnServer::new(1).await;
    let mut world = World::on(&subject, 5_000).await;
    for gen_ in 1..5 {
        world.flush(300).await;
        world
            .run(&format!("select bellwire.create_generation({}); select bellwire.rotate({gen_})", gen_ + 1))
            .await;
        world.put(100).await;
    }
    world.flush(300).await;
    world.assert_whole().await;
    assert_eq!(world.number("select count(distinct gen) from bellwire.delivery_log").await, 5);
    // A replay looks for the last ending in all of them.
    let address = |seq| addr(1, seq);
    let owed: Vec<_> = [1, 301, 1_500]
        .into_iter()
        .map(|seq| (address(seq), crate::Owed { reason: OwedReason::Replay("r".into()), ..debt(seq, 5) }))
        .collect();
    assert_eq!(world.ledger.save_replay(&replay("r", world.binding, 1), &owed).await.unwrap(), 3);
    let handle: Arc<dyn Ledger> = Arc::new(world.ledger.clone());
    assert_sums(&handle).await;
    let totals = &world.ledger.totals().await.unwrap()[&world.binding];
    assert_eq!(totals.ended[&FinalState::Delivered], 1_497);
}

/// Two owners steal the lane from each other and flush what they believe is theirs: each place is logged once.
#[tokio::test(flavor = "multi_thread")]
async fn zombies_write_nothing() {
    let mut subject = OnServer::new(1).await;
    let mut world = World::on(&subject, 3_000).await;
    world.ledger.release(L1, world.epoch).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=3u128 {
        let (ledger, binding) = (subject.another().await, world.binding);
        tasks.spawn(steal(ledger, binding, ControllerId(Uuid::from_u128(n))));
    }
    for _ in 0..40 {
        for n in 1..=3 {
            subject.expire(ControllerId(Uuid::from_u128(n))).await;
        }
    }
    let fenced: u32 = tasks.join_all().await.into_iter().sum();
    assert!(fenced > 0, "nobody was ever late");
    let Checkpoint { version, mark, .. } = world.ledger.checkpoint(L1, world.binding).await.unwrap();
    (world.version, world.mark) = (version, mark.0);
    assert!(world.mark > 0);
    world.assert_whole().await;
}

/// Takes the lane whenever it is free and flushes until it is fenced; says how often it was.
async fn steal(ledger: PostgresLedger, binding: BindingId, own: ControllerId) -> u32 {
    let mut fenced = 0;
    let until = std::time::Instant::now() + Duration::from_millis(900);
    while std::time::Instant::now() < until {
        let Some(epoch) = ledger.acquire(own, L1, at(0)).await.unwrap() else {
            tokio::task::yield_now().await;
            continue;
        };
        let Checkpoint { mut version, mut mark, .. } = ledger.checkpoint(L1, binding).await.unwrap();
        while mark.0 < 3_000 {
            let upto = (mark.0 + 3).min(3_000);
            version += 1;
            let mut part = share(binding, version, upto);
            for seq in mark.0 + 1..=upto {
                part = part.ends(seq, FinalState::Delivered);
            }
            mark = Seq(upto);
            let flush = Flush { lane: L1, epoch, at: at(0), bindings: vec![part] };
            if ledger.flush(flush).await.unwrap() == FlushOutcome::Fenced {
                fenced += 1;
                break;
            }
        }
        if mark.0 >= 3_000 {
            break;
        }
    }
    ledger.close().await;
    fenced
}

/// A function that is down: thousands of debts written, put off and worked off.
#[tokio::test]
async fn many_debts() {
    const PLACES: u64 = 2_000;
    let subject = OnServer::new(1).await;
    let mut world = World::on(&subject, PLACES).await;
    let mut part = share(world.binding, 1, PLACES);
    for seq in 1..=PLACES {
        part = part.owes(seq, seq as i64);
    }
    assert_eq!(world.ledger.flush(world.with(part)).await.unwrap(), FlushOutcome::Flushed);
    let due = world.ledger.due(L1, world.binding, at(1_000), 5_000).await.unwrap();
    assert_eq!((due.due.len(), due.next_at), (1_000, Some(at(1_001))));
    let mut part = share(world.binding, 2, PLACES);
    for seq in 1..=PLACES {
        part = match seq % 4 {
            0 => part.owes(seq, 9_000),
            1 => part.kills(stored_at(seq), 60),
            _ => part.settles(seq).ends(seq, FinalState::Delivered),
        };
    }
    assert_eq!(world.ledger.flush(world.with(part)).await.unwrap(), FlushOutcome::Flushed);
    let totals = &world.ledger.totals().await.unwrap()[&world.binding];
    assert_eq!((totals.retrying, totals.dead_letters), (PLACES / 4, PLACES / 4));
    assert_eq!(totals.ended, [(FinalState::Delivered, PLACES / 2), (FinalState::Dead, PLACES / 4)].into());
    let handle: Arc<dyn Ledger> = Arc::new(world.ledger.clone());
    assert_sums(&handle).await;
    let dead: Vec<_> = (1..=PLACES)
        .filter(|seq| seq % 4 == 1)
        .map(|seq| DeliveryKey { binding: world.binding, address: addr(1, seq) })
        .collect();
    assert_eq!(world.ledger.redrive(&dead, at(70)).await.unwrap(), PLACES / 4);
    assert_sums(&handle).await;
    assert_eq!(world.ledger.discard(&dead, "no", "ana", at(71)).await.unwrap(), PLACES / 4);
    assert_sums(&handle).await;
    world.version = 2;
}

/// A lane that flushes without heartbeats confirms by itself, and keeps little.
#[tokio::test]
async fn an_old_flush_is_confirmed_by_the_next() {
    let subject = OnServer::new(1).await;
    let mut world = World::on(&subject, 100).await;
    world.flush(1).await;
    assert_eq!(world.unconfirmed(), 1);
    world.ledger.heartbeat(&beat(ControllerId(Uuid::from_u128(9)))).await.unwrap();
    while world.unconfirmed() > 0 {
        tokio::task::yield_now().await;
    }
    world.flush(1).await;
    let memory = world.ledger.shared.deliveries.lane(Lane(1));
    assert!(!memory.is_overdue());
    memory.age(Duration::from_secs(2));
    assert!(memory.is_overdue());
    world.flush(1).await;
    assert!(!memory.is_overdue());
    world.assert_whole().await;
}

/// Behind a pooler every statement may meet another server process.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_between_changes_nothing() {
    let server = Postgres::start(&Options::default()).unwrap();
    let pooler = Pgbouncer::start(&server).unwrap();
    let mut world = World::behind(&pooler.url(), &server.url(), "bellwire", 5_000).await;
    for _ in 0..20 {
        world.flush(50).await;
    }
    confirm(&world.ledger.shared).await.unwrap();
    assert_eq!(world.unconfirmed(), 0);
    (world.version, world.mark) = (21, 1_003);
    let part = share(world.binding, 21, 1_003).kills(stored_at(1_001), 5).owes(1_002, 6);
    let part = part.ends(1_003, FinalState::Filtered);
    assert_eq!(world.ledger.flush(world.with(part)).await.unwrap(), FlushOutcome::Flushed);
    world.assert_whole().await;
    let key = |seq| DeliveryKey { binding: world.binding, address: addr(1, seq) };
    assert_eq!(world.ledger.redrive(&[key(1_001)], at(9)).await.unwrap(), 1);
    assert_eq!(world.ledger.discard(&[key(1_001), key(1_002)], "no", "ana", at(9)).await.unwrap(), 2);
    assert_eq!(world.ledger.log(addr(1, 1_001), None).await.unwrap().len(), 2);
    let handle: Arc<dyn Ledger> = Arc::new(world.ledger.clone());
    assert_sums(&handle).await;
    handle.close().await;
}

/// Another handle wrote a version with other contents first, as a call does that was given up on and came late: what
/// follows begins where the database stands.
#[tokio::test]
async fn a_version_that_somebody_else_wrote_first() {
    let subject = OnServer::new(1).await;
    let world = World::on(&subject, 3).await;
    let (b, beside) = (world.binding, subject.another().await);
    let send = async |ledger: &PostgresLedger, part| {
        let flush = Flush { lane: L1, epoch: world.epoch, at: at(0), bindings: vec![part] };
        assert_eq!(ledger.flush(flush).await.unwrap(), FlushOutcome::Flushed);
    };
    for ledger in [&world.ledger, &beside] {
        // Nothing new: from then on the handle knows where the binding stands.
        send(ledger, share(b, 0, 0)).await;
    }
    let mut first = share(b, 1, 0).ends(2, FinalState::Delivered);
    first.done.insert(Seq(2));
    send(&world.ledger, first).await;
    send(&beside, share(b, 1, 2).ends(1, FinalState::Filtered).ends(2, FinalState::Filtered)).await;
    send(&beside, share(b, 2, 3).ends(1, FinalState::Expired).ends(3, FinalState::Expired)).await;
    let totals = &world.ledger.totals().await.unwrap()[&b];
    let ended = [(FinalState::Delivered, 1), (FinalState::Expired, 2)];
    assert_eq!((totals.ended.clone(), totals.waiting), (ended.into(), 0), "{totals:?}");
    beside.close().await;
}
