//! The bytes between the AMQP client and the broker: connects, speaks TLS, watches for signs of life, and mends
//! what the client could not read.
//!
//! The client gets one end of a local pair of sockets; a task carries between the other end and the broker. Ending
//! that task ends the client's thread, in whatever state it is.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use async_compat::{Compat, CompatExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::config::{Broker, HEARTBEAT_SECONDS};
use super::mend::Mender;

/// How long one address may take to answer a TCP connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// The broker is silent for so long that the connection is dead: two and a half heartbeats.
const SILENCE: Duration = Duration::from_millis(HEARTBEAT_SECONDS as u64 * 2_500);
/// Bytes carried at once.
const PIECE: usize = 64 * 1024;

/// Keeps the bytes flowing; dropping it cuts the connection.
#[derive(Debug)]
pub(super) struct Cable(JoinHandle<()>);

impl Drop for Cable {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to a broker.
///
/// # Errors
/// Says what could not be reached or trusted.
pub(super) async fn connect(broker: &Broker) -> Result<(Compat<TcpStream>, Cable), String> {
    let place = broker.place();
    let tcp = dial(broker).await.map_err(|e| format!("rabbitmq at {place} cannot be reached: {e}"))?;
    let local = || -> io::Result<_> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        // The client takes a TCP socket only; of a stream it uses nothing that a local one lacks.
        let theirs = std::net::TcpStream::from(OwnedFd::from(theirs));
        Ok((UnixStream::from_std(ours)?, TcpStream::from_std(theirs)?))
    };
    let (ours, theirs) = local().map_err(|e| format!("make a local socket: {e}"))?;
    let task = match broker.tls() {
        None => tokio::spawn(carry(tcp, ours, place)),
        Some((config, name)) => {
            let handshake = tokio_rustls::TlsConnector::from(config).connect(name, tcp);
            let tls = match timeout(HANDSHAKE_WITHIN, handshake).await {
                Ok(Ok(tls)) => tls,
                Ok(Err(e)) => return Err(format!("rabbitmq at {place}: no TLS: {e}")),
                Err(_) => {
                    return Err(format!("rabbitmq at {place}: no TLS handshake in {HANDSHAKE_WITHIN:?}"));
                }
            };
            tokio::spawn(carry(tls, ours, place))
        }
    };
    Ok((theirs.compat(), Cable(task)))
}

async fn dial(broker: &Broker) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host((broker.host(), broker.port())).await? {
        match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => {
                last = io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {CONNECT_WITHIN:?}"))
            }
        }
    }
    Err(last)
}

/// Carries both ways until either side ends or the broker falls silent; then both see the end.
async fn carry(broker: impl AsyncRead + AsyncWrite + Unpin, client: UnixStream, place: String) {
    let (mut from_broker, mut to_broker) = tokio::io::split(broker);
    let (mut from_client, mut to_client) = client.into_split();
    let inward = async {
        let (mut mender, mut mended) = (Mender::default(), Vec::with_capacity(PIECE));
        let mut piece = vec![0; PIECE];
        loop {
            let count = match timeout(SILENCE, from_broker.read(&mut piece)).await {
                Ok(Ok(0)) => return "the broker closed the connection".to_owned(),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no sign of life for {SILENCE:?}"),
            };
            mended.clear();
            mender.take(&piece[..count], &mut mended);
            if to_client.write_all(&mended).await.is_err() {
                return "the client is gone".to_owned();
            }
        }
    };
    let outward = async {
        let mut piece = vec![0; PIECE];
        loop {
            match from_client.read(&mut piece).await {
                Ok(0) | Err(_) => {
                    // The client is done; what it sent has gone out. The broker may still have something to say.
                    let _ = to_broker.shutdown().await;
                    return;
                }
                Ok(count) => {
                    let sent = match to_broker.write_all(&piece[..count]).await {
                        Ok(()) => to_broker.flush().await,
                        failed => failed,
                    };
                    if let Err(error) = sent {
                        tracing::debug!(%place, %error, "writing to the broker failed");
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        why = inward => tracing::debug!(%place, %why, "a connection to rabbitmq ended"),
        () = outward => {}
    }
}
