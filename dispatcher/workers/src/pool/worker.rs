//! One warm process: its port, its output, its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bellwire_schemas::{ErrorInfo, FailureClass};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::runtime_api::desk::Desk;
use crate::runtime_api::server;

/// Most connections of one worker at once; a client holds one or two.
const MAX_CONNECTIONS: usize = 32;
/// How long a worker that was asked to stop may take before it is killed.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// How long calls that a dead process had sent may take to be read to their end.
const LAST_CALLS: Duration = Duration::from_secs(1);
/// Rest after a connection that could not be accepted.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A running process behind its desk.
pub struct Worker {
    /// Number within its function, from 1.
    pub number: u32,
    /// Where it meets the pool.
    pub desk: Arc<Desk>,
    pid: Pid,
    /// False once the process is reaped: from then on its id may belong to another one.
    alive: Mutex<bool>,
    stop: Notify,
    sentence: OnceLock<ErrorInfo>,
}

impl Worker {
    /// Wraps a process that was started as the leader of its own group.
    pub fn new(number: u32, child: &Child, desk: Arc<Desk>) -> Self {
        let (alive, stop, sentence) = (Mutex::new(true), Notify::new(), OnceLock::new());
        Self { number, desk, pid: Pid::from_child(child), alive, stop, sentence }
    }

    /// The process group, which is also the process id of its leader.
    pub fn group(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it waits for an event and its process still lives, even if nobody has noticed its end yet.
    pub fn is_fit(&self) -> bool {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        *alive
            && self.desk.is_waiting()
            && matches!(rustix::process::waitid(WaitId::Pid(self.pid), look), Ok(None))
    }

    /// Kills the whole process group at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Kills it, and lets a running invocation and the start fail with this error.
    pub fn kill_because(&self, error: ErrorInfo) {
        let _ = self.sentence.set(error);
        self.kill();
    }

    /// Asks it to end, and kills it when it does not.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Serves the worker's port until its process has ended, and returns why it ended. `started` tells whether it
    /// has ever asked for work; when it has not by `init_deadline`, it is killed.
    ///
    /// # Errors
    /// When the process cannot be watched; it is killed then.
    pub async fn run(
        &self,
        listener: TcpListener,
        mut child: Child,
        init_deadline: Instant,
        started: impl Fn() -> bool,
    ) -> io::Result<ErrorInfo> {
        let follow = tokio::spawn({
            let logs = self.desk.logs.clone();
            async move { logs.follow().await }
        });
        let mut calls = JoinSet::new();
        let watched = self.serve(&listener, &mut calls, init_deadline, started).await;
        // The leader is dead but not reaped, so its group id is still ours: nobody of the group survives it.
        self.kill();
        let status = {
            let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
            *alive = false;
            child.wait()
        };
        // What it had sent before it died still counts: the connections end by themselves.
        let _ = timeout(LAST_CALLS, async { while calls.join_next().await.is_some() {} }).await;
        self.desk.logs.drain();
        follow.abort();
        let ended = watched.and(status);
        let error = match &ended {
            Ok(status) => self.epitaph(*status),
            Err(error) => ErrorInfo::platform(
                FailureClass::Crash,
                "Runtime.SystemError",
                format!("the worker could not be watched and was killed: {error}"),
            ),
        };
        self.desk.end(|| error.clone());
        ended.map(|_| error)
    }

    async fn serve(
        &self,
        listener: &TcpListener,
        calls: &mut JoinSet<()>,
        init_deadline: Instant,
        started: impl Fn() -> bool,
    ) -> io::Result<()> {
        let exit = exit_of(self.pid)?;
        let mut kill_at = init_deadline;
        let mut asked = false;
        let mut guarded = true;
        loop {
            tokio::select! {
                ended = exit.readable() => return ended.map(|_| ()),
                accepted = listener.accept(), if calls.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        calls.spawn(server::serve(stream, self.desk.clone()));
                    }
                    // Out of file descriptors: wait for some to close instead of spinning.
                    Err(_) => sleep(ACCEPT_REST).await,
                },
                Some(_) = calls.join_next(), if !calls.is_empty() => {}
                () = self.stop.notified(), if !asked => {
                    (asked, guarded, kill_at) = (true, true, Instant::now() + STOP_GRACE);
                    self.signal(Signal::TERM);
                }
                () = sleep_until(kill_at), if guarded => {
                    guarded = false;
                    if asked {
                        self.kill();
                    } else if !started() {
                        self.kill_because(ErrorInfo::platform(
                            FailureClass::CannotStart,
                            "Sandbox.Timedout",
                            "the worker did not ask for its first event in time; its initialisation takes too long",
                        ));
                    }
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if *alive {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }

    /// Why it ended: what it said itself, else what it was killed for, else how its process ended.
    fn epitaph(&self, status: ExitStatus) -> ErrorInfo {
        if let Some(error) = self.desk.init_error().or_else(|| self.sentence.get().cloned()) {
            return error;
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        let message = format!("the worker process {how} before it answered");
        let mut error = ErrorInfo::platform(FailureClass::Crash, "Runtime.ExitError", message);
        error.stack = self.desk.logs.tail();
        error
    }
}

/// Becomes readable when the process has ended.
#[expect(
    deprecated,
    reason = "sound for an `OwnedFd`, which keeps its file open; the replacement is unsafe to call"
)]
fn exit_of(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(rustix::process::pidfd_open(pid, PidfdFlags::empty())?, Interest::READABLE)
}
