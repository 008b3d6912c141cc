//! The two listeners: HTTP/1.1 with limits on headers, idle time and connections.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Connections served at once per door; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1_024;
/// A client must have sent its request head after this time: the slow-loris limit.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Request head limit in bytes; far above any honest sender's headers.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long open requests may take to finish after shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// Opens a listener.
///
/// # Errors
/// When the address is not usable, naming the address and what to change.
pub async fn bind(address: &str, key: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let other = format!("`listen.{key}` in the file chooses another address, with `run` also --{key}");
        let asked = if error.kind() == ErrorKind::AddrInUse { "is another controller running? " } else { "" };
        anyhow::Error::new(error).context(format!("open {address}: {asked}{other}"))
    })?;
    let local = listener.local_addr().context("read the listener's address")?;
    Ok((listener, local))
}

/// Serves a router until `stop`, then lets open requests finish for a few seconds.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors: wait for some to close instead of spinning.
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let router = router.clone();
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                router.oneshot(request).await.map_err(|never: Infallible| never)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}
