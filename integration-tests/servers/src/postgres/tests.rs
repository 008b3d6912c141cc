#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use super::*;
use crate::Pgbouncer;

fn count(server: &Postgres) -> String {
    server.sql("postgres", "select count(*) from t").unwrap()
}

#[test]
fn committed_rows_survive_every_way_to_end() {
    let mut server = Postgres::start(&Options::default().set("work_mem", "3MB")).unwrap();
    assert_eq!(server.sql("postgres", "show fsync").unwrap(), "on");
    assert_eq!(server.sql("postgres", "show work_mem").unwrap(), "3MB");
    server.sql("postgres", "create table t (n int)").unwrap();
    let (url, pid) = (server.url(), server.pid().unwrap());
    assert!(server.backend_pids().len() >= 3, "a server has helpers");
    for (n, end) in ["kill", "immediate", "fast"].into_iter().enumerate() {
        server.sql("postgres", "insert into t values (1)").unwrap();
        match end {
            "kill" => server.kill(),
            "immediate" => server.stop_immediate().unwrap(),
            _ => server.stop_fast().unwrap(),
        }
        assert!(server.sql("postgres", "select 1").is_err(), "the server is down after {end}");
        assert!(server.pid().is_none() && server.backend_pids().is_empty());
        server.start_again().unwrap();
        assert_eq!(count(&server), (n + 1).to_string(), "rows after {end}");
    }
    server.restart().unwrap();
    assert_eq!(url, server.url(), "the address stays");
    assert_ne!(Some(pid), server.pid());
    let folder = server.folder().to_path_buf();
    drop(server);
    assert!(!folder.exists(), "the folder goes with the server");
}

#[test]
fn pgbouncer_hands_a_connection_on_after_each_transaction() {
    let server = Postgres::start(&Options::default()).unwrap();
    let bouncer = Pgbouncer::start(&server).unwrap();
    let config = psql(&bouncer.url_of("pgbouncer"), "show config").unwrap();
    assert!(config.lines().any(|l| l.starts_with("pool_mode|transaction|")), "{config}");
    assert_eq!(psql(&bouncer.url(), "select 41 + 1").unwrap(), "42");
    assert!(psql(&bouncer.url(), "select nothing").is_err());
}

#[test]
fn a_copy_has_what_was_there_and_goes_its_own_way() {
    let server = Postgres::start(&Options::default()).unwrap();
    server.sql("postgres", "create table t (n int); insert into t values (1)").unwrap();
    let copy = server.copy().unwrap();
    server.sql("postgres", "insert into t values (2)").unwrap();
    drop(server);
    assert_eq!(count(&copy), "1");
}
