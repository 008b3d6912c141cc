//! SQS and S3 with bucket notifications: the emulator MiniStack. Its state lies in memory and ends with it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::guarded::Guarded;
use crate::process;
use crate::python::python;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running (or deliberately ended) MiniStack. Any access key and secret are good; the region is `us-east-1`.
/// Dropping it ends it.
#[derive(Debug)]
pub struct Ministack {
    python: PathBuf,
    folder: TempDir,
    port: u16,
    child: Option<Guarded>,
}

impl Ministack {
    /// Starts one on a free port of 127.0.0.1 (about half a second).
    ///
    /// # Errors
    /// When `BELLWIRE_TEST_PYTHON` names no python with `ministack`, or it does not start; its log is in the message.
    pub fn start() -> anyhow::Result<Self> {
        let python = python()?;
        process::on_a_port(|| {
            let folder = process::folder(None)?;
            let mut server =
                Self { python: python.clone(), folder, port: process::free_port()?, child: None };
            server.start_again()?;
            Ok(server)
        })
    }

    /// The endpoint URL (`http://127.0.0.1:1234`).
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where it listens.
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

    /// Ends it with SIGKILL. Queues and buckets are gone.
    ///
    /// # Errors
    /// When processes of it survive.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.take().map_or(Ok(()), Guarded::kill)
    }

    /// Starts the ended server on the same port, empty.
    ///
    /// # Errors
    /// When it runs already or does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "MiniStack on port {} runs already", self.port);
        let log = File::options().create(true).append(true).open(self.folder.path().join("server.log"))?;
        let mut command = Command::new(&self.python);
        command
            .args(["-c", "from ministack.app import main; main()"])
            .current_dir(self.folder.path())
            // Without it, it listens on all addresses; the broker for devices would want a port of its own.
            .envs([("BIND_HOST", "127.0.0.1"), ("IOT_MTLS_PORT", "0")])
            .env("GATEWAY_PORT", self.port.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = Guarded::spawn(&mut command)?;
        let ready = process::wait_port(&mut child, self.address(), PATIENCE);
        ready.with_context(|| format!("start MiniStack:\n{}", self.log()))?;
        self.child = Some(child);
        Ok(())
    }
}
