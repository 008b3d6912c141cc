//! One connection through the proxy: two pumps that look at the mode before each piece.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Control, Mode, Setting};

const PIECE_BYTES: usize = 64 * 1024;

/// The connection ends here: which side is reset. The other one gets an orderly end, which lets every byte before it
/// arrive, where a reset may overtake bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Both,
    Client,
    Server,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    FromServer,
}

/// Serves a client until both sides closed or the mode ends it.
pub(super) async fn serve(client: TcpStream, control: Arc<Control>) {
    let mut setting = control.setting.subscribe();
    let born = setting.borrow().resets;
    let mut watched = setting.clone();
    let reset = async {
        // An error means that the proxy is gone, and its connections with it.
        let _ = watched.wait_for(|now| now.resets != born || now.mode == Mode::Reset).await;
    };
    let mut client = client;
    let mut server = None;
    let ended = tokio::select! {
        ended = carry(&mut client, &mut server, &mut setting, &control) => ended,
        () = reset => Err(Cut::Both),
    };
    // With a linger time of zero, closing sends RST instead of FIN.
    if matches!(ended, Err(Cut::Both | Cut::Client)) {
        let _ = client.set_zero_linger();
    }
    if let (Err(Cut::Both | Cut::Server), Some(server)) = (ended, server) {
        let _ = server.set_zero_linger();
    }
}

async fn carry(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    setting: &mut watch::Receiver<Setting>,
    control: &Control,
) -> Result<(), Cut> {
    let target = open(client, setting).await?;
    let server = server.insert(TcpStream::connect(target).await.map_err(|_| Cut::Both)?);
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let unanswered = OnceLock::new();
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let pump = |direction, reader, writer| Pump {
        direction,
        reader,
        writer,
        setting: setting.clone(),
        control,
        unanswered: &unanswered,
        counted: (u64::MAX, 0),
        tail: Vec::new(),
        swallowed: false,
    };
    let mut to = pump(Direction::ToServer, client_read, server_write);
    let mut from = pump(Direction::FromServer, server_read, client_write);
    tokio::try_join!(to.run(), from.run())?;
    Ok(())
}

/// Waits until the mode lets a new connection reach the server, and tells which server that is.
async fn open(
    client: &mut TcpStream,
    setting: &mut watch::Receiver<Setting>,
) -> Result<std::net::SocketAddr, Cut> {
    let mut nothing = [0; 1024];
    let mut led_nowhere = false;
    loop {
        let now = setting.borrow_and_update().clone();
        match now.mode {
            Mode::Reset => return Err(Cut::Both),
            Mode::BlackHole => {
                led_nowhere = true;
                tokio::select! {
                    changed = setting.changed() => changed.map_err(|_| Cut::Both)?,
                    read = client.read(&mut nothing) => if !matches!(read, Ok(1..)) {
                        return Err(Cut::Both);
                    }
                }
            }
            _ if led_nowhere => return Err(Cut::Both),
            Mode::Stall => setting.changed().await.map_err(|_| Cut::Both)?,
            _ => return Ok(now.target),
        }
    }
}

struct Pump<'a> {
    direction: Direction,
    reader: ReadHalf<'a>,
    writer: WriteHalf<'a>,
    setting: watch::Receiver<Setting>,
    control: &'a Control,
    /// Set when this connection is the one whose answer never comes: how the end of that answer is known.
    unanswered: &'a OnceLock<Vec<u8>>,
    /// The change that bytes are counted since, and how many were passed on since then.
    counted: (u64, usize),
    /// The last bytes before this piece, in which a pattern may have begun.
    tail: Vec<u8>,
    swallowed: bool,
}

impl Pump<'_> {
    async fn run(&mut self) -> Result<(), Cut> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = tokio::select! {
                read = self.reader.read(&mut piece) => read.map_err(|_| Cut::Both)?,
                changed = self.setting.changed() => {
                    changed.map_err(|_| Cut::Both)?;
                    self.check_swallowed()?;
                    continue;
                }
            };
            let now = self.released().await?;
            if now.mode == Mode::BlackHole {
                self.swallowed = true;
                if length == 0 {
                    self.until_visible().await?;
                }
                continue;
            }
            if length == 0 {
                let _ = self.writer.shutdown().await;
                return Ok(());
            }
            self.pass(&piece[..length], &now).await?;
        }
    }

    /// The setting, as soon as it does not hold bytes back.
    async fn released(&mut self) -> Result<Setting, Cut> {
        let now = self.setting.wait_for(|now| now.mode != Mode::Stall).await;
        let now = now.map_err(|_| Cut::Both)?.clone();
        self.check_swallowed()?;
        Ok(now)
    }

    /// One side closed and the other does not hear of it until the mode changes.
    async fn until_visible(&mut self) -> Result<(), Cut> {
        let _ = self.setting.wait_for(|now| now.mode != Mode::BlackHole).await;
        Err(Cut::Both)
    }

    fn check_swallowed(&self) -> Result<(), Cut> {
        let gone = self.swallowed && self.setting.borrow().mode != Mode::BlackHole;
        if gone { Err(Cut::Both) } else { Ok(()) }
    }

    async fn pass(&mut self, piece: &[u8], now: &Setting) -> Result<(), Cut> {
        if self.counted.0 != now.change {
            self.counted = (now.change, 0);
        }
        match (&now.mode, self.direction) {
            (Mode::Delay(time), _) => sleep(*time).await,
            (Mode::CutToServer(limit), Direction::ToServer)
            | (Mode::CutFromServer(limit), Direction::FromServer) => {
                let left = limit.saturating_sub(self.counted.1);
                if piece.len() >= left {
                    self.write(&piece[..left]).await?;
                    let sender =
                        if self.direction == Direction::ToServer { Cut::Client } else { Cut::Server };
                    return Err(self.cut(sender));
                }
                self.counted.1 += piece.len();
            }
            (Mode::CutAnswer { request, answer }, Direction::ToServer)
                if self.holds(piece, request) && self.claim(now.change) =>
            {
                let _ = self.unanswered.set(answer.clone());
            }
            _ => {}
        }
        match self.unanswered.get() {
            Some(answer) if self.direction == Direction::FromServer => {
                if self.holds(piece, answer) {
                    Err(self.cut(Cut::Both))
                } else {
                    Ok(())
                }
            }
            _ => self.write(piece).await,
        }
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), Cut> {
        self.writer.write_all(piece).await.map_err(|_| Cut::Both)
    }

    fn cut(&self, reset: Cut) -> Cut {
        self.control.cuts.fetch_add(1, Ordering::SeqCst);
        reset
    }

    /// Whether this connection is the first that meets the pattern of this mode, which ends with that.
    fn claim(&self, change: u64) -> bool {
        self.control.setting.send_if_modified(|setting| {
            let first = setting.change == change;
            if first {
                setting.mode = Mode::Pass;
                setting.change += 1;
            }
            first
        })
    }

    /// Whether the pattern ends in this piece; it may have begun in the one before.
    fn holds(&mut self, piece: &[u8], pattern: &[u8]) -> bool {
        if pattern.is_empty() {
            return true;
        }
        self.tail.extend_from_slice(piece);
        let found = self.tail.windows(pattern.len()).any(|bytes| bytes == pattern);
        let keep = self.tail.len().saturating_sub(pattern.len() - 1);
        self.tail.drain(..keep);
        found
    }
}
