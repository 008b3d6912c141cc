//! What the runners of all lanes share about one binding: its plan (definition, filter, target, whether it is paused)
//! and its faces for the status. Decides nothing, runs nothing.
//!
//! `gate.rs` counts slots exactly, `target.rs` holds the condition of a function, `board.rs` is what others may see of
//! a runner.

mod board;
mod gate;
mod target;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bellwire_ledger::{BindingRecord, Pause};
use bellwire_patterns::PatternSet;
use bellwire_schemas::service::{BindingSpec, Format};
use bellwire_schemas::{BindingId, BindingName, Lane};
use serde_json::Value;
use tokio::sync::watch;

use crate::decide::Policy;
use crate::shape::Receiver;

pub(crate) use board::Board;
pub(crate) use gate::Gate;
pub(crate) use target::{Admit, Pass, Target};

/// Everything a runner needs to know about its binding; replaced as a whole when the configuration changes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) spec: BindingSpec,
    pub(crate) record: BindingRecord,
    pub(crate) filter: Arc<PatternSet>,
    pub(crate) policy: Policy,
    pub(crate) target: Arc<Target>,
    pub(crate) form: Form,
    pub(crate) pause: Option<Pause>,
    /// False after the configuration dropped the binding: the runner ends, the position stays.
    pub(crate) active: bool,
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

/// One binding over all lanes.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) id: BindingId,
    pub(crate) name: BindingName,
    pub(crate) gate: Arc<Gate>,
    plan: watch::Sender<Arc<Plan>>,
    poke: watch::Sender<u64>,
    boards: Mutex<BTreeMap<Lane, Arc<Board>>>,
}

impl Binding {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            id: plan.record.id,
            name: plan.record.name.clone(),
            gate: Arc::new(Gate::new(cap(&plan))),
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
        self.gate.resize(cap(&plan));
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

    /// A fresh face for the runner of a lane.
    pub(crate) fn board(&self, lane: Lane) -> Arc<Board> {
        let board = Arc::new(Board::default());
        self.lock().insert(lane, Arc::clone(&board));
        board
    }

    pub(crate) fn boards(&self) -> Vec<(Lane, Arc<Board>)> {
        self.lock().iter().map(|(lane, board)| (*lane, Arc::clone(board))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Lane, Arc<Board>>> {
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The binding's own cap; without one, the function's gate is the only one that counts.
fn cap(plan: &Plan) -> u32 {
    plan.spec.concurrency.unwrap_or(u32::MAX)
}
