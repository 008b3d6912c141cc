//! Child processes: which user they run as, which ports are free, how they end.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::guarded::Guarded;

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// The user that servers run as when we are root, which they refuse to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// The user `postgres`, else `nobody`; `None` when we are not root and servers run as ourselves.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("read the users in /etc/passwd")?;
        let named = |name: &str| {
            let fields: Vec<&str> =
                users.lines().map(|l| l.split(':').collect()).find(|f: &Vec<&str>| f[0] == name)?;
            Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
        };
        let owner = named("postgres").or_else(|| named("nobody"));
        Ok(Some(owner.context("find a user other than root to run the server as (postgres or nobody)")?))
    }
}

/// A command that runs as the owner, if there is one.
pub(crate) fn command(program: impl AsRef<OsStr>, owner: Option<Owner>) -> Command {
    let mut command = Command::new(program);
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command
}

/// A new folder that belongs to the owner, in a place that the owner can reach.
pub(crate) fn folder(owner: Option<Owner>) -> anyhow::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("bw-srv-").permissions(fs::Permissions::from_mode(0o700));
    let parent = std::env::temp_dir();
    let reachable =
        parent.ancestors().all(|p| fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 0o001 != 0));
    // A path to a socket holds at most 107 bytes.
    let short = parent.as_os_str().len() <= 60;
    let parent = if short && (owner.is_none() || reachable) { parent.as_path() } else { Path::new("/tmp") };
    let folder =
        builder.tempdir_in(parent).with_context(|| format!("make a folder in {}", parent.display()))?;
    give(folder.path(), owner)?;
    Ok(folder)
}

/// Gives a file or folder to the owner.
pub(crate) fn give(path: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid))
            .with_context(|| format!("give {} away", path.display()))?;
    }
    Ok(())
}

/// A port that nobody listens on. It lies below Linux's default range for outgoing connections (from 32,768 on,
/// `ip_local_port_range`), so that no client takes it by chance while its server is down.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    for _ in 0..200 {
        let random = RandomState::new().build_hasher().finish();
        let port = 20_000 + u16::try_from(random % 12_000).expect("a remainder below 12,000 fits");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 20000 and 31999 on 127.0.0.1")
}

/// Starts tried with other ports, when somebody took the chosen ones in between.
const PORTS_TRIED: u32 = 3;

/// Tries a start again with other ports when the first was taken from under it; other errors end it at once.
pub(crate) fn on_a_port<T>(mut start: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 1..PORTS_TRIED {
        match start() {
            Err(error) if in_use(&format!("{error:#}")) => {}
            other => return other,
        }
    }
    start()
}

/// How the servers say it: Python and Rust, Erlang.
fn in_use(message: &str) -> bool {
    ["in use", "eaddrinuse", "already_used"].iter().any(|words| message.to_lowercase().contains(words))
}

/// Waits until somebody listens there, while the process lives.
pub(crate) fn wait_port(child: &mut Guarded, address: SocketAddr, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.ended() {
            bail!("it ended with {status}");
        }
        ensure!(Instant::now() < deadline, "it takes no connections at {address}");
        sleep(POLL);
    }
    Ok(())
}

/// One bare HTTP request without a body: the whole answer.
pub(crate) fn http(address: SocketAddr, method: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("{method} {path}"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits until the child ended, and reaps it.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            bail!("process {} did not end within {patience:?}", child.id());
        }
        sleep(POLL);
    }
}

/// The processes whose parent this is (`/proc/<pid>/stat`, field 4, see proc(5)).
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in field 2 may hold anything: the fields after it begin behind the last parenthesis.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(1).and_then(|p| p.parse().ok()) == Some(parent)
    })
    .collect()
}

/// The last lines of a log, for messages.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Whether the process ended and only waits to be reaped.
pub(crate) fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
