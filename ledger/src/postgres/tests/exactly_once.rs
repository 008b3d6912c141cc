//! Connections that break between the commit and its answer: whatever was sent happens once, and is answered right.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwire_schemas::Lane;
use bellwire_test_servers::proxy::{Mode, Proxy, READY_FOR_QUERY};
use bytes::Bytes;

use super::stored::Stored;
use super::{OnServer, server};
use crate::conformance::build::*;
use crate::postgres::url::Target;
use crate::{
    Append, Appended, Arrival, Error, Ledger, PositionAdvance, PostgresLedger, PostgresOptions, Quarantine,
};

/// A ledger behind a proxy.
async fn behind() -> (OnServer, Proxy, PostgresLedger) {
    let subject = OnServer::with(PostgresOptions { lanes: 2, ..PostgresOptions::default() }).await;
    let target = Target::parse(&server()).unwrap();
    let port = target.config.get_ports().first().copied().unwrap_or(5432);
    let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await.unwrap();
    let ledger = PostgresLedger::open(&proxy.url(&server()), subject.options.clone()).await.unwrap();
    (subject, proxy, ledger)
}

fn cut() -> Mode {
    Mode::CutAnswer { request: b".append_".to_vec(), answer: READY_FOR_QUERY.to_vec() }
}

/// The appends of one round: every kind there is.
fn round(n: u64) -> Vec<Append> {
    let name = |what: &str| format!("{what}-{n}");
    let mut moving = batch(vec![event(&name("moving")), event(&name("moving too")).lane(L2)]);
    moving.positions = vec![PositionAdvance { shard: "s".into(), expected: n, value: n.to_string() }];
    let mut bare = batch(vec![]);
    bare.positions = vec![PositionAdvance { shard: "t".into(), expected: n, value: n.to_string() }];
    bare.quarantined = vec![Quarantine {
        source: "orders".into(),
        reason: name("bad"),
        bytes: Bytes::from_static(b"\0"),
        meta: "{}".into(),
    }];
    vec![
        batch(vec![event(&name("plain"))]),
        batch(vec![
            event(&name("a")).once(&name("a"), 60),
            event(&name("a")).once(&name("a"), 60),
            event(&name("b")).lane(L2).once(&name("b"), 60),
            event(&name("c")),
        ]),
        batch(vec![event("first").once("first", 6_000), event(&name("d")).once(&name("d"), 60)]),
        batch(vec![event("first").once("first", 6_000)]),
        moving,
        bare,
    ]
}

fn check(stored: &Stored, told: &[(Append, Appended)]) {
    for (append, answer) in told {
        assert_eq!(append.events.len(), answer.items.len());
        for (new, item) in append.events.iter().zip(&answer.items) {
            stored.assert_told(&new.event.id, *item);
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_comes_again() {
    let (subject, proxy, ledger) = behind().await;
    let first = batch(vec![event("first").once("first", 6_000)]);
    ledger.append(first, at(0)).await.unwrap();
    let mut told = Vec::new();
    for n in 0..12 {
        for append in round(n) {
            proxy.set(cut()).await;
            let answer = ledger.append(append.clone(), at(n as i64)).await.unwrap();
            told.push((append, answer));
        }
    }
    // Statements of the ledger's upkeep that name the same tables may take a cut now and then.
    assert!(proxy.cuts() >= told.len() * 3 / 4, "{} of {} answers were cut", proxy.cuts(), told.len());
    proxy.set(Mode::Pass).await;
    // And once more by the caller itself, much later.
    for (append, answer) in &told {
        assert_eq!(&ledger.append(append.clone(), at(5_000)).await.unwrap(), answer);
    }
    let stored = Stored::read(&subject.connect().await, &subject.options.schema).await;
    stored.assert_once();
    check(&stored, &told);
    assert_eq!(stored.ids.len(), 1 + 12 * (1 + 3 + 1 + 2));
    assert_eq!(ledger.position("s").await.unwrap().unwrap().version, 12);
    assert_eq!(ledger.position("t").await.unwrap().unwrap().version, 12);
    assert_eq!(subject.number("select count(*) from bellwire.quarantine").await, 12);
    assert_eq!(subject.number("select count(*) from bellwire.duplicate").await, 12 * 3);
    ledger.close().await;
}

#[tokio::test]
async fn many_callers_behind_a_connection_that_keeps_breaking() {
    let (subject, proxy, ledger) = behind().await;
    let answered = Arc::new(AtomicU64::new(0));
    let callers = (0..8).map(|caller| {
        let (ledger, answered) = (ledger.clone(), answered.clone());
        tokio::spawn(async move {
            let mut told = Vec::new();
            for n in 0..12 {
                let lane = Lane((caller + n) % 2 + 1);
                let ids: Vec<_> = (0..=n % 3).map(|i| format!("{caller}-{n}-{i}")).collect();
                let events = ids.iter().map(|id| event(id).lane(lane));
                let append = match caller % 2 {
                    0 => batch(events.collect()),
                    _ => batch(
                        events
                            .map(|e| {
                                let id = e.event.id.clone();
                                e.once(&id, 60)
                            })
                            .collect(),
                    ),
                };
                let answer = loop {
                    match ledger.append(append.clone(), at(i64::from(n))).await {
                        Ok(answer) => break answer,
                        // On a busy machine its connection can break for longer than the ledger has patience.
                        Err(error) => assert!(error.is_transient(), "{error:?}"),
                    }
                };
                answered.fetch_add(1, Ordering::Relaxed);
                told.push((append, answer));
            }
            told
        })
    });
    let callers: Vec<_> = callers.collect();
    let done = || callers.iter().all(tokio::task::JoinHandle::is_finished);
    while !done() {
        proxy.set(cut()).await;
        let (cuts, before) = (proxy.cuts(), answered.load(Ordering::Relaxed));
        // One cut, one answer, and so on: somebody gets on all the time.
        while (proxy.cuts() == cuts || answered.load(Ordering::Relaxed) == before) && !done() {
            tokio::task::yield_now().await;
        }
    }
    proxy.set(Mode::Pass).await;
    let mut told = Vec::new();
    for caller in callers {
        told.extend(caller.await.unwrap());
    }
    let stored = Stored::read(&subject.connect().await, &subject.options.schema).await;
    stored.assert_once();
    check(&stored, &told);
    assert_eq!(stored.ids.len(), told.iter().map(|(append, _)| append.events.len()).sum::<usize>());
    assert!(proxy.cuts() > 10, "{} cuts", proxy.cuts());
}

#[tokio::test]
async fn a_rotation_in_between_changes_nothing() {
    let (subject, proxy, ledger) = behind().await;
    let mut sent = Vec::new();
    for n in 0..4 {
        for append in round(n) {
            // The caller gives up while the outcome is unknown, and comes again when another generation is open.
            proxy.set(cut()).await;
            let cuts = proxy.cuts();
            let (lost, again) = (ledger.clone(), append.clone());
            let call = tokio::spawn(async move { lost.append(again, at(n as i64)).await });
            while proxy.cuts() == cuts {
                tokio::task::yield_now().await;
            }
            call.abort();
            sent.push(append);
        }
        let rotated = format!("select bellwire.create_generation({0} + 1), bellwire.rotate({0})", n + 1);
        subject.sql(&rotated).await;
    }
    let mut answers = Vec::new();
    for append in sent {
        answers.push((append.clone(), ledger.append(append, at(5_000)).await.unwrap()));
    }
    let stored = Stored::read(&subject.connect().await, &subject.options.schema).await;
    check(&stored, &answers);
    assert_eq!(ledger.position("s").await.unwrap().unwrap().version, 4);
    let twice = answers.iter().filter(|(append, _)| append.events.iter().all(|e| e.dedup.is_none()));
    for (append, _) in twice {
        for new in &append.events {
            let count = stored.ids.values().filter(|id| **id == new.event.id).count();
            assert_eq!(count, 1, "{} is stored {count} times", new.event.id);
        }
    }
}

#[tokio::test]
async fn while_the_server_is_away_callers_wait_a_while_and_are_told() {
    let (_subject, proxy, ledger) = behind().await;
    ledger.append(batch(vec![event("before")]), at(0)).await.unwrap();
    proxy.set(Mode::Refuse).await;
    proxy.reset_all().await;
    let append = batch(vec![event("a")]);
    let call = tokio::spawn({
        let (ledger, append) = (ledger.clone(), append.clone());
        async move { ledger.append(append, at(1)).await }
    });
    let answer = tokio::time::timeout(Duration::from_secs(20), call).await.unwrap().unwrap();
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    let patient = tokio::spawn({
        let (ledger, append) = (ledger.clone(), append.clone());
        async move { ledger.append(append, at(2)).await }
    });
    proxy.set(Mode::Pass).await;
    assert_eq!(patient.await.unwrap().unwrap().items, [Arrival::Accepted(addr(1, 2))]);
    assert_eq!(ledger.append(append, at(3)).await.unwrap().items, [Arrival::Accepted(addr(1, 2))]);
}

#[tokio::test]
async fn a_database_that_went_back_is_noticed_and_goes_on() {
    let subject = OnServer::with(PostgresOptions { lanes: 1, ..PostgresOptions::default() }).await;
    let ledger: Arc<dyn Ledger> = Arc::new(subject.ledger.clone());
    fill(&ledger, 0, 5).await;
    subject.sql("delete from bellwire.event_batch where first_seq > 3").await;
    assert_eq!(fill(&ledger, 5, 2).await, [addr(1, 4), addr(1, 5)]);
}
