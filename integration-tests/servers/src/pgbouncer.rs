//! A PgBouncer in transaction mode before a server: a connection keeps nothing from one transaction to the next.

use std::fs;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Postgres;
use crate::process::{self, Owner, POLL};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running PgBouncer. Dropping it ends it and removes its folder.
#[derive(Debug)]
pub struct Pgbouncer {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Pgbouncer {
    /// Starts a PgBouncer for all databases of a server.
    ///
    /// # Errors
    /// When the program is missing (Debian: package `pgbouncer`) or does not start; its log is in the message.
    pub fn start(server: &Postgres) -> anyhow::Result<Self> {
        Self::before(server.address())
    }

    /// The same for the server at an address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn before(server: SocketAddr) -> anyhow::Result<Self> {
        let owner = Owner::find()?;
        let folder = process::folder(owner)?;
        let port = process::free_port()?;
        let config = folder.path().join("pgbouncer.ini");
        fs::write(&config, configuration(server, port))?;
        process::give(&config, owner)?;
        let log = File::options().create(true).append(true).open(folder.path().join("server.log"))?;
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|p| Path::new(p).exists());
        let child = process::command(program.unwrap_or("pgbouncer"), owner)
            .arg(&config)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run pgbouncer: install the package pgbouncer")?;
        let mut bouncer = Self { folder, port, child };
        bouncer.wait_ready()?;
        Ok(bouncer)
    }

    /// The URL of the database `postgres` through this PgBouncer.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of a database through this PgBouncer.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The last lines that it logged.
    pub fn log(&self) -> String {
        process::tail(&self.folder.path().join("server.log"))
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address()).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("pgbouncer ended with {status}:\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "pgbouncer takes no connections:\n{}", self.log());
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        // SIGTERM is an immediate shutdown (pgbouncer(1), "Signals").
        process::signal(self.child.id(), Signal::TERM);
        if process::wait(&mut self.child, PATIENCE).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Everyone may enter as `postgres`, as on the server itself; few server connections, so that they are truly shared.
fn configuration(server: SocketAddr, port: u16) -> String {
    format!(
        "[databases]
* = host={} port={} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
admin_users = postgres
pool_mode = transaction
max_client_conn = 400
default_pool_size = 20
ignore_startup_parameters = extra_float_digits
",
        server.ip(),
        server.port()
    )
}
