//! Slots: no more run than the limits say however many controllers ask at once; a call that changes nothing writes
//! nothing; nothing is left of the dead.

use std::sync::{Arc, Mutex};

use bellwire_schemas::ControllerId;
use rand::Rng;
use uuid::Uuid;

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{Ledger, PostgresLedger, SlotsAsked};

const ANA: ControllerId = ControllerId(Uuid::from_u128(1));
const BEN: ControllerId = ControllerId(Uuid::from_u128(2));
/// The limits of the test with many at once.
const LIMITS: [(&str, u32); 3] = [("many", 7), ("few", 2), ("one", 1)];
const ROUNDS: i64 = 150;

fn asked(limit: &str, most: u32, kept: u32, wanted: u32) -> SlotsAsked {
    SlotsAsked { limit: limit.into(), most, kept, wanted }
}

/// What runs of each limit, over all controllers.
type Tally = Mutex<[u32; 3]>;

/// Runs what it is granted and nothing else, and says truly what runs; returns how much it started.
async fn work(ledger: PostgresLedger, me: ControllerId, tally: Arc<Tally>) -> u32 {
    let (mut running, mut started) = ([0_u32; 3], 0);
    ledger.heartbeat(&beat(me)).await.unwrap();
    for round in 0..ROUNDS {
        let leaves = rand::rng().random_range(0..30) == 0;
        let mut ends = |now: u32| if leaves { now } else { rand::rng().random_range(0..=now) };
        let ended = running.map(&mut ends);
        for (n, ended) in ended.into_iter().enumerate() {
            running[n] -= ended;
            tally.lock().unwrap()[n] -= ended;
        }
        if leaves {
            ledger.leave(me).await.unwrap();
            ledger.heartbeat(&beat(me)).await.unwrap();
        }
        let mut ask: Vec<_> = (0..).zip(LIMITS).collect();
        if rand::rng().random() {
            ask.reverse();
        }
        let wants = |(n, (name, most)): &(usize, (&str, u32))| {
            asked(name, *most, running[*n], rand::rng().random_range(0..=most + 2))
        };
        let asks: Vec<_> = ask.iter().map(wants).collect();
        let answer = ledger.slots(me, &asks, at(round)).await.unwrap();
        for ((n, (name, most)), granted) in ask.into_iter().zip(answer) {
            let granted = granted.slots;
            assert!(granted >= running[n], "{name}: {granted} granted, {running:?} run");
            started += granted - running[n];
            let mut tally = tally.lock().unwrap();
            tally[n] += granted - running[n];
            running[n] = granted;
            assert!(tally[n] <= most, "{name}: {} run, the limit is {most}", tally[n]);
        }
    }
    for (n, running) in running.into_iter().enumerate() {
        tally.lock().unwrap()[n] -= running;
    }
    ledger.leave(me).await.unwrap();
    started
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_than_the_limits_say() {
    let subject = OnServer::new(1).await;
    let (tally, mut tasks) = (Arc::new(Tally::default()), tokio::task::JoinSet::new());
    let handles = [subject.ledger.clone(), subject.another().await];
    for n in 0..6 {
        let me = ControllerId(Uuid::from_u128(n + 1));
        tasks.spawn(work(handles[n as usize % 2].clone(), me, tally.clone()));
    }
    let started = tasks.join_all().await;
    assert!(started.iter().all(|started| *started > 20), "{started:?}");
    assert_eq!(*tally.lock().unwrap(), [0; 3]);
    assert_eq!(subject.number("select count(*) from bellwire.slot").await, 0);
}

/// Every controller asks every half second, so what stays as it is must cost the disk nothing.
#[tokio::test]
async fn an_unchanged_answer_writes_nothing() {
    let subject = OnServer::new(1).await;
    let ledger = subject.ledger.clone();
    for controller in [ANA, BEN] {
        ledger.heartbeat(&beat(controller)).await.unwrap();
    }
    let asks = [asked("a", 4, 0, 4), asked("b", 4, 1, 2), asked("c", 1, 0, 1), asked("d", 1, 0, 0)];
    let mut before = Vec::new();
    let written = "select coalesce(sum(xmin::text::bigint), 0)::bigint from bellwire.slot";
    let shared = [[2, 2, 1, 0], [2, 2, 0, 0]];
    for (round, right) in (0..).zip([[[4, 2, 1, 0], [0, 2, 0, 0]], shared, shared]) {
        for (controller, right) in [ANA, BEN].into_iter().zip(right) {
            let answer = ledger.slots(controller, &asks, at(round)).await.unwrap();
            assert_eq!(answer.iter().map(|a| a.slots).collect::<Vec<_>>(), right, "round {round}");
        }
        before.push(subject.number(written).await);
    }
    assert!(before[0] != before[1] && before[1] == before[2], "{before:?}");
    assert_eq!(subject.number("select count(*) from bellwire.slot where name = 'd'").await, 0);
}

/// A question whose asker went away may come to the database after the next one: it takes nothing back.
#[tokio::test]
async fn a_question_that_comes_late_changes_nothing() {
    let subject = OnServer::new(1).await;
    let (ledger, schema) = (subject.ledger.clone(), &subject.options.schema);
    ledger.heartbeat(&beat(ANA)).await.unwrap();
    ledger.slots(ANA, &[asked("a", 4, 0, 1)], at(1)).await.unwrap();
    let round = "select round from bellwire.slot_round";
    let old = subject.number(round).await;
    // It waits for the lock while its asker goes away.
    let holder = subject.connect().await;
    let class = format!("{schema}.lock_class('{schema}.slot')");
    holder.batch_execute(&format!("select pg_advisory_lock({class}, 0)")).await.unwrap();
    let lost = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.slots(ANA, &[asked("a", 4, 1, 1)], at(2)).await }
    });
    let waits = format!(
        "select count(*) from pg_locks where locktype = 'advisory' and not granted
         and classid::bigint = ({class}::bigint + 4294967296) % 4294967296"
    );
    while subject.number(&waits).await == 0 {}
    lost.abort();
    assert!(lost.await.is_err());
    holder.batch_execute(&format!("select pg_advisory_unlock({class}, 0)")).await.unwrap();
    assert_eq!(ledger.slots(ANA, &[asked("a", 4, 1, 4)], at(3)).await.unwrap()[0].slots, 4);
    assert_eq!(subject.number(round).await, old + 1);
    let late = format!(
        "select * from {schema}.slots('{}', '{{a}}', '{{4}}', '{{1}}', '{{1}}', 5000, now(), {old})",
        ANA.0
    );
    let refused = holder.batch_execute(&late).await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("BW014"));
    assert_eq!(subject.number("select granted from bellwire.slot").await, 4);
    // Another process of the same id begins a round of its own.
    let another = subject.another().await;
    assert_eq!(another.slots(ANA, &[asked("a", 4, 0, 2)], at(4)).await.unwrap()[0].slots, 2);
    assert!(subject.number(round).await > old + 1);
    assert_eq!(ledger.slots(ANA, &[asked("a", 4, 0, 3)], at(5)).await.unwrap()[0].slots, 3);
}

/// Nobody asks for a limit any more that is no longer configured: its rows go with the controllers that had them.
#[tokio::test]
async fn nothing_is_left_of_the_dead() {
    let mut subject = OnServer::new(1).await;
    let ledger = subject.ledger.clone();
    for controller in [ANA, BEN] {
        ledger.heartbeat(&beat(controller)).await.unwrap();
    }
    ledger.slots(ANA, &[asked("gone", 4, 0, 4), asked("kept", 4, 0, 4)], at(1)).await.unwrap();
    subject.expire(ANA).await;
    ledger.slots(BEN, &[asked("kept", 4, 0, 4)], at(2)).await.unwrap();
    assert_eq!(subject.number("select count(*) from bellwire.slot where name = 'gone'").await, 1);
    assert_eq!(subject.number("select count(*) from bellwire.slot where name = 'kept'").await, 1);
    subject.sql("delete from bellwire.controller where name = 'host-1'").await;
    ledger.slots(BEN, &[asked("kept", 4, 0, 4)], at(3)).await.unwrap();
    assert_eq!(subject.number("select count(*) from bellwire.slot").await, 1);
}

#[tokio::test]
async fn slots_need_an_open_ledger_that_takes_writes() {
    let subject = OnServer::new(1).await;
    let asks = [asked("a", 1, 0, 1)];
    let reader = PostgresLedger::open_read_only(&super::server(), &subject.options.schema).await.unwrap();
    assert!(reader.slots(ANA, &asks, at(1)).await.is_err());
    subject.ledger.close().await;
    let refused = subject.ledger.slots(ANA, &asks, at(1)).await;
    assert!(refused.is_err_and(|error| error.is_transient()));
}
