//! What people read: the views and functions, as the role that may, and every question of `docs/sql.md`.

use bellwire_schemas::FinalState;
use bellwire_schemas::service::Start;
use tokio_postgres::{Client, Row};

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{LogOutcome, OwedReason};

const PAGE: &str = include_str!("../../../../docs/sql.md");

/// A reader of a ledger that holds a little of everything.
struct Reader {
    subject: OnServer,
    client: Client,
}

impl Reader {
    async fn new() -> Self {
        let subject = OnServer::new(2).await;
        fill(&subject).await;
        let client = subject.connect().await;
        client.batch_execute("set role bellwire_reader").await.unwrap();
        Self { subject, client }
    }

    async fn ask(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sql = sql.replace("bellwire.", &format!("{}.", self.subject.options.schema));
        self.client.query(&sql, &[]).await
    }

    /// The only column, as text, of every row.
    async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.ask(sql).await.unwrap();
        rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
    }
}

/// Six orders and a price: delivered, filtered, dead, owed, done above the mark, waiting.
async fn fill(subject: &OnServer) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now), binding("c:orders", Start::Now)]).await[0];
    let order = |n: u64| {
        event(&format!("o{n}")).with(|e| {
            e.data = Some(format!("{{\"customer\":\"{n}\",\"total\":{n}0}}").into());
            e.extensions.insert("region".into(), serde_json::json!("north"));
        })
    };
    let dated = |n: i64| bellwire_schemas::Timestamp::from_micros(n * 1_000_000);
    let now = subject.number("select extract(epoch from clock_timestamp())::bigint").await;
    ledger.append(batch((1..=5).map(order).collect()), dated(now - 60)).await.unwrap();
    let more = vec![order(6).lane(L1), event("p").source("prices").with(|e| e.data = None)];
    ledger.append(batch(more), dated(now - 30)).await.unwrap();
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 1, 4).done(&[5]).ends(1, FinalState::Delivered).ends(2, FinalState::Filtered);
    part = part
        .kills(ledger.read(L1, bellwire_schemas::Seq(3), 1, 1).await.unwrap().remove(0), now - 1_700_000_000);
    part = part.owes(4, 5).owes(5, 6);
    part.log[0].at = dated(now - 20);
    flush(&ledger, epoch, part).await;
    let mut part = share(b, 2, 5).settles(5).ends(5, FinalState::Delivered);
    part.log[0].attempt = 2;
    part.log[0].at = at(2_000);
    flush(&ledger, epoch, part).await;
}

/// The blocks of the page that hold SQL.
fn questions() -> Vec<&'static str> {
    let blocks = PAGE.split("```sql\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().trim()).collect()
}

#[tokio::test]
async fn every_question_of_the_page_has_an_answer() {
    let reader = Reader::new().await;
    let questions = questions();
    assert_eq!(questions.len(), 12);
    for question in questions {
        let rows = reader.ask(question).await.unwrap_or_else(|e| panic!("{question}\n{e:?}"));
        let even = question.contains("accepted <>");
        let none = question.contains("customer");
        assert_eq!(rows.is_empty(), even || none, "{question}");
    }
}

#[tokio::test]
async fn an_event_is_explained_per_binding() {
    let reader = Reader::new().await;
    let explained = async |lane: u16, seq: u64| {
        let sql = format!(
            "select concat_ws(' | ', binding, state, reason, attempts, last_error) from bellwire.explain({lane}, {seq})"
        );
        reader.texts(&sql).await
    };
    assert_eq!(
        explained(1, 1).await,
        [
            "b:orders | delivered | the function answered | 1",
            "c:orders | waiting | 1 places beyond the cursor | 0"
        ]
    );
    assert_eq!(explained(1, 2).await[0], "b:orders | filtered | the filter said no | 1");
    assert!(explained(1, 3).await[0].starts_with("b:orders | dead | it was given up | 3 | "));
    assert!(explained(1, 4).await[0].starts_with("b:orders | retrying | an attempt failed | 1 | "));
    assert!(explained(1, 5).await[0].starts_with("b:orders | delivered | the function answered | 2 | "));
    assert_eq!(explained(1, 6).await[0], "b:orders | waiting | 1 places beyond the cursor | 0");
    for (reason, expected) in [
        (3, "parked | it waits behind an earlier event of its key"),
        (4, "parked | its attempts are used up, and its key waits with it"),
        (5, "waiting | it asked for a later time"),
        (6, "waiting | it is the last event of a burst so far"),
        (7, "waiting | an operator cancelled it, and its binding is about to end it"),
        (8, "retrying | an operator cancelled it, and its binding is about to end it"),
    ] {
        reader.subject.sql(&format!("update bellwire.retry set reason = {reason}")).await;
        let told = explained(1, 4).await;
        assert!(told[0].starts_with(&format!("b:orders | {expected} | 1 | ")), "{told:?}");
    }
    assert_eq!(explained(1, 7).await, [""; 0], "nobody reads prices");
    assert_eq!(explained(1, 8).await, ["unknown | nothing has been stored there yet"]);
}

#[tokio::test]
async fn views_show_what_the_ledger_holds() {
    let reader = Reader::new().await;
    let ledger = reader.subject.ledger();
    let rows =
        reader.texts("select address || ' ' || id || ' ' || source from bellwire.event order by seq").await;
    let read = ledger.read(L1, bellwire_schemas::Seq(1), 100, usize::MAX).await.unwrap();
    let expected: Vec<_> =
        read.iter().map(|e| format!("{} {} {}", e.address, e.event.id, e.source.as_str())).collect();
    assert_eq!(rows, expected);
    for event in &read {
        let (lane, seq) = (event.address.lane, event.address.seq);
        let one = reader
            .texts(&format!("select bellwire.data_text(data) from bellwire.event_at({lane}, {seq})"))
            .await;
        let data = event.event.data.as_ref().map(|d| String::from_utf8(d.to_vec()).unwrap());
        assert_eq!(one, [data.unwrap_or_default()]);
        let log = ledger.log(event.address, None).await.unwrap();
        let sql = format!(
            "select outcome || ' ' || attempt || ' ' || worker || ' ' || version || ' ' || ms || ' '
               || (extract(epoch from started_at) * 1000000)::bigint from bellwire.log_at({lane}, {seq})"
        );
        let line = |entry: &crate::LogEntry| {
            let outcome = match entry.outcome {
                LogOutcome::Failed => "failed".into(),
                LogOutcome::Final(state) => format!("{state:?}").to_lowercase(),
            };
            let (worker, version, ms) = (&entry.worker, &entry.version, entry.duration_ms);
            format!("{outcome} {} {worker} {version} {ms} {}", entry.attempt, entry.at.micros())
        };
        assert_eq!(reader.texts(&sql).await, log.iter().map(|(_, l)| line(l)).collect::<Vec<_>>());
    }
    let extensions = "select attributes::json -> 'extensions' ->> 'region' from bellwire.event where seq = 1";
    assert_eq!(reader.texts(extensions).await, ["north"]);
    let dead = "select binding || ' ' || address || ' ' || attempts || ' ' || id from bellwire.dead_letter";
    assert_eq!(reader.texts(dead).await, ["b:orders 1-3 3 o3"]);
    assert!(matches!(
        ledger.owed(delivery(bellwire_schemas::BindingId(1), 4)).await.unwrap().unwrap().reason,
        OwedReason::Retry
    ));
}

#[tokio::test]
async fn the_role_reads_views_and_nothing_else() {
    let reader = Reader::new().await;
    for sql in [
        "select * from bellwire.event_batch",
        "select * from bellwire.source",
        "select bellwire.set_paused(1, now(), 'me', 'mine')",
        "select bellwire.take_lane('00000000-0000-0000-0000-000000000001', 1::smallint, 5)",
        "select bellwire.rotate(1)",
        "insert into bellwire.event default values",
        "delete from bellwire.dead_letter",
    ] {
        let refused = reader.ask(sql).await.err().unwrap_or_else(|| panic!("{sql} was allowed"));
        let code = refused.code().map(|c| c.code().to_owned());
        assert!(matches!(code.as_deref(), Some("42501" | "55000")), "{sql}: {refused:?}");
    }
}
