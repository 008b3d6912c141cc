//! How things stand, for the status page and for explanations: read from the boards, never asked of a runner.

use std::time::Duration;

use bellwire_ledger::{LaneOwner, Member, Pause};
use bellwire_schemas::{
    Address, BindingId, BindingName, ControllerId, Epoch, ErrorInfo, FunctionName, Lane, Timestamp,
};

use crate::binding::{Binding, Held, Hold};
use crate::handle::{Handle, lock};

/// One binding now.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingLive {
    /// The ledger's number.
    pub id: BindingId,
    /// Its name.
    pub name: BindingName,
    /// `ok`, `paused`, `waiting`, `stalled`, `inactive`.
    pub state: &'static str,
    /// Why, when it is not `ok`: `binding-paused`, `binding-disabled`, `binding-inactive`, `function-unknown`,
    /// `function-cannot-start`, `throttled`, `destination-unavailable`, `breaker-open`,
    /// `ledger-unavailable`, `cursor-span`, `parked-limit`, `no-progress`. With `ok`: `rate`, while its rate holds some
    /// back.
    pub reason: Option<&'static str>,
    /// The same for people.
    pub detail: Option<String>,
    /// Who paused it.
    pub pause: Option<Pause>,
    /// Attempts in flight.
    pub running: Vec<Address>,
    /// Deliveries in memory that wait for a slot.
    pub queued: usize,
    /// Outcomes that the ledger has not confirmed.
    pub unflushed: usize,
    /// When the next debt is due, or the function is asked again.
    pub next_at: Option<Timestamp>,
    /// Deliveries that are owed in order of their key: failed ones and those behind them.
    pub parked: usize,
    /// Since when the function is left alone.
    pub open_since: Option<Timestamp>,
    /// When one call is made to see whether it is back.
    pub next_probe_at: Option<Timestamp>,
    /// Calls that may be out while the function ramps up again; `None`: all that it allows.
    pub limit: Option<u32>,
}

/// One function now.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionLive {
    /// Its name.
    pub name: FunctionName,
    /// `ok`, `function-unknown`, `function-cannot-start`, `throttled`, `destination-unavailable`.
    pub state: &'static str,
    /// Since when it is not `ok`.
    pub since: Option<Timestamp>,
    /// When it is asked again.
    pub until: Option<Timestamp>,
    /// What it said.
    pub error: Option<ErrorInfo>,
    /// Calls that may be out while it ramps up again; `None`: all that it allows.
    pub limit: Option<u32>,
    /// How many of its slots are this controller's now; `None`: nobody shares them.
    pub slots: Option<u32>,
}

/// One lane now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLive {
    /// Its number.
    pub lane: Lane,
    /// Under which epoch this controller owns it.
    pub epoch: Option<Epoch>,
}

/// The controllers that share the ledger, as the last answered heartbeat showed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterLive {
    /// This controller.
    pub me: ControllerId,
    /// All that are alive, by id.
    pub controllers: Vec<Member>,
    /// Who owns which lane.
    pub lanes: Vec<LaneOwner>,
    /// How long this controller may still believe in its leases; `None` when no lease can end.
    pub lease_left: Option<Duration>,
    /// Why heartbeats fail, while they do.
    pub trouble: Option<String>,
}

impl Handle {
    /// All bindings that have run, the ones that left the configuration too.
    pub fn bindings(&self) -> Vec<BindingLive> {
        let trouble = self.lease_trouble();
        self.roster.all().values().map(|binding| live(binding, trouble.as_deref())).collect()
    }

    /// One binding.
    pub fn binding_live(&self, id: BindingId) -> Option<BindingLive> {
        self.binding(id).map(|binding| live(&binding, self.lease_trouble().as_deref()))
    }

    /// All functions that are defined or bound.
    pub fn functions(&self) -> Vec<FunctionLive> {
        let targets = lock(&self.targets).clone();
        let face = |(name, target): (FunctionName, std::sync::Arc<crate::binding::Target>)| {
            let wait = target.waiting();
            let state = match &wait {
                _ if !target.is_known() => "function-unknown",
                Some(wait) => wait.why.as_str(),
                None => "ok",
            };
            let (since, until) = (wait.as_ref().map(|w| w.since), wait.as_ref().map(|w| w.until));
            let (limit, slots) = (target.limit(), target.gate.granted());
            FunctionLive { name, state, since, until, error: wait.and_then(|w| w.error), limit, slots }
        };
        targets.into_iter().map(face).collect()
    }

    /// All lanes.
    pub fn lanes(&self) -> Vec<LaneLive> {
        self.epochs.iter().map(|(lane, epoch)| LaneLive { lane: *lane, epoch: *epoch.borrow() }).collect()
    }

    /// Why nothing may start on any lane, when that is so.
    fn lease_trouble(&self) -> Option<String> {
        let owns = self.epochs.values().any(|epoch| epoch.borrow().is_some());
        let trouble = self.view.borrow().trouble.clone();
        if owns && !self.fence.is_open() {
            let why = trouble.map_or_else(String::new, |trouble| format!(": {trouble}"));
            return Some(format!(
                "the ledger does not renew the leases, so nothing new starts until it does{why}"
            ));
        }
        let slots = self.slots.trouble().filter(|_| owns);
        slots.map(|why| format!("the ledger grants no slots, so no more run than were granted before: {why}"))
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterLive {
        let view = self.view.borrow().clone();
        ClusterLive {
            me: self.rooms.controller,
            controllers: view.cluster.controllers,
            lanes: view.cluster.lanes,
            lease_left: self.fence.left(),
            trouble: view.trouble,
        }
    }

    /// When a backlog of so many deliveries will be done at the pace at which it shrank between this call and earlier
    /// ones; `None` while it does not shrink, or nothing is known yet.
    pub fn drains_by(&self, binding: BindingId, waiting: u64) -> Option<Timestamp> {
        let now = self.rooms.clock.now();
        self.binding(binding)?.pace.drains_by(waiting, now)
    }

    /// Whether an attempt of this delivery is in flight.
    pub fn is_running(&self, binding: BindingId, address: Address) -> bool {
        let Some(binding) = self.binding(binding) else { return false };
        binding.boards().iter().any(|(lane, board)| *lane == address.lane && board.is_running(address.seq))
    }
}

fn live(binding: &Binding, lease: Option<&str>) -> BindingLive {
    let plan = binding.plan();
    let faces: Vec<_> = binding.boards().into_iter().map(|(lane, board)| (lane, board.face())).collect();
    let running = faces
        .iter()
        .flat_map(|(lane, face)| face.running.keys().map(|seq| Address::new(*lane, *seq)))
        .collect();
    let wait = plan.target.waiting();
    let trouble = faces.iter().find_map(|(_, face)| face.trouble.clone().or_else(|| face.unread.clone()));
    let trouble = trouble.or_else(|| lease.map(str::to_owned));
    let stalled = faces.iter().find_map(|(_, face)| face.stalled);
    let is_rated = faces.iter().any(|(_, face)| matches!(face.hold, Some(Hold::Rate(_))));
    let still = faces.iter().find_map(|(lane, face)| Some((*lane, face.no_progress?)));
    let (state, reason, detail) = match (plan.held(), &wait) {
        (Some(Held::Inactive), _) => ("inactive", Some(Held::Inactive.as_str()), None),
        (Some(held), _) => ("paused", Some(held.as_str()), plan.pause.as_ref().map(pause_detail)),
        _ if trouble.is_some() => ("waiting", Some("ledger-unavailable"), trouble),
        _ if still.is_some() => (
            "stalled",
            Some("no-progress"),
            still.map(|(lane, what)| format!("lane {lane} was taken anew because its runner {what}")),
        ),
        _ if !plan.target.is_known() => (
            "waiting",
            Some("function-unknown"),
            Some(format!("no function is called `{}`", plan.target.name)),
        ),
        (None, Some(wait)) => {
            ("waiting", Some(wait.why.as_str()), wait.error.as_ref().map(ErrorInfo::headline))
        }
        _ if stalled.is_some() => (
            "waiting",
            stalled,
            Some("a delivery far behind does not end; reading on would not be safe".into()),
        ),
        _ if is_rated => ("ok", Some("rate"), plan.spec.rate.map(|rate| format!("limited by rate {rate}"))),
        _ => ("ok", None, None),
    };
    let due = faces.iter().filter_map(|(_, face)| face.next_due).min();
    BindingLive {
        id: binding.id,
        name: binding.name.clone(),
        state,
        reason,
        detail,
        pause: plan.pause.clone(),
        running,
        queued: faces.iter().map(|(_, face)| face.queued).sum(),
        unflushed: faces.iter().map(|(_, face)| face.unflushed).sum(),
        parked: faces.iter().map(|(_, face)| face.parked).sum(),
        open_since: wait.as_ref().map(|wait| wait.since),
        next_probe_at: wait.as_ref().map(|wait| wait.until),
        limit: plan.target.limit(),
        next_at: wait.map_or(due, |wait| Some(wait.until)),
    }
}

pub(crate) fn pause_detail(pause: &Pause) -> String {
    let reason = if pause.reason.is_empty() { String::new() } else { format!(" (\"{}\")", pause.reason) };
    format!("since {} by {}{reason}", pause.since, pause.by)
}
