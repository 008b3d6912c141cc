//! A server process that ends with us: in order when its value is dropped, and also when we are killed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::{self, POLL};

/// Ends the process group in `$1` when its input ends, which it does when the process that holds the other end is gone.
const WATCH: &str = "read -r _; kill -s KILL -- -\"$1\"";
/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A child in a process group of its own, and a small shell that ends the group should we go without doing so.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    watcher: Child,
}

impl Guarded {
    /// Starts the command.
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_os_string();
        let mut child =
            command.process_group(0).spawn().with_context(|| format!("run {}", program.display()))?;
        let watcher = Command::new("sh")
            .args(["-c", WATCH, "sh", &child.id().to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watcher {
            Ok(watcher) => Ok(Self { child, watcher }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error).context("run sh")
            }
        }
    }

    /// The process id of the server.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end (SIGTERM) and waits for it and all that it started.
    pub(crate) fn stop(mut self, patience: Duration) -> anyhow::Result<()> {
        process::signal(self.child.id(), Signal::TERM);
        process::wait(&mut self.child, patience)?;
        self.wait_group()
    }

    /// Ends it and all that it started with SIGKILL; their ports are free afterwards.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        self.kill_group();
        self.wait_group()
    }

    fn kill_group(&self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn wait_group(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while group_lives(self.child.id()) {
            ensure!(Instant::now() < deadline, "processes of {} outlived their end", self.child.id());
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill_group();
        let _ = self.child.wait();
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

/// Whether a process of this group still runs (`/proc/<pid>/stat`, fields 3 and 5, see proc(5)).
fn group_lives(group: u32) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    entries.flatten().any(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let runs = fields.next().is_some_and(|state| state != "Z" && state != "X");
        runs && fields.nth(1).and_then(|g| g.parse().ok()) == Some(group)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::*;

    fn sleeper() -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600"]);
        command
    }

    #[test]
    fn a_dropped_child_takes_its_children_along() {
        let child = Guarded::spawn(&mut sleeper()).unwrap();
        let group = child.id();
        assert!(group_lives(group));
        child.kill().unwrap();
        assert!(!group_lives(group));
    }

    #[test]
    fn the_watcher_ends_the_group_when_its_input_closes() {
        let mut child = Guarded::spawn(&mut sleeper()).unwrap();
        // What the kernel does when we are killed.
        drop(child.watcher.stdin.take());
        assert!(child.watcher.wait().unwrap().success());
        process::wait(&mut child.child, PATIENCE).unwrap();
        child.wait_group().unwrap();
    }
}
