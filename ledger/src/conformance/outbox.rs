//! The outbox: events that outcomes bring forth are there exactly when the outcomes are.

use std::sync::Arc;

use bellwire_schemas::service::Start;
use bellwire_schemas::{Epoch, FinalState, Lane, Seq};

use super::Subject;
use super::build::*;
use crate::{Arrival, BindingFlush, Error, Flush, FlushOutcome, Ledger, NewEvent, StoredEvent};

fn result(id: &str, lane: Lane) -> NewEvent {
    event(id).source("results").lane(lane)
}

fn flush_of(lane: Lane, epoch: Epoch, seconds: i64, bindings: Vec<BindingFlush>) -> Flush {
    Flush { lane, epoch, at: at(seconds), bindings }
}

async fn events(ledger: &Arc<dyn Ledger>, lane: Lane) -> Vec<StoredEvent> {
    ledger.read(lane, Seq(1), 10_000, usize::MAX).await.unwrap()
}

async fn ids(ledger: &Arc<dyn Ledger>, lane: Lane) -> Vec<String> {
    events(ledger, lane).await.into_iter().map(|e| e.event.id.clone()).collect()
}

/// They lie in their lanes like any other event, also in the lane of the flush, are counted, and are owed.
pub async fn outcomes_bring_forth_events(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let mut after = binding("c:results", Start::Earliest);
    after.source = "results".into();
    let [b, c] = declare(&ledger, vec![binding("b:orders", Start::Now), after]).await[..] else { panic!() };
    fill(&ledger, 0, 3).await;
    let epoch = own(&ledger, L1).await;
    let dead = stored(&ledger, 2).await;
    let part = share(b, 1, 3)
        .ends(1, FinalState::Delivered)
        .kills(dead, 5)
        .owes(3, 50)
        .emits(result("one", L2).key("k"))
        .emits(result("two", L1).with(|e| e.data = Some(vec![0, 0xff].into())))
        .emits(result("three", L2));
    let sent = flush_of(L1, epoch, 9, vec![part]);
    assert_eq!(ledger.flush(sent).await.unwrap(), FlushOutcome::Flushed);
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.tails().await.unwrap(), [Seq(4), Seq(2)]);
    let two = stored(&ledger, 4).await;
    assert_eq!((two.event.id.as_str(), two.source.as_str(), two.accepted_at), ("two", "results", at(9)));
    assert_eq!(two.event.data.as_deref(), Some(&[0, 0xff][..]));
    let there = events(&ledger, L2).await;
    assert_eq!(there[0].event.id, "one");
    assert_eq!((there[0].key.as_deref(), there[1].event.id.as_str()), (Some("k"), "three"));
    let arrivals = ledger.arrivals().await.unwrap();
    assert_eq!(arrivals[&"results".into()].accepted, 3);
    assert_eq!(arrivals[&"results".into()].last_at, Some(at(9)));
    let totals = &ledger.totals().await.unwrap()[&c];
    assert_eq!((totals.accepted, totals.waiting), (3, 3));
    let more = ledger.append(batch(vec![event("next"), event("there").lane(L2)]), at(10)).await.unwrap();
    assert_eq!(accepted(&more), [addr(1, 5), addr(2, 3)]);
    let epoch = own(&ledger, L2).await;
    let part = share(c, 1, 2).ends(1, FinalState::Delivered).ends(2, FinalState::Delivered);
    ledger.flush(flush_of(L2, epoch, 11, vec![part])).await.unwrap();
    assert_eq!(ledger.totals().await.unwrap()[&c].waiting, 1);
    assert_sums(&ledger).await;
}

/// The same version, or an older one, emits nothing; a part beside it that is new does.
pub async fn what_was_seen_emits_nothing(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let names = vec![binding("b:orders", Start::Now), binding("c:orders", Start::Now)];
    let [b, c] = declare(&ledger, names).await[..] else { panic!() };
    fill(&ledger, 0, 2).await;
    let epoch = own(&ledger, L1).await;
    let first = || share(b, 5, 1).ends(1, FinalState::Delivered).emits(result("b1", L2));
    for _ in 0..2 {
        ledger.flush(flush_of(L1, epoch, 3, vec![first()])).await.unwrap();
    }
    let older = share(b, 4, 1).emits(result("older", L2));
    let other = || share(c, 1, 1).ends(1, FinalState::Filtered).emits(result("c1", L2));
    ledger.flush(flush_of(L1, epoch, 4, vec![older, other()])).await.unwrap();
    ledger.flush(flush_of(L1, epoch, 4, vec![first(), other()])).await.unwrap();
    subject.reopen().await;
    let ledger = subject.ledger();
    let epoch = own(&ledger, L1).await;
    // Also under another epoch, when the memory of who wrote it is gone.
    ledger.flush(flush_of(L1, epoch, 5, vec![other(), first()])).await.unwrap();
    assert_eq!(ids(&ledger, L2).await, ["b1", "c1"]);
    let next = share(b, 6, 2).ends(2, FinalState::Delivered).emits(result("b2", L2));
    ledger.flush(flush_of(L1, epoch, 6, vec![next])).await.unwrap();
    assert_eq!(ids(&ledger, L2).await, ["b1", "c1", "b2"]);
    assert_sums(&ledger).await;
}

/// Who does not own the lane emits nothing, and neither does a flush that is refused.
pub async fn fenced_and_broken_flushes_emit_nothing(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 2).await;
    let old = own(&ledger, L1).await;
    let new = own(&ledger, L1).await;
    let part = |lane| share(b, 1, 1).ends(1, FinalState::Delivered).emits(result("r", lane));
    let answer = ledger.flush(flush_of(L1, old, 3, vec![part(L2)])).await.unwrap();
    assert_eq!(answer, FlushOutcome::Fenced);
    for lane in [Lane(0), Lane(3)] {
        let answer = ledger.flush(flush_of(L1, new, 3, vec![part(lane)])).await;
        assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
    }
    let beyond = share(b, 1, 9).emits(result("beyond", L2));
    let answer = ledger.flush(flush_of(L1, new, 3, vec![beyond])).await;
    assert!(matches!(answer, Err(Error::Corrupt(_))), "{answer:?}");
    // What a flush emits into its own lane does not count as there.
    let own_tail = share(b, 1, 3).ends(3, FinalState::Delivered).emits(result("r", L1));
    let answer = ledger.flush(flush_of(L1, new, 3, vec![own_tail])).await;
    assert!(matches!(answer, Err(Error::Corrupt(_))), "{answer:?}");
    assert_eq!(ledger.tails().await.unwrap(), [Seq(2), Seq(0)]);
    assert_eq!(ledger.checkpoint(L1, b).await.unwrap().version, 0);
    ledger.flush(flush_of(L1, new, 3, vec![part(L2)])).await.unwrap();
    assert_eq!(ids(&ledger, L2).await, ["r"]);
}

/// An identity that is remembered is not stored again, whether it came by an append or a flush, before or within.
pub async fn emitted_events_have_dedup_keys(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 3).await;
    let epoch = own(&ledger, L1).await;
    let known = ledger.append(batch(vec![result("a", L2).once("a", 60)]), at(3)).await.unwrap();
    assert_eq!(accepted(&known), [addr(2, 1)]);
    let part = share(b, 1, 1)
        .ends(1, FinalState::Delivered)
        .emits(result("a again", L1).once("a", 60))
        .emits(result("b", L1).once("b", 60))
        .emits(result("b again", L2).once("b", 60))
        .emits(result("c", L2).once("c", 60));
    ledger.flush(flush_of(L1, epoch, 4, vec![part])).await.unwrap();
    // Nothing but what is there already; the outcome is written all the same.
    let part = share(b, 2, 2).ends(2, FinalState::Delivered).emits(result("c again", L2).once("c", 60));
    ledger.flush(flush_of(L1, epoch, 5, vec![part])).await.unwrap();
    assert_eq!(ids(&ledger, L1).await[3..], ["b"]);
    assert_eq!(ids(&ledger, L2).await, ["a", "c"]);
    let later = ledger.append(batch(vec![result("b later", L2).once("b", 60)]), at(6)).await.unwrap();
    assert_eq!(later.items, [Arrival::Duplicate(addr(1, 4))]);
    // After the window it is another event.
    let part = share(b, 3, 3).ends(3, FinalState::Delivered).emits(result("a after", L2).once("a", 60));
    ledger.flush(flush_of(L1, epoch, 70, vec![part])).await.unwrap();
    assert_eq!(ids(&ledger, L2).await, ["a", "c", "a after"]);
    let told: Vec<String> = ledger.duplicates(addr(2, 2)).await.unwrap().into_iter().map(|d| d.id).collect();
    assert_eq!(told, ["c again"]);
    assert_eq!(ledger.arrivals().await.unwrap()[&"results".into()].duplicate, 4);
    assert_eq!(ledger.checkpoint(L1, b).await.unwrap().mark, Seq(3));
    assert_sums(&ledger).await;
}

/// Owners of two lanes emit into each other's and their own while others append: no gap, nothing twice, no deadlock.
pub async fn lanes_that_emit_into_each_other(subject: &mut impl Subject) {
    const EACH: u64 = 40;
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    let of = |lane: Lane| (0..EACH).map(move |n| event(&format!("e{lane}-{n}")).lane(lane));
    ledger.append(batch(of(L1).chain(of(L2)).collect()), at(0)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for (lane, other) in [(L1, L2), (L2, L1)] {
        let epoch = own(&ledger, lane).await;
        let ledger = ledger.clone();
        tasks.spawn(async move {
            for n in 1..=EACH {
                let part = share(b, n, n)
                    .ends(n, FinalState::Delivered)
                    .emits(result(&format!("x{lane}-{n}"), other).once(&format!("x{lane}-{n}"), 60))
                    .emits(result(&format!("y{lane}-{n}"), lane));
                let flush = flush_of(lane, epoch, 1, vec![part]);
                while let Err(error) = ledger.flush(flush.clone()).await {
                    assert!(error.is_transient(), "{error:?}");
                }
            }
        });
    }
    for caller in 0..2 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            for n in 0..EACH {
                let ids = [L2, L1].map(|lane| event(&format!("a{caller}-{lane}-{n}")).lane(lane));
                ledger.append(batch(ids.to_vec()), at(1)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let mut all = Vec::new();
    for lane in [L1, L2] {
        let there = events(&ledger, lane).await;
        let places: Vec<u64> = there.iter().map(|e| e.address.seq.0).collect();
        assert_eq!(places, (1..=places.len() as u64).collect::<Vec<_>>());
        all.extend(there.into_iter().map(|e| e.event.id.clone()));
    }
    let count = all.len() as u64;
    all.sort();
    all.dedup();
    assert_eq!((all.len() as u64, count), (count, EACH * (2 + 2 * 2 + 2 * 2)));
    assert_sums(&ledger).await;
}
