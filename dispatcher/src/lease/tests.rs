//! Shares against random histories of controllers that come, go, die, and act on old news.

use std::collections::{BTreeMap, BTreeSet};

use bellwire_ledger::{Cluster, LaneOwner, Member};
use bellwire_schemas::{ControllerId, Epoch, Lane, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::share::{Held, orders, share};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Join(u128),
    /// Asks how the cluster stands.
    Send(usize),
    /// Acts on what it was told.
    Hear(usize),
    /// Ends the draining of one lane.
    Finish(usize),
    /// Says that it will leave.
    Drain(usize),
    Leave(usize),
    Die(usize),
    /// Dies and comes back under the same id before anybody noticed.
    Restart(usize),
}

/// One controller in the history.
#[derive(Default)]
struct Peer {
    held: Held,
    epochs: BTreeMap<Lane, Epoch>,
    heard: Option<Cluster>,
    leaving: bool,
}

struct History {
    lanes: Vec<LaneOwner>,
    peers: BTreeMap<ControllerId, Peer>,
}

impl History {
    fn new(lanes: u16) -> Self {
        let free = |lane| LaneOwner { lane: Lane(lane), epoch: Epoch(0), owner: None };
        Self { lanes: (1..=lanes).map(free).collect(), peers: BTreeMap::new() }
    }

    fn cluster(&self) -> Cluster {
        let member = |(id, peer): (&ControllerId, &Peer)| Member {
            id: *id,
            name: String::new(),
            version: String::new(),
            since: Timestamp::default(),
            leaving: peer.leaving,
        };
        let alive = |owner: &LaneOwner| LaneOwner {
            owner: owner.owner.filter(|id| self.peers.contains_key(id)),
            ..*owner
        };
        Cluster {
            controllers: self.peers.iter().map(member).collect(),
            lanes: self.lanes.iter().map(alive).collect(),
            ..Cluster::default()
        }
    }

    fn nth(&self, n: usize) -> Option<ControllerId> {
        let ids: Vec<_> = self.peers.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[n % ids.len()])
    }

    fn step(&mut self, step: &Step) {
        let now = self.cluster();
        match step {
            Step::Join(id) => {
                self.peers.entry(ControllerId(Uuid::from_u128(*id))).or_default();
            }
            Step::Send(n) => self.with(*n, |_, peer, _| peer.heard = Some(now)),
            Step::Hear(n) => self.with(*n, |id, peer, lanes| {
                if let Some(heard) = peer.heard.take() {
                    hear(id, peer, lanes, &heard, &now);
                }
            }),
            Step::Finish(n) => self.with(*n, |id, peer, lanes| finish(id, peer, lanes)),
            Step::Drain(n) => self.with(*n, |_, peer, _| {
                peer.leaving = true;
                peer.held.leaving.append(&mut peer.held.kept);
            }),
            Step::Leave(n) => {
                let Some(id) = self.nth(*n) else { return };
                self.peers.remove(&id);
                for lane in self.lanes.iter_mut().filter(|lane| lane.owner == Some(id)) {
                    lane.owner = None;
                }
            }
            Step::Die(n) => {
                let Some(id) = self.nth(*n) else { return };
                self.peers.remove(&id);
            }
            Step::Restart(n) => self.with(*n, |_, peer, _| *peer = Peer::default()),
        }
    }

    fn with(&mut self, n: usize, act: impl FnOnce(ControllerId, &mut Peer, &mut Vec<LaneOwner>)) {
        let Some(id) = self.nth(n) else { return };
        if let Some(peer) = self.peers.get_mut(&id) {
            act(id, peer, &mut self.lanes);
        }
    }

    /// Everybody acts on fresh news and drains at once; who has drained and wants to leave leaves.
    fn round(&mut self) -> usize {
        let before: Vec<_> = self.lanes.clone();
        for n in 0..self.peers.len() {
            self.step(&Step::Send(n));
            self.step(&Step::Hear(n));
            for _ in 0..self.lanes.len() {
                self.step(&Step::Finish(n));
            }
        }
        let done = |peer: &Peer| peer.leaving && peer.held == Held::default();
        while let Some(n) = self.peers.values().position(done) {
            self.step(&Step::Leave(n));
        }
        self.lanes.iter().zip(before).filter(|(now, before)| **now != *before).count()
    }

    /// No two controllers that are alive believe in the same lane, and whoever believes is the owner.
    fn check(&self) {
        for lane in &self.lanes {
            let believes = |peer: &Peer| peer.epochs.get(&lane.lane) == Some(&lane.epoch);
            let owners: Vec<_> = self.peers.iter().filter(|(_, peer)| believes(peer)).collect();
            assert!(owners.len() <= 1, "{lane:?}");
            if let Some((id, _)) = owners.first() {
                assert_eq!(lane.owner, Some(**id));
            }
        }
    }
}

fn hear(id: ControllerId, peer: &mut Peer, lanes: &mut [LaneOwner], heard: &Cluster, now: &Cluster) {
    for seen in &heard.lanes {
        if peer.epochs.get(&seen.lane).is_some_and(|epoch| seen.epoch > *epoch) {
            peer.epochs.remove(&seen.lane);
            peer.held.kept.remove(&seen.lane);
            peer.held.leaving.remove(&seen.lane);
        }
    }
    if peer.leaving {
        return;
    }
    let orders = orders(id, heard, &peer.held);
    for lane in orders.give {
        peer.held.kept.remove(&lane);
        peer.held.leaving.insert(lane);
    }
    for lane in orders.take {
        // What the ledger answers, whatever was heard before.
        let at = usize::from(lane.0) - 1;
        assert!(heard.lanes[at].owner.is_none_or(|owner| owner == id), "took the lane of somebody alive");
        if now.lanes[at].owner.is_none_or(|owner| owner == id) {
            lanes[at] = LaneOwner { lane, epoch: Epoch(lanes[at].epoch.0 + 1), owner: Some(id) };
            peer.held.kept.insert(lane);
            peer.epochs.insert(lane, lanes[at].epoch);
        }
    }
    for (lane, epoch) in orders.abandon {
        release(lane, epoch, lanes);
    }
}

fn finish(_: ControllerId, peer: &mut Peer, lanes: &mut [LaneOwner]) {
    let Some(lane) = peer.held.leaving.pop_first() else { return };
    if let Some(epoch) = peer.epochs.remove(&lane) {
        release(lane, epoch, lanes);
    }
}

fn release(lane: Lane, epoch: Epoch, lanes: &mut [LaneOwner]) {
    let at = usize::from(lane.0) - 1;
    if lanes[at].epoch == epoch {
        lanes[at].owner = None;
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0_usize..8;
    let step = prop_oneof![
        2 => (1_u128..9).prop_map(Step::Join),
        8 => n.clone().prop_map(Step::Send),
        8 => n.clone().prop_map(Step::Hear),
        8 => n.clone().prop_map(Step::Finish),
        1 => n.clone().prop_map(Step::Drain),
        1 => n.clone().prop_map(Step::Leave),
        1 => n.clone().prop_map(Step::Die),
        1 => n.prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn shares_converge_and_stay(lanes in 1_u16..14, steps in steps()) {
        let mut history = History::new(lanes);
        for step in &steps {
            history.step(step);
            history.check();
        }
        history.step(&Step::Join(77));
        for _ in 0..4 {
            history.round();
            history.check();
        }
        prop_assert_eq!(history.round(), 0, "balanced, nothing moves any more");
        let stays: Vec<_> = history.peers.values().filter(|p| !p.leaving).map(|p| p.held.kept.len()).collect();
        prop_assert_eq!(stays.iter().sum::<usize>(), usize::from(lanes), "every lane has an owner");
        let (most, fewest) = (stays.iter().max().unwrap(), stays.iter().min().unwrap());
        prop_assert!(most - fewest <= 1);
    }
}

#[test]
fn shares_add_up_to_all_lanes() {
    for members in 1..12_u128 {
        let mut history = History::new(8);
        (1..=members).for_each(|id| history.step(&Step::Join(id)));
        let cluster = history.cluster();
        let shares: Vec<_> = history.peers.keys().map(|id| share(*id, &cluster)).collect();
        assert_eq!(shares.iter().sum::<usize>(), 8);
        assert!(shares.is_sorted_by(|a, b| a >= b), "the first get one more: {shares:?}");
    }
}

#[test]
fn nobody_gives_while_within_its_share() {
    let me = ControllerId(Uuid::from_u128(1));
    let mut history = History::new(4);
    history.step(&Step::Join(1));
    history.step(&Step::Join(2));
    let held = Held { kept: BTreeSet::from([Lane(1), Lane(2)]), leaving: BTreeSet::new() };
    let orders = orders(me, &history.cluster(), &held);
    assert_eq!((orders.give, orders.take), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn trust_ends_by_itself_and_comes_back() {
    let fence = Fence::new(1, true);
    let (lane, epoch) = (Lane(1), Epoch(3));
    let mut reopened = fence.reopened();
    assert!(!fence.is_open());
    let now = tokio::time::Instant::now();
    let owner = LaneOwner { lane, epoch, owner: None };
    fence.confirm(now + Duration::from_secs(4), &[owner]);
    assert!(reopened.has_changed().unwrap());
    reopened.mark_unchanged();
    assert!(fence.may_start(lane, epoch));
    assert!(!fence.may_start(lane, Epoch(2)), "the lane was taken over");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(fence.left(), Some(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!fence.may_start(lane, epoch));
    // An answer that comes after its own time opens nothing.
    fence.confirm(now, &[owner]);
    assert!(!fence.is_open());
    fence.confirm(tokio::time::Instant::now() + Duration::from_secs(4), &[owner]);
    assert!(fence.may_start(lane, epoch) && reopened.has_changed().unwrap());
    let alone = Fence::new(1, false);
    assert!(alone.is_open() && alone.may_start(lane, epoch));
    assert_eq!(alone.left(), None);
}

/// The times must leave room: a controller stops before another may start, and one lost heartbeat costs nothing.
#[test]
fn the_times_fit_together() {
    let LeaseOptions { beat, ttl, trust, answer, .. } = LeaseOptions::default();
    assert!(trust + Duration::from_secs(1) < ttl);
    assert!(answer + beat < trust);
}
