//! One thread that starts every process. It lives as long as the pool, because a worker's parent-death signal fires
//! when the thread that started it ends.

use std::io;
use std::process::{Child, Command};
use std::thread;

use tokio::sync::{mpsc, oneshot};

/// Handle of the starting thread; the thread ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Spawner(mpsc::Sender<Order>);

struct Order {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts handed to the thread at once, the others wait; a start takes about a millisecond.
const QUEUE: usize = 64;

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (send, mut orders) = mpsc::channel::<Order>(QUEUE);
        thread::Builder::new().name("worker-spawner".into()).spawn(move || {
            while let Some(Order { mut command, reply }) = orders.blocking_recv() {
                let started = command.spawn();
                // Closes our copies of the pipe's write end before anybody waits for its end.
                drop(command);
                if let Err(Ok(mut orphan)) = reply.send(started) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        })?;
        Ok(Self(send))
    }

    /// Starts a process.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, started) = oneshot::channel();
        let ended = || io::Error::other("the starting thread ended");
        self.0.send(Order { command, reply }).await.map_err(|_| ended())?;
        started.await.map_err(|_| ended())?
    }
}
