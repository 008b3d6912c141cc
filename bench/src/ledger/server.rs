//! The server under test: a private one with settings of a machine that does nothing else, or one that was named.

use std::collections::BTreeMap;

use bellwire_ledger::postgres::{PostgresLedger, PostgresOptions};
use bellwire_test_servers::{Options, Postgres};
use tokio::task::block_in_place;
use tokio_postgres::{Client, NoTls};

/// The schema of the ledger that is measured.
pub const SCHEMA: &str = "bellwire_bench";
/// Lanes of that ledger.
pub const LANES: u16 = 8;

/// A server, and a connection to steer it.
pub struct Server {
    url: String,
    control: Client,
    postmaster: Option<u32>,
    private: Option<Postgres>,
}

/// What the server's meters showed.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Bytes of write-ahead log ever written.
    pub wal_bytes: f64,
    /// Processor time of all its processes, microseconds.
    pub cpu_us: f64,
    /// Processor time of this process, microseconds.
    pub client_cpu_us: f64,
}

impl Server {
    /// Starts a private server, or connects to the one named.
    pub async fn start(url: Option<&str>) -> anyhow::Result<Self> {
        let private = if url.is_none() { Some(block_in_place(start_private)?) } else { None };
        let url = url.map(str::to_string).or(private.as_ref().map(Postgres::url)).unwrap_or_default();
        let control = connect(&url).await?;
        let backend: i32 = control.query_one("select pg_backend_pid()", &[]).await?.get(0);
        let local: bool = control
            .query_one(
                "select coalesce(inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1', true)",
                &[],
            )
            .await?
            .get(0);
        let postmaster = if local { parent(backend as u32) } else { None };
        let server = Self { url, control, postmaster, private };
        server.clean().await?;
        Ok(server)
    }

    /// The settings that matter for the figures.
    pub async fn settings(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let rows = self
            .control
            .query(
                "select name, current_setting(name) from pg_settings where name in ('server_version', 'fsync', \
                 'shared_buffers', 'max_wal_size', 'wal_compression', 'synchronous_commit', 'autovacuum', \
                 'checkpoint_timeout')",
                &[],
            )
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// A connection of its own.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        connect(&self.url).await
    }

    /// The connection that measures; nothing measured runs on it.
    pub fn control(&self) -> &Client {
        &self.control
    }

    /// A new, empty ledger in place of the one before.
    pub async fn fresh_ledger(&self) -> anyhow::Result<PostgresLedger> {
        self.clean().await?;
        let options = PostgresOptions { lanes: LANES, schema: SCHEMA.into(), ..PostgresOptions::default() };
        Ok(PostgresLedger::open(&self.url, options).await?)
    }

    /// Reads the meters.
    pub async fn read_meters(&self) -> anyhow::Result<Reading> {
        let row = self
            .control
            .query_one("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8", &[])
            .await?;
        let cpu_us = self.postmaster.map_or(f64::NAN, cpu_us);
        Ok(Reading { wal_bytes: row.get(0), cpu_us, client_cpu_us: ticks(std::process::id()) * TICK_US })
    }

    /// Removes what the measurements left, and stops a private server.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.clean().await?;
        block_in_place(|| drop(self.private));
        Ok(())
    }

    /// Drops everything measured and lets the server write the rest to disk, so that no round pays for the one before.
    pub async fn clean(&self) -> anyhow::Result<()> {
        self.control
            .batch_execute(&format!(
                "set client_min_messages = warning; drop schema if exists {SCHEMA} cascade; \
                 drop table if exists bench_raw, bench_single, bench_job"
            ))
            .await?;
        self.control.batch_execute("checkpoint").await?;
        Ok(())
    }
}

/// A server with the settings of a machine that is there for it: durable, large buffers, checkpoints by time.
fn start_private() -> anyhow::Result<Postgres> {
    let options = Options::default()
        .set("fsync", "on")
        .set("shared_buffers", &format!("{}MB", shared_buffers_mb()))
        .set("max_wal_size", "8GB");
    // Not every server was built with lz4.
    Postgres::start(&options.clone().set("wal_compression", "lz4")).or_else(|_| Postgres::start(&options))
}

/// 2 GB, or a quarter of the memory where that is less.
fn shared_buffers_mb() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kb = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    total_kb.map_or(512, |kb: u64| (kb / 4 / 1024).min(2_048))
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with its client; what goes wrong is told to the caller of the statement.
    tokio::spawn(connection);
    Ok(client)
}

/// The fields of a process from its parent on, by their number in `proc(5)` less 4.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.first().and_then(|&pid| u32::try_from(pid).ok())
}

/// Ticks are hundredths of a second on every Linux that Rust runs on.
const TICK_US: f64 = 10_000.0;

/// Ticks of processor time that a process has used.
fn ticks(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |fields| fields.iter().skip(10).take(2).sum::<u64>() as f64)
}

/// Processor time of a postmaster, its children, and those it has outlived.
fn cpu_us(postmaster: u32) -> f64 {
    let gone = stat(postmaster).map_or(0.0, |fields| fields.iter().skip(12).take(2).sum::<u64>() as f64);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children: f64 = pids.filter(|pid| parent(*pid) == Some(postmaster)).map(ticks).sum();
    (ticks(postmaster) + gone + children) * TICK_US
}
