//! Several controllers on one ledger: leases by the database's clock, take-overs, lanes that were rewound.

use std::time::Duration;

use bellwire_schemas::ControllerId;
use uuid::Uuid;

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::postgres::lease::Seen;
use crate::{Error, Heartbeat, Ledger};

const ANA: ControllerId = ControllerId(Uuid::from_u128(1));
const BEN: ControllerId = ControllerId(Uuid::from_u128(2));

#[tokio::test]
async fn two_handles_see_each_other() {
    let subject = OnServer::new(2).await;
    let (ana, ben) = (subject.ledger.clone(), subject.another().await);
    ana.heartbeat(&beat(ANA)).await.unwrap();
    let epoch = ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
    let cluster = ben.heartbeat(&beat(BEN)).await.unwrap();
    assert_eq!(cluster.controllers.iter().map(|m| m.id).collect::<Vec<_>>(), [ANA, BEN]);
    assert_eq!((cluster.lanes[0].owner, cluster.lanes[0].epoch), (Some(ANA), epoch));
    assert_eq!(ben.acquire(BEN, L1, at(0)).await.unwrap(), None);
    // Closing gives back what was taken through this handle, nothing else.
    let other = ben.acquire(BEN, L2, at(0)).await.unwrap().unwrap();
    ana.close().await;
    let cluster = ben.heartbeat(&beat(BEN)).await.unwrap();
    assert_eq!(cluster.lanes.iter().map(|l| l.owner).collect::<Vec<_>>(), [None, Some(BEN)]);
    assert_eq!(cluster.lanes[1].epoch, other);
    assert!(ben.acquire(BEN, L1, at(0)).await.unwrap().unwrap() > epoch);
    let refused = ana.heartbeat(&beat(ANA)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    ben.close().await;
}

#[tokio::test]
async fn a_lease_lasts_as_long_as_the_heartbeat_says() {
    let mut subject = OnServer::new(1).await;
    let (ana, ben) = (subject.ledger.clone(), subject.another().await);
    let minute = Heartbeat { ttl: Duration::from_secs(60), ..beat(ANA) };
    ana.heartbeat(&minute).await.unwrap();
    let epoch = ana.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
    let rest = "select extract(epoch from expires_at - clock_timestamp())::bigint from bellwire.controller";
    let rest = subject.number(rest).await;
    assert!((7..=60).contains(&rest), "an acquire changes nothing about it: {rest} s");
    subject.expire(ANA).await;
    let cluster = ben.heartbeat(&beat(BEN)).await.unwrap();
    assert_eq!((cluster.lanes[0].owner, cluster.controllers.len()), (None, 1));
    let taken = ben.acquire(BEN, L1, at(0)).await.unwrap().unwrap();
    assert_eq!(taken.0, epoch.0 + 1);
    let back = ana.heartbeat(&minute).await.unwrap();
    assert_eq!(back.lanes[0].owner, Some(BEN));
    // Rows of controllers that are long gone do not pile up.
    subject.expire(ANA).await;
    subject.sql("update bellwire.controller set expires_at = expires_at - interval '2 hours' where name = 'host-1'").await;
    ben.heartbeat(&beat(BEN)).await.unwrap();
    assert_eq!(subject.number("select count(*) from bellwire.controller").await, 1);
    ben.close().await;
}

/// Many controllers want the lane of a dead one at the same moment: one gets it.
#[tokio::test]
async fn one_of_many_takes_a_free_lane() {
    let mut subject = OnServer::new(1).await;
    for round in 0..5u128 {
        let dead = ControllerId(Uuid::from_u128(100 + round));
        subject.ledger.acquire(dead, L1, at(0)).await.unwrap().unwrap();
        subject.expire(dead).await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..6 {
            let ledger = subject.ledger.clone();
            let own = ControllerId(Uuid::from_u128(1_000 + round * 10 + n));
            tasks.spawn(async move { (own, ledger.acquire(own, L1, at(0)).await.unwrap()) });
        }
        let won: Vec<_> = tasks.join_all().await.into_iter().filter(|(_, epoch)| epoch.is_some()).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        subject.expire(won[0].0).await;
    }
}

/// A controller that takes a lane twice at once, as when it gave up on the first call, is told no epoch that is out of
/// date by then, and is told the newest.
#[tokio::test]
async fn a_lane_taken_twice_at_once() {
    let subject = OnServer::new(1).await;
    let (ledger, beside) = (subject.ledger.clone(), subject.another().await);
    for _ in 0..10 {
        let (one, two) = tokio::join!(ledger.acquire(ANA, L1, at(0)), beside.acquire(ANA, L1, at(0)));
        let newest = one.unwrap().max(two.unwrap());
        let lane = ledger.heartbeat(&beat(ANA)).await.unwrap().lanes[0];
        assert_eq!((newest, lane.owner), (Some(lane.epoch), Some(ANA)));
    }
    let take = "select bellwire.take_lane((select id from bellwire.controller), 1::smallint, 9000)";
    let (old, new) = (subject.number(take).await, subject.number(take).await);
    for (epoch, held) in [(old, 0), (new, 1), (old, 0)] {
        let hold = format!("select bellwire.hold_lane(1::smallint, {epoch})::int::bigint");
        assert_eq!(subject.number(&hold).await, held, "{epoch} of {old} and {new}");
    }
    beside.close().await;
}

/// The last row read is gone, or another lies at its place: the lane was rewound, until it is taken anew.
#[tokio::test]
async fn lost_rows_are_noticed() {
    let subject = OnServer::new(2).await;
    let ledger = &subject.ledger;
    let insert = |append: u128| {
        format!(
            "insert into bellwire.event_batch (gen, lane, first_seq, count, append_id, appended_at, sources, types, ids,
               attributes)
             values (1, 1, 1, 1, '{}', now(), '{{1}}', '{{t}}', '{{i}}', '{{\"{{}}\"}}')",
            Uuid::from_u128(append)
        )
    };
    subject.sql(&insert(5)).await;
    ledger.heartbeat(&beat(ANA)).await.unwrap();
    ledger.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
    let row =
        |append| Seen { generation: 1, first: bellwire_schemas::Seq(1), append: Uuid::from_u128(append) };
    let rewound = async || ledger.heartbeat(&beat(ANA)).await.unwrap().rewound;
    assert_eq!(rewound().await, []);
    ledger.shared.leases.saw(L1, row(5));
    ledger.shared.leases.saw(L2, row(77));
    assert_eq!(rewound().await, [], "2 is not ours");
    subject.sql("delete from bellwire.event_batch").await;
    assert_eq!(rewound().await, [L1]);
    subject.sql(&insert(6)).await;
    assert_eq!(rewound().await, [L1], "another row at the same place");
    ledger.acquire(ANA, L1, at(0)).await.unwrap().unwrap();
    assert_eq!(rewound().await, []);
    ledger.shared.leases.saw(L1, row(6));
    assert_eq!(rewound().await, []);
    // Retention took the generation: nothing is lost.
    subject.sql("delete from bellwire.event_batch; delete from bellwire.generation").await;
    subject.sql("insert into bellwire.generation (gen) values (2)").await;
    assert_eq!(rewound().await, []);
    subject.sql("delete from bellwire.generation; insert into bellwire.generation (gen) values (0)").await;
    assert_eq!(rewound().await, [L1], "a generation that is not there yet");
}
