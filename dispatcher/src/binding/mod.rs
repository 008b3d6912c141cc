//! What the runners of all lanes share about one binding: its plan (definition, filter, target, whether it is paused)
//! and its faces for the status. Decides nothing, runs nothing.
//!
//! `gate.rs` counts slots exactly, `flow.rs` is the condition of a function and `target.rs` shares it, `meter.rs` keeps
//! a rate, `pace.rs` says how fast a backlog shrinks, `board.rs` is what others may see of
//! a runner.

mod board;
mod flow;
mod gate;
mod meter;
mod pace;
mod target;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwire_ledger::{BindingRecord, Pause};
use bellwire_patterns::PatternSet;
use bellwire_schemas::service::{BindingSpec, Format, Ordering};
use bellwire_schemas::{Address, BindingId, BindingName, ErrorInfo, Lane, Seq};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::decide::Policy;
use crate::runner::Singles;
use crate::shape::Receiver;

pub(crate) use board::{Board, Face, Hold};
pub(crate) use gate::{Full, Gate, Look, Slot};
pub(crate) use meter::Meter;
use pace::Pace;
pub(crate) use target::{Admit, Pass, Target};

/// Everything a runner needs to know about its binding; replaced as a whole when the configuration changes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) spec: BindingSpec,
    pub(crate) record: BindingRecord,
    pub(crate) filter: Arc<PatternSet>,
    /// Filters of earlier revisions, oldest first, which hold for places before the next one's.
    pub(crate) past: Arc<Vec<Past>>,
    pub(crate) policy: Policy,
    pub(crate) target: Arc<Target>,
    pub(crate) form: Form,
    pub(crate) pause: Option<Pause>,
    /// False after the configuration dropped the binding: the runner ends, the position stays.
    pub(crate) active: bool,
}

/// An earlier revision of a binding.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) revision: u32,
    pub(crate) filter: PatternSet,
    /// The last place of each lane that it holds for.
    pub(crate) until: BTreeMap<Lane, Seq>,
}

/// How an event becomes a payload.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) kind: Option<String>,
    pub(crate) format: Format,
    pub(crate) receiver: Receiver,
    pub(crate) input: Option<Value>,
    /// The event itself goes out to a broker: no function is called.
    pub(crate) outlet: bool,
}

/// Why a binding takes nothing on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// By an operator.
    Paused,
    /// By `enabled: false`.
    Disabled,
    /// The configuration dropped it.
    Inactive,
}

impl Plan {
    /// Whether deliveries of one key wait for each other.
    pub(crate) fn is_ordered(&self) -> bool {
        self.spec.ordering == Ordering::Key && !self.form.outlet
    }

    pub(crate) fn ordering(&self) -> Ordering {
        if self.is_ordered() { Ordering::Key } else { Ordering::None }
    }

    /// The filter that an event at this place is judged by.
    pub(crate) fn filter_at(&self, place: Address) -> &PatternSet {
        self.past_of(place).map_or(&*self.filter, |past| &past.filter)
    }

    /// The revision of the binding that holds for this place.
    pub(crate) fn revision_at(&self, place: Address) -> u32 {
        self.past_of(place).map_or(self.record.revision, |past| past.revision)
    }

    fn past_of(&self, place: Address) -> Option<&Past> {
        self.past.iter().find(|past| past.until.get(&place.lane).is_some_and(|until| place.seq <= *until))
    }

    pub(crate) fn held(&self) -> Option<Held> {
        match (self.active, self.spec.enabled, &self.pause) {
            (false, ..) => Some(Held::Inactive),
            (_, false, _) => Some(Held::Disabled),
            (.., Some(_)) => Some(Held::Paused),
            _ => None,
        }
    }
}

impl Held {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "binding-paused",
            Self::Disabled => "binding-disabled",
            Self::Inactive => "binding-inactive",
        }
    }
}

/// A runner looks around at least every 30 s; one that has not for three times as long is stuck in something that does
/// not end.
const STUCK: Duration = Duration::from_secs(90);

/// One binding over all lanes.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) id: BindingId,
    pub(crate) name: BindingName,
    /// Its own cap; without one, the function's gate is the only one that counts.
    pub(crate) gate: Arc<Gate>,
    pub(crate) meter: Meter,
    pub(crate) pace: Pace,
    pub(crate) singles: Singles,
    /// Lanes that are delivered here, and all there are.
    pub(crate) owned: AtomicU32,
    lanes: u16,
    plan: watch::Sender<Arc<Plan>>,
    poke: watch::Sender<u64>,
    boards: Mutex<BTreeMap<Lane, Arc<Board>>>,
}

impl Binding {
    pub(crate) fn new(plan: Plan, lanes: u16, hungry: Option<Arc<Notify>>) -> Self {
        let gate = Arc::new(Gate::new(hungry));
        gate.set_most(plan.spec.concurrency);
        Self {
            id: plan.record.id,
            name: plan.record.name.clone(),
            gate,
            meter: Meter::default(),
            pace: Pace::default(),
            singles: Singles::default(),
            owned: AtomicU32::new(0),
            lanes,
            plan: watch::Sender::new(Arc::new(plan)),
            poke: watch::Sender::new(0),
            boards: Mutex::default(),
        }
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    /// Puts a plan in force; an equal one wakes nobody. The pause stays: a plan may have been made before it was set.
    pub(crate) fn replace(&self, mut plan: Plan) {
        self.gate.set_most(plan.spec.concurrency);
        self.plan.send_if_modified(|now| {
            plan.pause.clone_from(&now.pause);
            plan.record.paused.clone_from(&now.pause);
            let same = now.spec == plan.spec
                && now.record == plan.record
                && now.active == plan.active
                && now.form.kind == plan.form.kind
                && now.form.format == plan.form.format
                && now.form.receiver == plan.form.receiver
                && now.form.outlet == plan.form.outlet
                && Arc::ptr_eq(&now.target, &plan.target);
            *now = Arc::new(plan);
            !same
        });
    }

    /// Pauses or resumes.
    pub(crate) fn set_pause(&self, pause: Option<Pause>) {
        self.plan.send_modify(|now| {
            let mut plan = Plan::clone(now);
            plan.record.paused.clone_from(&pause);
            plan.pause = pause;
            *now = Arc::new(plan);
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Plan>> {
        self.plan.subscribe()
    }

    /// Tells the runners that the debts in the ledger changed.
    pub(crate) fn poke(&self) {
        self.poke.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn pokes(&self) -> watch::Receiver<u64> {
        self.poke.subscribe()
    }

    /// A fresh face for the runner of a lane, which remembers what the one before was stuck in.
    pub(crate) fn board(&self, lane: Lane) -> Arc<Board> {
        let board = Arc::new(Board::default());
        let before = self.lock().get(&lane).and_then(|before| before.stuck(STUCK));
        board.update(|face| face.no_progress = before);
        self.lock().insert(lane, Arc::clone(&board));
        board
    }

    /// The part of the binding's rate that is this controller's: that of the lanes it delivers.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.owned.load(Relaxed)) / f64::from(self.lanes.max(1))
    }

    /// Asks the runner of another lane to end a delivery.
    pub(crate) fn supersede(&self, other: Address, error: ErrorInfo) {
        if let Some(board) = self.lock().get(&other.lane) {
            board.give_up(other.seq, Some(error));
        }
        self.poke();
    }

    /// Breaks off the attempt of a debt that was given up in the ledger.
    pub(crate) fn give_up(&self, given_up: Address) {
        if let Some(board) = self.lock().get(&given_up.lane) {
            board.give_up(given_up.seq, None);
        }
        self.poke();
    }

    /// What the runner of a lane has been stuck in for too long.
    pub(crate) fn stuck(&self, lane: Lane) -> Option<&'static str> {
        let board = self.lock().get(&lane).cloned();
        board.filter(|_| self.plan().active).and_then(|board| board.stuck(STUCK))
    }

    pub(crate) fn boards(&self) -> Vec<(Lane, Arc<Board>)> {
        self.lock().iter().map(|(lane, board)| (*lane, Arc::clone(board))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Lane, Arc<Board>>> {
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
