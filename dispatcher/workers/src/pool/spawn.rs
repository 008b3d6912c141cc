//! One thread that starts every process. It lives as long as the pool, because a worker's parent-death signal fires
//! when the thread that started it ends.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

/// Handle of the starting thread; the thread ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Spawner(mpsc::SyncSender<Order>);

struct Order {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts that may wait for the thread; a start takes about a millisecond.
const QUEUE: usize = 64;

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (send, receive) = mpsc::sync_channel::<Order>(QUEUE);
        thread::Builder::new().name("worker-spawner".into()).spawn(move || {
            for Order { mut command, reply } in receive {
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
    /// Whatever the system says, and `WouldBlock` when too many starts are waiting.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, started) = oneshot::channel();
        self.0
            .try_send(Order { command, reply })
            .map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, "too many worker starts at once"))?;
        started.await.map_err(|_| io::Error::other("the starting thread ended"))?
    }
}
