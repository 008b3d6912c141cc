//! Odd and huge inputs: stored and given back as they are, or refused with an error that says why; soon.

use std::sync::Arc;

use bellwire_schemas::Seq;
use bellwire_schemas::service::Start;
use bytes::Bytes;
use tokio::time::Instant;

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{Arrival, Error, Ledger, NewEvent, Quarantine};

/// Everything that text can hold and that quoting could break.
const TEXTS: [&str; 8] = [
    "it's \"quoted\" \\ and {a,b}",
    "nul \0 in the middle\0",
    "\u{10FFFF}0 \u{10FFFF}\u{10FFFF}\0",
    "👩‍👩‍👧‍👦 مرحبا 例",
    "NULL",
    "",
    " \t\r\n ",
    "'; drop schema bellwire cascade; --",
];

async fn round_trip(events: Vec<NewEvent>) {
    let subject = OnServer::new(1).await;
    let answer = subject.ledger.append(batch(events.clone()), at(0)).await.unwrap();
    subject.ledger.close().await;
    let ledger = subject.another().await;
    let mut read = Vec::new();
    while read.len() < events.len() {
        let next = Seq(read.len() as u64 + 1);
        let more = ledger.read(L1, next, 1_000, 1 << 20).await.unwrap();
        assert!(!more.is_empty(), "nothing from {next} on");
        read.extend(more);
    }
    for ((new, stored), item) in events.iter().zip(&read).zip(&answer.items) {
        assert_eq!((&stored.event, &stored.key), (&new.event, &new.key));
        assert_eq!(stored.source, new.source);
        assert_eq!(*item, Arrival::Accepted(stored.address));
        assert_eq!(ledger.event(stored.address).await.unwrap().as_ref(), Some(stored));
    }
    ledger.close().await;
}

#[tokio::test]
async fn odd_texts_come_back_unchanged() {
    let events = TEXTS.iter().flat_map(|text| {
        let typed = event("x").with(|e| e.kind = (*text).into()).source(text);
        [event(text).once(text, 60), event("plain").key(text), typed]
    });
    round_trip(events.collect()).await;
}

#[tokio::test]
async fn long_texts_come_back_unchanged() {
    let long = "k\0ä'".repeat(20_000);
    let data = |bytes: usize| Some(Bytes::from((0..bytes).map(|n| (n % 251) as u8).collect::<Vec<_>>()));
    round_trip(vec![
        event("key").key(&long),
        event(&long).once(&long, 60),
        event("type").with(|e| e.kind = long.as_str().into()),
        event("1 MB").with(|e| e.data = data(1_000_000)),
    ])
    .await;
}

#[tokio::test]
async fn the_largest_event_that_can_be_configured() {
    let data = Bytes::from(vec![b'7'; 64 << 20]);
    let since = Instant::now();
    round_trip(vec![event("before"), event("64 MiB").with(|e| e.data = Some(data)), event("after")]).await;
    assert!(since.elapsed().as_secs() < 60, "{:?}", since.elapsed());
}

/// What no row can hold is refused for good, and does not hold up the events after it.
#[tokio::test]
async fn an_append_beyond_every_limit_is_refused() {
    let subject = OnServer::new(1).await;
    let huge = event("a").with(|e| e.data = Some(Bytes::from(vec![0; 520 << 20])));
    let refused = subject.ledger.append(batch(vec![huge]), at(0)).await;
    assert!(matches!(&refused, Err(Error::Corrupt(why)) if why.contains("too large")), "{refused:?}");
    let answer = subject.ledger.append(batch(vec![event("b")]), at(0)).await.unwrap();
    assert_eq!(answer.items, [Arrival::Accepted(addr(1, 1))]);
}

#[tokio::test]
async fn many_large_messages_in_quarantine() {
    let subject = OnServer::new(1).await;
    let bytes = Bytes::from(vec![0; 1 << 20]);
    for n in 0..40 {
        let mut append = batch(vec![]);
        let reason = TEXTS[n % TEXTS.len()].to_string();
        let meta = "{\"a\":\"\\u0000\"}".into();
        append.quarantined = vec![Quarantine { source: "orders".into(), reason, bytes: bytes.clone(), meta }];
        subject.ledger.append(append, at(n as i64)).await.unwrap();
    }
    assert_eq!(subject.number("select count(*) from bellwire.quarantine").await, 40);
    let page = subject.ledger.quarantined(None, 10).await.unwrap();
    assert_eq!(page.len(), 10);
    assert_eq!(page[0].reason, TEXTS[39 % TEXTS.len()]);
}

#[tokio::test]
async fn thousands_of_bindings() {
    let subject = OnServer::new(2).await;
    let ledger: Arc<dyn Ledger> = Arc::new(subject.ledger.clone());
    let many = |count: usize| (0..count).map(|n| binding(&format!("b{n}:orders"), Start::Earliest)).collect();
    let since = Instant::now();
    assert_eq!(declare(&ledger, many(5_000)).await.len(), 5_000);
    let first = since.elapsed();
    assert_eq!(declare(&ledger, many(5_000)).await.len(), 5_000);
    let again = since.elapsed() - first;
    ledger.append(batch(vec![event("a")]), at(0)).await.unwrap();
    let totals = ledger.totals().await.unwrap();
    let asked = since.elapsed() - first - again;
    println!("5,000 bindings: declared in {first:?}, again in {again:?}, totals in {asked:?}");
    assert_eq!(totals.len(), 5_000);
    assert!(since.elapsed().as_secs() < 60, "{first:?} {again:?} {asked:?}");
}
