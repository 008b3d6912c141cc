//! The shared loop of pull connectors: receive, append, confirm; and the watchdog beside it, which drops a connector
//! that does not get on and makes it anew.

use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::{SourceName, crash_point};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::appender::{Appender, CommitError, Item, Lot, Patience};
use crate::contract::{Batch, Connector, Limit, Parcel, Release};
use crate::intake::Limits;
use crate::meter::Kind;
use crate::progress::{Pulse, Step, Verdict};
use crate::rules::{Ruled, quarantine, rule};

/// Pauses after a failure of the upstream or the ledger: doubling between these bounds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Pauses before a stalled connector is made anew: doubling between these bounds while nothing comes. What a new
/// connection mends is mended by the first; a group or a broker that is ill is not helped by many.
const FIRST_RESTART: Duration = Duration::from_secs(1);
const LONGEST_RESTART: Duration = Duration::from_secs(300);
/// How long a connector may take to give back what it holds.
const FAREWELL: Duration = Duration::from_secs(5);
/// While nothing comes, the connector is asked this often whether something is wrong; longer than one question to a
/// Kafka broker may take (5 s), whose failure would else be lost.
const LOOK: Duration = Duration::from_secs(7);
/// How long a connector may take to find out how many messages wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked, and how often it is judged: this many times within [`Limits::stall_after`].
const QUESTIONS: u32 = 8;
const JUDGEMENTS: u32 = 40;

/// Runs a pull source until told to stop. A connector that breaks down or stalls is noted and made anew after a
/// pause; what it had not confirmed comes again.
pub(crate) async fn keep(
    connect: impl Fn() -> Box<dyn Connector> + Send,
    source: SourceName,
    appender: Arc<Appender>,
    limits: Limits,
    stop: CancellationToken,
) {
    let mut restart = FIRST_RESTART;
    loop {
        let pump = Pump {
            source: source.clone(),
            appender: appender.clone(),
            limits: limits.clone(),
            pulse: Arc::new(Pulse::new()),
            stop: stop.clone(),
        };
        let (meter, pulse) = (&appender.meter, pump.pulse.clone());
        // A set ends its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(pump.run(connect()));
        let pause = match guard(&mut task, &pulse, &source, &appender, limits.stall_after).await {
            End::Stopped => return,
            End::Broke(error) => {
                tracing::error!(%source, %error, "the connector broke down");
                meter.failing(&source, format!("the connector broke down: {error}"), appender.clock.now());
                LONGEST_PAUSE
            }
            End::Stalled(reason) => {
                if pulse.moved() {
                    restart = FIRST_RESTART;
                }
                let pause = restart;
                restart = (restart * 2).min(LONGEST_RESTART);
                tracing::error!(%source, %reason, ?pause, "the source stalls and is connected anew");
                appender.trouble(&source, Kind::Stalled, reason);
                pause
            }
        };
        drop(task);
        meter.restarted(&source);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Why a connector's loop is over.
enum End {
    /// As it was told.
    Stopped,
    Broke(String),
    Stalled(String),
}

/// Waits for the end of the loop, or for a stall.
async fn guard(
    task: &mut JoinSet<()>,
    pulse: &Pulse,
    source: &SourceName,
    appender: &Appender,
    patience: Duration,
) -> End {
    let mut tick = tokio::time::interval((patience / JUDGEMENTS).max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = task.join_next() => return match ended {
                Some(Err(error)) => End::Broke(error.to_string()),
                _ => End::Stopped,
            },
            _ = tick.tick() => match pulse.judge(patience) {
                Verdict::Healthy => {}
                Verdict::Waits(reason) => appender.meter.suspect(source, reason, appender.clock.now()),
                Verdict::Stalled(reason) => return End::Stalled(reason),
            },
        }
    }
}

/// One connector's loop.
struct Pump {
    source: SourceName,
    appender: Arc<Appender>,
    limits: Limits,
    pulse: Arc<Pulse>,
    stop: CancellationToken,
}

/// When a connector was asked how much waits.
struct Asked {
    born: Instant,
    last: Instant,
}

impl Pump {
    /// Runs until told to stop; a batch in flight is finished or released first.
    async fn run(self, mut connector: Box<dyn Connector>) {
        let limit = Limit { items: self.limits.batch_events, bytes: self.limits.batch_bytes };
        let look = LOOK.min(self.limits.stall_after / QUESTIONS);
        let mut pause = FIRST_PAUSE;
        let mut asked = Asked { born: Instant::now(), last: Instant::now() };
        loop {
            self.pulse.enter(Step::Receiving);
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                received = tokio::time::timeout(look, connector.receive(limit)) => received,
            };
            let error = match received {
                Err(_) => {
                    self.look_around(connector.as_mut(), &mut asked).await;
                    continue;
                }
                Ok(Ok(batch)) => {
                    self.pulse.came();
                    asked.last = Instant::now();
                    self.step(connector.as_mut(), batch).await
                }
                Ok(Err(error)) => {
                    self.pulse.spoke();
                    Err(error.to_string())
                }
            };
            let Err(error) = error else {
                pause = FIRST_PAUSE;
                continue;
            };
            tracing::warn!(source = %self.source, %error, "intake pauses");
            self.appender.meter.failing(&self.source, error, self.appender.clock.now());
            self.pulse.enter(Step::Pausing);
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.pulse.enter(Step::Pausing);
        // What is not given back in time comes again by itself.
        let _ = tokio::time::timeout(FAREWELL, connector.close()).await;
    }

    /// Nothing came for a while: is something wrong, and does anything wait?
    async fn look_around(&self, connector: &mut dyn Connector, asked: &mut Asked) {
        let complaint = connector.complaint();
        let complains = complaint.is_some();
        let meter = &self.appender.meter;
        if let Some(complaint) = complaint {
            meter.failing(&self.source, complaint, self.appender.clock.now());
        }
        if asked.last.elapsed() < self.limits.stall_after / QUESTIONS {
            return;
        }
        self.pulse.enter(Step::Asking);
        let answer = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            answer = tokio::time::timeout(ANSWER_WITHIN, connector.backlog()) => match answer {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
            },
        };
        asked.last = Instant::now();
        // A source that cannot tell is believed when it has lived as long as a stall takes.
        let old = asked.born.elapsed() >= self.limits.stall_after;
        if (answer == Ok(Some(0)) || answer == Ok(None) && old) && meter.unstalled(&self.source) {
            self.appender.announce(&self.source, "resumed", String::new());
        }
        self.pulse.told(answer, complains);
    }

    async fn step(&self, connector: &mut dyn Connector, batch: Batch) -> Result<(), String> {
        crash_point("source.recv");
        let Batch { receipt, parcels, positions } = batch;
        let (appender, source) = (&self.appender, &self.source);
        let now = appender.clock.now();
        let items = parcels.into_iter().map(|parcel| durable(parcel, self.limits.event_bytes, now)).collect();
        let lot = Lot { items, positions };
        self.pulse.enter(Step::Appending);
        let patience = Patience::Stopped(self.stop.clone(), source.clone());
        let reached = appender.commit(&lot, &patience).await.whole();
        let error = match reached {
            Ok(committed) => {
                crash_point("source.ack");
                self.pulse.enter(Step::Confirming);
                connector.confirm(receipt, &committed).await.map_err(|e| e.to_string())?;
                match connector.complaint() {
                    Some(complaint) => appender.meter.failing(source, complaint, appender.clock.now()),
                    None => appender.healthy(source),
                }
                return Ok(());
            }
            Err(error) => error,
        };
        self.pulse.enter(Step::Releasing);
        match error {
            CommitError::Conflict(why) => {
                tracing::debug!(%source, %why, "another intake got ahead");
                connector.release(receipt, Release::Conflict).await;
                Ok(())
            }
            CommitError::Stopped => {
                connector.release(receipt, Release::Stopping).await;
                Ok(())
            }
            error => {
                connector.release(receipt, Release::Failed(error.to_string())).await;
                Err(error.to_string())
            }
        }
    }
}

/// Nobody waits for an answer here, so what a door would refuse is kept in quarantine.
fn durable(mut parcel: Parcel, event_bytes: usize, now: bellwire_schemas::Timestamp) -> Item {
    if let crate::Content::Event(draft) = &mut parcel.content {
        draft.keep_bad = true;
    }
    match rule(parcel, event_bytes, now) {
        Ruled::Event(ready) => Item::Event(ready),
        Ruled::Quarantine(kept) => Item::Quarantine(kept),
        Ruled::Refused { source, code, detail, .. } => Item::Quarantine(quarantine(
            &source,
            format!("{code}: {detail}"),
            bytes::Bytes::new(),
            "{}".into(),
        )),
    }
}
