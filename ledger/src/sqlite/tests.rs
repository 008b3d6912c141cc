//! The contract, kept by SQLite, and what is SQLite's own: locks, schemas, limits.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::Ledger;
use crate::conformance::Subject;
use crate::conformance::build::*;

/// A ledger in a folder that goes with it.
pub(super) struct OnDisk {
    folder: TempDir,
    pub ledger: SqliteLedger,
    options: SqliteOptions,
}

impl OnDisk {
    pub fn with(options: SqliteOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("ledger.db"), options).unwrap();
        Self { folder, ledger, options }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }
}

#[async_trait]
impl Subject for OnDisk {
    async fn new(lanes: u16) -> Self {
        Self::with(SqliteOptions { lanes, ..SqliteOptions::default() })
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(self.ledger.clone())
    }

    async fn reopen(&mut self) {
        self.ledger.close().await;
        self.ledger = SqliteLedger::open(&self.path(), self.options).unwrap();
    }
}

crate::conformance::suite!(OnDisk);

pub(super) fn options(lanes: u16) -> SqliteOptions {
    SqliteOptions { lanes, max_bytes: None }
}

#[tokio::test]
async fn a_second_owner_is_refused_and_told_by_whom() {
    let mut subject = OnDisk::new(1).await;
    let refused = SqliteLedger::open(&subject.path(), options(1)).err().unwrap();
    let Error::Locked(text) = refused else { panic!("{refused:?}") };
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(matches!(migrate(&subject.path()), Err(Error::Locked(_))));
    subject.reopen().await;
}

#[tokio::test]
async fn readers_need_no_lock_and_write_nothing() {
    let subject = OnDisk::new(2).await;
    let writing: Arc<dyn Ledger> = subject.ledger();
    fill(&writing, 0, 3).await;
    let reading = SqliteLedger::open_read_only(&subject.path()).unwrap();
    assert_eq!(reading.lanes(), 2);
    assert_eq!(reading.tail(L1).await.unwrap().0, 3);
    fill(&writing, 3, 1).await;
    assert_eq!(reading.tail(L1).await.unwrap().0, 4);
    let refused = reading.append(batch(vec![]), at(1)).await;
    assert!(matches!(refused, Err(Error::Incompatible(_))), "{refused:?}");
    reading.close().await;
    writing.close().await;
    let after = SqliteLedger::open_read_only(&subject.path()).unwrap();
    assert_eq!(after.tail(L1).await.unwrap().0, 4);
    let none = SqliteLedger::open_read_only(&subject.path().with_extension("none"));
    assert!(matches!(none, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn other_files_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.db");
    let refused = |expected: &str| {
        for error in [
            SqliteLedger::open(&path, options(1)).err(),
            SqliteLedger::open_read_only(&path).err(),
            schema_status(&path).err(),
        ] {
            let Some(Error::Incompatible(text)) = error else { panic!("{error:?}") };
            assert!(text.contains(expected), "{text}");
        }
    };
    std::fs::write(&path, "just some text, long enough to be looked at ".repeat(200)).unwrap();
    refused("no ledger");
    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    refused("another program");
    assert!(matches!(migrate(&path), Err(Error::Incompatible(_))));
}

#[tokio::test]
async fn schemas_and_lanes_are_checked() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deeper").join("x.db");
    assert_eq!(schema_status(&path).unwrap(), SchemaStatus { current: 0, newest: 5 });
    assert_eq!(migrate(&path).unwrap().current, 0);
    assert_eq!(migrate(&path).unwrap().current, 5);
    assert!(matches!(SqliteLedger::open_read_only(&path), Err(Error::Incompatible(_))), "never opened");
    SqliteLedger::open(&path, options(3)).unwrap().close().await;
    let Some(Error::Incompatible(text)) = SqliteLedger::open(&path, options(1)).err() else { panic!() };
    assert!(text.contains("3 lanes"), "{text}");
    assert!(matches!(SqliteLedger::open(&path, options(0)), Err(Error::Incompatible(_))));
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute("INSERT INTO schema_version (version, name) VALUES (99, 'later')", []).unwrap();
    assert_eq!(schema_status(&path).unwrap().current, 99);
    let Some(Error::Incompatible(text)) = SqliteLedger::open(&path, options(3)).err() else { panic!() };
    assert!(text.contains("99"), "{text}");
    assert!(matches!(SqliteLedger::open_read_only(&path), Err(Error::Incompatible(_))));
}

/// Many callers at once, a third of them refused: the others are whole, and lanes stay gapless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_harms_no_neighbour() {
    let subject = OnDisk::new(1).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..150u64 {
        let ledger = subject.ledger();
        tasks.spawn(async move {
            let mut append =
                batch(vec![event(&format!("e{n}")).once(&format!("e{n}"), 60).source(&format!("s{n}"))]);
            let expected = if n % 3 == 0 { 5 } else { 0 };
            append.positions =
                vec![crate::PositionAdvance { shard: format!("p{n}"), expected, value: String::new() }];
            (n, ledger.append(append, at(1)).await)
        });
    }
    for (n, answer) in tasks.join_all().await {
        assert_eq!(answer.is_err(), n % 3 == 0, "{answer:?}");
        let ledger = subject.ledger();
        assert_eq!(ledger.position(&format!("p{n}")).await.unwrap().is_some(), n % 3 != 0);
        if let Ok(answer) = answer {
            let stored = ledger.event(accepted(&answer)[0]).await.unwrap().unwrap();
            assert_eq!(stored.event.id, format!("e{n}"));
            assert_eq!(stored.source.as_str(), format!("s{n}"));
        }
    }
    assert_eq!(subject.ledger().tail(L1).await.unwrap().0, 100);
    // The keys of the refused were not kept.
    let again = subject.ledger().append(batch(vec![event("e0").once("e0", 60).source("s0")]), at(2)).await;
    assert_eq!(accepted(&again.unwrap()), [addr(1, 101)]);
}

/// Holds the writer up until the sender is dropped, so that what is asked meanwhile shares one commit.
async fn hold_up(ledger: &SqliteLedger) -> std::sync::mpsc::Sender<()> {
    let (free, held) = std::sync::mpsc::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let writing = ledger.clone();
    tokio::spawn(async move {
        let wait = move |_: &mut Book| {
            let _ = began.send(());
            let _ = held.recv();
            Ok(())
        };
        writing.change(wait).await
    });
    begun.await.unwrap();
    free
}

#[tokio::test]
async fn a_statement_that_fails_harms_no_neighbour() {
    let subject = OnDisk::new(1).await;
    let ledger = subject.ledger.clone();
    let free = hold_up(&ledger).await;
    let bad = ledger.change(|book| Ok(book.conn.execute("INSERT INTO lane (lane) VALUES (1)", [])?));
    let before = ledger.append(batch(vec![event("a").once("k", 9)]), at(1));
    let after = ledger.append(batch(vec![event("b").once("k", 9)]), at(1));
    let freed = async { drop(free) };
    let (before, bad, after, ()) = tokio::join!(before, bad, after, freed);
    assert!(matches!(bad, Err(Error::Corrupt(_))), "{bad:?}");
    assert_eq!(accepted(&before.unwrap()), [addr(1, 1)]);
    assert_eq!(after.unwrap().items, [crate::Arrival::Duplicate(addr(1, 1))]);
    assert_eq!(ledger.tail(L1).await.unwrap().0, 1);
}

#[tokio::test]
async fn a_writer_that_breaks_down_is_noticed() {
    let subject = OnDisk::new(1).await;
    let ledger = subject.ledger.clone();
    let failed = tokio::spawn(ledger.failed());
    let broken: Result<(), Error> = ledger.change(|_| panic!("a test said so")).await;
    assert!(matches!(broken, Err(Error::Unavailable(_))), "{broken:?}");
    let why = tokio::time::timeout(std::time::Duration::from_secs(5), failed).await.unwrap().unwrap();
    assert!(why.contains("broke down"), "{why}");
    let orderly = OnDisk::new(1).await;
    let mut failed = Box::pin(orderly.ledger.failed());
    orderly.ledger.close().await;
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(1), &mut failed).await.is_err(),
        "an orderly end is no failure"
    );
}

fn large(n: i64) -> crate::NewEvent {
    event(&format!("large{n}")).with(|e| e.data = Some(bytes::Bytes::from(vec![b'x'; 100_000])))
}

async fn append_until_full(ledger: &Arc<dyn Ledger>) -> i64 {
    for n in 0..10_000 {
        match ledger.append(batch(vec![large(n)]), at(n)).await {
            Ok(_) => {}
            Err(Error::Full(_)) => return n,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("it never filled up");
}

/// At its size appends are refused, deliveries go on, and retention makes room again.
#[tokio::test]
async fn a_full_ledger_is_worked_off() {
    let subject = OnDisk::with(SqliteOptions { lanes: 1, max_bytes: Some(4 << 20) });
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", bellwire_schemas::service::Start::Now)]).await[0];
    let stored = append_until_full(&ledger).await;
    assert!(stored > 20, "{stored}");
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 1, stored as u64);
    for seq in 1..=stored as u64 {
        part = part.ends(seq, bellwire_schemas::FinalState::Delivered);
    }
    flush(&ledger, epoch, part).await;
    let kept = ledger.read(L1, bellwire_schemas::Seq(1), 9, 1).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert!(matches!(ledger.append(batch(vec![large(0)]), at(0)).await, Err(Error::Full(_))));
    ledger.retain(at(stored / 2), at(stored)).await.unwrap();
    ledger.append(batch(vec![large(0)]), at(stored)).await.unwrap();
    assert_sums(&ledger).await;
}

/// No space on the disk: appends are refused and nothing breaks; they go on when there is space again.
#[tokio::test]
async fn a_full_disk_is_survived() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    if let Err(error) = mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), Some(c"size=6m")) {
        eprintln!("skipped: no right to mount a small disk ({error})");
        return;
    }
    let path = disk.join("ledger.db");
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&path, options(1)).unwrap());
    let stored = append_until_full(&ledger).await;
    assert!(matches!(ledger.append(batch(vec![large(0)]), at(0)).await, Err(Error::Full(_))));
    assert_eq!(ledger.tail(L1).await.unwrap().0, stored as u64);
    mount_remount(&disk, MountFlags::empty(), c"size=64m").unwrap();
    let answer = ledger.append(batch(vec![large(0)]), at(0)).await.unwrap();
    assert_eq!(accepted(&answer), [addr(1, stored as u64 + 1)]);
    ledger.close().await;
    super::oracle::assert_intact(&path);
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&path, options(1)).unwrap());
    assert_eq!(ledger.tail(L1).await.unwrap().0, stored as u64 + 1);
    ledger.close().await;
    drop(ledger);
    unmount(&disk, UnmountFlags::DETACH).unwrap();
}

/// A file of before the second step keeps its debts, and they get the key of their event.
#[tokio::test]
async fn debts_of_older_files_get_their_keys() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA application_id = {}; {};
         CREATE TABLE schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
         INSERT INTO schema_version VALUES (1, 'ledger');
         INSERT INTO ledger VALUES (1, 1, 1);
         INSERT INTO lane (lane, tail) VALUES (1, 2);
         INSERT INTO name VALUES (1, 'orders');
         INSERT INTO event (place, source, type, accepted_at, key, id, attributes)
           VALUES ((1 << 48) + 1, 1, 1, 3, 'k', 'a', '{{}}'), ((1 << 48) + 2, 1, 1, 3, NULL, 'b', '{{}}');
         INSERT INTO owed (binding, place, accepted_at, attempts, next_at, since, error, reason, replay, counted)
           SELECT 7, place, accepted_at, 1, 5, 4, NULL, 2, 'r', 1 FROM event",
        0x4257_4c47,
        include_str!("../../../migrations/sqlite/0001_ledger.sql"),
    ))
    .unwrap();
    drop(conn);
    let ledger = SqliteLedger::open(&path, options(1)).unwrap();
    let owed = |seq, key: Option<&str>| crate::Owed {
        next_at: bellwire_schemas::Timestamp::from_micros(5),
        since: bellwire_schemas::Timestamp::from_micros(4),
        error: None,
        reason: crate::OwedReason::Replay("r".into()),
        key: key.map(str::to_owned),
        ..debt(seq, 0)
    };
    let debts = ledger.debts(L1, bellwire_schemas::BindingId(7), bellwire_schemas::Seq(0), 9).await.unwrap();
    assert_eq!(debts, [owed(1, Some("k")), owed(2, None)]);
    ledger.close().await;
}

/// The hot questions use their indexes, whatever SQLite's planner learns in later versions.
#[tokio::test]
async fn hot_questions_are_searches() {
    let subject = OnDisk::new(1).await;
    let conn = rusqlite::Connection::open(subject.path()).unwrap();
    let plan = |sql: &str| {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map([], |r| r.get::<_, String>(3)).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
    };
    for (sql, expected) in [
        ("SELECT * FROM event WHERE place BETWEEN 1 AND 9 ORDER BY place", "USING INTEGER PRIMARY KEY"),
        (
            "SELECT count(*) FROM event INDEXED BY event_by_source WHERE source = 1 AND place > 2 AND place <= 9",
            "COVERING INDEX event_by_source (source=? AND rowid>? AND rowid<?)",
        ),
        (
            "SELECT place FROM event INDEXED BY event_by_id
             WHERE place >> 12 = 1 AND substr(id, 1, 64) = substr('x', 1, 64) AND id = 'x'",
            "event_by_id (<expr>=? AND <expr>=?)",
        ),
        (
            "SELECT place FROM event INDEXED BY event_by_key
             WHERE place >> 12 = 1 AND substr(key, 1, 64) = substr('x', 1, 64) AND key = 'x'",
            "event_by_key (<expr>=? AND <expr>=?)",
        ),
        (
            "SELECT place FROM owed INDEXED BY owed_by_time WHERE binding = 1 AND lane = 1 AND reason NOT IN (3, 4)
             ORDER BY next_at, place LIMIT 9",
            "owed_by_time (binding=? AND lane=?)",
        ),
        (
            "SELECT * FROM owed WHERE binding = 1 AND place > 2 AND place <= 9 ORDER BY place LIMIT 9",
            "PRIMARY KEY (binding=? AND place>? AND place<?)",
        ),
        (
            "SELECT count(*) FROM event INDEXED BY event_by_time WHERE accepted_at < 5",
            "COVERING INDEX event_by_time",
        ),
    ] {
        let plan = plan(sql);
        assert!(plan.contains(expected) && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}
