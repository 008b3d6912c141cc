//! What the model remembers: one plain collection per idea.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bellwire_schemas::{
    Address, BindingId, ControllerId, Epoch, FinalState, Lane, Seq, SourceName, Timestamp,
};
use uuid::Uuid;

use crate::slots::Holder;
use crate::{
    Appended, ArrivalTotals, BindingRecord, BindingRevision, Checkpoint, DeadLetter, DeliveryKey, Duplicate,
    Error, LogEntry, Member, Owed, Position, QuarantineRecord, Refusal, ReplayRecord, StoredEvent,
};

#[derive(Clone, Default)]
pub(super) struct LaneState {
    pub tail: Seq,
    pub owner: Option<ControllerId>,
    pub epoch: Epoch,
    /// It lost events; its owner is told until it has taken it anew.
    pub rewound: bool,
}

/// Everything, in the open.
#[derive(Clone, Default)]
pub(super) struct State {
    pub lanes: Vec<LaneState>,
    /// The controllers alive. Here they live until they leave or a test lets them expire.
    pub members: BTreeMap<ControllerId, Member>,
    /// Of each limit, who has how many slots.
    pub slots: BTreeMap<String, Vec<Holder>>,
    /// See [`crate::Cluster::changes`].
    pub changes: u64,
    pub events: BTreeMap<Address, StoredEvent>,
    /// Whether events that a redrive brings back are found by their address only, beside the lanes.
    pub sets_aside: bool,
    /// Those that were.
    pub aside: BTreeMap<Address, StoredEvent>,
    pub appends: HashMap<Uuid, Appended>,
    pub positions: HashMap<String, Position>,
    /// First address and end of the window.
    pub dedup: HashMap<(SourceName, String), (Address, Timestamp)>,
    pub duplicates: Vec<Duplicate>,
    pub quarantine: Vec<QuarantineRecord>,
    pub quarantine_ids: u64,
    pub arrivals: BTreeMap<SourceName, ArrivalTotals>,
    /// Number n lies at index n - 1.
    pub bindings: Vec<BindingRecord>,
    pub revisions: BTreeMap<(BindingId, u32), BindingRevision>,
    pub checkpoints: HashMap<(Lane, BindingId), Checkpoint>,
    pub log: BTreeMap<Address, Vec<(BindingId, LogEntry)>>,
    pub owed: BTreeMap<DeliveryKey, Owed>,
    pub dead: BTreeMap<DeliveryKey, DeadLetter>,
    /// With the hour they are added up in.
    pub refusals: Vec<(i64, Refusal)>,
    pub replays: Vec<ReplayRecord>,
    /// The last ending of each delivery whose event is kept, or that is a dead letter.
    pub last: HashMap<DeliveryKey, FinalState>,
    /// What `accepted` counts and is not closed: kept events and dead letters.
    pub counted: BTreeSet<DeliveryKey>,
    /// Where counting begins; see [`crate::BindingTotals`].
    pub counted_from: HashMap<(Lane, BindingId), Seq>,
    /// Endings of events that retention has removed.
    pub closed: HashMap<BindingId, BTreeMap<FinalState, u64>>,
}

impl State {
    pub fn new(lanes: u16) -> Self {
        Self { lanes: vec![LaneState::default(); usize::from(lanes)], ..Self::default() }
    }

    pub fn lane(&self, lane: Lane) -> Result<&LaneState, Error> {
        let index = usize::from(lane.0).checked_sub(1);
        index.and_then(|i| self.lanes.get(i)).ok_or_else(|| unknown_lane(lane, self.lanes.len()))
    }

    pub fn lane_mut(&mut self, lane: Lane) -> Result<&mut LaneState, Error> {
        let count = self.lanes.len();
        let index = usize::from(lane.0).checked_sub(1);
        index.and_then(|i| self.lanes.get_mut(i)).ok_or_else(|| unknown_lane(lane, count))
    }

    pub fn all_lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        (1..=u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)).map(Lane)
    }

    /// An event in its lane or beside it.
    pub fn event(&self, address: Address) -> Option<&StoredEvent> {
        self.events.get(&address).or_else(|| self.aside.get(&address))
    }

    pub fn tail(&self, lane: Lane) -> Result<Seq, Error> {
        Ok(self.lane(lane)?.tail)
    }

    pub fn binding(&self, id: BindingId) -> Result<&BindingRecord, Error> {
        self.bindings.iter().find(|b| b.id == id).ok_or_else(|| unknown_binding(id))
    }

    pub fn binding_mut(&mut self, id: BindingId) -> Result<&mut BindingRecord, Error> {
        self.bindings.iter_mut().find(|b| b.id == id).ok_or_else(|| unknown_binding(id))
    }

    pub fn checkpoint(&self, lane: Lane, binding: BindingId) -> Result<&Checkpoint, Error> {
        self.lane(lane)?;
        self.checkpoints.get(&(lane, binding)).ok_or_else(|| unknown_binding(binding))
    }

    pub fn fail_over(&mut self, to: &Self) {
        let now = std::mem::replace(self, to.clone());
        self.members = now.members;
        self.changes = now.changes + 1;
        for (lane, before) in self.lanes.iter_mut().zip(now.lanes) {
            lane.rewound = before.rewound || before.tail > lane.tail;
            (lane.owner, lane.epoch) = (before.owner, before.epoch);
        }
    }

    pub fn disown(&mut self) {
        for lane in &mut self.lanes {
            lane.owner = None;
        }
        self.members.clear();
    }
}

pub(super) fn unknown_lane(lane: Lane, lanes: usize) -> Error {
    Error::NotFound(format!("lane {lane} does not exist: the ledger has {lanes}"))
}

pub(super) fn unknown_binding(binding: BindingId) -> Error {
    Error::NotFound(format!("binding number {binding} was never declared"))
}
