//! The controllers that share a ledger: who is alive, who owns which lane.

use std::time::Duration;

use bellwire_schemas::{ControllerId, Epoch, Lane, Timestamp};

/// How long an [`crate::Ledger::acquire`] without an earlier heartbeat counts as one.
pub const FIRST_LEASE: Duration = Duration::from_secs(6);

/// One sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub controller: ControllerId,
    /// A name for people, such as `host-a:4711`.
    pub name: String,
    /// Its version of Bellwire.
    pub version: String,
    /// How long it counts as alive from now on, by the ledger's clock. Its leases end with it.
    pub ttl: Duration,
    /// It ends soon: keeps the lanes it has until it gives them back, and wants none.
    pub leaving: bool,
}

/// How the cluster stands, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The controllers alive, by id; the caller is one of them.
    pub controllers: Vec<Member>,
    /// Every lane, by number.
    pub lanes: Vec<LaneOwner>,
    /// Grows when an operator or another controller changed bindings, pauses, debts or replays: look again at what is
    /// kept in memory of them.
    pub changes: u64,
    /// Lanes of the caller that lost events it had read, because the database failed over to a server that lacked them.
    /// Its memory of them is worth nothing: drop it, and acquire them anew.
    pub rewound: Vec<Lane>,
}

/// A controller that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: ControllerId,
    /// Its name for people.
    pub name: String,
    /// Its version of Bellwire.
    pub version: String,
    /// When it came, by the ledger's clock.
    pub since: Timestamp,
    /// What its last heartbeat said: see [`Heartbeat::leaving`].
    pub leaving: bool,
}

/// Who owns a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneOwner {
    /// The lane.
    pub lane: Lane,
    /// Its newest epoch.
    pub epoch: Epoch,
    /// The owner; `None` when it was given back, or when its owner is dead: then it is free to be acquired.
    pub owner: Option<ControllerId>,
}
