//! One RabbitMQ node: Debian's package, with a home, ports and a port mapper (epmd) of its own.

use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::guarded::Guarded;
use crate::process::{self, POLL};

/// How long a start or a stop may take: six seconds on an idle machine, two minutes were seen on a crowded one.
const PATIENCE: Duration = Duration::from_secs(170);
/// Debian's own start scripts insist on their own user and folders; these are what they call.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
/// The first frame of a client (AMQP 0-9-1, 4.2.2 "Protocol Header"); the server answers with a method frame, type 1.
const HELLO: &[u8] = b"AMQP\0\0\x09\x01";

/// A running (or deliberately ended) node. The user is `guest` with the password `guest`. Dropping it ends it and
/// removes its folder.
#[derive(Debug)]
pub struct Rabbitmq {
    folder: TempDir,
    ports: Ports,
    node: Option<Guarded>,
    epmd: Option<Guarded>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    http: u16,
    distribution: u16,
    epmd: u16,
}

impl Rabbitmq {
    /// Makes a folder and starts a node in it (six to ten seconds).
    ///
    /// # Errors
    /// When the Debian package `rabbitmq-server` is missing, or it does not start; its log is in the message.
    pub fn start() -> anyhow::Result<Self> {
        ensure!(
            Path::new(PROGRAMS).join("rabbitmq-server").exists(),
            "no {PROGRAMS}/rabbitmq-server: install the package rabbitmq-server"
        );
        process::on_a_port(|| {
            let port = process::free_port;
            let ports = Ports { amqp: port()?, http: port()?, distribution: port()?, epmd: port()? };
            let mut server = Self { folder: process::folder(None)?, ports, node: None, epmd: None };
            server.configure()?;
            server.start_again()?;
            Ok(server)
        })
    }

    /// The AMQP URL of the default virtual host.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address())
    }

    /// The URL of the management API; its user is the same.
    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// Where it takes AMQP connections.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.amqp).into()
    }

    /// The process id of the node, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Guarded::id)
    }

    /// The last lines that it logged.
    pub fn log(&self) -> String {
        process::tail(&self.folder.path().join("server.log"))
    }

    /// Runs `rabbitmqctl` on the node (`["set_vm_memory_high_watermark", "0"]`), about one and a half seconds.
    ///
    /// # Errors
    /// When it fails; what it said is in the message.
    pub fn ctl(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command("rabbitmqctl").args(args).output().context("run rabbitmqctl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        ensure!(
            output.status.success(),
            "rabbitmqctl {args:?}: {} {}",
            text(&output.stderr),
            text(&output.stdout)
        );
        Ok(text(&output.stdout))
    }

    /// Ends the node with SIGKILL.
    ///
    /// # Errors
    /// When processes of it survive.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.node.take().map_or(Ok(()), Guarded::kill)
    }

    /// Stops the node in order (about six seconds).
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.node.take().map_or(Ok(()), |node| node.stop(PATIENCE))
    }

    /// Starts the ended node again on the same ports and data, and waits until it takes AMQP connections.
    ///
    /// # Errors
    /// When it runs already or does not start; its log is in the message.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.node.is_none(), "the node on port {} runs already", self.ports.amqp);
        if self.epmd.is_none() {
            self.epmd = Some(self.start_epmd()?);
        }
        let log = File::options().create(true).append(true).open(self.folder.path().join("server.log"))?;
        let mut command = self.command("rabbitmq-server");
        // The script then becomes the node instead of waiting for it: a signal reaches it directly.
        command.env("RUNNING_UNDER_SYSTEMD", "true").stdout(log.try_clone()?).stderr(log);
        let mut node = Guarded::spawn(&mut command)?;
        let ready = self.wait_ready(&mut node);
        ready.with_context(|| format!("start RabbitMQ:\n{}", self.log()))?;
        self.node = Some(node);
        Ok(())
    }

    fn configure(&self) -> anyhow::Result<()> {
        let folder = self.folder.path();
        fs::create_dir(folder.join("home"))?;
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\nlog.console = true\n",
            self.ports.amqp, self.ports.http
        );
        fs::write(folder.join("rabbitmq.conf"), config)?;
        fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
        Ok(())
    }

    /// The port mapper would be started by the node as a daemon that outlives it; this one ends with us.
    fn start_epmd(&self) -> anyhow::Result<Guarded> {
        let mut command = Command::new("epmd");
        command.args(["-port", &self.ports.epmd.to_string(), "-address", "127.0.0.1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut epmd = Guarded::spawn(&mut command).context("install the package rabbitmq-server")?;
        process::wait_port(&mut epmd, (Ipv4Addr::LOCALHOST, self.ports.epmd).into(), PATIENCE)?;
        Ok(epmd)
    }

    /// A program of RabbitMQ in the world of this node.
    fn command(&self, program: &str) -> Command {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        command
            .current_dir(self.folder.path())
            .env("HOME", path("home"))
            .env("RABBITMQ_NODENAME", format!("bw{}@localhost", self.ports.amqp))
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // Loopback only; and no schedulers that spin while they wait, which starve the tests of two cores.
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
            )
            .stdin(Stdio::null());
        command
    }

    fn wait_ready(&self, node: &mut Guarded) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.http));
        while !speaks_amqp(self.address()) || TcpStream::connect(http).is_err() {
            if let Some(status) = node.ended() {
                bail!("it ended with {status}");
            }
            ensure!(Instant::now() < deadline, "it takes no connections");
            sleep(POLL * 5);
        }
        Ok(())
    }
}

impl Drop for Rabbitmq {
    fn drop(&mut self) {
        // Nothing of it is needed any more: killing is six seconds faster than stopping.
        let _ = self.kill();
        self.epmd = None;
    }
}

fn speaks_amqp(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut first = [0; 1];
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.write_all(HELLO).is_ok()
        && stream.read_exact(&mut first).is_ok()
        && first == [1]
}
