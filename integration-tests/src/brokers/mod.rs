//! The world around a source: what public clients send to a broker and are told, what they read back from it, and what
//! a ledger holds, seen with the database's own tools.
//!
//! Nothing here speaks a broker's protocol itself: `clients.py` does, with the clients that users have.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bellwire_test_servers::python::python;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::Oracle;
use crate::stack::PATIENCE;

const CLIENTS: &str = include_str!("clients.py");

/// A broker's place that events come from or results go to.
#[derive(Clone, Debug)]
pub struct Place {
    /// `kafka`, `rabbitmq` or `sqs`.
    pub kind: &'static str,
    /// Where the broker is: bootstrap servers, an AMQP URL, an endpoint URL.
    pub address: String,
    /// The topic, the queue, or the queue's URL.
    pub name: String,
}

impl Place {
    /// Makes a topic of four partitions, a quorum queue, or an SQS queue.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn make(kind: &'static str, address: &str, name: &str) -> anyhow::Result<Self> {
        let name = call(&["make", kind, address, name], Vec::new()).await?;
        Ok(Self { kind, address: address.into(), name })
    }

    /// The same place by another way, as through a proxy.
    #[must_use]
    pub fn by(&self, address: &str) -> Self {
        Self { address: address.into(), ..self.clone() }
    }

    /// Sends one message with this key (Kafka) or id (RabbitMQ).
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn send(&self, key: &str, message: impl Into<Vec<u8>>) -> anyhow::Result<()> {
        call(&["raw", self.kind, &self.address, &self.name, key], message.into()).await.map(drop)
    }

    /// Takes so many messages off, as text.
    ///
    /// # Errors
    /// When there are not so many within a minute.
    pub async fn read(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let mut client = Client::start(&["read", self.kind, &self.address, &self.name, &count.to_string()])?;
        client.ended().await?;
        let lines = client.lines();
        lines.iter().map(|line| serde_json::from_str(line).context("a line holds a JSON text")).collect()
    }

    /// How many messages a queue holds, those that were handed out included (SQS) or not (RabbitMQ).
    ///
    /// # Errors
    /// When the broker does not say.
    pub async fn waiting(&self) -> anyhow::Result<usize> {
        Ok(call(&["lag", self.kind, &self.address, &self.name], Vec::new()).await?.parse()?)
    }

    /// Deletes a queue of RabbitMQ.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn drop_queue(&self) -> anyhow::Result<()> {
        call(&["drop", self.kind, &self.address, &self.name], Vec::new()).await.map(drop)
    }

    /// Makes a bucket on the same server that tells this SQS queue of each new object.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn bucket(&self, name: &str) -> anyhow::Result<()> {
        call(&["bucket", self.kind, &self.address, &self.name, name], Vec::new()).await.map(drop)
    }

    /// Puts an object into a bucket on the same server.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn put(&self, bucket: &str, key: &str, content: &str) -> anyhow::Result<()> {
        call(&["put", self.kind, &self.address, bucket, key], content.into()).await.map(drop)
    }

    /// Starts a client that sends about so many messages in a second, each with an id of its own.
    ///
    /// # Errors
    /// When Python does not start.
    pub fn produce(&self, prefix: &str, per_second: u32, limit: usize) -> anyhow::Result<Producer> {
        let (rate, limit) = (per_second.to_string(), limit.to_string());
        let args = ["produce", self.kind, &self.address, &self.name, prefix, &rate, &limit];
        Ok(Producer { client: Client::start(&args)? })
    }
}

/// A public client that sends.
pub struct Producer {
    client: Client,
}

impl Producer {
    /// Messages that the broker has confirmed so far.
    pub fn confirmed(&self) -> usize {
        self.client.lines().iter().filter(|line| line.starts_with("ok ")).count()
    }

    /// Waits until so many more messages were confirmed than at this moment.
    ///
    /// # Errors
    /// When it takes longer than a minute, or the client ended.
    pub async fn confirms(&mut self, more: usize) -> anyhow::Result<()> {
        let (goal, deadline) = (self.confirmed() + more, Instant::now() + PATIENCE);
        while self.confirmed() < goal {
            if let Some(status) = self.client.child.try_wait()? {
                bail!("the producer ended with {status} after {} of {goal} messages", self.confirmed());
            }
            ensure!(Instant::now() < deadline, "{} of {goal} messages were confirmed", self.confirmed());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until it has sent all that it was to send, and tells what the broker told it.
    ///
    /// # Errors
    /// When it fails or hangs.
    pub async fn all(mut self) -> anyhow::Result<Oracle> {
        self.client.ended().await?;
        self.oracle()
    }

    /// Stops it and tells what the broker told it.
    ///
    /// # Errors
    /// When it fails or hangs.
    pub async fn finish(mut self) -> anyhow::Result<Oracle> {
        self.client.input = None;
        self.all().await
    }

    fn oracle(&self) -> anyhow::Result<Oracle> {
        let mut oracle = Oracle::default();
        for line in self.client.lines() {
            match line.split_once(' ') {
                Some(("ok", id)) => oracle.acknowledged.insert(id.into()),
                Some(("unknown", id)) => oracle.unknown.insert(id.into()),
                _ => bail!("the producer said {line:?}"),
            };
        }
        Ok(oracle)
    }
}

/// A program of `clients.py` at work, ended with its value.
pub struct Client {
    child: Child,
    input: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts a command of `clients.py`.
    ///
    /// # Errors
    /// When Python does not start.
    pub fn start(args: &[&str]) -> anyhow::Result<Self> {
        let mut child = command(args)?.spawn().context("start a client in Python")?;
        let output = child.stdout.take().context("its output is ours")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(line)) = output.next_line().await {
                said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { input: child.stdin.take(), child, lines, reader: Some(reader) })
    }

    /// What it has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has said so many lines.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn says(&self, lines: usize) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        while self.lines().len() < lines {
            ensure!(Instant::now() < deadline, "a client in Python said only {:?}", self.lines());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(self.lines())
    }

    /// Closes its input, on which it leaves in order, and waits for it.
    ///
    /// # Errors
    /// When it fails or hangs.
    pub async fn leave(&mut self) -> anyhow::Result<()> {
        self.input = None;
        self.ended().await
    }

    async fn ended(&mut self) -> anyhow::Result<()> {
        let status: ExitStatus =
            timeout(PATIENCE, self.child.wait()).await.context("a client in Python does not end")??;
        if let Some(reader) = self.reader.take() {
            reader.await?;
        }
        ensure!(status.success(), "a client in Python ended with {status}");
        Ok(())
    }
}

fn command(args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(python()?);
    command.args(["-c", CLIENTS]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// Runs a command of `clients.py` to its end: what it printed.
async fn call(args: &[&str], input: Vec<u8>) -> anyhow::Result<String> {
    let mut child = command(args)?.stderr(Stdio::piped()).spawn().context("start a client in Python")?;
    let mut stdin = child.stdin.take().context("its input is ours")?;
    stdin.write_all(&input).await?;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await.context("a client in Python hangs")??;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The `id` in the data of every event of a source in a SQLite ledger, one for each place, read with Python's SQLite.
///
/// # Errors
/// When the file cannot be read.
pub async fn ids_in_sqlite(file: &Path, source: &str) -> anyhow::Result<Vec<String>> {
    let program = "
import json, sqlite3, sys
ledger = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True, timeout=30)
for (data,) in ledger.execute(
        'select event.data from event join name on name.id = event.source where name.text = ?', (sys.argv[2],)):
    print(json.loads(data)['id'])
";
    let mut command = Command::new(python()?);
    command.args(["-c", program]).arg(file).arg(source).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.context("the ledger's file is not read")??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect())
}

/// The same in a Postgres ledger, read with `psql`.
///
/// # Errors
/// When the server does not answer.
pub fn ids_in_postgres(url: &str, source: &str) -> anyhow::Result<Vec<String>> {
    let sql =
        format!("select bellwire.data_json(data) ->> 'id' from bellwire.event where source = '{source}'");
    let ids = bellwire_test_servers::postgres::psql(url, &sql)?;
    Ok(ids.lines().map(String::from).collect())
}

/// Holds what a ledger stores against what producers were told: what was confirmed is there, once; what is there was
/// sent. Tells what is still missing, which may yet come.
///
/// # Errors
/// When an event is there twice, or was never sent.
pub fn missing(oracle: &Oracle, stored: &[String]) -> anyhow::Result<Vec<String>> {
    let distinct: BTreeSet<&String> = stored.iter().collect();
    if distinct.len() < stored.len() {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = stored.iter().filter(|id| !seen.insert(*id)).take(20).collect();
        bail!("{} events are stored twice: {twice:?}", stored.len() - distinct.len());
    }
    let sent = |id: &&&String| oracle.acknowledged.contains(**id) || oracle.unknown.contains(**id);
    let invented: Vec<_> = distinct.iter().filter(|id| !sent(id)).take(20).collect();
    ensure!(invented.is_empty(), "nobody sent {invented:?}");
    Ok(oracle.acknowledged.iter().filter(|id| !distinct.contains(id)).cloned().collect())
}
