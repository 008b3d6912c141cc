//! The whole way of an event but for the function call: append, hot hand-over, checkpoint and log, over two lanes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_ledger::{
    Append, BindingFlush, BindingRecord, Feed, Flush, FlushOutcome, Heartbeat, Ledger, LogEntry, LogOutcome,
};
use bellwire_schemas::service::Start;
use bellwire_schemas::{BindingId, Clock, ControllerId, Epoch, FinalState, Lane, Seq, SeqRanges};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::events::Ring;
use super::ours::{MAIN, Ours};
use super::rounds::{Ran, Round, Whistle, median, round};
use super::server::{SCHEMA, Server};
use crate::table::{Report, Row, percentile};

/// Events appended but not yet checkpointed, per lane: more would be a backlog, not a flow.
const BEHIND: u64 = 8_000;
/// Events that one flush covers at most.
const FLUSHED: usize = 2_000;
/// Pairs of rounds with and without a snapshot.
const PAIRS: usize = 9;

/// A ledger with one binding, its lanes owned, and a sign of life every second as a controller gives it.
struct Rig {
    feed: Arc<Feed>,
    rings: Vec<Arc<Ring>>,
    lanes: Vec<Arc<LaneOwned>>,
    alive: JoinHandle<()>,
}

struct LaneOwned {
    lane: Lane,
    epoch: Epoch,
    binding: BindingId,
    /// The mark, and how many flushes there were: they outlive the rounds.
    mark: watch::Sender<(Seq, u64)>,
}

/// Events per second from append to checkpoint and log.
pub async fn measure(server: &Server, length: Duration, report: &mut Report) -> anyhow::Result<Vec<Row>> {
    let rig = Rig::new(server).await?;
    rig.round(server, length / 4).await?;
    let mut rounds = Vec::new();
    for _ in 0..3 {
        rounds.push(rig.round(server, length).await?);
    }
    rig.stop(server).await?;
    let all = Round::median(rounds);
    report.figure("delivered_per_s", all.per_s);
    Ok(vec![Row::new(
        MAIN.name(),
        vec![
            ("delivered_per_s", all.per_s),
            ("wal_bytes_per_event", all.wal_bytes),
            ("pg_cpu_us_per_event", all.cpu_us),
            ("client_cpu_us_per_event", all.client_cpu_us),
        ],
    )])
}

/// What a session that keeps an old snapshot costs: pairs of rounds with and without, in changing order.
pub async fn snapshot(server: &Server, length: Duration, report: &mut Report) -> anyhow::Result<Vec<Row>> {
    let rig = Rig::new(server).await?;
    let reader = server.connect().await?;
    rig.round(server, length).await?;
    let (mut free, mut held, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let mut rates = [0.0; 2];
        for turn in 0..2 {
            let hold = (pair + turn) % 2 == 1;
            if hold {
                let sql = format!(
                    "begin isolation level repeatable read; select count(*) from {SCHEMA}.event_batch; \
                     select count(*) from {SCHEMA}.checkpoint; select count(*) from {SCHEMA}.retry"
                );
                reader.batch_execute(&sql).await?;
            }
            rates[usize::from(hold)] = rig.round(server, length).await?.per_s;
            if hold {
                reader.batch_execute("commit").await?;
            }
        }
        free.push(rates[0]);
        held.push(rates[1]);
        losses.push(100.0 * (1.0 - rates[1] / rates[0]));
    }
    rig.stop(server).await?;
    let loss = median(losses.clone());
    report.figure("snapshot_loss_pct", loss);
    Ok(vec![Row::new(
        format!("median of {PAIRS} pairs"),
        vec![
            ("free_per_s", median(free)),
            ("held_per_s", median(held)),
            ("snapshot_loss_pct", loss),
            ("loss_p25_pct", percentile(&mut losses, 0.25)),
            ("loss_p75_pct", percentile(&mut losses, 0.75)),
        ],
    )])
}

impl Rig {
    async fn new(server: &Server) -> anyhow::Result<Self> {
        let Ours { ledger, rings } = Ours::new(server).await?;
        let (clock, controller) = (Clock::system(), ControllerId(Uuid::now_v7()));
        ledger.heartbeat(&beat(controller)).await?;
        let binding = ledger.declare_bindings(vec![record()], clock.now()).await?[0].id;
        let mut lanes = Vec::new();
        for lane in (1..=MAIN.lanes).map(Lane) {
            let epoch = ledger.acquire(controller, lane, clock.now()).await?;
            let epoch = epoch.ok_or_else(|| anyhow::anyhow!("lane {lane} of a new ledger has an owner"))?;
            let mark = watch::Sender::new((Seq(0), 0));
            lanes.push(Arc::new(LaneOwned { lane, epoch, binding, mark }));
        }
        let alive = tokio::spawn(stay_alive(Arc::clone(&ledger), controller));
        Ok(Self { feed: Arc::new(Feed::new(ledger, clock).await?), rings, lanes, alive })
    }

    async fn round(&self, server: &Server, length: Duration) -> anyhow::Result<Round> {
        let lanes = self.lanes.len();
        let prepared: Vec<_> = self.rings[..lanes]
            .iter()
            .map(|ring| ring.appends(MAIN.batch, false, length, 500_000.0 / lanes as f64, lanes))
            .collect();
        round(server, length, |whistle| {
            let lanes = self.lanes.iter().zip(prepared);
            let run = |(lane, appends): (&Arc<LaneOwned>, _)| {
                run_lane(Arc::clone(&self.feed), Arc::clone(lane), appends, whistle.clone())
            };
            lanes.map(run).collect()
        })
        .await
    }

    async fn stop(self, server: &Server) -> anyhow::Result<()> {
        self.alive.abort();
        self.feed.ledger().close().await;
        server.clean().await
    }
}

/// Appends in one task and delivers in another, as intake and dispatcher do.
async fn run_lane(
    feed: Arc<Feed>,
    lane: Arc<LaneOwned>,
    appends: Vec<Append>,
    whistle: Whistle,
) -> anyhow::Result<Ran> {
    let intake = tokio::spawn(append_all(Arc::clone(&feed), Arc::clone(&lane), appends, whistle.clone()));
    let mut ran = deliver_all(&feed, &lane, &whistle).await?;
    // Intake may be waiting for the mark: it looks at the whistle when woken.
    lane.mark.send_modify(|_| {});
    ran.keep(intake.await??);
    // What was appended in the last moment is worked off, but not counted.
    while *feed.tail(lane.lane).borrow() > lane.mark.borrow().0 {
        deliver(&feed, &lane).await?;
    }
    Ok(ran)
}

async fn append_all(
    feed: Arc<Feed>,
    lane: Arc<LaneOwned>,
    appends: Vec<Append>,
    whistle: Whistle,
) -> anyhow::Result<Vec<Append>> {
    let mut marks = lane.mark.subscribe();
    let mut appends = appends.into_iter();
    loop {
        marks
            .wait_for(|(mark, _)| feed.tail(lane.lane).borrow().0 < mark.0 + BEHIND || whistle.blown())
            .await?;
        if whistle.blown() {
            return Ok(appends.collect());
        }
        let Some(append) = appends.next() else { break };
        feed.append(append).await?;
    }
    whistle.blow();
    Ok(Vec::new())
}

async fn deliver_all(feed: &Feed, lane: &LaneOwned, whistle: &Whistle) -> anyhow::Result<Ran> {
    let mut ran = Ran::new();
    let mut tail = feed.tail(lane.lane);
    while !whistle.blown() {
        let mark = lane.mark.borrow().0;
        // Looks up now and then, so that the whistle is heard when nothing comes.
        if tokio::time::timeout(Duration::from_millis(20), tail.wait_for(|tail| *tail > mark)).await.is_err()
        {
            continue;
        }
        let sent = Instant::now();
        let count = deliver(feed, lane).await?;
        ran.call(sent, count);
    }
    ran.end(Vec::new());
    Ok(ran)
}

/// One step of a dispatcher: reads what is there, and commits that it was delivered.
async fn deliver(feed: &Feed, lane: &LaneOwned) -> anyhow::Result<usize> {
    let (mark, version) = *lane.mark.borrow();
    let events = feed.read(lane.lane, mark.next(), FLUSHED, 4 << 20).await?;
    let Some(last) = events.last().map(|event| event.address.seq) else { return Ok(0) };
    let at = Clock::system().now();
    let log = events.iter().map(|event| LogEntry {
        seq: event.address.seq,
        attempt: 1,
        at,
        duration_ms: 1,
        outcome: LogOutcome::Final(FinalState::Delivered),
        error: None,
        worker: "native-1".into(),
        version: "3f9a".into(),
        revision: 1,
        replay: None,
    });
    let part = BindingFlush {
        binding: lane.binding,
        version: version + 1,
        mark: last,
        done: SeqRanges::default(),
        log: log.collect(),
        owed: Vec::new(),
        settled: Vec::new(),
        dead: Vec::new(),
        emitted: Vec::new(),
    };
    let flush = Flush { lane: lane.lane, epoch: lane.epoch, at, bindings: vec![part] };
    let outcome = feed.ledger().flush(flush).await?;
    anyhow::ensure!(outcome == FlushOutcome::Flushed, "lane {} was taken by somebody else", lane.lane);
    lane.mark.send_replace((last, version + 1));
    Ok(events.len())
}

async fn stay_alive(ledger: Arc<dyn Ledger>, controller: ControllerId) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Err(error) = ledger.heartbeat(&beat(controller)).await {
            eprintln!("heartbeat: {error}");
        }
    }
}

fn beat(controller: ControllerId) -> Heartbeat {
    Heartbeat {
        controller,
        name: "bench".into(),
        version: "0".into(),
        ttl: Duration::from_secs(60),
        leaving: false,
    }
}

fn record() -> BindingRecord {
    BindingRecord {
        id: BindingId(0),
        name: "noop:topic.orders".into(),
        source: "topic.orders".into(),
        function: "noop".into(),
        filter: Vec::new(),
        start: Start::Earliest,
        revision: 0,
        paused: None,
        active: true,
        since: Default::default(),
    }
}
