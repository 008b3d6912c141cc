//! Debts: their keys, all of them in pages, and those that no time makes due.

use bellwire_schemas::selector::Selector;
use bellwire_schemas::service::Start;
use bellwire_schemas::{FinalState, Seq, Timestamp};

use super::Subject;
use super::build::*;
use crate::{BindingTotals, DeliveryQuery, Owed, OwedKind, OwedReason};

/// A debt of this reason, of an event with this key.
fn waits(seq: u64, next: i64, reason: OwedReason, key: &str) -> Owed {
    let key = (!key.is_empty()).then(|| key.into());
    Owed { attempts: 0, error: None, reason, key, ..debt(seq, next) }
}

/// A debt comes back with its event's key, whoever wrote it.
pub async fn debts_have_keys(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    let odd = "k \u{0} \u{1f30a}";
    let events = [odd, "k2", "", "k2", "k3"].map(|key| match key {
        "" => event("plain"),
        key => event(key).key(key),
    });
    ledger.append(batch(events.into()), at(1)).await.unwrap();
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 1, 4).kills(stored(&ledger, 4).await, 9);
    part.owed = vec![
        waits(1, 5, OwedReason::Delayed, odd),
        waits(2, 5, OwedReason::Retry, "k2"),
        waits(3, 5, OwedReason::Retry, ""),
    ];
    flush(&ledger, epoch, part.clone()).await;
    assert_eq!(ledger.redrive(&[delivery(b, 4)], at(7)).await.unwrap(), 1);
    subject.reopen().await;
    let ledger = subject.ledger();
    for owed in &part.owed {
        assert_eq!(ledger.owed(delivery(b, owed.seq.0)).await.unwrap().as_ref(), Some(owed));
    }
    let keys = |all: &[Owed]| all.iter().map(|o| o.key.clone()).collect::<Vec<_>>();
    let expected = [Some(odd), Some("k2"), None, Some("k2")].map(|key| key.map(str::to_owned));
    assert_eq!(keys(&ledger.due(L1, b, at(9), 9).await.unwrap().due), expected);
    assert_eq!(keys(&ledger.debts(L1, b, Seq(0), 9).await.unwrap()), expected);
    // A debt that goes on keeps what it is told; a replay's has the event's key, whatever the caller knows of it.
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 2, 5).settles(2).ends(2, FinalState::Delivered).ends(5, FinalState::Delivered);
    part.owed = vec![waits(1, 6, OwedReason::Debounced, odd)];
    flush(&ledger, epoch, part).await;
    let again = |seq, key| (addr(1, seq), waits(seq, 8, OwedReason::Replay("r".into()), key));
    let owed = [again(2, ""), again(5, "other")];
    assert_eq!(ledger.save_replay(&replay("r", b, 1), &owed).await.unwrap(), 2);
    let expected = [Some(odd), Some("k2"), None, Some("k2"), Some("k3")].map(|key| key.map(str::to_owned));
    assert_eq!(keys(&ledger.debts(L1, b, Seq(0), 9).await.unwrap()), expected);
    assert_sums(&ledger).await;
}

/// All debts of a binding in a lane come in the order of places, page by page, of every reason.
pub async fn debts_in_pages(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let ids = declare(&ledger, vec![binding("b:orders", Start::Now), binding("c:orders", Start::Now)]).await;
    let b = ids[0];
    fill(&ledger, 0, 9).await;
    ledger.append(batch(vec![event("x").lane(L2)]), at(9)).await.unwrap();
    let epoch = own(&ledger, L1).await;
    let far = Timestamp::from_micros(i64::MAX);
    let mut part = share(b, 1, 9);
    for seq in [4, 5, 7, 8] {
        part = part.ends(seq, FinalState::Delivered);
    }
    part.owed = vec![
        waits(9, 1, OwedReason::Delayed, "k"),
        waits(2, 30, OwedReason::Parked, "k"),
        Owed { next_at: far, ..waits(1, 0, OwedReason::Blocked, "k") },
        waits(6, 20, OwedReason::Debounced, "l"),
        debt(3, 50),
    ];
    let mut all = part.owed.clone();
    all.sort_by_key(|o| o.seq);
    flush(&ledger, epoch, part).await;
    flush(&ledger, epoch, share(ids[1], 1, 0).done(&[5]).owes(5, 1)).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.debts(L1, b, Seq(0), 100).await.unwrap(), all);
    assert_eq!(ledger.debts(L1, b, Seq(0), 2).await.unwrap(), all[..2]);
    assert_eq!(ledger.debts(L1, b, Seq(2), 2).await.unwrap(), all[2..4]);
    assert_eq!(ledger.debts(L1, b, Seq(6), 2).await.unwrap(), all[4..]);
    assert_eq!(ledger.debts(L1, b, Seq(9), 2).await.unwrap(), []);
    assert_eq!(ledger.debts(L1, b, Seq(0), 0).await.unwrap(), []);
    assert_eq!(ledger.debts(L1, ids[1], Seq(0), 9).await.unwrap(), [debt(5, 1)]);
    assert_eq!(ledger.debts(L2, b, Seq(0), 9).await.unwrap(), []);
    let parked = [(L1, b), (L1, ids[1]), (L2, b)].map(|(lane, id)| ledger.has_parked(lane, id));
    assert_eq!(futures::future::try_join_all(parked).await.unwrap(), [true, false, false]);
    assert_sums(&ledger).await;
}

/// Parked and blocked debts are never due by time, and no moment to look again is theirs; all others are.
pub async fn parked_debts_are_never_due(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 7).await;
    let epoch = own(&ledger, L1).await;
    let reasons = [
        OwedReason::Blocked,
        OwedReason::Parked,
        OwedReason::Delayed,
        OwedReason::Parked,
        OwedReason::Debounced,
        OwedReason::Retry,
    ];
    let mut part = share(b, 1, 6);
    part.owed = (1..).zip(reasons).map(|(seq, reason)| waits(seq, seq as i64, reason, "k")).collect();
    flush(&ledger, epoch, part).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    let seqs = |due: &crate::DueRetries| due.due.iter().map(|o| o.seq.0).collect::<Vec<_>>();
    let due = ledger.due(L1, b, at(100), 9).await.unwrap();
    assert_eq!((seqs(&due), due.next_at), (vec![3, 5, 6], None));
    let due = ledger.due(L1, b, at(2), 9).await.unwrap();
    assert_eq!((seqs(&due), due.next_at), (vec![], Some(at(3))));
    let due = ledger.due(L1, b, at(100), 1).await.unwrap();
    assert_eq!((seqs(&due), due.next_at), (vec![3], Some(at(5))));
    // The one before has ended: the next of its key is tried and fails.
    let epoch = own(&ledger, L1).await;
    let part = share(b, 2, 6).settles(1).ends(1, FinalState::Delivered).owes(2, 40);
    flush(&ledger, epoch, part).await;
    let due = ledger.due(L1, b, at(100), 9).await.unwrap();
    assert_eq!((seqs(&due), due.next_at), (vec![3, 5, 6, 2], None));
    assert_sums(&ledger).await;
}

/// Debts that were not tried wait, as what lies behind the cursor does, and those of a later time are old from then on only.
pub async fn debts_not_tried_are_no_retries(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 3).await;
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 1, 3);
    part.owed = vec![
        waits(1, 500, OwedReason::Delayed, ""),
        waits(2, 400, OwedReason::Debounced, "k"),
        waits(3, 600, OwedReason::Delayed, "k"),
    ];
    flush(&ledger, epoch, part).await;
    let delayed = BindingTotals {
        waiting: 3,
        delayed: 3,
        oldest_owed: Some(at(400)),
        accepted: 3,
        ..BindingTotals::default()
    };
    assert_eq!(ledger.totals().await.unwrap()[&b], delayed);
    fill(&ledger, 3, 4).await;
    let mut part = share(b, 2, 6);
    part.owed = vec![
        waits(4, 5, OwedReason::Parked, "k"),
        Owed { attempts: 3, ..waits(5, 5, OwedReason::Blocked, "k") },
        debt(6, 50),
    ];
    flush(&ledger, epoch, part).await;
    let mixed = BindingTotals {
        waiting: 5,
        retrying: 2,
        parked: 1,
        oldest_owed: Some(at(3)),
        accepted: 7,
        ..delayed
    };
    assert_eq!(ledger.totals().await.unwrap()[&b], mixed);
    // The time of one has come, it was tried and failed.
    let mut part = share(b, 3, 6);
    part.owed = vec![Owed { attempts: 1, ..waits(1, 900, OwedReason::Delayed, "") }];
    flush(&ledger, epoch, part).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    let tried = BindingTotals { waiting: 4, retrying: 3, delayed: 2, oldest_owed: Some(at(0)), ..mixed };
    assert_eq!(ledger.totals().await.unwrap()[&b], tried);
    assert_sums(&ledger).await;
}

/// Owed deliveries are found by every condition, those of the newest event first, in pages that lose and repeat nothing.
pub async fn owed_deliveries_by_selector(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let ids = declare(&ledger, vec![binding("b:orders", Start::Now), binding("c:orders", Start::Now)]).await;
    let events = vec![event("a").key("k"), event("b").with(|e| e.kind = "x".into()), event("c").key("k")];
    ledger.append(batch(events), at(1)).await.unwrap();
    ledger.append(batch(vec![event("d"), event("e").lane(L2)]), at(2)).await.unwrap();
    let epoch = own(&ledger, L1).await;
    for id in &ids {
        let mut part = share(*id, 1, 3).owes(2, 9);
        part.owed.push(waits(1, 5, OwedReason::Blocked, "k"));
        part.owed.push(waits(3, 6, OwedReason::Parked, "k"));
        flush(&ledger, epoch, part).await;
    }
    let waiting = [delivery(ids[0], 4), crate::DeliveryKey { binding: ids[0], address: addr(2, 1) }];
    assert_eq!(ledger.cancel(&waiting, "oops", "ana", at(7)).await.unwrap(), 2);
    subject.reopen().await;
    let ledger = subject.ledger();
    let all = Selector::default;
    let print = crate::flush::fingerprint(&failure());
    let cases = [
        (all(), None, vec![], 8),
        (all(), Some(ids[0]), vec![], 5),
        (all(), None, vec![OwedKind::Parked, OwedKind::Blocked], 4),
        (all(), None, vec![OwedKind::Cancelled], 2),
        (all(), None, vec![OwedKind::Replay], 0),
        (Selector { binding: Some("c:orders".into()), ..all() }, None, vec![], 3),
        (Selector { binding: Some("z:orders".into()), ..all() }, None, vec![], 0),
        (Selector { addresses: vec![addr(1, 2), addr(2, 1), addr(1, 99)], ..all() }, None, vec![], 3),
        (Selector { ids: vec!["a".into(), "d".into()], ..all() }, None, vec![], 3),
        (Selector { key: Some("k".into()), ..all() }, None, vec![], 4),
        (Selector { key: Some("k".into()), ..all() }, Some(ids[1]), vec![OwedKind::Parked], 1),
        (Selector { kind: Some("x".into()), ..all() }, None, vec![], 2),
        (Selector { source: Some(orders()), ..all() }, None, vec![], 8),
        (Selector { source: Some("prices".into()), ..all() }, None, vec![], 0),
        (Selector { error: Some(print), ..all() }, None, vec![], 2),
        (Selector { since: Some(at(2)), until: Some(at(3)), ..all() }, None, vec![], 2),
    ];
    for (selector, binding, reasons, expected) in cases {
        let query = DeliveryQuery { selector, binding, reasons, after: None, limit: 100 };
        let page = ledger.deliveries(&query).await.unwrap();
        assert_eq!((page.items.len(), page.next), (expected, None), "{query:?}");
        assert!(page.items.is_sorted_by_key(|d| std::cmp::Reverse((d.accepted_at, d.address, d.binding))));
    }
    let query = DeliveryQuery { limit: 100, ..DeliveryQuery::default() };
    let whole = ledger.deliveries(&query).await.unwrap().items;
    let head = crate::EventHead { id: "e".into(), kind: "order.made".into(), source: orders() };
    assert_eq!((whole[0].address, whole[0].event.as_ref()), (addr(2, 1), Some(&head)));
    assert_eq!(whole[3].owed, waits(3, 6, OwedReason::Parked, "k"));
    for selector in [all(), Selector { source: Some(orders()), ..all() }] {
        let mut query = DeliveryQuery { selector, limit: 3, ..DeliveryQuery::default() };
        let mut seen = Vec::new();
        loop {
            let page = ledger.deliveries(&query).await.unwrap();
            assert!(page.items.len() <= 4, "those of one address stay together");
            seen.extend(page.items);
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, whole);
    }
    let none = DeliveryQuery::default();
    assert!(ledger.deliveries(&none).await.unwrap().items.is_empty());
}
