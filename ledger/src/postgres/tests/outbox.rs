//! Flushes that emit, when connections break, generations turn and dedup buckets open in between.

use std::sync::Arc;

use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, Epoch, FinalState};
use bellwire_test_servers::proxy::{Mode, Proxy, READY_FOR_QUERY};

use super::stored::Stored;
use super::{OnServer, server};
use crate::conformance::build::*;
use crate::postgres::upkeep::rotate;
use crate::postgres::url::Target;
use crate::{Flush, FlushOutcome, Ledger, PostgresLedger, PostgresOptions};

const EVENTS: u64 = 24;

async fn with_events(ledger: &PostgresLedger) -> (Arc<dyn Ledger>, BindingId, Epoch) {
    let handle: Arc<dyn Ledger> = Arc::new(ledger.clone());
    let b = declare(&handle, vec![binding("b:orders", Start::Now)]).await[0];
    handle.append(batch((0..EVENTS).map(|n| event(&format!("e{n}"))).collect()), at(0)).await.unwrap();
    let epoch = own(&handle, L1).await;
    (handle, b, epoch)
}

/// The nth flush ends the nth place and sends two events, one of them with a dedup key.
fn sends(b: BindingId, epoch: Epoch, n: u64) -> Flush {
    let key = format!("once-{n}");
    let part = share(b, n, n)
        .ends(n, FinalState::Delivered)
        .emits(event(&format!("r{n}")).lane(L2))
        .emits(event(&key).once(&key, 600));
    Flush { lane: L1, epoch, at: at(1), bindings: vec![part] }
}

/// As the dispatcher does: until there is an answer.
async fn insist(ledger: &dyn Ledger, flush: &Flush) {
    loop {
        match ledger.flush(flush.clone()).await {
            Ok(outcome) => return assert_eq!(outcome, FlushOutcome::Flushed),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn assert_each_once(subject: &OnServer, ledger: &Arc<dyn Ledger>) {
    let stored = Stored::read(&subject.connect().await, &subject.options.schema).await;
    stored.assert_once();
    for n in 1..=EVENTS {
        for id in [format!("r{n}"), format!("once-{n}")] {
            let count = stored.ids.values().filter(|there| **there == id).count();
            assert_eq!(count, 1, "{id} is stored {count} times");
        }
    }
    assert_eq!(stored.ids.len() as u64, 3 * EVENTS);
    assert_sums(ledger).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_off_emits_once() {
    let subject = OnServer::with(PostgresOptions { lanes: 2, ..PostgresOptions::default() }).await;
    let target = Target::parse(&server()).unwrap();
    let port = target.config.get_ports().first().copied().unwrap_or(5432);
    let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await.unwrap();
    let ledger = PostgresLedger::open(&proxy.url(&server()), subject.options.clone()).await.unwrap();
    let (handle, b, epoch) = with_events(&ledger).await;
    for n in 1..=EVENTS {
        proxy.set(Mode::CutAnswer { request: b".outbox_".to_vec(), answer: READY_FOR_QUERY.to_vec() }).await;
        insist(handle.as_ref(), &sends(b, epoch, n)).await;
    }
    assert!(proxy.cuts() >= EVENTS as usize, "{} of {EVENTS} answers were cut", proxy.cuts());
    proxy.set(Mode::Pass).await;
    assert_each_once(&subject, &handle).await;
}

#[tokio::test]
async fn generations_and_buckets_that_turn_change_nothing() {
    let subject = OnServer::with(PostgresOptions { lanes: 2, ..PostgresOptions::default() }).await;
    // Another handle turns them, so that this one is told by refusals only.
    let (handle, b, epoch) = with_events(&subject.ledger).await;
    let another = subject.another().await;
    for n in 1..=EVENTS {
        if n % 5 == 0 {
            rotate(&another.shared).await.unwrap();
        }
        if n % 7 == 0 {
            subject
                .sql(
                    "select bellwire.create_bucket(m + 1) from (select max(bucket) m from bellwire.dedup_bucket) x;
                     insert into bellwire.dedup_bucket (bucket) select max(bucket) + 1 from bellwire.dedup_bucket",
                )
                .await;
        }
        handle.flush(sends(b, epoch, n)).await.unwrap();
        assert_eq!(handle.flush(sends(b, epoch, n)).await.unwrap(), FlushOutcome::Flushed);
    }
    assert_each_once(&subject, &handle).await;
}

#[tokio::test]
async fn the_functions_of_a_generation_go_with_it() {
    let subject = OnServer::with(PostgresOptions { lanes: 1, ..PostgresOptions::default() }).await;
    let handle: Arc<dyn Ledger> = Arc::new(subject.ledger.clone());
    fill(&handle, 0, 2).await;
    rotate(&subject.ledger.shared).await.unwrap();
    assert_eq!(handle.retain(at(1 << 20), at(1 << 20)).await.unwrap().events, 2);
    let left = format!(
        "select count(*) from pg_proc where pronamespace = '{}'::regnamespace
           and proname in ('append_1', 'flush_1', 'outbox_1')",
        subject.options.schema
    );
    assert_eq!(subject.number(&left).await, 0);
}
