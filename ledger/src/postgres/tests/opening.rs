//! Opening: migrations, whole or not at all, once; newer and foreign schemas refused.

use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, FinalState, Seq};

use super::{connect, server};
use crate::conformance::build::*;
use crate::postgres::migrate::{MIGRATIONS, bring_up_to, migrate, schema_status};
use crate::postgres::pool::Pool;
use crate::postgres::{PostgresOptions, connector_of};
use crate::sqlite::SchemaStatus;
use crate::{Error, Ledger, PostgresLedger};

fn lanes(lanes: u16) -> PostgresOptions {
    PostgresOptions { lanes, ..PostgresOptions::default() }
}

/// A schema of its own for one test, dropped at its end.
struct Place {
    /// The URL with the schema in it.
    pub url: String,
    pub schema: String,
}

impl Place {
    pub fn new() -> Self {
        let schema = format!("t_{}", uuid::Uuid::now_v7().simple());
        let server = server();
        let mark = if server.contains('?') { '&' } else { '?' };
        Self { url: format!("{server}{mark}schema={schema}"), schema }
    }

    /// A plain connection to look at what the ledger wrote.
    pub async fn look(&self) -> tokio_postgres::Client {
        connect().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let schema = self.schema.clone();
        // A runtime of its own: the test's may be gone or busy.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                connect().await.batch_execute(&format!("drop schema if exists {schema} cascade")).await
            })
        });
        if !std::thread::panicking() {
            dropped.join().unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_new_ledger_is_made_once_and_found_again() {
    let place = Place::new();
    let before = schema_status(&place.url).await.unwrap();
    assert_eq!(before.current, 0);
    let open = || PostgresLedger::open(&place.url, lanes(3));
    // All at once, as when a cluster starts.
    let (a, b, c, d) = tokio::join!(open(), open(), open(), open());
    for ledger in [a, b, c, d] {
        let ledger = ledger.unwrap();
        assert_eq!((ledger.lanes(), ledger.shared.generation()), (3, 1));
        ledger.close().await;
    }
    let newest = before.newest;
    assert_eq!(schema_status(&place.url).await.unwrap(), SchemaStatus { current: newest, newest });
    assert_eq!(migrate(&place.url).await.unwrap(), SchemaStatus { current: newest, newest });
    let other = PostgresLedger::open(&place.url, lanes(4)).await;
    assert!(matches!(other, Err(Error::Incompatible(ref why)) if why.contains("3 lanes")));
    assert_eq!(PostgresLedger::open_read_only(&place.url, "elsewhere").await.unwrap().lanes(), 3);
}

#[tokio::test]
async fn reading_only_makes_nothing() {
    let place = Place::new();
    let error = PostgresLedger::open_read_only(&place.url, "bellwire").await.err().unwrap();
    assert!(matches!(error, Error::Incompatible(_)), "{error}");
    assert_eq!(schema_status(&place.url).await.unwrap().current, 0);
    migrate(&place.url).await.unwrap();
    let error = PostgresLedger::open_read_only(&place.url, "bellwire").await.err().unwrap();
    assert!(error.to_string().contains("never opened"), "{error}");
}

#[tokio::test]
async fn an_interrupted_migration_leaves_whole_steps() {
    let place = Place::new();
    let (connector, schema) = connector_of(&place.url, None).unwrap();
    let pool = Pool::open(connector).await.unwrap();
    const BROKEN: &[(&str, &str)] = &[
        ("first", "create table bellwire.first (n int);"),
        (
            "second",
            "create table bellwire.second (n int); select 1 / 0; create table bellwire.third (n int);",
        ),
    ];
    assert!(bring_up_to(&pool, &schema, BROKEN).await.is_err());
    let there = "select relname::text from pg_class where relnamespace = $1::text::regnamespace and relkind = 'r' \
                 order by 1";
    let look = place.look().await;
    let names = async || -> Vec<String> {
        look.query(there, &[&place.schema]).await.unwrap().iter().map(|r| r.get(0)).collect()
    };
    assert_eq!(names().await, ["first", "migration"]);
    // A program that is killed in the middle of a step.
    let (killed, connection) = tokio_postgres::connect(&server(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let pid: i32 = killed.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let text = format!("create table {0}.second (n int); select pg_sleep(600)", place.schema);
    let run = tokio::spawn(async move { killed.batch_execute(&text).await });
    let asleep = "select exists (select from pg_stat_activity where pid = $1 and wait_event = 'PgSleep')";
    while !look.query_one(asleep, &[&pid]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
    look.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    assert!(run.await.unwrap().is_err());
    let _ = connection.await;
    const WHOLE: &[(&str, &str)] = &[BROKEN[0], ("second", "create table bellwire.second (n int);")];
    bring_up_to(&pool, &schema, WHOLE).await.unwrap();
    assert_eq!(names().await, ["first", "migration", "second"]);
}

/// Debts of before the eleventh step get the key of their event; flushes go on, those of older programs, too.
#[tokio::test]
async fn debts_of_older_ledgers_get_their_keys() {
    let place = Place::new();
    let (connector, schema) = connector_of(&place.url, None).unwrap();
    let pool = Pool::open(connector).await.unwrap();
    bring_up_to(&pool, &schema, &MIGRATIONS[..10]).await.unwrap();
    let debt = "now(), 1, now(), now(), null, 0, null, true";
    let filled = format!(
        "select bellwire.found(2);
         insert into bellwire.source (name) values ('orders');
         insert into bellwire.event_batch (gen, lane, first_seq, count, append_id, appended_at, sources, types, ids, keys,
           attributes) values (1, 1, 1, 3, gen_random_uuid(), now(), '{{1}}', '{{t}}', '{{a,b,c}}', '{{k1,null,k3}}',
           array_fill('{{\"source\": \"s\", \"time\": \"\"}}'::text, array[3]));
         insert into bellwire.retry values (1, 1, 1, {debt}), (1, 1, 2, {debt}), (1, 1, 3, {debt}), (1, 2, 9, {debt})"
    );
    place.look().await.batch_execute(&schema.replace(&filled)).await.unwrap();
    let ledger = PostgresLedger::open(&place.url, lanes(2)).await.unwrap();
    let keys: Vec<_> =
        ledger.debts(L1, BindingId(1), Seq(0), 9).await.unwrap().into_iter().map(|o| o.key).collect();
    assert_eq!(keys, [Some("k1".to_owned()), None, Some("k3".to_owned())]);
    assert_eq!(ledger.debts(L2, BindingId(1), Seq(0), 9).await.unwrap()[0].key, None);
    let ledger: std::sync::Arc<dyn Ledger> = std::sync::Arc::new(ledger);
    let b = declare(&ledger, vec![binding("b:orders", Start::Earliest)]).await[0];
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 1, 3).owes(3, 5).settles(1).ends(1, FinalState::Delivered)).await;
    let (functions, ending) = (place.look().await, "'^(flush|outbox)_1$'");
    let count = format!(
        "select count(*) from pg_proc where pronamespace = $1::text::regnamespace and proname ~ {ending}"
    );
    assert_eq!(functions.query_one(&count, &[&place.schema]).await.unwrap().get::<_, i64>(0), 2);
}

#[tokio::test]
async fn newer_changed_and_foreign_schemas_are_refused() {
    let place = Place::new();
    migrate(&place.url).await.unwrap();
    let look = place.look().await;
    let insert = format!("insert into {}.migration values (99, 'later', 'x')", place.schema);
    look.batch_execute(&insert).await.unwrap();
    let error = PostgresLedger::open(&place.url, lanes(1)).await.err().unwrap();
    assert!(matches!(error, Error::Incompatible(ref why) if why.contains("newer")), "{error}");
    assert!(matches!(migrate(&place.url).await, Err(Error::Incompatible(_))));
    assert_eq!(schema_status(&place.url).await.unwrap().current, 99);
    let change = format!(
        "delete from {0}.migration where version = 99; update {0}.migration set checksum = 'y'",
        place.schema
    );
    look.batch_execute(&change).await.unwrap();
    let error = PostgresLedger::open(&place.url, lanes(1)).await.err().unwrap();
    assert!(matches!(error, Error::Incompatible(ref why) if why.contains("another")), "{error}");

    let foreign = Place::new();
    let make = format!("create schema {0}; create table {0}.lane (x int)", foreign.schema);
    look.batch_execute(&make).await.unwrap();
    let error = PostgresLedger::open(&foreign.url, lanes(1)).await.err().unwrap();
    assert!(matches!(error, Error::Incompatible(ref why) if why.contains("another program")), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unavailable_without_the_password() {
    let error = PostgresLedger::open("postgres://me:geheim@127.0.0.1:1,127.0.0.1:2/x", lanes(1)).await;
    let error = error.err().unwrap();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && text.contains("127.0.0.1:2") && !text.contains("geheim"),
        "{text}"
    );
}
