//! Questions: reads, lists in stable pages, duplicates, totals.

use std::sync::Arc;

use bellwire_schemas::selector::Selector;
use bellwire_schemas::service::Start;
use bellwire_schemas::{FinalState, Seq};
use bytes::Bytes;

use super::Subject;
use super::build::*;
use crate::{DeadLetterQuery, EventQuery, Ledger, Quarantine};

/// Reads are in order and stop at the count or the bytes, but never before the first event.
pub async fn reads_in_order_within_limits(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let big = |id: &str| event(id).with(|e| e.data = Some(Bytes::from(vec![b'x'; 1_000])));
    let events = ["a", "b", "c", "d"].map(big).into();
    ledger.append(batch(events), at(1)).await.unwrap();
    subject.reopen().await;
    let ledger = subject.ledger();
    let seqs = async |from, limit, bytes| {
        let read = ledger.read(L1, Seq(from), limit, bytes).await.unwrap();
        read.iter().map(|e| e.address.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 100, usize::MAX).await, [1, 2, 3, 4]);
    assert_eq!(seqs(3, 100, usize::MAX).await, [3, 4]);
    assert_eq!(seqs(2, 2, usize::MAX).await, [2, 3]);
    assert_eq!(seqs(1, 100, 2_000).await, [1, 2]);
    assert_eq!(seqs(1, 100, 10).await, [1]);
    assert_eq!(seqs(5, 100, 10).await, [0; 0]);
    assert_eq!(ledger.read(L2, Seq(1), 10, 10).await.unwrap(), []);
}

async fn listed(ledger: &Arc<dyn Ledger>, selector: Selector) -> Vec<String> {
    let query = EventQuery { selector, ascending: true, after: None, limit: 100 };
    let page = ledger.events(&query).await.unwrap();
    assert_eq!(page.next, None);
    page.items.iter().map(|e| e.event.id.clone()).collect()
}

/// Each condition selects, and conditions are joined by "and".
pub async fn events_by_selector(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let long = "long ".repeat(40);
    let made = [
        event("a").key("k1"),
        event("b").key("k2").lane(L2),
        event("c").source("prices").with(|e| e.kind = "price.set".into()),
        event("d").key("k1").source("prices"),
        event("a").source("prices").lane(L2),
        event(&long).key(&long),
        event(&format!("{long}!")).key(&format!("{long}!")),
    ];
    for (n, event) in made.into_iter().enumerate() {
        ledger.append(batch(vec![event]), at(n as i64)).await.unwrap();
    }
    subject.reopen().await;
    let ledger = subject.ledger();
    let all = Selector::default;
    let (one, two) = (long.as_str(), format!("{long}!"));
    let cases: Vec<(Selector, Vec<&str>)> = vec![
        (all(), vec!["a", "b", "c", "d", "a", one, &two]),
        (Selector { addresses: vec![addr(2, 2), addr(1, 1), addr(1, 99)], ..all() }, vec!["a", "a"]),
        (Selector { ids: vec!["a".into()], ..all() }, vec!["a", "a"]),
        (Selector { ids: vec!["c".into(), "b".into(), "zz".into()], ..all() }, vec!["b", "c"]),
        (Selector { ids: vec!["a".into()], source: Some("prices".into()), ..all() }, vec!["a"]),
        (Selector { ids: vec![long.clone()], ..all() }, vec![one]),
        (Selector { since: Some(at(2)), until: Some(at(4)), ..all() }, vec!["c", "d"]),
        (Selector { source: Some("prices".into()), ..all() }, vec!["c", "d", "a"]),
        (Selector { source: Some("nobody".into()), ..all() }, vec![]),
        (Selector { kind: Some("price.set".into()), ..all() }, vec!["c"]),
        (Selector { kind: Some("order.made".into()), until: Some(at(3)), ..all() }, vec!["a", "b"]),
        (Selector { kind: Some("no.such".into()), ..all() }, vec![]),
        (Selector { key: Some("k1".into()), ..all() }, vec!["a", "d"]),
        (Selector { key: Some(two.clone()), ..all() }, vec![&two]),
        (Selector { key: Some("k1".into()), since: Some(at(1)), ..all() }, vec!["d"]),
        (Selector { addresses: vec![addr(1, 1)], key: Some("k2".into()), ..all() }, vec![]),
    ];
    for (selector, expected) in cases {
        assert_eq!(listed(&ledger, selector.clone()).await, expected, "{selector:?}");
    }
}

/// Pages go on where they stopped, both ways, while events arrive and several share a moment.
pub async fn pages_are_stable_while_appending(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    for n in 0..6 {
        let both = vec![event(&format!("{n}a")), event(&format!("{n}b")).lane(L2)];
        ledger.append(batch(both), at(n / 2)).await.unwrap();
    }
    for (ascending, selector) in [
        (true, Selector::default()),
        (false, Selector::default()),
        (false, Selector { kind: Some("order.made".into()), ..Selector::default() }),
        (true, Selector { source: Some(orders()), ..Selector::default() }),
    ] {
        let before: Vec<_> = {
            let query = EventQuery { selector: selector.clone(), ascending, after: None, limit: 1_000 };
            ledger.events(&query).await.unwrap().items.iter().map(|e| e.address).collect()
        };
        let mut order: Vec<_> = Vec::new();
        let mut query = EventQuery { selector, ascending, after: None, limit: 5 };
        loop {
            let page = ledger.events(&query).await.unwrap();
            assert!(page.items.len() <= 5);
            order.extend(page.items.iter().map(|e| e.address));
            ledger.append(batch(vec![event("new")]), at(100)).await.unwrap();
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        if ascending {
            order.truncate(before.len());
        }
        assert_eq!(order, before);
    }
    let none = EventQuery { limit: 0, ..EventQuery::default() };
    assert!(ledger.events(&none).await.unwrap().items.is_empty());
}

/// Dead letters come newest first, by every condition, in pages.
pub async fn dead_letters_by_selector(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let ids = declare(&ledger, vec![binding("b:orders", Start::Now), binding("c:orders", Start::Now)]).await;
    let events = vec![event("a").key("k"), event("b").with(|e| e.kind = "x".into()), event("c"), event("d")];
    ledger.append(batch(events), at(1)).await.unwrap();
    let epoch = own(&ledger, L1).await;
    for (n, id) in ids.iter().enumerate() {
        let mut part = share(*id, 1, 4);
        for seq in 1..=4 {
            part = part.kills(stored(&ledger, seq).await, 50 + seq as i64 / 2);
        }
        part.dead[3].fingerprint = format!("f{n}");
        flush(&ledger, epoch, part).await;
    }
    subject.reopen().await;
    let ledger = subject.ledger();
    let all = Selector::default;
    let cases = [
        (all(), None, 8),
        (all(), Some(ids[0]), 4),
        (Selector { binding: Some("c:orders".into()), ..all() }, None, 4),
        (Selector { binding: Some("z:orders".into()), ..all() }, None, 0),
        (Selector { addresses: vec![addr(1, 2)], ..all() }, None, 2),
        (Selector { addresses: vec![addr(1, 2)], ..all() }, Some(ids[1]), 1),
        (Selector { ids: vec!["a".into(), "c".into()], ..all() }, None, 4),
        (Selector { key: Some("k".into()), ..all() }, None, 2),
        (Selector { kind: Some("x".into()), ..all() }, None, 2),
        (Selector { source: Some(orders()), ..all() }, None, 8),
        (Selector { source: Some("other".into()), ..all() }, None, 0),
        (Selector { error: Some("f1".into()), ..all() }, None, 1),
        (Selector { since: Some(at(51)), until: Some(at(52)), ..all() }, None, 4),
    ];
    for (selector, binding, expected) in cases {
        let query = DeadLetterQuery { selector, binding, after: None, limit: 100 };
        let page = ledger.dead_letters(&query).await.unwrap();
        assert_eq!((page.items.len(), page.next), (expected, None), "{query:?}");
        assert!(page.items.is_sorted_by_key(|d| std::cmp::Reverse((d.died_at, d.event.address))));
    }
    let mut query = DeadLetterQuery { limit: 3, ..DeadLetterQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = ledger.dead_letters(&query).await.unwrap();
        seen.extend(page.items.iter().map(|d| (d.event.address, d.binding)));
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 8, "pages lose and repeat nothing, though all died in two moments");
}

/// Duplicates and quarantined messages are found by address, id and source.
pub async fn duplicates_and_quarantine(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    for n in 0..4 {
        let source = if n == 3 { "prices" } else { "orders" };
        let mut one =
            batch(vec![event("a").source(source).once("k", 60), event("b").source(source).once("k", 60)]);
        one.quarantined = vec![Quarantine {
            source: source.into(),
            reason: format!("reason {n}"),
            bytes: Bytes::from(vec![0xff; (1 << 20) + 5]),
            meta: String::new(),
        }];
        ledger.append(one, at(n)).await.unwrap();
    }
    subject.reopen().await;
    let ledger = subject.ledger();
    let times = |d: &[crate::Duplicate]| d.iter().map(|d| d.at).collect::<Vec<_>>();
    let hits = ledger.duplicates(addr(1, 1)).await.unwrap();
    assert_eq!(times(&hits), [at(0), at(1), at(1), at(2), at(2)]);
    let hits = ledger.duplicates_of_id("b", None).await.unwrap();
    assert_eq!(times(&hits), [at(3), at(2), at(1), at(0)]);
    assert_eq!((hits[0].first, hits[0].source.as_str()), (addr(1, 2), "prices"));
    assert_eq!(ledger.duplicates_of_id("b", Some(&orders())).await.unwrap().len(), 3);
    assert_eq!(ledger.duplicates_of_id("c", None).await.unwrap(), []);
    let all = ledger.quarantined(None, 3).await.unwrap();
    let reasons: Vec<_> = all.iter().map(|q| q.reason.as_str()).collect();
    assert_eq!(reasons, ["reason 3", "reason 2", "reason 1"]);
    assert_eq!(all[0].bytes.len(), 1 << 20, "cut at 1 MiB");
    assert_eq!(ledger.quarantined(Some(&"prices".into()), 9).await.unwrap().len(), 1);
    assert_eq!(ledger.quarantined(Some(&"nobody".into()), 9).await.unwrap(), []);
}

/// At every step, each event of a binding's source is ended, waiting or owed.
pub async fn totals_always_add_up(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    fill(&ledger, 0, 2).await;
    let named = vec![binding("b:orders", Start::Now), binding("c:orders", Start::Earliest)];
    let ids = declare(&ledger, named).await;
    assert_sums(&ledger).await;
    fill(&ledger, 2, 6).await;
    ledger.append(batch(vec![event("p").source("prices")]), at(9)).await.unwrap();
    let epoch = own(&ledger, L1).await;
    for (version, id) in ids.iter().enumerate() {
        let part = share(*id, version as u64 + 1, 3).done(&[5, 9]).ends(3, FinalState::Filtered);
        let part = if *id == ids[1] {
            part.ends(1, FinalState::Delivered).ends(2, FinalState::Delivered)
        } else {
            part
        };
        flush(&ledger, epoch, part.owes(5, 9)).await;
        assert_sums(&ledger).await;
    }
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_sums(&ledger).await;
    let totals = ledger.totals().await.unwrap();
    assert_eq!((totals[&ids[0]].accepted, totals[&ids[0]].waiting), (6, 4));
    assert_eq!((totals[&ids[1]].accepted, totals[&ids[1]].waiting), (8, 4));
}

/// Sources are counted apart, with the moment of their last event.
pub async fn arrivals_per_source(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    assert!(ledger.arrivals().await.unwrap().is_empty());
    let mixed = vec![event("a").once("k", 9), event("b").source("prices"), event("c").once("k", 9)];
    ledger.append(batch(mixed), at(1)).await.unwrap();
    let mut junk = batch(vec![event("d").once("k", 9)]);
    junk.quarantined = vec![Quarantine {
        source: "hook".into(),
        reason: "r".into(),
        bytes: Bytes::new(),
        meta: String::new(),
    }];
    ledger.append(junk, at(5)).await.unwrap();
    subject.reopen().await;
    let arrivals = subject.ledger().arrivals().await.unwrap();
    let row = |name: &str| {
        let a = &arrivals[&name.into()];
        (a.accepted, a.duplicate, a.quarantined, a.last_at)
    };
    assert_eq!(row("orders"), (1, 2, 0, Some(at(1))));
    assert_eq!(row("prices"), (1, 0, 0, Some(at(1))));
    assert_eq!(row("hook"), (0, 0, 1, None));
}
