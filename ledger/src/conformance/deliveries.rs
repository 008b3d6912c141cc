//! Deliveries: ownership, cursor and exceptions, fences, debts, the log.

use bellwire_schemas::service::Start;
use bellwire_schemas::{ControllerId, Epoch, FinalState, Seq, SeqRanges};
use uuid::Uuid;

use super::Subject;
use super::build::*;
use crate::{Checkpoint, Error, Flush, FlushOutcome, LogOutcome, OwedReason};

/// One owner at a time; epochs only grow; a restart frees the lanes.
pub async fn ownership_and_epochs(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let [ana, ben] = [1, 2].map(|n| ControllerId(Uuid::from_u128(n)));
    ledger.heartbeat(&beat(ana)).await.unwrap();
    let first = ledger.acquire(ana, L1, at(0)).await.unwrap().unwrap();
    assert_eq!(ledger.acquire(ben, L1, at(1)).await.unwrap(), None);
    assert!(ledger.acquire(ben, L2, at(1)).await.unwrap().is_some());
    let again = ledger.acquire(ana, L1, at(2)).await.unwrap().unwrap();
    assert!(again > first);
    ledger.release(L1, first).await.unwrap();
    assert_eq!(ledger.acquire(ben, L1, at(3)).await.unwrap(), None, "a stale release changes nothing");
    ledger.release(L1, again).await.unwrap();
    let nowhere = bellwire_schemas::Lane(3);
    assert!(matches!(ledger.acquire(ana, nowhere, at(3)).await, Err(Error::NotFound(_))));
    assert!(matches!(ledger.release(nowhere, again).await, Err(Error::NotFound(_))));
    let third = ledger.acquire(ben, L1, at(4)).await.unwrap().unwrap();
    assert!(third > again);
    subject.reopen().await;
    let ledger = subject.ledger();
    let fourth = ledger.acquire(ana, L1, at(5)).await.unwrap().unwrap();
    assert!(fourth > third);
}

/// A checkpoint comes back with mark and finished ranges, and so do the debts.
pub async fn cursor_and_exceptions(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 8).await;
    let epoch = own(&ledger, L1).await;
    assert_eq!(ledger.checkpoint(L1, b).await.unwrap(), Checkpoint::default());
    let part = share(b, 1, 2)
        .done(&[4, 5, 8])
        .ends(1, FinalState::Delivered)
        .ends(2, FinalState::Filtered)
        .ends(4, FinalState::Expired)
        .owes(5, 50)
        .ends(8, FinalState::Delivered);
    flush(&ledger, epoch, part).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    let mut done = SeqRanges::default();
    [4, 5, 8].iter().for_each(|s| done.insert(Seq(*s)));
    assert_eq!(ledger.checkpoint(L1, b).await.unwrap(), Checkpoint { version: 1, mark: Seq(2), done });
    assert_eq!(ledger.checkpoint(L2, b).await.unwrap(), Checkpoint::default());
    assert_eq!(ledger.owed(delivery(b, 5)).await.unwrap(), Some(debt(5, 50)));
    let totals = &ledger.totals().await.unwrap()[&b];
    assert_eq!((totals.accepted, totals.waiting, totals.retrying, totals.outside), (8, 3, 1, 0));
    assert_eq!(totals.ended[&FinalState::Delivered], 2);
    assert_eq!(totals.oldest_owed, Some(at(2)), "3 waits longer than 5 is owed");
    assert_sums(&ledger).await;
}

/// A flush under an old epoch, of a released lane, or after a restart writes nothing.
pub async fn flush_is_fenced(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 2).await;
    let old = own(&ledger, L1).await;
    let new = own(&ledger, L1).await;
    let part = || vec![share(b, 9, 2).ends(1, FinalState::Delivered).owes(2, 5)];
    let fenced = |epoch| Flush { lane: L1, epoch, at: at(0), bindings: part() };
    assert_eq!(ledger.flush(fenced(old)).await.unwrap(), FlushOutcome::Fenced);
    assert_eq!(ledger.flush(fenced(Epoch(new.0 + 1))).await.unwrap(), FlushOutcome::Fenced);
    ledger.release(L1, new).await.unwrap();
    assert_eq!(ledger.flush(fenced(new)).await.unwrap(), FlushOutcome::Fenced);
    let last = own(&ledger, L1).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.flush(fenced(last)).await.unwrap(), FlushOutcome::Fenced);
    assert_eq!(ledger.checkpoint(L1, b).await.unwrap(), Checkpoint::default());
    assert_eq!(ledger.log(addr(1, 1), None).await.unwrap(), []);
    assert_eq!(ledger.owed(delivery(b, 2)).await.unwrap(), None);
}

/// The same or an older version changes nothing; parts of one flush are judged one by one.
pub async fn flush_is_idempotent_by_version(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let names = vec![binding("b:orders", Start::Now), binding("c:orders", Start::Now)];
    let ids = declare(&ledger, names).await;
    fill(&ledger, 0, 3).await;
    let epoch = own(&ledger, L1).await;
    let first = || share(ids[0], 5, 1).ends(1, FinalState::Delivered);
    flush(&ledger, epoch, first()).await;
    flush(&ledger, epoch, first()).await;
    let older = share(ids[0], 4, 3).ends(2, FinalState::Delivered).ends(3, FinalState::Delivered);
    let both = vec![older, share(ids[1], 1, 1).ends(1, FinalState::Filtered)];
    ledger.flush(Flush { lane: L1, epoch, at: at(0), bindings: both }).await.unwrap();
    assert_eq!(ledger.checkpoint(L1, ids[0]).await.unwrap().mark, Seq(1));
    assert_eq!(ledger.checkpoint(L1, ids[1]).await.unwrap().version, 1);
    assert_eq!(ledger.log(addr(1, 1), None).await.unwrap().len(), 2);
    assert_eq!(ledger.totals().await.unwrap()[&ids[0]].ended[&FinalState::Delivered], 1);
    assert_sums(&ledger).await;
}

/// What would break the accounts is refused whole.
pub async fn broken_flushes_write_nothing(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 4).await;
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 1, 2).ends(1, FinalState::Delivered).ends(2, FinalState::Delivered)).await;
    let broken = [
        vec![share(b, 2, 1)],
        vec![share(b, 2, 9)],
        vec![share(b, 2, 2).done(&[9])],
        vec![share(b, 2, 2).ends(4, FinalState::Delivered)],
        vec![share(b, 2, 2).owes(3, 5)],
        vec![share(b, 2, 3).ends(3, FinalState::Delivered), share(b, 3, 4)],
    ];
    for bindings in broken {
        let text = format!("{bindings:?}");
        let answer = ledger.flush(Flush { lane: L1, epoch, at: at(0), bindings }).await;
        assert!(matches!(answer, Err(Error::Corrupt(_))), "{text} gave {answer:?}");
    }
    let known = share(b, 2, 3).ends(3, FinalState::Delivered);
    let unknown = share(bellwire_schemas::BindingId(77), 1, 0);
    let answer = ledger.flush(Flush { lane: L1, epoch, at: at(0), bindings: vec![known, unknown] }).await;
    assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
    assert_eq!(ledger.checkpoint(L1, b).await.unwrap().version, 1);
    assert_eq!(ledger.log(addr(1, 3), None).await.unwrap(), []);
    assert_sums(&ledger).await;
}

/// Due debts come earliest first, with the moment to look again.
pub async fn due_in_order(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 5).await;
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 1, 5).owes(1, 30).owes(2, 10).owes(3, 20).owes(4, 10).owes(5, 99)).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    let seqs = |due: &crate::DueRetries| due.due.iter().map(|o| o.seq.0).collect::<Vec<_>>();
    let due = ledger.due(L1, b, at(20), 100).await.unwrap();
    assert_eq!((seqs(&due), due.next_at), (vec![2, 4, 3], Some(at(30))));
    assert_eq!(due.due[0], debt(2, 10));
    let due = ledger.due(L1, b, at(20), 2).await.unwrap();
    assert_eq!((seqs(&due), due.next_at), (vec![2, 4], Some(at(20))));
    let due = ledger.due(L1, b, at(500), 100).await.unwrap();
    assert_eq!((due.due.len(), due.next_at), (5, None));
    let due = ledger.due(L1, b, at(5), 100).await.unwrap();
    assert_eq!((due.due.len(), due.next_at), (0, Some(at(10))));
    assert_eq!(ledger.due(L2, b, at(500), 100).await.unwrap(), Default::default());
}

/// Every line of an event's log comes back, oldest first, all bindings or one.
pub async fn log_of_an_event(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let ids = declare(&ledger, vec![binding("b:orders", Start::Now), binding("c:orders", Start::Now)]).await;
    fill(&ledger, 0, 1).await;
    let epoch = own(&ledger, L1).await;
    let mut lines = [LogOutcome::Failed, LogOutcome::Failed, LogOutcome::Final(FinalState::Delivered)]
        .map(|outcome| line(1, outcome));
    for (n, line) in lines.iter_mut().enumerate() {
        line.attempt = n as u32 + 1;
        line.at = at(100 + n as i64);
    }
    lines[2].worker = String::new();
    lines[2].version = String::new();
    lines[2].replay = Some("r-1".into());
    let mut part = share(ids[0], 1, 1);
    part.log = vec![lines[0].clone()];
    part.owed = vec![debt(1, 5)];
    flush(&ledger, epoch, part).await;
    let mut part = share(ids[0], 2, 1).settles(1);
    part.log = lines[1..].to_vec();
    flush(&ledger, epoch, part).await;
    let mut other = line(1, LogOutcome::Final(FinalState::Filtered));
    other.at = at(50);
    let mut part = share(ids[1], 1, 1);
    part.log = vec![other.clone()];
    flush(&ledger, epoch, part).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    let mut expected = vec![(ids[1], other)];
    expected.extend(lines.map(|l| (ids[0], l)));
    assert_eq!(ledger.log(addr(1, 1), None).await.unwrap(), expected);
    assert_eq!(ledger.log(addr(1, 1), Some(ids[1])).await.unwrap(), expected[..1]);
    assert_eq!(ledger.log(addr(2, 1), None).await.unwrap(), []);
}

/// A debt is replaced, settled, or buried; each delivery is counted once.
pub async fn endings_remove_debts(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 3).await;
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 1, 3).owes(1, 10).owes(2, 10).owes(3, 10)).await;
    assert_sums(&ledger).await;
    let mut part = share(b, 2, 3).owes(1, 20).settles(2).ends(2, FinalState::Delivered);
    part = part.kills(stored(&ledger, 3).await, 40);
    flush(&ledger, epoch, part).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.owed(delivery(b, 1)).await.unwrap(), Some(debt(1, 20)));
    assert_eq!(ledger.owed(delivery(b, 2)).await.unwrap(), None);
    assert_eq!(ledger.owed(delivery(b, 3)).await.unwrap(), None);
    let dead = ledger.dead_letter(delivery(b, 3)).await.unwrap().unwrap();
    assert_eq!(dead, letter(b, stored(&ledger, 3).await, 40));
    let totals = &ledger.totals().await.unwrap()[&b];
    assert_eq!((totals.retrying, totals.dead_letters), (1, 1));
    assert_eq!(totals.ended, [(FinalState::Delivered, 1), (FinalState::Dead, 1)].into());
    let epoch = own(&ledger, L1).await;
    // Failed and delivered between two flushes; and a debt that ends without a word stands as before.
    let part = share(b, 3, 3).owes(1, 30).settles(1).ends(1, FinalState::Delivered);
    flush(&ledger, epoch, part).await;
    let mut again = debt(1, 60);
    again.reason = OwedReason::Replay("r".into());
    ledger.save_replay(&replay("r", b, 1), &[(addr(1, 1), again)]).await.unwrap();
    assert_sums(&ledger).await;
    flush(&ledger, epoch, share(b, 4, 3).settles(1)).await;
    let totals = &ledger.totals().await.unwrap()[&b];
    assert_eq!(totals.ended, [(FinalState::Delivered, 2), (FinalState::Dead, 1)].into());
    assert_sums(&ledger).await;
}
