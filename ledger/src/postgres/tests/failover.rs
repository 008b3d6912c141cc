//! A standby takes over. What it had not received is gone: its places, its generation, the numbers of its names and its
//! epochs are given again, and nobody may take the new events for the lost ones.

use std::sync::Arc;

use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, Clock, ControllerId, Epoch, FinalState, Lane, Seq};
use bellwire_test_servers::proxy::Mode;
use bellwire_test_servers::{Options, Postgres, Proxy};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::OnServer;
use super::stored::Stored;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{
    Append, Appended, Arrival, Error, Feed, Flush, FlushOutcome, Ledger, PositionAdvance, PostgresLedger,
    PostgresOptions,
};

const ANA: ControllerId = ControllerId(Uuid::from_u128(1));
const L3: Lane = Lane(3);
const LANES: u16 = 3;

/// A primary, its standby behind a line that can be cut, and a door that leads clients to one of them.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    line: Proxy,
    door: Proxy,
}

impl Pair {
    async fn new(options: &Options) -> Self {
        let primary = Postgres::start(options).unwrap();
        let line = Proxy::start(primary.address()).await.unwrap();
        let standby = Postgres::standby(line.address(), &Options::default()).unwrap();
        let door = Proxy::start(primary.address()).await.unwrap();
        Self { primary, standby, line, door }
    }

    fn url(&self) -> String {
        self.door.url(&self.primary.url())
    }

    async fn open(&self) -> PostgresLedger {
        let options = PostgresOptions { lanes: LANES, ..PostgresOptions::default() };
        PostgresLedger::open(&self.url(), options).await.unwrap()
    }

    /// Waits until the standby has all that the primary has.
    async fn level(&self) {
        let end = self.primary.sql("postgres", "select pg_current_wal_flush_lsn()").unwrap();
        let ask = format!("select coalesce(pg_last_wal_replay_lsn() >= '{end}', false)");
        while self.standby.sql("postgres", &ask).unwrap() != "t" {
            tokio::task::yield_now().await;
        }
    }

    /// From now on the standby receives nothing.
    async fn cut(&self) {
        self.line.set(Mode::Refuse).await;
        self.line.reset_all().await;
    }

    /// The primary ends and the standby takes over behind the door.
    async fn fail_over(&mut self) {
        self.primary.kill();
        self.standby.promote().unwrap();
        self.door.set_target(self.standby.address()).await;
        self.door.set(Mode::Pass).await;
        self.door.reset_all().await;
    }

    async fn look(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.standby.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// The same append until it is answered, as an intake does.
async fn insist(ledger: &PostgresLedger, append: &Append) -> Appended {
    loop {
        match ledger.append(append.clone(), at(1)).await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

/// A flush that delivers the places after `from` up to `upto`.
fn delivers(binding: BindingId, epoch: Epoch, version: u64, from: u64, upto: u64) -> Flush {
    let part = share(binding, version, upto);
    let part = (from + 1..=upto).fold(part, |part, seq| part.ends(seq, FinalState::Delivered));
    Flush { lane: L1, epoch, at: at(0), bindings: vec![part] }
}

fn moves(id: &str, shard: &str, expected: u64) -> Append {
    let mut append = batch(vec![event(id).source(id).once(id, 6_000)]);
    append.positions = vec![PositionAdvance { shard: shard.into(), expected, value: id.into() }];
    append
}

async fn ids(ledger: &PostgresLedger, lane: Lane, from: u64) -> Vec<(String, String)> {
    let events = ledger.read(lane, Seq(from), 1_000, usize::MAX).await.unwrap();
    events.iter().map(|e| (e.event.id.to_string(), e.source.to_string())).collect()
}

/// A ledger whose owner read and flushed events, before the cut and after it.
struct Story {
    ana: PostgresLedger,
    feed: Feed,
    binding: BindingId,
    epochs: [Epoch; 2],
}

impl Story {
    async fn until_the_cut(pair: &Pair) -> Self {
        let ana = pair.open().await;
        let handle: Arc<dyn Ledger> = Arc::new(ana.clone());
        let feed = Feed::new(handle.clone(), Clock::manual(at(1))).await.unwrap();
        let binding = declare(&handle, vec![binding("b:orders", Start::Earliest)]).await[0];
        ana.heartbeat(&beat(ANA)).await.unwrap();
        let epoch = ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
        for n in 0..10 {
            feed.append(moves(&format!("e{n}"), "s", n)).await.unwrap();
        }
        assert_eq!(ana.flush(delivers(binding, epoch, 1, 0, 5)).await.unwrap(), FlushOutcome::Flushed);
        assert_eq!(ana.heartbeat(&beat(ANA)).await.unwrap().rewound, []);
        Self { ana, feed, binding, epochs: [epoch; 2] }
    }

    /// What the standby will not know of: events, positions, sources, shards, a generation, an epoch, a checkpoint.
    async fn after_the_cut(&mut self) {
        let Self { ana, feed, binding, epochs } = self;
        for n in 10..20 {
            feed.append(moves(&format!("lost{n}"), "s", n)).await.unwrap();
        }
        crate::postgres::upkeep::rotate(&ana.shared).await.unwrap();
        for n in 0..10 {
            feed.append(moves(&format!("late{n}"), "t", n)).await.unwrap();
        }
        assert_eq!(ids(ana, L1, 1).await.len(), 30);
        assert_eq!(feed.read(L1, Seq(11), 100, usize::MAX).await.unwrap().len(), 20);
        epochs[1] = ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
        let flush = delivers(*binding, epochs[1], 2, 5, 30);
        assert_eq!(ana.flush(flush).await.unwrap(), FlushOutcome::Flushed);
        assert_eq!(ana.heartbeat(&beat(ANA)).await.unwrap().rewound, []);
    }

    /// The owner goes on with what it has in memory, is refused, and begins anew.
    async fn begin_anew(&self) -> Epoch {
        let Self { ana, feed, binding, epochs } = self;
        for (n, epoch) in epochs.iter().enumerate() {
            let flush = delivers(*binding, *epoch, 3 + n as u64, 30, 31);
            assert_eq!(ana.flush(flush).await.unwrap(), FlushOutcome::Fenced, "a flush of the lost history");
            let flush = delivers(*binding, *epoch, 2, 5, 10);
            assert_eq!(ana.flush(flush).await.unwrap(), FlushOutcome::Fenced);
        }
        assert!(ana.heartbeat(&beat(ANA)).await.unwrap().rewound.contains(&L1));
        feed.forget(L1);
        let epoch = ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
        feed.learn(L1).await.unwrap();
        assert!(epoch > epochs[1], "{epoch} was given before");
        assert_eq!(ana.heartbeat(&beat(ANA)).await.unwrap().rewound, []);
        epoch
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_standby_lacked_is_gone_and_nothing_else() {
    let mut pair = Pair::new(&Options::default()).await;
    let mut story = Story::until_the_cut(&pair).await;
    let (ana, ben) = (story.ana.clone(), pair.open().await);
    // Two appends of unknown outcome: the standby has the first and lacks the second.
    let side = Proxy::start(pair.primary.address()).await.unwrap();
    let options = PostgresOptions { lanes: LANES, ..PostgresOptions::default() };
    let cyn = PostgresLedger::open(&side.url(&pair.primary.url()), options).await.unwrap();
    for lane in [L2, L3] {
        cyn.append(batch(vec![event("warm").lane(lane)]), at(1)).await.unwrap();
    }
    side.set(Mode::CutFromServer(0)).await;
    let mut doubtful = Vec::new();
    for (name, lane) in [("had", L2), ("lacked", L3)] {
        let append = batch(vec![event(name).lane(lane)]);
        let (ledger, sent) = (cyn.clone(), append.clone());
        doubtful.push(tokio::spawn(async move { insist(&ledger, &sent).await }));
        let there =
            format!("select count(*) from bellwire.event_batch where append_id = '{}'", append.append_id);
        while pair.primary.sql("postgres", &there).unwrap() != "1" {
            tokio::task::yield_now().await;
        }
        if lane == L2 {
            pair.level().await;
            pair.cut().await;
        }
    }
    story.after_the_cut().await;
    pair.fail_over().await;
    side.set_target(pair.standby.address()).await;
    side.set(Mode::Pass).await;
    side.reset_all().await;

    // Others reuse the places of the lost events, and the numbers of the lost names.
    for n in 0..25 {
        let answer = insist(&ben, &batch(vec![event(&format!("new{n}")).source("ben's")])).await;
        assert_eq!(answer.items, [Arrival::Accepted(addr(1, 11 + n))]);
    }
    let epoch = story.begin_anew().await;
    let answer = insist(&ana, &batch(vec![event("ana's").source("late0")])).await;
    assert_eq!(answer.items, [Arrival::Accepted(addr(1, 36))]);
    let now = ids(&ana, L1, 11).await;
    let expected = (0..25).map(|n| (format!("new{n}"), "ben's".to_string()));
    assert_eq!(now, expected.chain([("ana's".into(), "late0".into())]).collect::<Vec<_>>());
    let fed = story.feed.read(L1, Seq(11), 100, usize::MAX).await.unwrap();
    assert_eq!(fed.iter().map(|e| e.event.id.to_string()).next(), Some("new0".into()));
    assert_eq!(fed, ana.read(L1, Seq(11), 100, usize::MAX).await.unwrap());
    // Dedup keys and positions went back with their events.
    assert_eq!(ana.position("s").await.unwrap().unwrap().version, 10);
    assert_eq!(ana.position("t").await.unwrap(), None);
    let refused = ana.append(moves("x", "s", 20), at(1)).await;
    assert!(matches!(refused, Err(Error::PositionConflict { found: 10, .. })), "{refused:?}");
    for (n, shard, id) in [(10, "s", "lost10"), (0, "t", "late0"), (11, "s", "lost11")] {
        let answer = insist(&ana, &moves(id, shard, n)).await;
        assert!(matches!(answer.items[..], [Arrival::Accepted(_)]), "{answer:?}");
    }
    // Every event of this history is delivered from where the checkpoint stands.
    let stood = ana.checkpoint(L1, story.binding).await.unwrap();
    assert_eq!((stood.version, stood.mark), (1, Seq(5)));
    let flush = delivers(story.binding, epoch, 2, 5, 36);
    assert_eq!(ana.flush(flush).await.unwrap(), FlushOutcome::Flushed);
    assert_eq!(ana.checkpoint(L1, story.binding).await.unwrap().mark, Seq(36));

    let answers: Vec<_> = futures::future::join_all(doubtful).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers[0].items, [Arrival::Accepted(addr(2, 2))]);
    let stored = Stored::read(&pair.look().await, "bellwire").await;
    for (name, answer) in ["had", "lacked"].into_iter().zip(&answers) {
        stored.assert_told(name, answer.items[0]);
        assert_eq!(stored.ids.values().filter(|id| *id == name).count(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_synchronous_standby_nothing_accepted_is_lost() {
    let options = Options::default().set("synchronous_standby_names", "*");
    let mut pair = Pair::new(&options).await;
    let ana = pair.open().await;
    let mut told = Vec::new();
    for n in 0..20 {
        let append = moves(&format!("e{n}"), "s", n);
        told.push((append.clone(), insist(&ana, &append).await));
    }
    pair.cut().await;
    // Committed on the primary, and not answered: the standby has not confirmed it.
    let last = moves("last", "s", 20);
    let waiting = tokio::spawn({
        let (ana, last) = (ana.clone(), last.clone());
        async move { insist(&ana, &last).await }
    });
    let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    while pair.primary.sql("postgres", waits).unwrap() != "1" {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    pair.fail_over().await;
    told.push((last, waiting.await.unwrap()));
    let stored = Stored::read(&pair.look().await, "bellwire").await;
    stored.assert_once();
    for (append, answer) in &told {
        stored.assert_told(&append.events[0].event.id, answer.items[0]);
        assert_eq!(&insist(&ana, append).await, answer);
    }
    assert_eq!(ana.position("s").await.unwrap().unwrap().version, 21);
}

/// The server of before comes back beside the one that took over: nobody who knows both believes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_an_earlier_history_is_not_believed() {
    let pair = Pair::new(&Options::default()).await;
    let ana = pair.open().await;
    let epoch = ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
    insist(&ana, &batch(vec![event("a")])).await;
    pair.level().await;
    pair.cut().await;
    pair.standby.promote().unwrap();
    let lead = async |server: &Postgres| {
        pair.door.set_target(server.address()).await;
        pair.door.reset_all().await;
    };
    lead(&pair.standby).await;
    insist(&ana, &batch(vec![event("b")])).await;
    let newer = ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
    assert!(newer > epoch);
    lead(&pair.primary).await;
    let refused = ana.append(batch(vec![event("c")]), at(1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(ref why)) if why.contains("older")), "{refused:?}");
    let refused = ana.heartbeat(&beat(ANA)).await;
    assert!(matches!(refused, Err(Error::Unavailable(ref why)) if why.contains("older")), "{refused:?}");
    assert!(ana.acquire(ANA, L1, at(0)).await.is_err());
    lead(&pair.standby).await;
    let answer = insist(&ana, &batch(vec![event("c")])).await;
    assert_eq!(answer.items, [Arrival::Accepted(addr(1, 3))]);
    ana.heartbeat(&beat(ANA)).await.unwrap();
}

/// A server started on an older copy of the data has the same history; events that were handed on in memory, and never
/// read, are missed all the same.
#[tokio::test]
async fn events_that_went_without_a_new_history_are_missed() {
    let subject = OnServer::new(2).await;
    let ana = &subject.ledger;
    ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
    for name in ["a", "b"] {
        ana.append(batch(vec![event(name), event(name).lane(L2)]), at(1)).await.unwrap();
    }
    assert_eq!(ana.heartbeat(&beat(ANA)).await.unwrap().rewound, []);
    subject.sql("delete from bellwire.event_batch where first_seq = 2").await;
    assert_eq!(ana.heartbeat(&beat(ANA)).await.unwrap().rewound, [L1]);
}
