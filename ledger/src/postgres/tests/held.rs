//! A session that keeps an old snapshot open, as a report or a backup does: it delays retention and nobody else.

use std::time::Duration;

use bellwire_schemas::Seq;
use tokio::time::Instant;

use super::OnServer;
use crate::Ledger;
use crate::conformance::Subject;
use crate::conformance::build::*;

/// No call of the traffic may take longer, waiting for the upkeep included.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_snapshot_delays_retention_only() {
    let mut subject = OnServer::new(2).await;
    let ledger = subject.ledger.clone();
    let schema = subject.options.schema.clone();
    for n in 0..5 {
        ledger.append(batch(vec![event(&n.to_string())]), at(n)).await.unwrap();
    }
    let report = subject.connect().await;
    report.batch_execute("begin isolation level repeatable read").await.unwrap();
    let read = format!("select count(*) from {schema}.event_batch");
    assert_eq!(report.query_one(&read, &[]).await.unwrap().get::<_, i64>(0), 5);

    let traffic = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            let mut longest = Duration::ZERO;
            for n in 0..200 {
                let since = Instant::now();
                ledger
                    .append(batch(vec![event(&format!("t{n}")).once(&format!("t{n}"), 60)]), at(1_000))
                    .await
                    .unwrap();
                ledger.read(L1, Seq(6 + n), 10, usize::MAX).await.unwrap();
                longest = longest.max(since.elapsed());
            }
            longest
        }
    });
    subject.turn().await;
    while crate::postgres::upkeep::tally(&ledger.shared).await.unwrap() {}
    let retained = ledger.retain(at(500), at(1_000)).await.unwrap();
    assert_eq!(retained.events, 0, "the report holds the tables");
    let holder = subject.connect().await;
    let ask = format!("select {schema}.holder_of(1)");
    let holder: Option<String> = holder.query_one(&ask, &[]).await.unwrap().get(0);
    assert!(holder.is_some_and(|who| who.starts_with("session ")), "the session is named");
    let longest = traffic.await.unwrap();
    assert!(longest < SOON, "an append waited {longest:?}");
    // The report still sees what it saw.
    assert_eq!(report.query_one(&read, &[]).await.unwrap().get::<_, i64>(0), 5);
    report.batch_execute("commit").await.unwrap();
    // The turn may have come after some of the traffic, which is younger.
    let old = "select count(*) from bellwire.generation g where g.closed_at is not null";
    assert_eq!(subject.number(old).await, 1);
    let gone = ledger.retain(at(2_000), at(2_000)).await.unwrap();
    assert!(gone.events >= 5, "{gone:?}");
    assert_eq!(subject.number(&format!("{old} and g.gen = 1")).await, 0);
    println!("the longest append and read took {longest:?}");
}
