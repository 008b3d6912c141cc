//! Very many debts: what is parked slows nothing down, and pages of debts are searches.

use bellwire_schemas::{BindingId, Seq};

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{Ledger, OwedReason};

/// A debt of every place, parked behind a few that are tried again; and debts of other bindings.
const MANY: &str = "insert into bellwire.retry (binding, lane, seq, accepted_at, attempts, next_at, since, reason, key, counted)
  select 1, 1, n, now(), 0, to_timestamp(1700000000 + n), now(), case when n % 25000 = 1 then 0 else 3 end, 'k', true
  from generate_series(1, 100000) n;
  insert into bellwire.retry (binding, lane, seq, accepted_at, attempts, next_at, since, reason, counted)
  select b, 1, n, now(), 1, now(), now(), 0, true from generate_series(2, 4) b, generate_series(1, 20000) n";

/// How the server would run a statement, as a generic plan.
async fn plan(subject: &OnServer, sql: &str) -> String {
    let sql = sql.replace("bellwire.", &format!("{}.", subject.options.schema));
    let client = subject.connect().await;
    client.batch_execute("set plan_cache_mode = force_generic_plan").await.unwrap();
    client.batch_execute(&format!("prepare asked (int, smallint, bigint) as {sql}")).await.unwrap();
    let rows = client.query("explain execute asked (1, 1::smallint, 10)", &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn parked_debts_slow_nothing_down() {
    let subject = OnServer::new(1).await;
    subject.sql(MANY).await;
    let due = "select seq, next_at from bellwire.retry
         where binding = $1 and lane = $2 and reason not in (3, 4) order by next_at, seq limit $3";
    let debts =
        "select * from bellwire.retry where binding = $1 and lane = $2 and seq > $3 order by seq limit 1000";
    for statistics in ["vacuum bellwire.retry", "analyze bellwire.retry"] {
        subject.sql(statistics).await;
        let shown = plan(&subject, due).await;
        assert!(shown.contains("retry_by_time") && !shown.contains("Sort"), "{statistics}: {shown}");
        let shown = plan(&subject, debts).await;
        assert!(shown.contains("retry_pkey") && !shown.contains("Sort"), "{statistics}: {shown}");
        // What every flush asks.
        let asked = "select exists (select from bellwire.retry t where t.lane = $2 and t.reason = 7)
          where $1 = $1 and $3 = $3";
        let shown = plan(&subject, asked).await;
        assert!(shown.contains("retry_asked"), "{statistics}: {shown}");
    }
    let b = BindingId(1);
    let answer = subject.ledger.due(L1, b, at(1 << 20), 100).await.unwrap();
    assert_eq!(answer.due.iter().map(|o| o.seq.0).collect::<Vec<_>>(), [1, 25_001, 50_001, 75_001]);
    assert_eq!(answer.next_at, None);
    let (mut after, mut parked) = (Seq(0), 0);
    loop {
        let page = subject.ledger.debts(L1, b, after, 10_000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        parked += page.iter().filter(|o| o.reason == OwedReason::Parked).count();
    }
    assert_eq!((after, parked), (Seq(100_000), 99_996));
}
