//! Who should own what: a pure function of the cluster and of what we hold.
//!
//! Each controller that stays gets lanes / controllers; the first `lanes % controllers` by id get one more. Everybody
//! computes the same shares from the same members, so nobody needs to agree with anybody.

use std::collections::BTreeSet;

use bellwire_ledger::Cluster;
use bellwire_schemas::{ControllerId, Epoch, Lane};

/// What we hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Lanes that are ours, or being taken.
    pub(crate) kept: BTreeSet<Lane>,
    /// Lanes being given back or dropped: neither ours nor to be taken yet.
    pub(crate) leaving: BTreeSet<Lane>,
}

/// What is to be done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// To be acquired.
    pub(crate) take: Vec<Lane>,
    /// To be drained and released.
    pub(crate) give: Vec<Lane>,
    /// Ours by the ledger but not held, from an earlier life under the same id, and beyond our share: to be released.
    pub(crate) abandon: Vec<(Lane, Epoch)>,
}

/// How many lanes are ours by right.
pub(crate) fn share(me: ControllerId, cluster: &Cluster) -> usize {
    let mut members: BTreeSet<ControllerId> =
        cluster.controllers.iter().filter(|m| !m.leaving).map(|m| m.id).collect();
    members.insert(me);
    let rank = members.range(..me).count();
    let lanes = cluster.lanes.len();
    lanes / members.len() + usize::from(rank < lanes % members.len())
}

/// Decides. A lane whose owner is alive is left alone; what we have stays ours up to our share.
pub(crate) fn orders(me: ControllerId, cluster: &Cluster, held: &Held) -> Orders {
    let share = share(me, cluster);
    let surplus = held.kept.len().saturating_sub(share);
    let give = held.kept.iter().rev().take(surplus).copied().collect();
    let ours = |lane: &Lane| held.kept.contains(lane) || held.leaving.contains(lane);
    let mut stray: Vec<_> =
        cluster.lanes.iter().filter(|l| l.owner == Some(me) && !ours(&l.lane)).copied().collect();
    let mut free: Vec<_> =
        cluster.lanes.iter().filter(|l| l.owner.is_none() && !ours(&l.lane)).map(|l| l.lane).collect();
    let missing = share.saturating_sub(held.kept.len());
    let abandon = stray.split_off(missing.min(stray.len())).iter().map(|l| (l.lane, l.epoch)).collect();
    let mut take: Vec<_> = stray.iter().map(|l| l.lane).collect();
    // Each starts elsewhere in the list, so that few ask for the same lane at once.
    let before = cluster.controllers.iter().filter(|m| m.id < me).count();
    let start = (before * free.len() / cluster.controllers.len().max(1)).min(free.len());
    free.rotate_left(start);
    take.extend(free.into_iter().take(missing - take.len()));
    Orders { take, give, abandon }
}
