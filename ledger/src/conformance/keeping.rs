//! Keeping: retention and the end.

use bellwire_schemas::service::Start;
use bellwire_schemas::{FinalState, Seq};

use super::Subject;
use super::build::*;
use crate::{Error, EventQuery, Refusal, ReplayState, Retained};

/// What a cursor, a debt or an unfinished replay needs stays; the rest goes with its log.
pub async fn retention_keeps_what_is_needed(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    ledger.append(batch(vec![event("p").source("prices").lane(L2)]), at(0)).await.unwrap();
    for n in 0..10 {
        subject.turn().await;
        fill(&ledger, n, 1).await;
    }
    subject.turn().await;
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 1, 7).done(&[9]).owes(2, 5);
    for seq in [1, 3, 4, 5, 6, 7, 9] {
        part = part.ends(seq, FinalState::Delivered);
    }
    flush(&ledger, epoch, part).await;
    let mut running = replay("r", b, 0);
    running.cursor = [(L1, Seq(3))].into();
    running.until = [(L1, Seq(5))].into();
    ledger.save_replay(&running, &[]).await.unwrap();
    let left = async || {
        let read = subject.ledger().read(L1, Seq(1), 100, usize::MAX).await.unwrap();
        read.iter().map(|e| e.address.seq.0).collect::<Vec<_>>()
    };
    // The first is too young by one microsecond; that in lane 2 is of a source that nobody reads.
    let retained = ledger.retain(at(0), at(50)).await.unwrap();
    assert_eq!(retained, Retained::default());
    let retained = ledger.retain(at(6), at(50)).await.unwrap();
    assert_eq!(retained, Retained { events: 4, kept_for_debts: 3 });
    assert_eq!(left().await, [2, 4, 5, 7, 8, 9, 10]);
    assert_eq!(ledger.log(addr(1, 1), None).await.unwrap(), []);
    assert_eq!(ledger.log(addr(1, 4), None).await.unwrap().len(), 1);
    running.version += 1;
    running.state = ReplayState::Cancelled;
    ledger.save_replay(&running, &[]).await.unwrap();
    let retained = ledger.retain(at(99), at(50)).await.unwrap();
    assert_eq!(retained, Retained { events: 3, kept_for_debts: 4 });
    assert_eq!(left().await, [2, 8, 9, 10], "9 is done, but the mark is below it");
    assert_sums(&ledger).await;
    // A binding that was dropped holds nothing back, but its debts do.
    declare(&ledger, vec![]).await;
    ledger.retain(at(99), at(50)).await.unwrap();
    assert_eq!(left().await, [2]);
    assert_sums(&ledger).await;
    declare(&ledger, vec![binding("b:orders", Start::Now)]).await;
    let totals = &ledger.totals().await.unwrap()[&b];
    assert_eq!((totals.waiting, totals.retrying, totals.accepted), (0, 1, 8));
    assert_sums(&ledger).await;
}

/// An emptied lane goes on where it was.
pub async fn places_are_never_used_twice(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    fill(&ledger, 0, 300).await;
    let retained = ledger.retain(at(1_000), at(1_000)).await.unwrap();
    assert_eq!(retained, Retained { events: 300, kept_for_debts: 0 });
    let query = EventQuery { limit: 10, ..EventQuery::default() };
    assert!(ledger.events(&query).await.unwrap().items.is_empty());
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(300));
    assert_eq!(fill(&ledger, 2_000, 1).await, [addr(1, 301)]);
    let ids = declare(&ledger, vec![binding("b:orders", Start::Earliest)]).await;
    assert_eq!(ledger.totals().await.unwrap()[&ids[0]].accepted, 1);
    assert_sums(&ledger).await;
}

/// Duplicates, quarantine, refusals and dedup keys go when they are old.
pub async fn retention_of_everything_else(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    for n in [0, 100] {
        let mut one = batch(vec![event("a").once("k", 300), event("a").once("k", 300)]);
        one.quarantined = vec![crate::Quarantine {
            source: "orders".into(),
            reason: "r".into(),
            bytes: bytes::Bytes::new(),
            meta: String::new(),
        }];
        ledger.append(one, at(n)).await.unwrap();
        let (source, reason, last_peer) = ("s".into(), format!("{n}"), String::new());
        ledger.note_refusal(Refusal { source, reason, count: 1, last_at: at(n), last_peer }).await.unwrap();
        subject.turn().await;
    }
    let counted = ledger.arrivals().await.unwrap();
    ledger.retain(at(50), at(150)).await.unwrap();
    assert_eq!(ledger.duplicates(addr(1, 1)).await.unwrap().len(), 2);
    assert_eq!(ledger.quarantined(None, 10).await.unwrap().len(), 1);
    assert_eq!(ledger.refusals(at(0)).await.unwrap().len(), 1);
    assert_eq!(ledger.arrivals().await.unwrap(), counted, "what came is counted for ever");
    // The key outlives its event as long as its window.
    let again = ledger.append(batch(vec![event("a").once("k", 300)]), at(299)).await.unwrap();
    assert_eq!(again.items, [crate::Arrival::Duplicate(addr(1, 1))]);
    ledger.retain(at(301), at(301)).await.unwrap();
    let again = ledger.append(batch(vec![event("a").once("k", 300)]), at(302)).await.unwrap();
    assert_eq!(again.items, [crate::Arrival::Accepted(addr(1, 2))]);
    assert!(ledger.size_bytes().await.unwrap() > 0);
}

/// After the end every call fails, and what was answered is there at the next start.
pub async fn closed_means_closed(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    fill(&ledger, 0, 1).await;
    ledger.close().await;
    ledger.close().await;
    let refused = ledger.append(batch(vec![event("x")]), at(1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(matches!(ledger.tail(L1).await, Err(Error::Unavailable(_))));
    subject.reopen().await;
    assert_eq!(subject.ledger().tail(L1).await.unwrap(), Seq(1));
}
