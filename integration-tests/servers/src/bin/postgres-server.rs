//! `postgres-server FILE`: starts a private Postgres, writes `BELLWIRE_TEST_POSTGRES=<url>` into the file, stays until
//! its standard input closes or a signal comes, then stops the server and removes it.

use std::path::PathBuf;

use anyhow::Context;
use bellwire_test_servers::database::SERVER_VARIABLE;
use bellwire_test_servers::{Options, Postgres};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let file = std::env::args_os().nth(1).map(PathBuf::from).context("usage: postgres-server FILE")?;
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Postgres::start(&Options::default())?;
    // Written aside and renamed: who sees the file sees all of it.
    let aside = file.with_extension("new");
    std::fs::write(&aside, format!("{SERVER_VARIABLE}={}\n", server.url()))?;
    std::fs::rename(&aside, &file).with_context(|| format!("write {}", file.display()))?;
    let (mut input, mut nothing) = (tokio::io::stdin(), [0; 64]);
    let closed = async { while matches!(input.read(&mut nothing).await, Ok(1..)) {} };
    tokio::select! {
        () = closed => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    drop(server);
    // The read of standard input may still hold a thread of the runtime, which would wait for it.
    std::process::exit(0)
}
