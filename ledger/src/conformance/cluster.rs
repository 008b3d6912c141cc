//! Several controllers: tails, signs of life, leases that end.

use bellwire_schemas::service::Start;
use bellwire_schemas::{ControllerId, FinalState, Lane, Seq};
use uuid::Uuid;

use super::Subject;
use super::build::*;
use crate::{Cluster, Flush, FlushOutcome, LaneOwner};

const ANA: ControllerId = ControllerId(Uuid::from_u128(1));
const BEN: ControllerId = ControllerId(Uuid::from_u128(2));

fn owners(cluster: &Cluster) -> Vec<(Lane, Option<ControllerId>)> {
    cluster.lanes.iter().map(|l| (l.lane, l.owner)).collect()
}

/// Every lane has a tail, also an empty one; they come in the order of the lanes.
pub async fn tails_of_every_lane(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    assert_eq!(ledger.tails().await.unwrap(), [Seq(0), Seq(0)]);
    let three = vec![event("a").lane(L2), event("b").lane(L2), event("c")];
    ledger.append(batch(three), at(1)).await.unwrap();
    assert_eq!(ledger.tails().await.unwrap(), [Seq(1), Seq(2)]);
    subject.reopen().await;
    assert_eq!(subject.ledger().tails().await.unwrap(), [Seq(1), Seq(2)]);
}

/// A heartbeat answers who is alive, the caller at least, and who owns each lane under which epoch.
pub async fn members_and_owners(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let cluster = ledger.heartbeat(&beat(ANA)).await.unwrap();
    assert_eq!(owners(&cluster), [(L1, None), (L2, None)]);
    let mut named = beat(ANA);
    named.name = "odd \u{0} \u{1f30a} \u{10ffff}".into();
    let epoch = ledger.acquire(ANA, L2, at(1)).await.unwrap().unwrap();
    let cluster = ledger.heartbeat(&named).await.unwrap();
    assert_eq!(cluster.lanes[1], LaneOwner { lane: L2, epoch, owner: Some(ANA) });
    assert_eq!(cluster.rewound, []);
    let me: Vec<_> = cluster.controllers.iter().filter(|m| m.id == ANA).collect();
    assert_eq!((me.len(), &me[0].name, me[0].version.as_str()), (1, &named.name, "1.2.3"));
    assert!(!me[0].leaving);
    named.leaving = true;
    let again = ledger.heartbeat(&named).await.unwrap();
    assert!(again.controllers.iter().find(|m| m.id == ANA).unwrap().leaving);
    assert_eq!(again.lanes[1].owner, Some(ANA), "it keeps what it has");
    let since = |c: &Cluster| c.controllers.iter().find(|m| m.id == ANA).map(|m| m.since);
    assert_eq!(since(&again), since(&cluster), "it came once");
}

/// While its lease lasts a lane is its owner's; afterwards anybody may take it, and the old owner is fenced.
pub async fn an_ended_lease_frees_the_lane(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 2).await;
    ledger.heartbeat(&beat(ANA)).await.unwrap();
    ledger.heartbeat(&beat(BEN)).await.unwrap();
    let old = ledger.acquire(ANA, L1, at(1)).await.unwrap().unwrap();
    assert_eq!(ledger.acquire(BEN, L1, at(2)).await.unwrap(), None);
    let share_of = |version, mark: u64| share(b, version, mark).ends(mark, FinalState::Delivered);
    let flush_of = |epoch, part| Flush { lane: L1, epoch, at: at(0), bindings: vec![part] };
    let flushed = ledger.flush(flush_of(old, share_of(1, 1))).await.unwrap();
    assert_eq!(flushed, FlushOutcome::Flushed);
    if !subject.expire(ANA).await {
        return;
    }
    let cluster = ledger.heartbeat(&beat(BEN)).await.unwrap();
    assert_eq!(cluster.lanes[0], LaneOwner { lane: L1, epoch: old, owner: None });
    assert!(cluster.controllers.iter().all(|m| m.id != ANA));
    let new = ledger.acquire(BEN, L1, at(3)).await.unwrap().unwrap();
    assert!(new > old);
    let late = flush_of(old, share_of(2, 2));
    assert_eq!(ledger.flush(late.clone()).await.unwrap(), FlushOutcome::Fenced);
    assert_eq!(ledger.checkpoint(L1, b).await.unwrap().mark, Seq(1), "what it wrote before stays");
    // It comes back to life, but not to its lane.
    let cluster = ledger.heartbeat(&beat(ANA)).await.unwrap();
    assert_eq!(owners(&cluster)[0], (L1, Some(BEN)));
    assert_eq!(ledger.acquire(ANA, L1, at(4)).await.unwrap(), None);
    assert_eq!(ledger.flush(late).await.unwrap(), FlushOutcome::Fenced);
    let flushed = ledger.flush(flush_of(new, share_of(2, 2))).await.unwrap();
    assert_eq!(flushed, FlushOutcome::Flushed);
    assert_sums(&ledger).await;
}

/// Who leaves is gone at once, with the lanes it had; nobody else loses one.
pub async fn leaving_gives_back(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    ledger.heartbeat(&beat(ANA)).await.unwrap();
    ledger.heartbeat(&beat(BEN)).await.unwrap();
    let epoch = ledger.acquire(ANA, L1, at(1)).await.unwrap().unwrap();
    ledger.acquire(BEN, L2, at(1)).await.unwrap().unwrap();
    ledger.leave(ANA).await.unwrap();
    ledger.leave(ANA).await.unwrap();
    let flush = Flush { lane: L1, epoch, at: at(0), bindings: vec![] };
    assert_eq!(ledger.flush(flush).await.unwrap(), FlushOutcome::Fenced);
    let cluster = ledger.heartbeat(&beat(BEN)).await.unwrap();
    assert_eq!(owners(&cluster), [(L1, None), (L2, Some(BEN))]);
    assert!(cluster.controllers.iter().all(|m| m.id != ANA));
    assert!(ledger.acquire(BEN, L1, at(2)).await.unwrap().is_some());
}
