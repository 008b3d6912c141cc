//! Databases, roles and servers that are set up in other ways: each works, or says what is wrong with it.

use bellwire_test_servers::postgres::psql;
use bellwire_test_servers::{Database, Options, Postgres};

use super::server;
use crate::conformance::build::*;
use crate::{Arrival, Error, Ledger, PostgresLedger, PostgresOptions};

async fn open(url: &str) -> Result<PostgresLedger, Error> {
    PostgresLedger::open(url, PostgresOptions { lanes: 2, ..PostgresOptions::default() }).await
}

/// A database with a setting, given before or after its ledger was made.
fn set(database: &Database, setting: &str) {
    let name = database.sql("select current_database()").unwrap();
    database.sql(&format!("alter database {name} set {setting}")).unwrap();
}

#[tokio::test]
async fn other_isolation_levels_are_refused() {
    for level in ["serializable", "repeatable read"] {
        let database = Database::create().unwrap();
        set(&database, &format!("default_transaction_isolation = '{level}'"));
        let error = open(&database.url()).await.err().unwrap();
        let told =
            matches!(&error, Error::Incompatible(why) if why.contains("default_transaction_isolation"));
        assert!(told, "{error:?}");
    }
    // Changed while a ledger is open: its next connections see that.
    let database = Database::create().unwrap();
    let ledger = open(&database.url()).await.unwrap();
    ledger.append(batch(vec![event("a")]), at(0)).await.unwrap();
    set(&database, "default_transaction_isolation = 'repeatable read'");
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity \
               where datname = current_database() and pid <> pg_backend_pid()";
    database.sql(cut).unwrap();
    let error = ledger.append(batch(vec![event("b")]), at(0)).await.unwrap_err();
    assert!(matches!(error, Error::Incompatible(_)), "{error:?}");
}

#[tokio::test]
async fn time_limits_of_the_database_change_nothing() {
    let database = Database::create().unwrap();
    for setting in
        ["statement_timeout = '20s'", "lock_timeout = '5s'", "idle_in_transaction_session_timeout = 50"]
    {
        set(&database, setting);
    }
    let ledger = open(&database.url()).await.unwrap();
    for n in 0..5 {
        ledger.append(batch(vec![event(&n.to_string())]), at(n)).await.unwrap();
    }
    crate::postgres::upkeep::rotate(&ledger.shared).await.unwrap();
    assert_eq!(ledger.read(L1, bellwire_schemas::Seq(1), 10, usize::MAX).await.unwrap().len(), 5);
    ledger.close().await;
}

/// A statement that is cut short has an unknown outcome; it is tried again, and then its caller is told.
#[tokio::test]
async fn a_limit_that_is_too_short_is_told_and_nothing_is_doubled() {
    let database = Database::create().unwrap();
    let ledger = open(&database.url()).await.unwrap();
    ledger.append(batch(vec![event("a")]), at(0)).await.unwrap();
    let (lock, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let hold = "begin; select pg_advisory_xact_lock(bellwire.append_class(), 1)";
    lock.batch_execute(hold).await.unwrap();
    set(&database, "statement_timeout = '300ms'");
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
               and pid <> pg_backend_pid() and state <> 'idle in transaction'";
    database.sql(cut).unwrap();
    let append = batch(vec![event("b")]);
    let error = ledger.append(append.clone(), at(0)).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(why) if why.contains("statement timeout")), "{error:?}");
    lock.batch_execute("commit").await.unwrap();
    let answer = ledger.append(append, at(0)).await.unwrap();
    assert_eq!(answer.items, [Arrival::Accepted(addr(1, 2))]);
}

/// `synchronous_commit = off` for everything: what was accepted survives a crash all the same.
#[tokio::test]
async fn what_was_accepted_is_durable_whatever_the_default_says() {
    let options = Options::default().set("synchronous_commit", "off").set("wal_writer_delay", "10s");
    let mut server = Postgres::start(&options).unwrap();
    let ledger = open(&server.url()).await.unwrap();
    let mut told = Vec::new();
    for n in 0..20 {
        told.push(ledger.append(batch(vec![event(&n.to_string())]), at(n)).await.unwrap());
    }
    server.kill();
    server.start_again().unwrap();
    let ids = server.sql("postgres", "select count(*), sum(count) from bellwire.event_batch").unwrap();
    assert_eq!(ids, format!("{0}|{0}", told.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_refused_for_writing_and_can_be_read() {
    let primary = Postgres::start(&Options::default()).unwrap();
    let ledger = open(&primary.url()).await.unwrap();
    ledger.append(batch(vec![event("a")]), at(0)).await.unwrap();
    let standby = Postgres::standby(primary.address(), &Options::default()).unwrap();
    let error = open(&standby.url()).await.err().unwrap();
    assert!(matches!(&error, Error::Unavailable(why) if why.contains("standby")), "{error:?}");
    let url = format!("{}?target_session_attrs=any", standby.url());
    let reader = PostgresLedger::open_read_only(&url, "bellwire").await.unwrap();
    assert_eq!(reader.read(L1, bellwire_schemas::Seq(1), 10, usize::MAX).await.unwrap().len(), 1);
    assert_eq!(reader.tails().await.unwrap(), [bellwire_schemas::Seq(1), bellwire_schemas::Seq(0)]);
    assert!(matches!(reader.append(batch(vec![event("b")]), at(0)).await, Err(Error::Incompatible(_))));
}

#[tokio::test]
async fn a_role_that_may_not_create_is_told_so() {
    let database = Database::create().unwrap();
    let role = database.sql("select 'r_' || current_database()").unwrap();
    database.sql(&format!("create role {role} login")).unwrap();
    let url = database.url().replacen("postgres://postgres@", &format!("postgres://{role}@"), 1);
    let error = open(&url).await.err().unwrap();
    let told = matches!(&error, Error::Incompatible(why) if why.contains("permission denied"));
    assert!(told, "{error:?}");
    let name = database.sql("select current_database()").unwrap();
    database.sql(&format!("grant create on database {name} to {role}")).unwrap();
    let ledger = open(&url).await.unwrap();
    ledger.append(batch(vec![event("a")]), at(0)).await.unwrap();
    ledger.close().await;
    drop((ledger, database));
    psql(&server(), &format!("drop role {role}")).unwrap();
}

/// A server that was built without lz4 keeps events all the same.
#[tokio::test]
async fn without_lz4_events_are_compressed_in_the_old_way() {
    let database = Database::create().unwrap();
    // Stands before the server's own view.
    let hide = "create schema hide; create view hide.pg_settings as select name, setting,
        case when name = 'default_toast_compression' then '{pglz}' else enumvals end as enumvals from pg_catalog.pg_settings";
    database.sql(hide).unwrap();
    set(&database, "search_path = hide, pg_catalog, public");
    let ledger = open(&database.url()).await.unwrap();
    let text = format!("\"{}\"", "x".repeat(100_000));
    let big = event("a").with(|e| e.data = Some(text.clone().into()));
    ledger.append(batch(vec![big.clone()]), at(0)).await.unwrap();
    let ways = "select count(*) from pg_attribute where attrelid = 'bellwire.event_batch_1'::regclass \
                and attcompression = 'l'";
    assert_eq!(database.sql(ways).unwrap(), "0");
    let read = ledger.read(L1, bellwire_schemas::Seq(1), 10, usize::MAX).await.unwrap();
    assert_eq!(read[0].event, big.event);
    ledger.close().await;
}
