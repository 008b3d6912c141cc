//! The one place that writes to the ledger: a lot of messages becomes one append, or several when one of them is
//! the trouble.
//!
//! An append whose outcome is unknown is repeated with the same append id. A lot that the ledger refuses for its
//! content is halved until the offender stands alone; the offender goes to quarantine, the others are stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwire_ledger::{Append, Appended, Arrival, Error, Feed, NewEvent, PositionAdvance, Quarantine};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{Clock, SourceName, Timestamp, crash_point};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::contract::{Committed, Fate};
use crate::meter::{Kind, Meter};
use crate::pressure::{LEDGER_FULL, Pressure};
use crate::rules::{Ready, set_aside_event};

/// First pause before an append is repeated, and the longest one: a busy ledger answers within milliseconds, a
/// restarting one within seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A durable message on its way.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// An event.
    Event(Ready),
    /// A message in quarantine.
    Quarantine(Quarantine),
}

/// Messages that are written together.
#[derive(Debug, Default)]
pub(crate) struct Lot {
    pub(crate) items: Vec<Item>,
    pub(crate) positions: Vec<PositionAdvance>,
}

/// How long an append may be repeated.
#[derive(Clone, Debug)]
pub(crate) enum Patience {
    /// Until then; a full ledger is not waited for at all. For senders that wait for an answer.
    Until(Instant),
    /// Until told to stop. For the connector of this source, whose upstream keeps the messages; what is wrong is noted
    /// of it, too, whoever's messages it carries.
    Stopped(CancellationToken, SourceName),
}

/// Why a lot, or the rest of it, is not durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitError {
    /// Another intake moved the position.
    #[error("{0}")]
    Conflict(String),
    /// The ledger takes nothing now.
    #[error("{0}")]
    Full(String),
    /// The ledger did not answer in time; the append may have happened.
    #[error("{0}")]
    Unavailable(String),
    /// The ledger does not work.
    #[error("{0}")]
    Broken(String),
    /// Told to stop.
    #[error("the controller is stopping")]
    Stopped,
}

/// What was reached: one fate per item, and the error that left the others without.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) fates: Vec<Option<Fate>>,
    pub(crate) accepted_at: Timestamp,
    pub(crate) error: Option<CommitError>,
}

impl Reached {
    /// Everything, or the error.
    pub(crate) fn whole(self) -> Result<Committed, CommitError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(Committed {
                fates: self.fates.into_iter().flatten().collect(),
                accepted_at: self.accepted_at,
            }),
        }
    }
}

/// Writes lots.
pub(crate) struct Appender {
    pub(crate) feed: Arc<Feed>,
    pub(crate) clock: Clock,
    pub(crate) live: broadcast::Sender<Fact>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) pressure: Pressure,
    /// Whose turn it is among the lanes, for events without a key.
    pub(crate) turn: AtomicU64,
}

impl Appender {
    /// Writes a lot; positions only with, or after, all of its items.
    pub(crate) async fn commit(&self, lot: &Lot, patience: &Patience) -> Reached {
        let mut reached =
            Reached { fates: vec![None; lot.items.len()], accepted_at: self.clock.now(), error: None };
        match self.append(&lot.items, &lot.positions, patience).await {
            Ok(appended) => self.note(&lot.items, 0, &appended, &mut reached),
            Err(Refused::Commit(error)) => reached.error = Some(error),
            Err(Refused::Content(reason)) => {
                let result = self.bisect(lot, reason, patience, &mut reached).await;
                reached.error = result.err();
            }
        }
        reached
    }

    /// Halves, depth first and in order, so that the items of one key keep theirs.
    async fn bisect(
        &self,
        lot: &Lot,
        mut reason: String,
        patience: &Patience,
        reached: &mut Reached,
    ) -> Result<(), CommitError> {
        let count = lot.items.len();
        let mut open = if count > 1 { vec![count / 2..count, 0..count / 2] } else { Vec::new() };
        if count == 1 {
            self.set_aside(lot, 0, &reason, patience, reached).await?;
        }
        while let Some(range) = open.pop() {
            match self.append(&lot.items[range.clone()], &[], patience).await {
                Ok(appended) => self.note(&lot.items[range.clone()], range.start, &appended, reached),
                Err(Refused::Commit(error)) => return Err(error),
                Err(Refused::Content(why)) if range.len() == 1 => {
                    reason = why;
                    self.set_aside(lot, range.start, &reason, patience, reached).await?;
                }
                Err(Refused::Content(_)) => {
                    let middle = range.start + range.len() / 2;
                    open.push(middle..range.end);
                    open.push(range.start..middle);
                }
            }
        }
        if lot.positions.is_empty() {
            return Ok(());
        }
        match self.append(&[], &lot.positions, patience).await {
            Ok(_) => Ok(()),
            Err(Refused::Commit(error)) => Err(error),
            Err(Refused::Content(why)) => Err(CommitError::Broken(why)),
        }
    }

    /// Quarantines the one item that the ledger refuses. When it refuses that too, the ledger is the trouble.
    async fn set_aside(
        &self,
        lot: &Lot,
        index: usize,
        reason: &str,
        patience: &Patience,
        reached: &mut Reached,
    ) -> Result<(), CommitError> {
        let Item::Event(ready) = &lot.items[index] else {
            return Err(CommitError::Broken(reason.to_owned()));
        };
        let why = format!("the ledger refused it: {reason}");
        let item = [Item::Quarantine(set_aside_event(&ready.source, why, &ready.event))];
        match self.append(&item, &[], patience).await {
            Ok(appended) => {
                self.note(&item, index, &appended, reached);
                Ok(())
            }
            Err(Refused::Commit(error)) => Err(error),
            Err(Refused::Content(why)) => Err(CommitError::Broken(why)),
        }
    }

    /// One append, repeated with the same id while its outcome is unknown.
    async fn append(
        &self,
        items: &[Item],
        positions: &[PositionAdvance],
        patience: &Patience,
    ) -> Result<Appended, Refused> {
        let append = self.build(items, positions);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.try_append(&append, items).await {
                Ok(appended) => {
                    crash_point("append.after_commit_before_ack");
                    self.sources(items, |source| self.healthy(source));
                    return Ok(appended);
                }
                Err(error) => error,
            };
            let text = error.to_string();
            if self.note_trouble(items, &error, patience) {
                tracing::warn!(error = %text, events = items.len(), "the ledger does not take an append");
            }
            match error {
                Error::Unavailable(_) => {}
                Error::Full(_) if matches!(patience, Patience::Stopped(..)) => pause = LONGEST_PAUSE,
                Error::Full(_) => return Err(Refused::Commit(CommitError::Full(text))),
                Error::PositionConflict { .. } => return Err(Refused::Commit(CommitError::Conflict(text))),
                Error::NotFound(_) | Error::Corrupt(_) => return Err(Refused::Content(text)),
                _ => return Err(Refused::Commit(CommitError::Broken(text))),
            }
            wait(pause, patience, text, &self.pressure).await.map_err(Refused::Commit)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One try; while intake is held back, the ledger counts as full.
    async fn try_append(&self, append: &Append, items: &[Item]) -> Result<Appended, Error> {
        if let Some(hold) = self.pressure.hold() {
            return Err(Error::Full(hold.reason));
        }
        self.feed.append_telling(append.clone(), |appended| self.tell(items, appended)).await
    }

    /// Says of the sources why nothing of theirs is stored; returns whether that is news. Of several controllers that
    /// read one source, all but one are told of a conflict every time: that is no trouble.
    fn note_trouble(&self, items: &[Item], error: &Error, patience: &Patience) -> bool {
        let (kind, reason) = match error {
            Error::PositionConflict { .. } => return false,
            Error::Full(why) => (Kind::Paused, format!("{LEDGER_FULL}: {why}")),
            other => (Kind::Failing, other.to_string()),
        };
        let mut news = false;
        let mut note = |source: &SourceName| news |= self.trouble(source, kind, reason.clone());
        self.sources(items, &mut note);
        if let Patience::Stopped(_, source) = patience {
            note(source);
        }
        news
    }

    /// Notes trouble of a source, and tells it when a source stands still from now on; returns whether it is news.
    pub(crate) fn trouble(&self, source: &SourceName, kind: Kind, reason: String) -> bool {
        let news = self.meter.trouble(source, kind, reason.clone(), self.clock.now());
        if news && kind != Kind::Failing {
            self.announce(source, kind.word(), reason);
        }
        news
    }

    /// Notes that intake of a source works, and tells it when it stood still.
    pub(crate) fn healthy(&self, source: &SourceName) {
        if self.meter.healthy(source).is_some_and(|kind| kind != Kind::Failing) {
            self.announce(source, "resumed", String::new());
        }
    }

    /// Tells that a source changed its condition.
    pub(crate) fn announce(&self, source: &SourceName, state: &str, detail: String) {
        let (at, subject) = (self.clock.now(), source.to_string());
        // Nobody listening is fine: a fact is only news.
        let _ = self.live.send(Fact::Condition { at, subject, state: state.into(), detail });
    }

    fn build(&self, items: &[Item], positions: &[PositionAdvance]) -> Append {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let lanes = self.feed.ledger().lanes();
        let mut append = Append {
            append_id: Uuid::now_v7(),
            events: Vec::with_capacity(items.len()),
            positions: positions.to_vec(),
            quarantined: Vec::new(),
        };
        for item in items {
            match item {
                Item::Event(ready) => append.events.push(NewEvent {
                    source: ready.source.clone(),
                    lane: bellwire_ledger::append::lane_of(ready.key.as_deref(), turn, lanes),
                    key: ready.key.clone(),
                    dedup: ready.dedup.clone(),
                    event: ready.event.clone(),
                }),
                Item::Quarantine(quarantine) => append.quarantined.push(quarantine.clone()),
            }
        }
        append
    }

    /// Sends the facts of items that are durable now.
    fn tell(&self, items: &[Item], appended: &Appended) {
        if self.live.receiver_count() == 0 {
            return;
        }
        for (_, item, fate) in fates(items, appended) {
            // Nobody listening any more is fine: a fact is only news.
            let _ = self.live.send(fact(item, &fate, appended.accepted_at));
        }
    }

    /// Writes fates and counts of items that are durable now.
    fn note(&self, items: &[Item], first: usize, appended: &Appended, reached: &mut Reached) {
        reached.accepted_at = appended.accepted_at;
        for (offset, item, fate) in fates(items, appended) {
            self.meter.count(item.source(), |counts| {
                counts.received += 1;
                match &fate {
                    Fate::Accepted(_) => counts.accepted += 1,
                    Fate::Duplicate(_) => counts.duplicate += 1,
                    Fate::Quarantined(_) => counts.quarantined += 1,
                }
            });
            if let Some(slot) = reached.fates.get_mut(first + offset) {
                *slot = Some(fate);
            }
        }
    }

    /// Calls `note` with the sources of the items, at least once each.
    pub(crate) fn sources(&self, items: &[Item], mut note: impl FnMut(&SourceName)) {
        let mut last: Option<&SourceName> = None;
        for item in items {
            if last != Some(item.source()) {
                note(item.source());
            }
            last = Some(item.source());
        }
    }
}

impl Item {
    pub(crate) fn source(&self) -> &SourceName {
        match self {
            Self::Event(ready) => &ready.source,
            Self::Quarantine(quarantine) => &quarantine.source,
        }
    }

    /// Roughly, for batch limits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Event(ready) => ready.event.size_bytes(),
            Self::Quarantine(quarantine) => quarantine.bytes.len() + quarantine.meta.len(),
        }
    }
}

enum Refused {
    /// For a reason that has nothing to do with the items.
    Commit(CommitError),
    /// Perhaps for what one of the items holds.
    Content(String),
}

/// Waits for the next try; the end of a hold needs no pause.
async fn wait(
    pause: Duration,
    patience: &Patience,
    error: String,
    pressure: &Pressure,
) -> Result<(), CommitError> {
    match patience {
        Patience::Until(end) if Instant::now() + pause > *end => Err(CommitError::Unavailable(error)),
        Patience::Until(_) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        Patience::Stopped(stop, _) => {
            let held = pressure.hold().is_some();
            tokio::select! {
                () = stop.cancelled() => Err(CommitError::Stopped),
                () = tokio::time::sleep(pause) => Ok(()),
                () = pressure.released(), if held => Ok(()),
            }
        }
    }
}

/// Each item with its place and what became of it.
fn fates<'a>(items: &'a [Item], appended: &'a Appended) -> impl Iterator<Item = (usize, &'a Item, Fate)> {
    let mut arrivals = appended.items.iter();
    items.iter().enumerate().filter_map(move |(offset, item)| {
        let fate = match item {
            Item::Event(_) => match arrivals.next()? {
                Arrival::Accepted(address) => Fate::Accepted(*address),
                Arrival::Duplicate(address) => Fate::Duplicate(*address),
            },
            Item::Quarantine(quarantine) => Fate::Quarantined(quarantine.reason.clone()),
        };
        Some((offset, item, fate))
    })
}

fn fact(item: &Item, fate: &Fate, at: Timestamp) -> Fact {
    let source = item.source().clone();
    match (item, fate) {
        (Item::Event(ready), Fate::Accepted(address)) => Fact::Accepted {
            at,
            address: *address,
            source,
            kind: ready.event.kind.clone(),
            subject: ready.event.subject.clone(),
            id: ready.event.id.clone(),
        },
        (Item::Event(ready), Fate::Duplicate(address)) => Fact::NotAccepted {
            at,
            source,
            arrival: "duplicate".into(),
            detail: format!("{} was stored before, at {address}", ready.event.id),
        },
        (_, Fate::Quarantined(reason)) => {
            Fact::NotAccepted { at, source, arrival: "quarantined".into(), detail: reason.clone() }
        }
        (Item::Quarantine(quarantine), _) => {
            Fact::NotAccepted { at, source, arrival: "quarantined".into(), detail: quarantine.reason.clone() }
        }
    }
}
