//! One Postgres server: a data folder of its own, a port of its own, on 127.0.0.1 without passwords.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{self, Owner, POLL};

mod programs;

/// How long a start, a recovery or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Starts tried with another port, when somebody took the chosen one in between.
const PORTS_TRIED: u32 = 5;

/// What a server is started with. The default is `fsync=on`, 200 connections, everything else as Postgres has it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
}

impl Options {
    /// Adds a server setting (`synchronous_commit`, `off`); the last one of a name holds.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A running (or deliberately ended) server. Dropping it ends the server and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    owner: Option<Owner>,
    folder: TempDir,
    port: u16,
    options: Options,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a data folder and starts a server on it (about one second).
    ///
    /// # Errors
    /// When the server programs are missing, or the server does not start; its log is in the message.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let (bin, owner) = (programs::find()?, Owner::find()?);
        let folder = process::folder(owner)?;
        let data = folder.path().join("data");
        // --no-sync is faster and safe here: unlike a crash of the machine, one of the server undoes no write.
        let output = process::command(bin.join("initdb"), owner)
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-instructions",
                "--no-sync",
            ])
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .with_context(|| format!("run {}", bin.join("initdb").display()))?;
        ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        Self { bin, owner, folder, port: 0, options: options.clone(), child: None }.on_a_port()
    }

    /// Starts another server on a copy of this one's data as it is now (`pg_basebackup`): what a fail-over to a standby
    /// finds that lags behind, if this one goes on and then ends.
    ///
    /// # Errors
    /// When the copy cannot be made or started.
    pub fn copy(&self) -> anyhow::Result<Self> {
        let folder = process::folder(self.owner)?;
        let output = process::command(programs::client(&self.bin, "pg_basebackup"), self.owner)
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "postgres",
                "-c",
                "fast",
                "-X",
                "stream",
            ])
            .arg("-D")
            .arg(folder.path().join("data"))
            .current_dir(folder.path())
            .output()
            .context("run pg_basebackup")?;
        ensure!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr));
        let (bin, owner, options) = (self.bin.clone(), self.owner, self.options.clone());
        Self { bin, owner, folder, port: 0, options, child: None }.on_a_port()
    }

    /// Copies a server that runs, and starts the copy as its standby, which follows it by streaming replication.
    /// `primary` is where the copy finds it now and later: its address, or a proxy's before it.
    ///
    /// # Errors
    /// When `pg_basebackup` is missing or fails, or the standby does not start.
    pub fn standby(primary: SocketAddr, options: &Options) -> anyhow::Result<Self> {
        let (bin, owner) = (programs::find()?, Owner::find()?);
        let folder = process::folder(owner)?;
        let data = folder.path().join("data");
        let program = programs::client(&bin, "pg_basebackup");
        let output = process::command(program.clone(), owner)
            .args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync"])
            .args(["-p", &primary.port().to_string()])
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .with_context(|| format!("run {}", program.display()))?;
        ensure!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr));
        Self { bin, owner, folder, port: 0, options: options.clone(), child: None }.on_a_port()
    }

    /// Makes a standby a primary, on a timeline of its own, with what it has received until now.
    ///
    /// # Errors
    /// When it is none, or does not become one.
    pub fn promote(&self) -> anyhow::Result<()> {
        let done = self.sql("postgres", "select pg_promote(true, 60)")?;
        ensure!(done == "t", "the standby was not promoted:\n{}", self.log());
        Ok(())
    }

    fn on_a_port(mut self) -> anyhow::Result<Self> {
        for tried in 1.. {
            self.port = process::free_port()?;
            match self.start_again() {
                Ok(()) => break,
                Err(_) if tried < PORTS_TRIED && self.log().contains("could not bind") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self)
    }

    /// The URL of the database `postgres` on this server, for its superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of a database on this server.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The folder of the data, the log and the socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id of the postmaster, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The process ids of the postmaster's children: one per connection, and its helpers.
    pub fn backend_pids(&self) -> Vec<u32> {
        self.pid().map(process::children).unwrap_or_default()
    }

    /// The last lines that the server logged.
    pub fn log(&self) -> String {
        process::tail(&self.folder.path().join("server.log"))
    }

    /// Runs SQL in a database with `psql`: rows in lines, columns parted by `|`.
    ///
    /// # Errors
    /// When psql is missing or the SQL fails; what the server said is in the message.
    pub fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        psql(&self.url_of(database), sql)
    }

    /// Makes an empty database and gives its URL.
    ///
    /// # Errors
    /// When the server refuses, for instance because it is there already.
    pub fn create_database(&self, name: &str) -> anyhow::Result<String> {
        self.sql("postgres", &format!("create database \"{name}\""))?;
        Ok(self.url_of(name))
    }

    /// Ends the postmaster and all its children with SIGKILL, as a crash of the machine's software would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Stopped first, so that it cannot start another child between the look at them and their end.
        process::signal(child.id(), Signal::STOP);
        let children = process::children(child.id());
        process::signal(child.id(), Signal::KILL);
        for &pid in &children {
            process::signal(pid, Signal::KILL);
        }
        let _ = child.wait();
        let deadline = Instant::now() + PATIENCE;
        let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists() || process::is_zombie(*pid);
        while !children.iter().all(gone) && Instant::now() < deadline {
            sleep(POLL);
        }
    }

    /// Ends one backend with SIGKILL: the server answers by a recovery that cuts every connection.
    pub fn kill_backend(&self, pid: u32) {
        if self.backend_pids().contains(&pid) {
            process::signal(pid, Signal::KILL);
        }
    }

    /// Stops without a checkpoint (`pg_ctl stop -m immediate`): connections are cut, the next start recovers.
    ///
    /// # Errors
    /// When the server does not end.
    pub fn stop_immediate(&mut self) -> anyhow::Result<()> {
        self.stop(Signal::QUIT)
    }

    /// Stops in order (`pg_ctl stop -m fast`): transactions are rolled back, everything is written.
    ///
    /// # Errors
    /// When the server does not end.
    pub fn stop_fast(&mut self) -> anyhow::Result<()> {
        self.stop(Signal::INT)
    }

    /// Starts the ended server again on the same port and data, and waits until it takes connections.
    ///
    /// # Errors
    /// When it runs already or does not start; its log is in the message.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "the server on port {} runs already", self.port);
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(folder.join("server.log"))?;
        let mut command = process::command(self.bin.join("postgres"), self.owner);
        command.arg("-D").arg(folder.join("data")).current_dir(folder);
        let own = [
            ("listen_addresses", "127.0.0.1".into()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", folder.display().to_string()),
            ("fsync", "on".into()),
            ("max_connections", "200".into()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_string(), value));
        for (name, value) in own.chain(self.options.settings.iter().cloned()) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("start the Postgres server")?);
        let ready = self.wait_ready();
        if ready.is_err() {
            self.kill();
        }
        ready
    }

    /// [`Self::stop_fast`] and [`Self::start_again`].
    ///
    /// # Errors
    /// As these two.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop_fast()?;
        self.start_again()
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let client = programs::client(&self.bin, "pg_isready");
        loop {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                bail!("the Postgres server ended with {status}:\n{}", self.log());
            }
            let mut ask = Command::new(&client);
            ask.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).stdin(Stdio::null());
            if ask.status().with_context(|| format!("run {}", client.display()))?.success() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the Postgres server takes no connections:\n{}", self.log());
            sleep(POLL);
        }
    }

    fn stop(&mut self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_mut().context("the Postgres server does not run")?;
        process::signal(child.id(), signal);
        process::wait(child, PATIENCE)
            .with_context(|| format!("stop the Postgres server:\n{}", self.log()))?;
        self.child = None;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() && self.stop(Signal::QUIT).is_err() {
            self.kill();
        }
    }
}

/// Runs SQL at a URL with `psql`, one statement or several: rows in lines, columns parted by `|`.
///
/// # Errors
/// When psql is missing or the SQL fails; what the server said is in the message.
pub fn psql(url: &str, sql: &str) -> anyhow::Result<String> {
    let client = programs::find().map_or_else(|_| "psql".into(), |folder| programs::client(&folder, "psql"));
    let output = Command::new(&client)
        .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql])
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", client.display()))?;
    ensure!(output.status.success(), "psql: {}: {sql}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
}

#[cfg(test)]
mod tests;
