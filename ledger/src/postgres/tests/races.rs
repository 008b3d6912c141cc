//! Two at the same moment, one of them held in the middle: each finds what the other one does whole, or not at all.

use std::sync::Arc;

use bellwire_schemas::service::Start;
use bellwire_schemas::{FinalState, Lane, Seq};
use tokio_postgres::Client;

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::postgres::upkeep;
use crate::{BindingRecord, DeliveryKey, Ledger};

/// Waits until so many calls of a function of this ledger wait for a lock.
async fn until_waiting(subject: &OnServer, function: &str, count: i64) {
    let sql = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
         and position('{}\".{function}' in query) > 0",
        subject.options.schema
    );
    while subject.number(&sql).await < count {}
}

/// Holds whoever writes to a table, from when it has the row where there is one, until the client goes.
async fn hold(subject: &OnServer, when: &str, table: &str) -> Client {
    let sql = format!(
        "create function bellwire.held() returns trigger language plpgsql as
           'begin perform pg_advisory_xact_lock_shared(hashtext(tg_table_schema)); return new; end';
         create trigger held before {when} on bellwire.{table} for each row execute function bellwire.held()"
    );
    subject.sql(&sql).await;
    let holder = subject.connect().await;
    let lock = format!("select pg_advisory_lock(hashtext('{}'))", subject.options.schema);
    holder.batch_execute(&lock).await.unwrap();
    holder
}

/// Events of one append, in two lanes, are there together or not at all for who cancels places of both meanwhile.
#[tokio::test]
async fn a_cancel_sees_an_append_whole_or_not_at_all() {
    let subject = OnServer::new(2).await;
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    ledger.append(batch(vec![event("e1")]), at(1)).await.unwrap();
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 1, 1).owes(1, 1 << 20)).await;
    // It waits in the middle of its list.
    let schema = &subject.options.schema;
    let holder = subject.connect().await;
    holder.batch_execute(&format!("begin; select from {schema}.retry for update")).await.unwrap();
    let keys =
        [(2, 1), (1, 1), (1, 2)].map(|(lane, seq)| DeliveryKey { binding: b, address: addr(lane, seq) });
    let cancel = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.cancel(&keys, "no need", "ana", at(2)).await }
    });
    until_waiting(&subject, "cancel(", 1).await;
    let both = batch(vec![event("e2"), event("e3").lane(L2)]);
    let addresses = ledger.append(both, at(3)).await.unwrap();
    assert_eq!(addresses.items.len(), 2);
    holder.batch_execute("commit").await.unwrap();
    let ended = cancel.await.unwrap().unwrap();
    assert!(ended == 1 || ended == 3, "{ended}");
    assert_eq!(ledger.cancel(&keys, "no need", "ana", at(4)).await.unwrap(), 3 - ended);
}

/// A dedup key whose window is over is free once: of two who take it up at once, one is the duplicate of the other.
#[tokio::test]
async fn a_key_whose_window_is_over_is_taken_by_one() {
    for keys in [vec!["x"], vec!["x", "y", "fresh"]] {
        let subject = OnServer::new(2).await;
        let ledger = subject.ledger();
        for key in keys.iter().filter(|key| **key != "fresh") {
            ledger.append(batch(vec![event("old").once(key, 5)]), at(1)).await.unwrap();
        }
        let holder = hold(&subject, "update", "dedup").await;
        let another: Arc<dyn Ledger> = Arc::new(subject.another().await);
        let again = |lane: Lane, keys: &mut dyn Iterator<Item = &&str>| {
            batch(keys.map(|key| event(&format!("{lane}-{key}")).once(key, 5).lane(lane)).collect())
        };
        let appends = [again(L1, &mut keys.iter()), again(L2, &mut keys.iter().rev())];
        let appending: Vec<_> = appends
            .into_iter()
            .zip([ledger, another])
            .map(|(append, ledger)| tokio::spawn(async move { ledger.append(append, at(60)).await }))
            .collect();
        until_waiting(&subject, "append_", 2).await;
        drop(holder);
        let mut stored = Vec::new();
        for appending in appending {
            stored.push(accepted(&appending.await.unwrap().unwrap()).len());
        }
        stored.sort_unstable();
        assert_eq!(stored, [0, keys.len()]);
        assert_eq!(subject.number("select count(*) from bellwire.dedup").await, keys.len() as i64);
    }
}

/// Where new bindings begin, and new revisions: an append that commits meanwhile lies behind all of it.
#[tokio::test]
async fn what_is_declared_begins_at_one_moment() {
    let subject = OnServer::new(2).await;
    let ledger = subject.ledger();
    let all = |function: &str| {
        let named = |name: &str| BindingRecord { function: function.into(), ..binding(name, Start::Now) };
        vec![named("a:orders"), named("b:orders")]
    };
    let old = declare(&ledger, all("f")[..1].to_vec()).await[0];
    let both = || batch(vec![event("e1"), event("e2").lane(L2)]);
    ledger.append(both(), at(1)).await.unwrap();
    let holder = hold(&subject, "insert", "binding_lane").await;
    let declaring = tokio::spawn({
        let (ledger, new) = (ledger.clone(), all("g"));
        async move { ledger.declare_bindings(new, at(2)).await }
    });
    until_waiting(&subject, "declare_bindings(", 1).await;
    ledger.append(both(), at(3)).await.unwrap();
    drop(holder);
    let new = declaring.await.unwrap().unwrap()[1].id;
    for lane in [L1, L2] {
        assert_eq!(ledger.checkpoint(lane, new).await.unwrap().mark, Seq(1), "lane {lane}");
    }
    for binding in [old, new] {
        let revisions = ledger.revisions(binding).await.unwrap();
        let since = revisions.last().unwrap().since.clone();
        assert_eq!(since, [(L1, Seq(1)), (L2, Seq(1))].into(), "binding {binding}");
    }
}

/// Who asks for the accounts while a generation goes is told what they come to, from before or from after.
#[tokio::test]
async fn accounts_are_whole_while_a_generation_goes() {
    let subject = OnServer::new(2).await;
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    for n in 0..3 {
        ledger.append(batch(vec![event(&format!("e{n}")).once("x", 100)]), at(n)).await.unwrap();
    }
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 1, 1).ends(1, FinalState::Delivered)).await;
    upkeep::rotate(&subject.ledger.shared).await.unwrap();
    while upkeep::tally(&subject.ledger.shared).await.unwrap() {}
    let before = (ledger.totals().await.unwrap(), ledger.arrivals().await.unwrap());
    assert_eq!(before.1[&orders()].duplicate, 2);
    for round in 0..3 {
        let holder = subject.connect().await;
        let drop = format!("begin; select {}.drop_generation(1, 'infinity')", subject.options.schema);
        holder.batch_execute(&drop).await.unwrap();
        let asked = tokio::spawn({
            let ledger = ledger.clone();
            async move {
                let of_binding = (ledger.checkpoint(L1, b), ledger.log(addr(1, 1), Some(b)));
                tokio::join!(ledger.totals(), ledger.arrivals(), of_binding.0, of_binding.1)
            }
        });
        until_waiting(&subject, "accounts(", 1).await;
        until_waiting(&subject, "arrivals(", 1).await;
        holder.batch_execute(if round < 2 { "rollback" } else { "commit" }).await.unwrap();
        let (totals, arrivals, checkpoint, log) = asked.await.unwrap();
        assert_eq!((totals.unwrap(), arrivals.unwrap()), before, "round {round}");
        assert_eq!(checkpoint.unwrap().mark, Seq(1));
        log.unwrap();
    }
    assert_eq!(subject.number("select min(gen)::bigint from bellwire.generation").await, 2);
}
