//! Appends through the ledger's contract, as intake calls it, beside the bare limit.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_ledger::{Append, Arrival, Ledger};
use bellwire_schemas::{Clock, Lane};

use super::events::Ring;
use super::raw::Raw;
use super::rounds::{Ran, Round, Whistle, median, round};
use super::server::{LANES, Server};
use crate::table::{Report, Row, percentile};

/// Events an append, and lanes with one caller each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Events an append.
    pub batch: usize,
    /// Lanes, each with one caller.
    pub lanes: u16,
}

const fn case_of(batch: usize, lanes: u16) -> Case {
    Case { batch, lanes }
}

/// The case that the headline figures are about.
pub const MAIN: Case = case_of(500, 2);
/// The others.
pub const CASES: [Case; 14] = [
    case_of(1, 1),
    case_of(1, 2),
    case_of(1, 8),
    case_of(10, 1),
    case_of(10, 2),
    case_of(10, 8),
    case_of(100, 1),
    case_of(100, 2),
    case_of(100, 8),
    case_of(500, 1),
    case_of(500, 8),
    case_of(1_000, 1),
    case_of(1_000, 2),
    case_of(1_000, 8),
];

/// A ledger of its own, and events for its lanes.
pub struct Ours {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Events, lane by lane.
    pub rings: Vec<Arc<Ring>>,
}

/// The limit and the ledger, in alternating rounds of one run.
pub struct Compared {
    case: Case,
    raw: Round,
    ours: Round,
    ratio: f64,
}

/// Measures one case.
pub async fn case(server: &Server, case: Case, pairs: usize, length: Duration) -> anyhow::Result<Compared> {
    let ours = Ours::new(server).await?;
    // What the ledger makes of such batches is what the bare statement inserts.
    for nth in 0..8 {
        ours.ledger.append(ours.rings[0].append(nth, case.batch, false), Clock::system().now()).await?;
    }
    let raw = Raw::new(server, case).await?;
    // Caches, plans and files that the first statement makes are paid for here.
    raw.round(server, case, length / 4).await?;
    ours.round(server, case, false, length / 4).await?;
    let (mut raws, mut owns) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        if pair % 2 == 0 {
            raws.push(raw.round(server, case, length).await?);
            owns.push(ours.round(server, case, false, length).await?);
        } else {
            owns.push(ours.round(server, case, false, length).await?);
            raws.push(raw.round(server, case, length).await?);
        }
    }
    let ratio = median(raws.iter().zip(&owns).map(|(raw, own)| own.per_s / raw.per_s).collect());
    ours.ledger.close().await;
    server.clean().await?;
    Ok(Compared { case, raw: Round::median(raws), ours: Round::median(owns), ratio })
}

/// Appends with dedup keys that never repeat, beside the same without.
pub async fn dedup(server: &Server, length: Duration) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in [case_of(1, 1), case_of(10, 2), case_of(100, 2), MAIN] {
        let ours = Ours::new(server).await?;
        ours.round(server, case, true, length / 4).await?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            without.push(ours.round(server, case, false, length).await?);
            with.push(ours.round(server, case, true, length).await?);
        }
        ours.ledger.close().await;
        let (with, without) = (Round::median(with), Round::median(without));
        rows.push(Row::new(
            case.name(),
            vec![
                ("dedup_append_per_s", with.per_s),
                ("append_per_s", without.per_s),
                ("wal_bytes_per_event", with.wal_bytes),
                ("pg_cpu_us_per_event", with.cpu_us),
                ("client_cpu_us_per_event", with.client_cpu_us),
            ],
        ));
    }
    server.clean().await?;
    Ok(rows)
}

/// Many callers of one event each over two lanes: they share commits without knowing of each other.
pub async fn callers(server: &Server, length: Duration) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let ours = Ours::new(server).await?;
    for callers in [8, 64, 256] {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let most = 200_000.0 / callers as f64 + 5_000.0;
            let prepared: Vec<_> = (0..callers)
                .map(|nth| ours.rings[nth % 2].appends(1, false, length, most, callers))
                .collect();
            let run =
                |appends, whistle: &Whistle| append_all(Arc::clone(&ours.ledger), appends, whistle.clone());
            rounds.push(round(server, length, |w| prepared.into_iter().map(|p| run(p, w)).collect()).await?);
        }
        let mut all = Round::median(rounds);
        rows.push(Row::new(
            format!("{callers} callers, 2 lanes"),
            vec![
                ("append_per_s", all.per_s),
                ("commit_p50_ms", percentile(&mut all.calls_ms, 0.5)),
                ("commit_p99_ms", percentile(&mut all.calls_ms, 0.99)),
                ("wal_bytes_per_event", all.wal_bytes),
                ("pg_cpu_us_per_event", all.cpu_us),
                ("client_cpu_us_per_event", all.client_cpu_us),
            ],
        ));
    }
    ours.ledger.close().await;
    server.clean().await?;
    Ok(rows)
}

impl Ours {
    /// A new, empty ledger.
    pub async fn new(server: &Server) -> anyhow::Result<Self> {
        let ledger: Arc<dyn Ledger> = Arc::new(server.fresh_ledger().await?);
        let rings = (1..=ledger.lanes()).map(|lane| Arc::new(Ring::new(Lane(lane)))).collect();
        Ok(Self { ledger, rings })
    }

    /// One round of appends, one caller a lane. `once`: with dedup keys.
    pub async fn round(
        &self,
        server: &Server,
        case: Case,
        once: bool,
        length: Duration,
    ) -> anyhow::Result<Round> {
        let lanes = usize::from(case.lanes);
        let most = (900_000.0 / lanes as f64).min(8_000.0 * case.batch as f64);
        let prepared: Vec<_> = self.rings[..lanes]
            .iter()
            .map(|ring| ring.appends(case.batch, once, length, most, lanes))
            .collect();
        round(server, length, |whistle| {
            let run = |appends| append_all(Arc::clone(&self.ledger), appends, whistle.clone());
            prepared.into_iter().map(run).collect()
        })
        .await
    }
}

/// Appends one after the other until the whistle.
pub async fn append_all(
    ledger: Arc<dyn Ledger>,
    appends: Vec<Append>,
    whistle: Whistle,
) -> anyhow::Result<Ran> {
    let clock = Clock::system();
    let mut ran = Ran::new();
    let mut appends = appends.into_iter();
    while !whistle.blown() {
        let Some(append) = appends.next() else {
            whistle.blow();
            break;
        };
        let sent = Instant::now();
        let answer = ledger.append(append, clock.now()).await?;
        ran.call(sent, answer.items.len());
        // A duplicate would mean that less was written than is counted.
        anyhow::ensure!(
            matches!(answer.items.first(), Some(Arrival::Accepted(_))),
            "the ledger did not store a prepared event"
        );
    }
    ran.end(appends.collect());
    Ok(ran)
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no case: write batch size and lanes, such as 10x8, with 1 to {LANES} lanes")
        };
        let (batch, lanes) = text.split_once('x').ok_or_else(wrong)?;
        let case = case_of(batch.parse().map_err(|_| wrong())?, lanes.parse().map_err(|_| wrong())?);
        if case.batch == 0 || !(1..=LANES).contains(&case.lanes) { Err(wrong()) } else { Ok(case) }
    }
}

impl Case {
    /// Its name in tables.
    pub fn name(self) -> String {
        format!("batch {} x {} lanes", self.batch, self.lanes)
    }
}

impl Compared {
    /// The case as a line.
    pub fn row(mut self) -> Row {
        Row::new(
            self.case.name(),
            vec![
                ("raw_append_per_s", self.raw.per_s),
                ("append_per_s", self.ours.per_s),
                ("append_ratio", self.ratio),
                ("raw_wal_bytes_per_event", self.raw.wal_bytes),
                ("wal_bytes_per_event", self.ours.wal_bytes),
                ("raw_pg_cpu_us_per_event", self.raw.cpu_us),
                ("pg_cpu_us_per_event", self.ours.cpu_us),
                ("raw_client_cpu_us_per_event", self.raw.client_cpu_us),
                ("client_cpu_us_per_event", self.ours.client_cpu_us),
                ("raw_commit_p50_ms", percentile(&mut self.raw.calls_ms, 0.5)),
                ("commit_p50_ms", percentile(&mut self.ours.calls_ms, 0.5)),
                ("commit_p99_ms", percentile(&mut self.ours.calls_ms, 0.99)),
            ],
        )
    }

    /// The figures that stand for the whole run.
    pub fn headline(&self, report: &mut Report) {
        report.figure("raw_append_per_s", self.raw.per_s);
        report.figure("append_per_s", self.ours.per_s);
        report.figure("append_ratio", self.ratio);
        report.figure("wal_bytes_per_event", self.ours.wal_bytes);
        report.figure("pg_cpu_us_per_event", self.ours.cpu_us);
    }
}
