//! A TCP proxy that breaks connections on demand: between a client and a server it knows nothing about, each kind of
//! fault is a [`Mode`] that a test switches while traffic flows.
//!
//! It never changes a byte. What it does not do: lose single packets or reorder (TCP hides both from its users).
//! Read `connection.rs` next.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

mod connection;

/// What happens to connections, from the moment it is set, to old and new ones alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bytes go through.
    #[default]
    Pass,
    /// Nobody listens: new connections are refused. Old ones go on; [`Proxy::reset_all`] ends them.
    Refuse,
    /// Every connection is reset (RST), new ones as soon as they come.
    Reset,
    /// Bytes of both directions are swallowed, closing included. New connections are accepted and lead nowhere. A
    /// connection that lost bytes, or that never reached the server, is reset when another mode is set.
    BlackHole,
    /// Bytes of both directions are held back and go on when another mode is set, as after a network split that
    /// ended before TCP gave up. New connections are accepted and reach the server afterwards.
    Stall,
    /// Each piece of up to 64 KiB is passed on so much later, which also bounds the throughput.
    Delay(Duration),
    /// Each connection passes this many more bytes to the server, which then sees its end; the client is reset.
    CutToServer(usize),
    /// Each connection passes this many more bytes from the server, then ends for the client; the server is reset.
    CutFromServer(usize),
    /// One request is served but its answer never comes: the first connection whose client sends bytes that hold
    /// `request` gets nothing more from its server; when the server has sent bytes that hold `answer`, both sides are
    /// reset. The mode then is [`Mode::Pass`] again. An empty pattern matches the first bytes.
    CutAnswer {
        /// What the request holds (a part of the SQL text).
        request: Vec<u8>,
        /// What the end of the answer holds ([`READY_FOR_QUERY`]).
        answer: Vec<u8>,
    },
}

/// How each answer of a Postgres server ends: the message ReadyForQuery without its last byte, the transaction status
/// (PostgreSQL documentation, "Message Formats"). The server sends it after the commit.
pub const READY_FOR_QUERY: &[u8] = b"Z\0\0\0\x05";

/// A proxy before one server. Dropping it closes its port and all its connections. Lives in a tokio runtime.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
    applied: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

/// What tasks of the proxy share.
#[derive(Debug)]
struct Control {
    setting: watch::Sender<Setting>,
    cuts: AtomicUsize,
    accepted: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Setting {
    /// Counts the changes, so that a byte count starts anew with each.
    change: u64,
    /// Connections of an earlier count are to be reset.
    resets: u64,
    mode: Mode,
    target: SocketAddr,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to the target.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let port = crate::process::free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let setting = Setting { change: 0, resets: 0, mode: Mode::Pass, target };
        let control = Arc::new(Control {
            setting: watch::Sender::new(setting),
            cuts: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        });
        let (done, applied) = watch::channel(0);
        let task = tokio::spawn(accept(listener, address, Arc::clone(&control), done));
        Ok(Self { address, control, applied, task })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL with this proxy's address in place of host and port (`postgres://user@host:1/db`).
    pub fn url(&self, url: &str) -> String {
        let start = url.find("://").map_or(0, |at| at + 3);
        let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
        let host = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
        format!("{}{}{}", &url[..host], self.address, &url[end..])
    }

    /// Sets the mode; on return it holds.
    pub async fn set(&self, mode: Mode) {
        self.change(|setting| {
            setting.resets += u64::from(mode == Mode::Reset);
            setting.mode = mode;
        })
        .await;
    }

    /// Resets every connection that there is; the mode stays.
    pub async fn reset_all(&self) {
        self.change(|setting| setting.resets += 1).await;
    }

    /// Sends new connections to another server; old ones stay where they are.
    pub async fn set_target(&self, target: SocketAddr) {
        self.change(|setting| setting.target = target).await;
    }

    /// The mode as it is now.
    pub fn mode(&self) -> Mode {
        self.control.setting.borrow().mode.clone()
    }

    /// How many connections one of the cut modes has ended so far.
    pub fn cuts(&self) -> usize {
        self.control.cuts.load(Ordering::SeqCst)
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.control.accepted.load(Ordering::SeqCst)
    }

    async fn change(&self, change: impl FnOnce(&mut Setting)) {
        let mut number = 0;
        self.control.setting.send_modify(|setting| {
            change(setting);
            setting.change += 1;
            number = setting.change;
        });
        // Fails only when the task is gone, and then nothing is left to change.
        let _ = self.applied.clone().wait_for(|applied| *applied >= number).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections for as long as the mode lets it listen, and tells which change it has seen.
async fn accept(first: TcpListener, address: SocketAddr, control: Arc<Control>, applied: watch::Sender<u64>) {
    let mut setting = control.setting.subscribe();
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        let (change, refuse) = {
            let now = setting.borrow_and_update();
            (now.change, now.mode == Mode::Refuse)
        };
        if refuse {
            listener = None;
        } else if listener.is_none() {
            // Others may hold the port for a moment; `set` returns when it is ours again.
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                tokio::time::sleep(crate::process::POLL).await;
                continue;
            }
        }
        applied.send_replace(change);
        tokio::select! {
            _ = setting.changed() => {}
            client = next(listener.as_ref()) => {
                control.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection::serve(client, Arc::clone(&control)));
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn next(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            // A client that went away before it was accepted, or too many open files: both pass.
            Err(_) => tokio::time::sleep(crate::process::POLL).await,
        }
    }
}

#[cfg(test)]
mod tests;
