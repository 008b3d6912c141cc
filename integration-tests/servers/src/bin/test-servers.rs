//! `test-servers FILE [postgres] [rabbitmq] [kafka] [aws]`: starts these private servers (all of them if none is
//! named) at the same time, writes one line `VARIABLE=value` for each into the file, stays until its standard input
//! closes or a signal comes, then ends and removes them. They also end when this program is killed, but for Postgres.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, bail};
use bellwire_test_servers::database::SERVER_VARIABLE;
use bellwire_test_servers::shared::{AMQP_HTTP_VARIABLE, AMQP_VARIABLE, AWS_VARIABLE, KAFKA_VARIABLE};
use bellwire_test_servers::{Kafka, Ministack, Options, Postgres, Rabbitmq};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// The names, in the order of the usage.
const NAMES: [&str; 4] = ["postgres", "rabbitmq", "kafka", "aws"];

enum Server {
    Postgres(Postgres),
    Rabbitmq(Rabbitmq),
    Kafka(Kafka),
    Aws(Ministack),
}

impl Server {
    fn start(name: &str) -> anyhow::Result<Self> {
        let server = match name {
            "postgres" => Postgres::start(&Options::default()).map(Self::Postgres),
            "rabbitmq" => Rabbitmq::start().map(Self::Rabbitmq),
            "kafka" => Kafka::in_memory().map(Self::Kafka),
            "aws" => Ministack::start().map(Self::Aws),
            other => bail!("no server {other}: there are {}", NAMES.join(", ")),
        };
        server.with_context(|| format!("start {name}"))
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Postgres(server) => vec![(SERVER_VARIABLE, server.url())],
            Self::Rabbitmq(server) => {
                vec![(AMQP_VARIABLE, server.url()), (AMQP_HTTP_VARIABLE, server.http_url())]
            }
            Self::Kafka(server) => vec![(KAFKA_VARIABLE, server.bootstrap())],
            Self::Aws(server) => vec![(AWS_VARIABLE, server.url())],
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let file = args.next().map(PathBuf::from).context("usage: test-servers FILE [SERVER...]")?;
    let named: Vec<String> = args.map(|name| name.to_string_lossy().into_owned()).collect();
    let names = if named.is_empty() { NAMES.map(String::from).to_vec() } else { named };
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let starts: Vec<_> =
        names.into_iter().map(|name| tokio::task::spawn_blocking(move || Server::start(&name))).collect();
    let mut servers = Vec::new();
    for start in starts {
        servers.push(start.await?);
    }
    let servers = servers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut text = String::new();
    for (name, value) in servers.iter().flat_map(Server::variables) {
        writeln!(text, "{name}={value}")?;
    }
    // Written aside and renamed: who sees the file sees all of it.
    let aside = file.with_extension("new");
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, &file).with_context(|| format!("write {}", file.display()))?;
    let (mut input, mut nothing) = (tokio::io::stdin(), [0; 64]);
    let closed = async { while matches!(input.read(&mut nothing).await, Ok(1..)) {} };
    tokio::select! {
        () = closed => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    let ends: Vec<_> = servers.into_iter().map(|server| thread::spawn(|| drop(server))).collect();
    ends.into_iter().for_each(|end| drop(end.join()));
    // The read of standard input may still hold a thread of the runtime, which would wait for it.
    std::process::exit(0)
}
