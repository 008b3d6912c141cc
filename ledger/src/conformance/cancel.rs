//! What operators make of debts that wait for something else than time, and of deliveries that no cursor has come to.

use std::sync::Arc;

use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, Epoch, FinalState, Seq};

use super::Subject;
use super::build::*;
use crate::{BindingTotals, Flush, FlushOutcome, Ledger, LogOutcome, Owed, OwedReason};

/// A debt of an event that was not tried.
fn waits(seq: u64, reason: OwedReason) -> Owed {
    Owed { attempts: 0, error: None, reason, key: Some("k".into()), ..debt(seq, 1_000) }
}

/// A ledger with one binding and so many events of key `k`, and its lane taken.
async fn begin(ledger: &Arc<dyn Ledger>, count: u64) -> (BindingId, Epoch) {
    let b = declare(ledger, vec![binding("b:orders", Start::Now)]).await[0];
    for n in 0..count {
        ledger.append(batch(vec![event(&format!("e{n}")).key("k")]), at(n as i64)).await.unwrap();
    }
    (b, own(ledger, L1).await)
}

async fn totals(ledger: &Arc<dyn Ledger>, b: BindingId) -> BindingTotals {
    assert_sums(ledger).await;
    ledger.totals().await.unwrap().remove(&b).unwrap()
}

/// The last final line of an event.
async fn ending(ledger: &Arc<dyn Ledger>, seq: u64) -> (FinalState, Option<String>) {
    let log = ledger.log(addr(1, seq), None).await.unwrap();
    let finals = log.into_iter().rev().filter_map(|(_, line)| match line.outcome {
        LogOutcome::Final(state) => Some((state, line.error.map(|e| e.headline()))),
        LogOutcome::Failed => None,
    });
    finals.last().unwrap()
}

/// A redrive takes a blocked debt back to the retries, in its place and with its key; others that wait stay as they are.
pub async fn blocked_debts_are_redriven(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let (b, epoch) = begin(&ledger, 3).await;
    let mut part = share(b, 1, 3);
    part.owed = vec![
        Owed { key: Some("k".into()), reason: OwedReason::Blocked, attempts: 9, ..debt(1, 1 << 30) },
        waits(2, OwedReason::Parked),
        waits(3, OwedReason::Delayed),
    ];
    flush(&ledger, epoch, part).await;
    let keys = [1, 1, 2, 3, 4].map(|seq| delivery(b, seq));
    assert_eq!(ledger.redrive(&keys, at(60)).await.unwrap(), 1);
    subject.reopen().await;
    let ledger = subject.ledger();
    let again = Owed { attempts: 0, since: at(60), key: Some("k".into()), ..debt(1, 60) };
    let all = ledger.debts(L1, b, Seq(0), 9).await.unwrap();
    assert_eq!(all, [again.clone(), waits(2, OwedReason::Parked), waits(3, OwedReason::Delayed)]);
    assert_eq!(ledger.due(L1, b, at(60), 9).await.unwrap().due, [again]);
    let seen = totals(&ledger, b).await;
    assert_eq!((seen.waiting, seen.retrying), (2, 1));
}

/// Debts of every reason are discarded, or cancelled; what has ended is no longer there to be cancelled.
pub async fn every_debt_is_given_up(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let (b, epoch) = begin(&ledger, 10).await;
    let reasons = [OwedReason::Parked, OwedReason::Blocked, OwedReason::Delayed, OwedReason::Debounced];
    let mut part = share(b, 1, 10).ends(9, FinalState::Delivered).kills(stored(&ledger, 10).await, 9);
    part.owed = (1..).zip(reasons.iter().chain(&reasons)).map(|(n, r)| waits(n, r.clone())).collect();
    flush(&ledger, epoch, part).await;
    let ended = totals(&ledger, b).await.ended;
    assert_eq!(ended, [(FinalState::Delivered, 1), (FinalState::Dead, 1)].into());
    let keys: Vec<_> = (1..=4).chain([1]).map(|seq| delivery(b, seq)).collect();
    assert_eq!(ledger.discard(&keys, "spam", "ana", at(70)).await.unwrap(), 4);
    let keys: Vec<_> = (1..=11).map(|seq| delivery(b, seq)).collect();
    assert_eq!(ledger.cancel(&keys, "no need", "ben", at(71)).await.unwrap(), 4);
    assert_eq!(ledger.cancel(&keys, "no need", "ben", at(72)).await.unwrap(), 0, "a repeat");
    subject.reopen().await;
    let ledger = subject.ledger();
    for seq in 1..=8 {
        let why = if seq <= 4 {
            "Operator.Discarded: spam (by ana)"
        } else {
            "Operator.Cancelled: no need (by ben)"
        };
        assert_eq!(ending(&ledger, seq).await, (FinalState::Discarded, Some(why.into())), "{seq}");
        assert_eq!(ledger.owed(delivery(b, seq)).await.unwrap(), None);
    }
    let totals = totals(&ledger, b).await;
    let ended = [(FinalState::Delivered, 1), (FinalState::Dead, 1), (FinalState::Discarded, 8)];
    assert_eq!((totals.ended, totals.retrying, totals.dead_letters), (ended.into(), 0, 1));
    let nobody = [delivery(BindingId(77), 1), crate::DeliveryKey { binding: b, address: addr(9, 1) }];
    assert_eq!(ledger.cancel(&nobody, "", "ben", at(73)).await.unwrap(), 0);
}

/// What waits beyond the cursor is cancelled by a request that the owner of the lane hears of; until the cursor passes
/// it, it waits.
pub async fn requests_wait_for_the_cursor(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let (b, epoch) = begin(&ledger, 5).await;
    ledger.append(batch(vec![event("p").source("prices")]), at(9)).await.unwrap();
    flush(&ledger, epoch, share(b, 1, 1).ends(1, FinalState::Delivered)).await;
    let before = totals(&ledger, b).await;
    let keys: Vec<_> = (1..=7).map(|seq| delivery(b, seq)).collect();
    assert_eq!(
        ledger.cancel(&keys, "oops", "ana", at(60)).await.unwrap(),
        4,
        "2 to 5: its source's, and waiting"
    );
    assert_eq!(ledger.cancel(&keys, "twice", "ben", at(61)).await.unwrap(), 0);
    assert_eq!(ledger.discard(&keys, "twice", "ben", at(61)).await.unwrap(), 0, "no debts");
    assert_eq!(ledger.redrive(&keys, at(61)).await.unwrap(), 0);
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(totals(&ledger, b).await, before);
    let asked = ledger.due(L1, b, at(60), 9).await.unwrap();
    assert_eq!((asked.due.len(), asked.next_at), (4, None));
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), asked.due);
    let first = &asked.due[0];
    assert_eq!(ledger.owed(delivery(b, 2)).await.unwrap().as_ref(), Some(first));
    assert_eq!(first.error.as_ref().unwrap().headline(), "Operator.Cancelled: oops (by ana)");
    let expected = Owed {
        attempts: 0,
        next_at: at(60),
        since: at(60),
        error: first.error.clone(),
        reason: OwedReason::Cancelled,
        key: Some("k".into()),
        ..debt(2, 0)
    };
    assert_eq!(*first, expected);
    let epoch = own(&ledger, L1).await;
    let end = |version| share(b, version, 1).done(&[3]).settles(3).ends(3, FinalState::Discarded);
    let fenced = Flush { lane: L1, epoch: Epoch(epoch.0 - 1), at: at(0), bindings: vec![end(2)] };
    assert_eq!(ledger.flush(fenced).await.unwrap(), FlushOutcome::Fenced);
    flush(&ledger, epoch, end(1)).await;
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), asked.due, "fenced, and seen before");
    // The owner sees to one; another had ended by then; a third is passed by a line that is no word of its own.
    flush(&ledger, epoch, end(2)).await;
    let seen = totals(&ledger, b).await;
    assert_eq!(seen.ended, [(FinalState::Delivered, 1), (FinalState::Discarded, 1)].into());
    assert_eq!((seen.waiting, seen.retrying), (3, 0));
    flush(&ledger, epoch, share(b, 3, 3).ends(2, FinalState::Delivered)).await;
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), asked.due[2..]);
    flush(&ledger, epoch, share(b, 4, 4).ends(4, FinalState::Expired)).await;
    flush(&ledger, epoch, share(b, 5, 4).settles(5)).await;
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), asked.due[3..], "5 was not passed");
    flush(&ledger, epoch, share(b, 6, 5).kills(stored(&ledger, 5).await, 70)).await;
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), []);
    let seen = totals(&ledger, b).await;
    assert_eq!((seen.waiting, seen.retrying, seen.ended.values().sum()), (0, 0, 5_u64));
    assert_eq!(ledger.cancel(&keys, "late", "ben", at(62)).await.unwrap(), 0);
}

/// A request whose delivery is owed before its binding hears of it is a debt that stays cancelled until it is settled.
pub async fn cancelled_debts_stay_cancelled(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let (b, epoch) = begin(&ledger, 3).await;
    let keys = [delivery(b, 1), delivery(b, 2), delivery(b, 3)];
    assert_eq!(ledger.cancel(&keys, "oops", "ana", at(60)).await.unwrap(), 3);
    let error = ledger.owed(keys[0]).await.unwrap().unwrap().error;
    let cancelled =
        |owed: Owed| Owed { reason: OwedReason::Cancelled, next_at: at(60), error: error.clone(), ..owed };
    let mut part =
        share(b, 1, 2).owes(1, 500).done(&[3]).owes(3, 5).settles(3).ends(3, FinalState::Delivered);
    part.owed.push(waits(2, OwedReason::Parked));
    flush(&ledger, epoch, part).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    let all = [cancelled(debt(1, 0)), cancelled(waits(2, OwedReason::Parked))];
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), all);
    assert_eq!(ledger.due(L1, b, at(60), 9).await.unwrap().due, all);
    let seen = totals(&ledger, b).await;
    assert_eq!((seen.waiting, seen.retrying, &seen.ended), (0, 2, &[(FinalState::Delivered, 1)].into()));
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 2, 3).owes(1, 900);
    part.owed[0].attempts = 2;
    flush(&ledger, epoch, part).await;
    let again = cancelled(Owed { attempts: 2, ..debt(1, 0) });
    assert_eq!(ledger.owed(delivery(b, 1)).await.unwrap(), Some(again));
    // The owner ends one, an operator the other: that one is a debt by now.
    flush(&ledger, epoch, share(b, 3, 3).settles(1).ends(1, FinalState::Discarded)).await;
    assert_eq!(ledger.cancel(&keys, "again", "ben", at(61)).await.unwrap(), 1);
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), []);
    let ended = [(FinalState::Delivered, 1), (FinalState::Discarded, 2)].into();
    assert_eq!(totals(&ledger, b).await.ended, ended);
}

/// An attempt that was under way when its debt was given up, and failed, makes it owed no more; one that ends it does.
pub async fn given_up_debts_are_owed_no_more(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let (b, epoch) = begin(&ledger, 5).await;
    let mut part = share(b, 1, 5);
    for seq in 1..=5 {
        part = part.owes(seq, 10);
    }
    flush(&ledger, epoch, part).await;
    let keys = [1, 2, 3, 4, 5].map(|seq| delivery(b, seq));
    assert_eq!(ledger.discard(&keys[..2], "spam", "ana", at(60)).await.unwrap(), 2);
    assert_eq!(ledger.cancel(&keys[2..], "spam", "ana", at(60)).await.unwrap(), 3);
    let mut part =
        share(b, 2, 5).owes(1, 70).owes(3, 70).settles(2).settles(4).ends(4, FinalState::Delivered);
    part.owed.push(Owed { reason: OwedReason::Blocked, ..debt(5, 70) });
    flush(&ledger, epoch, part).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), []);
    let ended = [(FinalState::Delivered, 1), (FinalState::Discarded, 4)].into();
    assert_eq!(totals(&ledger, b).await.ended, ended);
    for seq in [1, 2, 3, 5] {
        assert_eq!(ending(&ledger, seq).await.0, FinalState::Discarded, "{seq}");
    }
    // A replay may ask for it anew, and then it is owed.
    let again = Owed { reason: OwedReason::Replay("r".into()), ..debt(1, 80) };
    assert_eq!(ledger.save_replay(&replay("r", b, 1), &[(addr(1, 1), again)]).await.unwrap(), 1);
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 3, 5).owes(1, 90)).await;
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), [debt(1, 90)]);
    assert_eq!(totals(&ledger, b).await.retrying, 1);
}

/// Requests go when their binding reads another source, and hold no event back from retention.
pub async fn requests_hold_nothing(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let (b, epoch) = begin(&ledger, 4).await;
    flush(&ledger, epoch, share(b, 1, 1).owes(1, 5)).await;
    let keys = [2, 3, 4].map(|seq| delivery(b, seq));
    assert_eq!(ledger.cancel(&keys, "oops", "ana", at(60)).await.unwrap(), 3);
    let moved = crate::BindingRecord { source: "prices".into(), ..binding("b:orders", Start::Now) };
    ledger.declare_bindings(vec![moved], at(61)).await.unwrap();
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap().len(), 1);
    assert_sums(&ledger).await;
    declare(&ledger, vec![binding("b:orders", Start::Now)]).await;
    ledger.append(batch(vec![event("last")]), at(62)).await.unwrap();
    assert_eq!(ledger.cancel(&[delivery(b, 5)], "oops", "ana", at(63)).await.unwrap(), 1);
    let mut part = share(b, 2, 4).settles(1);
    for seq in 1..=4 {
        part = part.ends(seq, FinalState::Delivered);
    }
    flush(&ledger, epoch, part).await;
    // Dropped from the configuration: nobody will see to the request.
    declare(&ledger, vec![]).await;
    subject.turn().await;
    assert_eq!(ledger.retain(at(100), at(200)).await.unwrap().events, 5);
    assert_eq!(ledger.debts(L1, b, Seq(0), 9).await.unwrap(), []);
    assert_sums(&ledger).await;
}
