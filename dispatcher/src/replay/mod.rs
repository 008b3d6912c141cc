//! Replays: recorded events put into the debts of a binding again, in steps that survive restarts.
//!
//! A step moves the replay's cursor and adds its debts in one commit, so none is enqueued twice or forgotten. At most
//! [`MAX_OUTSTANDING`] debts of the binding are open at a time; the runners deliver them in turn with fresh events. A
//! replay asks the binding's filter as it is now, and leaves alone what is still owed. `select.rs` says which events
//! are meant.

mod select;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{
    BindingRecord, Error as LedgerError, Ledger, Owed, OwedReason, ReplayRecord, ReplayState,
};
use bellwire_schemas::api::ReplayPlan;
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, Lane, ReplayId, Timestamp, Vital};
use tokio::sync::{Mutex, Notify, watch};

use crate::lane::{Roster, Stop};
use crate::lease::Lead;
use crate::rooms::Rooms;
use select::Selection;

/// Open debts of a binding above which its replays add none.
pub const MAX_OUTSTANDING: u64 = 1_000;
/// Rest between two steps while a replay runs.
const STEP_REST: Duration = Duration::from_millis(50);
/// The longest rest while each running replay waits for its debts to shrink; it doubles up to here.
const FULL_REST: Duration = Duration::from_secs(1);
/// Rest between two looks when none runs; new ones wake the task anyway.
const IDLE_REST: Duration = Duration::from_secs(30);
/// How often an operator's change is tried against steps of another controller.
const CHANGE_TRIES: usize = 20;
/// Rest after a refusal of the ledger.
const ERROR_REST: Duration = Duration::from_secs(2);

/// How a round of steps went.
enum Round {
    /// A replay moved.
    Moved,
    /// All that run have as many debts as they may.
    Full,
    /// None runs.
    Idle,
}

/// Different keys that a plan counts; beyond, it reports this number.
const MAX_KEYS: usize = 100_000;

/// Why a replay cannot be planned or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The selector asks for something that cannot be replayed.
    #[error("{0}")]
    Selector(String),
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Counts what a replay of `selector` to `binding` would deliver, without writing anything.
///
/// # Errors
/// [`Error::Selector`] for a state that is not final, a filter that is no pattern, an unknown binding;
/// [`Error::Ledger`].
pub async fn plan(
    ledger: &dyn Ledger,
    selector: &Selector,
    binding: &BindingRecord,
    _now: Timestamp,
) -> Result<ReplayPlan, Error> {
    let selection = Selection::new(ledger, selector, binding).await?;
    let mut plan =
        ReplayPlan { binding: binding.name.clone(), total: 0, keys: 0, oldest: None, newest: None };
    let (mut oldest, mut newest) = (None, None);
    let (hasher, mut keys) = (RandomState::new(), HashSet::new());
    for lane in (1..=ledger.lanes()).map(Lane) {
        let until = ledger.tail(lane).await?;
        let passed = ledger.checkpoint(lane, binding.id).await?;
        let mut from = selection.start(ledger, lane, until).await?;
        while from < until {
            let chunk = selection.next(ledger, lane, from, until, usize::MAX).await?;
            from = chunk.last;
            for event in chunk.events.iter().filter(|e| passed.passed(e.address.seq)) {
                plan.total += 1;
                let place = Some((event.accepted_at, event.address));
                oldest = if oldest.is_none() { place } else { oldest.min(place) };
                newest = newest.max(place);
                if let Some(key) = &event.key
                    && keys.len() < MAX_KEYS
                {
                    keys.insert(hasher.hash_one(key));
                }
            }
        }
    }
    plan.keys = keys.len() as u64;
    plan.oldest = oldest.map(|(_, address)| address);
    plan.newest = newest.map(|(_, address)| address);
    Ok(plan)
}

/// The task that carries replays on.
#[derive(Debug)]
pub(crate) struct Replayer {
    rooms: Arc<Rooms>,
    roster: Arc<Roster>,
    wake: Notify,
    /// Who carries replays on: the owner of the first lane.
    lead: Lead,
    /// Held over read, step and write of a record, so that an operator's word here waits for a step instead of losing
    /// against it; between controllers the record's version does that.
    turn: Mutex<HashMap<ReplayId, BTreeSet<Address>>>,
}

impl Replayer {
    pub(crate) fn new(rooms: Arc<Rooms>, roster: Arc<Roster>, lead: Lead) -> Self {
        Self { rooms, roster, lead, wake: Notify::new(), turn: Mutex::default() }
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) async fn change(
        &self,
        id: &ReplayId,
        state: ReplayState,
    ) -> Result<Option<ReplayRecord>, LedgerError> {
        let _turn = self.turn.lock().await;
        let ledger = self.rooms.ledger();
        for _ in 0..CHANGE_TRIES {
            let Some(mut record) = ledger.replay(id).await? else { return Ok(None) };
            if matches!(record.state, ReplayState::Done | ReplayState::Cancelled) {
                return Ok(None);
            }
            record.version += 1;
            record.state = state;
            ledger.save_replay(&record, &[]).await?;
            self.wake();
            if ledger.replay(id).await?.as_ref().is_some_and(|now| is_follower(now, &record)) {
                return Ok(Some(record));
            }
        }
        let what = format!("replay `{id}` changes too fast: another controller carries it on, try again");
        Err(LedgerError::Unavailable(what))
    }

    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<Stop>) {
        let _vital = Vital("the replays");
        let mut rest = STEP_REST;
        let mut lead = self.lead.epoch.clone();
        while *stop.borrow() == Stop::Run {
            lead.borrow_and_update();
            rest = match self.round().await {
                Ok(Round::Moved) => STEP_REST,
                Ok(Round::Full) => (rest * 2).min(FULL_REST),
                Ok(Round::Idle) => IDLE_REST,
                Err(error) => {
                    tracing::warn!(%error, "cannot carry replays on");
                    ERROR_REST
                }
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.wake.notified() => {}
                Ok(()) = lead.changed() => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// One step of every running replay.
    async fn round(&self) -> Result<Round, Error> {
        if !self.lead.is_ours() {
            // What another controller has moved meanwhile is not known here.
            self.turn.lock().await.clear();
            return Ok(Round::Idle);
        }
        let ledger = self.rooms.ledger();
        let running = |r: &ReplayRecord| r.state == ReplayState::Running;
        let ids: Vec<ReplayId> = ledger.replays().await?.into_iter().filter(running).map(|r| r.id).collect();
        if ids.is_empty() {
            return Ok(Round::Idle);
        }
        let mut round = Round::Full;
        let bindings: BTreeMap<_, _> = ledger.bindings().await?.into_iter().map(|b| (b.id, b)).collect();
        for id in ids {
            let mut sets = self.turn.lock().await;
            let Some(record) = ledger.replay(&id).await?.filter(running) else { continue };
            let Some(binding) = bindings.get(&record.binding) else { continue };
            match self.step(record, binding, &mut sets).await {
                Ok(true) => round = Round::Moved,
                Ok(false) => {}
                Err(Error::Selector(problem)) => self.give_up(&id, &problem).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(round)
    }

    /// A replay whose selector cannot be read any more (its binding's filter, say) would stand still for ever.
    async fn give_up(&self, id: &ReplayId, problem: &str) -> Result<(), Error> {
        tracing::error!(replay = %id, problem, "replay cancelled");
        if let Some(mut record) = self.rooms.ledger().replay(id).await? {
            record.version += 1;
            record.state = ReplayState::Cancelled;
            self.rooms.ledger().save_replay(&record, &[]).await?;
        }
        Ok(())
    }

    async fn step(
        &self,
        mut record: ReplayRecord,
        binding: &BindingRecord,
        sets: &mut HashMap<ReplayId, BTreeSet<Address>>,
    ) -> Result<bool, Error> {
        let ledger = self.rooms.ledger();
        record.version += 1;
        let open = ledger.totals().await?.get(&binding.id).map_or(0, |t| t.retrying + t.parked + t.delayed);
        let room = usize::try_from(MAX_OUTSTANDING.saturating_sub(open)).unwrap_or(0);
        if room == 0 {
            return Ok(false);
        }
        let selection =
            Selection::resume(ledger.as_ref(), &record.selector, binding, sets.get(&record.id)).await?;
        if let Some(set) = selection.set() {
            sets.entry(record.id.clone()).or_insert_with(|| set.clone());
        }
        let lanes: Vec<_> = record.until.iter().map(|(lane, until)| (*lane, *until)).collect();
        let next = lanes
            .into_iter()
            .find(|(lane, until)| record.cursor.get(lane).copied().unwrap_or_default() < *until);
        let Some((lane, until)) = next else {
            record.state = ReplayState::Done;
            sets.remove(&record.id);
            ledger.save_replay(&record, &[]).await?;
            return Ok(true);
        };
        let from = match record.cursor.get(&lane) {
            Some(seq) => *seq,
            None => selection.start(ledger.as_ref(), lane, until).await?,
        };
        let chunk = selection.next(ledger.as_ref(), lane, from, until, room).await?;
        let now = self.rooms.clock.now();
        let owed: Vec<_> =
            chunk.events.iter().map(|event| (event.address, debt(event.address, &record.id, now))).collect();
        record.cursor.insert(lane, chunk.last);
        record.enqueued += owed.len() as u64;
        let new = ledger.save_replay(&record, &owed).await?;
        if new > 0
            && let Some(binding) = self.roster.all().get(&binding.id)
        {
            binding.poke();
        }
        // What is left at once goes on at once.
        self.wake();
        Ok(true)
    }
}

/// Whether the stored record is the one that was saved, or came of it by steps.
fn is_follower(now: &ReplayRecord, saved: &ReplayRecord) -> bool {
    now.version >= saved.version
        && (now.state == saved.state
            || (saved.state == ReplayState::Running && now.state == ReplayState::Done))
}

fn debt(address: Address, id: &ReplayId, now: Timestamp) -> Owed {
    Owed {
        seq: address.seq,
        attempts: 0,
        next_at: now,
        since: now,
        error: None,
        reason: OwedReason::Replay(id.clone()),
        key: None,
    }
}
