//! Appends: gapless, whole, idempotent, once.

use std::sync::Arc;

use bellwire_schemas::{Seq, SourceName};
use bytes::Bytes;
use serde_json::json;

use super::Subject;
use super::build::*;
use crate::{Appended, Arrival, Error, Position, PositionAdvance, Quarantine};

fn move_to(shard: &str, expected: u64, value: &str) -> PositionAdvance {
    PositionAdvance { shard: shard.into(), expected, value: value.into() }
}

fn junk(bytes: &'static [u8]) -> Quarantine {
    Quarantine {
        source: "orders".into(),
        reason: "not decodable".into(),
        bytes: Bytes::from_static(bytes),
        meta: "{\"offset\":7}".into(),
    }
}

/// Concurrent appends leave no hole and no place twice, and each answer names its own event.
pub async fn gapless_under_concurrency(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let mut mine = Vec::new();
            for n in 0..25 {
                let ids: Vec<_> = (0..=n % 3).map(|i| format!("{caller}-{n}-{i}")).collect();
                let events = ids.iter().map(|id| event(id)).collect();
                let answer = ledger.append(batch(events), at(n)).await.unwrap();
                mine.extend(ids.into_iter().zip(accepted(&answer)));
            }
            mine
        });
    }
    let mut answers: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    answers.sort_by_key(|(_, address)| address.seq);
    subject.reopen().await;
    let ledger = subject.ledger();
    let read = ledger.read(L1, Seq(0), 10_000, usize::MAX).await.unwrap();
    assert_eq!(read.len(), answers.len());
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(read.len() as u64));
    for (place, (event, (id, address))) in read.iter().zip(&answers).enumerate() {
        assert_eq!(event.address, addr(1, place as u64 + 1));
        assert_eq!((&event.event.id, event.address), (id, *address));
    }
}

/// A batch may span lanes; each lane numbers its own.
pub async fn batches_span_lanes(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let events = vec![event("a"), event("b").lane(L2), event("c"), event("d").lane(L2)];
    let answer = ledger.append(batch(events), at(1)).await.unwrap();
    assert_eq!(accepted(&answer), [addr(1, 1), addr(2, 1), addr(1, 2), addr(2, 2)]);
    assert_eq!(ledger.tail(L2).await.unwrap(), Seq(2));
}

/// The same append id gives the first answer again, also at another time and when positions have moved on.
pub async fn append_id_is_answered_once(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let mut first = batch(vec![
        event("a").once("k", 60),
        event("b").lane(L2),
        event("a again").once("k", 60),
        event("c"),
    ]);
    first.positions = vec![move_to("s", 0, "10")];
    first.quarantined = vec![junk(b"x")];
    let answer = ledger.append(first.clone(), at(1)).await.unwrap();
    fill(&ledger, 2, 3).await;
    // Its keys are free again by now, for others.
    assert_eq!(ledger.append(first, at(99)).await.unwrap(), answer);
    let mut bare = batch(vec![event("a third time").once("k", 60)]);
    bare.quarantined = vec![junk(b"y")];
    let hit = ledger.append(bare.clone(), at(3)).await.unwrap();
    assert_eq!(hit.items, [Arrival::Duplicate(addr(1, 1))]);
    assert_eq!(ledger.append(bare, at(99)).await.unwrap(), hit);
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(5));
    assert_eq!(ledger.quarantined(None, 10).await.unwrap().len(), 2);
    let arrivals = &ledger.arrivals().await.unwrap()[&orders()];
    assert_eq!((arrivals.accepted, arrivals.duplicate, arrivals.quarantined), (6, 2, 2));
}

/// A refused append leaves no event, position, key, quarantine or count, and its id is free.
pub async fn refusal_writes_nothing(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let mut refused = batch(vec![event("a").once("k", 60)]);
    refused.positions = vec![move_to("s", 0, "1"), move_to("t", 4, "9")];
    refused.quarantined = vec![junk(b"x")];
    let mut good = batch(vec![event("b")]);
    good.positions = vec![move_to("u", 0, "1")];
    // Together, so that an implementation that groups commits has both in one.
    let (bad, fine) = tokio::join!(ledger.append(refused.clone(), at(1)), ledger.append(good, at(1)));
    assert!(
        matches!(bad, Err(Error::PositionConflict { ref shard, expected: 4, found: 0 }) if shard == "t"),
        "{bad:?}"
    );
    assert_eq!(accepted(&fine.unwrap()), [addr(1, 1)]);
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(1));
    assert_eq!(ledger.position("s").await.unwrap(), None);
    assert_eq!(ledger.position("u").await.unwrap().unwrap().version, 1);
    assert_eq!(ledger.quarantined(None, 10).await.unwrap(), []);
    assert_eq!(ledger.arrivals().await.unwrap()[&orders()].accepted, 1);
    refused.positions.truncate(1);
    let answer = ledger.append(refused, at(2)).await.unwrap();
    assert_eq!(answer.items, [Arrival::Accepted(addr(1, 2))]);
}

/// Positions move by compare-and-set, one version at a time.
pub async fn positions_compare_and_set(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    assert_eq!(ledger.position("s").await.unwrap(), None);
    let mut step = batch(vec![]);
    step.positions = vec![move_to("s", 0, "a"), move_to("s", 1, "b")];
    ledger.append(step, at(1)).await.unwrap();
    subject.reopen().await;
    let ledger = subject.ledger();
    let newest = Position { version: 2, value: "b".into() };
    assert_eq!(ledger.position("s").await.unwrap(), Some(newest.clone()));
    let mut zombie = batch(vec![event("late")]);
    zombie.positions = vec![move_to("s", 1, "c")];
    let answer = ledger.append(zombie, at(2)).await;
    assert!(matches!(answer, Err(Error::PositionConflict { expected: 1, found: 2, .. })), "{answer:?}");
    assert_eq!(ledger.position("s").await.unwrap(), Some(newest));
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(0));
}

/// A key counts for its source and window only.
pub async fn dedup_within_its_window(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let one = |id: &str| batch(vec![event(id).once("k", 60)]);
    let item = |answer: Appended| answer.items[0];
    let first = addr(1, 1);
    assert_eq!(item(ledger.append(one("a"), at(0)).await.unwrap()), Arrival::Accepted(first));
    assert_eq!(item(ledger.append(one("b"), at(59)).await.unwrap()), Arrival::Duplicate(first));
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(item(ledger.append(one("c"), at(59)).await.unwrap()), Arrival::Duplicate(first));
    let other = batch(vec![event("d").source("prices").once("k", 60)]);
    assert_eq!(item(ledger.append(other, at(59)).await.unwrap()), Arrival::Accepted(addr(1, 2)));
    // The window counts from the first arrival and is over at its end.
    assert_eq!(item(ledger.append(one("e"), at(60)).await.unwrap()), Arrival::Accepted(addr(1, 3)));
    assert_eq!(item(ledger.append(one("f"), at(61)).await.unwrap()), Arrival::Duplicate(addr(1, 3)));
    let none = batch(vec![event("g").once("z", 0), event("h").once("z", 0)]);
    assert_eq!(accepted(&ledger.append(none, at(62)).await.unwrap()).len(), 2);
    // Source and value never run together.
    let apart = batch(vec![event("i").source("ab").once("c", 9), event("j").source("a").once("bc", 9)]);
    assert_eq!(accepted(&ledger.append(apart, at(63)).await.unwrap()).len(), 2);
}

/// Two equal keys in one batch: the second is the duplicate, and later places close up.
pub async fn dedup_inside_a_batch(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let events = vec![event("a").once("k", 60), event("b").once("k", 60).lane(L2), event("c").once("l", 60)];
    let answer = ledger.append(batch(events), at(5)).await.unwrap();
    let first = addr(1, 1);
    assert_eq!(
        answer.items,
        [Arrival::Accepted(first), Arrival::Duplicate(first), Arrival::Accepted(addr(1, 2))]
    );
    assert_eq!(ledger.tail(L2).await.unwrap(), Seq(0));
    let hits = ledger.duplicates(first).await.unwrap();
    assert_eq!((hits.len(), hits[0].id.as_str(), hits[0].at), (1, "b", at(5)));
}

/// Events, positions, keys and quarantine are one commit, also when every event is a duplicate.
pub async fn positions_dedup_quarantine_together(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    ledger.append(batch(vec![event("a").once("k", 60)]), at(0)).await.unwrap();
    let mut all = batch(vec![event("a").once("k", 60)]);
    all.positions = vec![move_to("s", 0, "1")];
    all.quarantined = vec![junk(b"\x00\xff bad")];
    let answer = ledger.append(all, at(1)).await.unwrap();
    assert_eq!(answer.items, [Arrival::Duplicate(addr(1, 1))]);
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.position("s").await.unwrap().unwrap().version, 1);
    let quarantined = ledger.quarantined(None, 10).await.unwrap();
    assert_eq!(&quarantined[0].bytes[..], b"\x00\xff bad");
    assert_eq!(quarantined[0].meta, "{\"offset\":7}");
}

/// Every byte and attribute comes back: NUL, 0xff, a mebibyte, emoji, empty and absent data, odd names.
pub async fn bytes_come_back_unchanged(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let odd = "a\u{0}b \u{1f30a} \"quoted\" \\ \u{7f}";
    let payloads: Vec<Option<Bytes>> = vec![
        None,
        Some(Bytes::new()),
        Some(Bytes::from_static(b"\0")),
        Some(Bytes::from_static(&[0xff, 0xfe, 0x00, 0x80])),
        Some(Bytes::from(vec![0xa5; 1 << 20])),
        Some(Bytes::from("{\"wave\": \"\u{1f30a}\"}")),
    ];
    let events: Vec<_> = payloads
        .into_iter()
        .map(|data| {
            event(odd).source(odd).key(odd).once(odd, 0).with(|e| {
                e.kind = odd.into();
                e.source = odd.into();
                e.subject = Some(odd.into());
                e.datacontenttype = Some(String::new());
                e.dataschema = Some(odd.into());
                e.extensions.insert("source".into(), json!(odd));
                e.extensions.insert("n".into(), json!(-5));
                e.extensions.insert("yes".into(), json!(true));
                e.meta.insert(odd.into(), json!({"f": 0.1, "big": u64::MAX, "x": 5e-324, "n": [null, odd]}));
                e.data = data;
            })
        })
        .chain([event("")])
        .collect();
    ledger.append(batch(events.clone()), at(1)).await.unwrap();
    subject.reopen().await;
    let ledger = subject.ledger();
    let read = ledger.read(L1, Seq(1), 100, usize::MAX).await.unwrap();
    assert_eq!(read.len(), events.len());
    for (stored, new) in read.iter().zip(&events) {
        assert!(stored.event == new.event, "an event changed on its way");
        assert_eq!((&stored.key, &stored.source, stored.accepted_at), (&new.key, &new.source, at(1)));
        assert!(ledger.event(stored.address).await.unwrap().as_ref() == Some(stored));
    }
    let named: SourceName = odd.into();
    assert_eq!(ledger.arrivals().await.unwrap()[&named].accepted, 6);
}

/// A lane that does not exist is refused, and nothing of the batch is written.
pub async fn unknown_lanes_are_refused(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    for lane in [0, 3] {
        let lane = bellwire_schemas::Lane(lane);
        let answer = ledger.append(batch(vec![event("a"), event("b").lane(lane)]), at(1)).await;
        assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
        assert!(matches!(ledger.tail(lane).await, Err(Error::NotFound(_))));
        assert!(matches!(ledger.read(lane, Seq(1), 1, 1).await, Err(Error::NotFound(_))));
    }
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(0));
}

/// An append of nothing succeeds and takes no place.
pub async fn empty_batches_are_fine(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let answer = ledger.append(batch(vec![]), at(3)).await.unwrap();
    assert_eq!(answer, Appended { items: vec![], accepted_at: at(3) });
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(0));
    let ledger: Arc<dyn crate::Ledger> = subject.ledger();
    assert_eq!(ledger.lanes(), 2);
}
