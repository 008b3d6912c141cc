//! Each broker into the ledger, beside a bare client that takes the same messages and throws them away.
//!
//! Messages are put into the broker before the clock starts, and a rate runs from the first message seen to the last:
//! connecting and joining a group are not in it. Rounds alternate (bare, into Postgres, into SQLite); what is reported
//! is the median of each. What the ledger takes without any broker stands beside them, because no source can be faster.
//!
//! The brokers are those of the tests: a real RabbitMQ, and compatible servers in the place of Kafka and SQS. Read
//! `intake.rs` first (the way into the ledger, the same for all), then the file named like the broker.

mod intake;
mod kafka;
mod rabbitmq;
mod sqs;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bellwire_ledger::{Ledger, SqliteLedger, SqliteOptions};
use bellwire_schemas::service::{Decode, DedupRule, KeyRule, SourceKind, SourceSpec};
use bellwire_test_servers::{Kafka, Ministack, Rabbitmq, shared};
use clap::ValueEnum;
use tokio::task::block_in_place;

use crate::ledger::server::Server;
use crate::table::{Report, Row, percentile};

/// Bytes of JSON in each message.
const PAYLOAD: usize = 300;
/// Different keys among the messages.
const KEYS: usize = 1_000;
/// A measurement that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to measure, and where.
#[derive(Debug)]
pub struct Options {
    /// Messages of one round over Kafka; RabbitMQ gets a quarter of them, SQS a hundredth.
    pub messages: usize,
    /// Rounds of each.
    pub rounds: usize,
    /// The brokers to measure; none: all.
    pub only: Vec<Broker>,
    /// Folder for the SQLite ledgers: the disk that is measured.
    pub dir: Option<PathBuf>,
    /// Use the servers that the variables of the test command name, instead of private ones.
    pub shared: bool,
}

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Broker {
    /// A broker that speaks Kafka's protocol.
    Kafka,
    /// RabbitMQ, a quorum queue.
    Rabbitmq,
    /// A server that speaks SQS's protocol.
    Sqs,
}

/// The stable keys of a broker's figures.
struct Keys {
    name: &'static str,
    ours: &'static str,
    bare: &'static str,
    ratio: &'static str,
    sqlite: &'static str,
}

const KAFKA: Keys = Keys {
    name: "kafka, 4 partitions",
    ours: "kafka_per_s",
    bare: "kafka_bare_per_s",
    ratio: "kafka_ratio",
    sqlite: "kafka_sqlite_per_s",
};
const RABBITMQ: Keys = Keys {
    name: "rabbitmq, quorum queue",
    ours: "rabbitmq_per_s",
    bare: "rabbitmq_bare_per_s",
    ratio: "rabbitmq_ratio",
    sqlite: "rabbitmq_sqlite_per_s",
};
const SQS: Keys = Keys {
    name: "sqs, standard queue",
    ours: "sqs_per_s",
    bare: "sqs_bare_per_s",
    ratio: "sqs_ratio",
    sqlite: "sqs_sqlite_per_s",
};

/// What the server in the place of SQS takes as a login. Sources find theirs in the environment, as AWS defines it; a
/// process that lacks them is started again with them, and does not return from here.
///
/// # Errors
/// When this program cannot be found or started again.
pub fn log_in() -> anyhow::Result<()> {
    if std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|id| id == "test") {
        return Ok(());
    }
    let program = std::env::current_exe().context("find this program")?;
    let mut again = std::process::Command::new(program);
    again
        .args(std::env::args_os().skip(1))
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    // Returns only when it failed.
    Err(std::os::unix::process::CommandExt::exec(&mut again)).context("start this program again")
}

/// Runs what the options ask for.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let named = if options.shared { Some(std::env::var("BELLWIRE_TEST_POSTGRES")?) } else { None };
    let ledgers = Ledgers::new(Server::start(named.as_deref()).await?, options.dir)?;
    let mut report = Report::new();
    for (name, value) in ledgers.server.settings().await? {
        report.setting(name, value);
    }
    report.setting("messages".into(), options.messages.to_string());
    let limit = intake::limit(&ledgers, options.messages).await?;
    report.figure("ledger_per_s", limit.postgres);
    report.figure("ledger_sqlite_per_s", limit.sqlite);
    let wanted = |broker| options.only.is_empty() || options.only.contains(&broker);
    let mut rows = Vec::new();
    if wanted(Broker::Kafka) {
        let server = if options.shared { None } else { Some(block_in_place(Kafka::in_memory)?) };
        let address = server.as_ref().map_or_else(shared::kafka, |server| Ok(server.bootstrap()))?;
        let mut broker = kafka::Topic::fill(&address, options.messages).await?;
        rows.push(compare(&mut broker, &ledgers, options.rounds, &KAFKA, &mut report).await?);
    }
    if wanted(Broker::Rabbitmq) {
        let server = if options.shared { None } else { Some(block_in_place(Rabbitmq::start)?) };
        let address = server.as_ref().map_or_else(shared::amqp, |server| Ok(server.url()))?;
        let mut broker = rabbitmq::Queue::new(&address, (options.messages / 4).max(1)).await?;
        rows.push(compare(&mut broker, &ledgers, options.rounds, &RABBITMQ, &mut report).await?);
    }
    if wanted(Broker::Sqs) {
        let server = if options.shared { None } else { Some(block_in_place(Ministack::start)?) };
        let address = server.as_ref().map_or_else(shared::aws, |server| Ok(server.url()))?;
        let mut broker = sqs::Queue::new(&address, (options.messages / 100).max(1));
        rows.push(compare(&mut broker, &ledgers, options.rounds, &SQS, &mut report).await?);
    }
    report.table("sources", "messages/s, 300 B of JSON", rows);
    ledgers.server.stop().await?;
    Ok(report)
}

/// A place in a broker that can be filled and emptied again.
trait Upstream {
    /// How many messages a round takes.
    fn messages(&self) -> usize;
    /// Puts them there, if the last round took them away.
    async fn refill(&mut self) -> anyhow::Result<()>;
    /// Takes them with the bare client and throws them away: messages per second.
    async fn bare(&mut self) -> anyhow::Result<f64>;
    /// The source that reads them, new to the broker.
    fn source(&self) -> SourceSpec;
}

async fn compare(
    upstream: &mut impl Upstream,
    ledgers: &Ledgers,
    rounds: usize,
    keys: &Keys,
    report: &mut Report,
) -> anyhow::Result<Row> {
    let (mut bare, mut ours, mut sqlite) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds.max(1) {
        upstream.refill().await?;
        bare.push(upstream.bare().await?);
        upstream.refill().await?;
        let ledger = ledgers.postgres().await?;
        ours.push(intake::rate(ledger, upstream.source(), upstream.messages()).await?);
        upstream.refill().await?;
        let ledger = ledgers.sqlite()?;
        sqlite.push(intake::rate(ledger, upstream.source(), upstream.messages()).await?);
        let last = |rates: &[f64]| rates.last().copied().unwrap_or_default().round();
        eprintln!(
            "{}, round {round} of {rounds}: {} bare, {} into postgres, {} into sqlite",
            keys.name,
            last(&bare),
            last(&ours),
            last(&sqlite)
        );
    }
    let median = |rates: &mut Vec<f64>| percentile(rates, 0.5);
    let (bare, ours, sqlite) = (median(&mut bare), median(&mut ours), median(&mut sqlite));
    report.figure(keys.ours, ours);
    report.figure(keys.bare, bare);
    report.figure(keys.ratio, ours / bare);
    report.figure(keys.sqlite, sqlite);
    let figures = vec![
        ("bare", bare),
        ("postgres", ours),
        ("postgres_ratio", ours / bare),
        ("sqlite", sqlite),
        ("sqlite_ratio", sqlite / bare),
    ];
    Ok(Row::new(keys.name, figures))
}

/// New ledgers, one for each round.
struct Ledgers {
    server: Server,
    folder: PathBuf,
    // Held for its drop, which removes the folder.
    _temporary: tempfile::TempDir,
}

impl Ledgers {
    fn new(server: Server, dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let temporary = match dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        Ok(Self { server, folder: temporary.path().into(), _temporary: temporary })
    }

    async fn postgres(&self) -> anyhow::Result<Arc<dyn Ledger>> {
        Ok(Arc::new(self.server.fresh_ledger().await?))
    }

    fn sqlite(&self) -> anyhow::Result<Arc<dyn Ledger>> {
        let file = self.folder.join(format!("{}.db", uuid::Uuid::now_v7().simple()));
        Ok(Arc::new(SqliteLedger::open(&file, SqliteOptions::default())?))
    }
}

fn source(name: &str, kind: SourceKind) -> SourceSpec {
    SourceSpec {
        name: name.into(),
        kind,
        key: KeyRule::Default,
        dedup: DedupRule::Default,
        decode: Decode::Auto,
        enabled: true,
    }
}

/// The payload of a message: 300 bytes of JSON.
fn payload(number: usize) -> String {
    let head = format!("{{\"order\":{number:010},\"note\":\"");
    let rest = PAYLOAD - head.len() - 2;
    format!("{head}{}\"}}", "x".repeat(rest))
}

/// Counts from the first message on.
struct Pace {
    begun: Instant,
    first: Option<(Instant, usize)>,
}

impl Pace {
    fn new() -> Self {
        Self { begun: Instant::now(), first: None }
    }

    /// Notes how many messages were seen by now. Answers messages per second once all were.
    fn seen(&mut self, count: usize, goal: usize) -> anyhow::Result<Option<f64>> {
        if count > 0 && self.first.is_none() {
            self.first = Some((Instant::now(), count));
        }
        if let Some((since, before)) = self.first.filter(|_| count >= goal) {
            // A goal that came at once has no rate; it took no longer than since the beginning.
            let (since, before) = if before < count { (since, before) } else { (self.begun, 0) };
            return Ok(Some((count - before) as f64 / since.elapsed().as_secs_f64().max(1e-9)));
        }
        anyhow::ensure!(self.begun.elapsed() < PATIENCE, "{count} of {goal} messages came in {PATIENCE:?}");
        Ok(None)
    }
}
