//! Several controllers over one ledger: shares, hand-over, take-over, zombies, fail-over, operators elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Ledger, LogOutcome, Pause, ReplayRecord, ReplayState};
use bellwire_schemas::live::Fact;
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, FailureClass, Lane, ReplayId};
use serde_json::json;
use tokio::time::Instant;

use super::world::{Act, Functions, Peer, World, binding, event};
use crate::LeaseOptions;

async fn world(lanes: u16) -> World {
    World::new(lanes, Functions::new(|_, _| Act::Answer), vec![binding("f", "in")]).await
}

fn quick() -> Arc<Functions> {
    Functions::new(|_, _| Act::After(Duration::from_millis(2)))
}

/// Waits until the peers own this many lanes each; says how long that took.
async fn balanced(world: &World, peers: &[&Peer], sizes: &[usize]) -> Duration {
    let from = Instant::now();
    world.until("balanced", async |_| peers.iter().map(|p| p.owned()).collect::<Vec<_>>() == sizes).await;
    from.elapsed()
}

/// Sends one event after another by the intakes of the peers in turn.
async fn send(world: &mut World, peers: &[&Peer], from: usize, to: usize) -> Vec<Address> {
    let mut addresses = Vec::new();
    for n in from..to {
        let feed = Arc::clone(&peers[n % peers.len()].feed);
        addresses.extend(world.send_through(&feed, "in", vec![event(&format!("e{n}"), &json!(n))]).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    addresses
}

/// Every event ended exactly once.
async fn ended_once(world: &World, addresses: &[Address]) {
    for address in addresses {
        let log = world.ledger.log(*address, None).await.unwrap();
        let finals = log.iter().filter(|(_, entry)| matches!(entry.outcome, LogOutcome::Final(_)));
        assert_eq!(finals.count(), 1, "{address}: {log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lanes_are_shared_out_as_controllers_come_and_go_and_nothing_is_called_twice() {
    let mut world = world(8).await;
    let ana = world.peer(1, quick()).await;
    assert!(balanced(&world, &[&ana], &[8]).await < Duration::from_secs(1));
    let mut sent = send(&mut world, &[&ana], 0, 50).await;
    let ben = world.peer(2, quick()).await;
    sent.extend(send(&mut world, &[&ana, &ben], 50, 100).await);
    let took = balanced(&world, &[&ana, &ben], &[4, 4]).await;
    assert!(took < Duration::from_secs(2), "a newcomer waits {took:?} for its share");
    let cai = world.peer(3, quick()).await;
    sent.extend(send(&mut world, &[&cai], 100, 150).await);
    balanced(&world, &[&ana, &ben, &cai], &[3, 3, 2]).await;
    sent.extend(send(&mut world, &[&ana, &ben, &cai], 150, 200).await);
    let from = Instant::now();
    ana.handle.shutdown(Duration::from_secs(10)).await;
    let took = from.elapsed() + balanced(&world, &[&ben, &cai], &[4, 4]).await;
    assert!(took < Duration::from_secs(2), "a graceful end hands over in {took:?}");
    sent.extend(send(&mut world, &[&ana, &ben, &cai], 200, 250).await);
    world.settled().await;
    ended_once(&world, &sent).await;
    let calls: Vec<_> = [&ana, &ben, &cai].iter().flat_map(|p| p.functions.calls()).collect();
    assert_eq!(calls.len(), 250, "hand-overs in order repeat nothing");
    assert!([&ana, &ben, &cai].iter().all(|p| !p.functions.calls().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn lanes_of_one_that_leaves_do_not_wait_for_its_longest_attempt() {
    let mut world = world(4).await;
    let slow = Functions::new(|_, _| Act::After(Duration::from_secs(20)));
    let (ana, ben) = (world.peer(1, slow).await, world.peer(2, quick()).await);
    balanced(&world, &[&ana, &ben], &[2, 2]).await;
    let sent = send(&mut world, &[&ana, &ben], 0, 4).await;
    world.until("both of its lanes run", async |_| ana.functions.calls().len() == 2).await;
    let from = Instant::now();
    let ends = async {
        ana.handle.shutdown(Duration::from_secs(30)).await;
        from.elapsed()
    };
    let watches = async {
        let more = send(&mut world, &[&ben], 4, 12).await;
        (world, more)
    };
    let (took, (world, more)) = tokio::join!(ends, watches);
    assert!((18..22).contains(&took.as_secs()), "its attempts ended: {took:?}");
    balanced(&world, &[&ben], &[4]).await;
    world.settled().await;
    ended_once(&world, &sent).await;
    ended_once(&world, &more).await;
    assert_eq!(ana.functions.calls().len() + ben.functions.calls().len(), 12, "nothing twice");
}

/// A lane whose attempts have ended finds its next owner while another lane of the same controller still drains.
#[tokio::test(start_paused = true)]
async fn a_lane_that_is_given_back_early_is_taken_at_once() {
    let mut world = world(2).await;
    let slow = Functions::new(|_, _| Act::After(Duration::from_secs(20)));
    let ana = world.peer(1, slow).await;
    balanced(&world, &[&ana], &[2]).await;
    send(&mut world, &[&ana], 0, 1).await;
    world.until("it runs", async |_| ana.functions.calls().len() == 1).await;
    let grace = ana.handle.shutdown(Duration::from_secs(30));
    let others = async {
        let ben = world.peer(2, quick()).await;
        let took = balanced(&world, &[&ben], &[1]).await;
        assert!(took < Duration::from_secs(2), "taken after {took:?}");
        let took = balanced(&world, &[&ben], &[2]).await;
        assert!(took > Duration::from_secs(10), "the other one is drained: {took:?}");
        world.settled().await;
        assert_eq!(ben.functions.calls().len(), 0);
    };
    tokio::join!(grace, others);
}

#[tokio::test(start_paused = true)]
async fn a_dead_owner_is_followed_and_its_late_results_are_fenced() {
    let mut world = world(4).await;
    let slow = Functions::new(|_, _| Act::After(Duration::from_secs(20)));
    let ana = world.peer(1, slow).await;
    balanced(&world, &[&ana], &[4]).await;
    let mut sent = send(&mut world, &[&ana], 0, 8).await;
    let ben = world.peer(2, quick()).await;
    balanced(&world, &[&ana, &ben], &[2, 2]).await;
    let before = ana.functions.calls().len();
    // Silent, but not gone: what it started still runs.
    world.ledger.refuse_heartbeats(ana.id, true);
    tokio::time::sleep(LeaseOptions::default().trust).await;
    sent.extend(send(&mut world, &[&ana, &ben], 8, 40).await);
    world.ledger.expire(ana.id);
    assert!(balanced(&world, &[&ben], &[4]).await < Duration::from_secs(2));
    world.settled().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ana.functions.calls().len(), before, "it started nothing on a lease that nobody confirmed");
    ended_once(&world, &sent).await;
    // Heard again, it takes its share again.
    world.ledger.refuse_heartbeats(ana.id, false);
    balanced(&world, &[&ana, &ben], &[2, 2]).await;
    ana.functions.rewrite(|_, _| Act::Answer);
    let more = send(&mut world, &[&ana, &ben], 40, 80).await;
    world.settled().await;
    ended_once(&world, &more).await;
    assert!(ana.functions.calls().len() > before);
}

#[tokio::test(start_paused = true)]
async fn without_a_heartbeat_nothing_starts_and_afterwards_it_goes_on_as_if_nothing_had_been() {
    let mut world = world(2).await;
    let ana = world.peer(1, quick()).await;
    balanced(&world, &[&ana], &[2]).await;
    let mut sent = send(&mut world, &[&ana], 0, 10).await;
    world.settled().await;
    let epochs = ana.handle.lanes();
    world.ledger.refuse_heartbeats(ana.id, true);
    let from = Instant::now();
    let mut last = from;
    let mut count = ana.functions.calls().len();
    for n in 10..800 {
        sent.extend(send(&mut world, &[&ana], n, n + 1).await);
        if ana.functions.calls().len() > count {
            count = ana.functions.calls().len();
            last = Instant::now();
        }
    }
    let LeaseOptions { trust, .. } = LeaseOptions::default();
    let stopped = last - from;
    assert!(stopped > trust - Duration::from_secs(1) && stopped <= trust, "started up to {stopped:?}");
    let id = world.id("f:in").await;
    let live = ana.handle.binding_live(id).unwrap();
    assert_eq!((live.state, live.reason), ("waiting", Some("ledger-unavailable")));
    assert!(ana.handle.cluster().trouble.is_some());
    world.ledger.refuse_heartbeats(ana.id, false);
    world.settled().await;
    ended_once(&world, &sent).await;
    assert_eq!(ana.handle.lanes(), epochs, "the same epochs go on");
    assert_eq!(ana.functions.calls().len(), 800);
    assert_eq!(ana.handle.binding_live(id).unwrap().state, "ok");
}

#[tokio::test(start_paused = true)]
async fn people_are_told_who_comes_and_goes_and_which_lanes_move() {
    let world = world(2).await;
    let ana = world.peer(1, quick()).await;
    balanced(&world, &[&ana], &[2]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut live = world.live.subscribe();
    let ben = world.peer(2, quick()).await;
    balanced(&world, &[&ana, &ben], &[1, 1]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cluster = ana.handle.cluster();
    assert_eq!(cluster.controllers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["peer-1", "peer-2"]);
    assert_eq!(cluster.lanes.iter().map(|l| l.owner.unwrap()).collect::<BTreeSet<_>>().len(), 2);
    ben.handle.shutdown(Duration::from_secs(5)).await;
    balanced(&world, &[&ana], &[2]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut told = Vec::new();
    while let Ok(fact) = live.try_recv() {
        if let Fact::Condition { subject, state, .. } = fact {
            told.push(format!("{subject} {state}"));
        }
    }
    for expected in ["controller peer-2 joined", "lane 2 let-go", "lane 2 taken", "controller peer-2 left"] {
        assert!(told.iter().any(|line| line == expected), "{expected}: {told:?}");
    }
}

/// The database is away for everybody: whoever is heard first must not take the lanes of those who come right after.
#[tokio::test(start_paused = true)]
async fn after_an_outage_everybody_goes_on_with_its_lanes() {
    let mut world = world(8).await;
    let (ana, ben) = (world.peer(1, quick()).await, world.peer(2, quick()).await);
    balanced(&world, &[&ana, &ben], &[4, 4]).await;
    let before = (ana.handle.lanes(), ben.handle.lanes());
    for peer in [&ana, &ben] {
        world.ledger.refuse_heartbeats(peer.id, true);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.ledger.expire(ana.id);
    world.ledger.expire(ben.id);
    world.ledger.refuse_heartbeats(ben.id, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.ledger.refuse_heartbeats(ana.id, false);
    let sent = send(&mut world, &[&ana, &ben], 0, 300).await;
    world.settled().await;
    ended_once(&world, &sent).await;
    assert_eq!((ana.handle.lanes(), ben.handle.lanes()), before);
    // And when one of them stays away, its lanes are taken after all.
    world.ledger.refuse_heartbeats(ben.id, true);
    world.ledger.expire(ben.id);
    balanced(&world, &[&ana], &[8]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_lost_events_is_read_anew() {
    let mut world = world(1).await;
    let ana = world.peer(1, quick()).await;
    balanced(&world, &[&ana], &[1]).await;
    send(&mut world, &[&ana], 0, 10).await;
    world.settled().await;
    let standby = world.ledger.snapshot();
    let lost = send(&mut world, &[&ana], 10, 30).await;
    world.settled().await;
    let epoch = ana.handle.lanes()[0].epoch;
    world.ledger.fail_over(&standby);
    let again = send(&mut world, &[&ana], 100, 140).await;
    assert_eq!(again[0], lost[0], "places that were lost are used again");
    world.until("taken anew", async |_| ana.handle.lanes()[0].epoch > epoch).await;
    let more = send(&mut world, &[&ana], 140, 160).await;
    world.settled().await;
    ended_once(&world, &again).await;
    ended_once(&world, &more).await;
    let called: BTreeSet<_> = ana.functions.calls().into_iter().map(|call| call.id).collect();
    assert!((100..160).all(|n| called.contains(&format!("e{n}"))), "{called:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_under_the_same_id_takes_its_lanes_at_once() {
    let mut world = world(8).await;
    let ana = world.peer(1, quick()).await;
    let ben = world.peer(2, quick()).await;
    balanced(&world, &[&ana, &ben], &[4, 4]).await;
    drop(ana);
    let ana = world.peer(1, quick()).await;
    assert!(balanced(&world, &[&ana, &ben], &[4, 4]).await < Duration::from_millis(100));
    let sent = send(&mut world, &[&ana, &ben], 0, 40).await;
    world.settled().await;
    ended_once(&world, &sent).await;
}

#[tokio::test(start_paused = true)]
async fn operators_of_one_controller_are_heard_by_the_others() {
    let mut world = world(4).await;
    world.specs[0].retry.attempts = Some(1);
    let ana = world.peer(1, quick()).await;
    let ben = world.peer(2, quick()).await;
    balanced(&world, &[&ana, &ben], &[2, 2]).await;
    let id = world.id("f:in").await;
    let pause = Pause { since: world.clock.now(), by: "ana".into(), reason: "db migration".into() };
    world.ledger.set_paused(id, Some(pause)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for peer in [&ana, &ben] {
        assert_eq!(peer.handle.binding_live(id).unwrap().reason, Some("binding-paused"));
    }
    world.ledger.set_paused(id, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for peer in [&ana, &ben] {
        peer.functions.rewrite(|_, _| Act::Fail(FailureClass::Function, "ValidationError"));
    }
    let sent = send(&mut world, &[&ana, &ben], 0, 8).await;
    world.settled().await;
    for peer in [&ana, &ben] {
        peer.functions.rewrite(|_, _| Act::Answer);
    }
    let keys: Vec<_> = sent.iter().map(|address| DeliveryKey { binding: id, address: *address }).collect();
    assert_eq!(world.ledger.redrive(&keys, world.clock.now()).await.unwrap(), 8);
    let from = Instant::now();
    world.settled().await;
    assert!(from.elapsed() < Duration::from_secs(2), "redriven after {:?}", from.elapsed());
}

async fn replay(world: &World, id: &str) {
    let binding = world.ledger.bindings().await.unwrap().remove(0);
    let tails = world.ledger.tails().await.unwrap();
    let record = ReplayRecord {
        id: ReplayId::new(id),
        version: 1,
        selector: Selector { source: Some("in".into()), ..Selector::default() },
        binding: binding.id,
        binding_name: binding.name,
        state: ReplayState::Running,
        total: tails.iter().map(|seq| seq.0).sum(),
        enqueued: 0,
        cursor: BTreeMap::new(),
        until: (1..).map(Lane).zip(tails).collect(),
        by: "ana".into(),
        created_at: world.clock.now(),
    };
    world.ledger.save_replay(&record, &[]).await.unwrap();
}

/// The replay is carried on by one, stopped and resumed through the other, and survives the end of its carrier.
#[tokio::test(start_paused = true)]
async fn a_replay_runs_once_whoever_is_asked() {
    let mut world = world(4).await;
    let (ana, ben) = (world.peer(1, quick()).await, world.peer(2, quick()).await);
    balanced(&world, &[&ana, &ben], &[2, 2]).await;
    let feed = Arc::clone(&ana.feed);
    for n in 0..24 {
        let events = (n * 50..n * 50 + 50).map(|n| event(&format!("e{n}"), &json!(n))).collect();
        world.send_through(&feed, "in", events).await;
    }
    world.settled().await;
    assert!(ana.handle.leads() != ben.handle.leads());
    let (leader, other) = if ana.handle.leads() { (&ana, &ben) } else { (&ben, &ana) };
    for peer in [&ana, &ben] {
        peer.functions.rewrite(|_, _| Act::After(Duration::from_millis(100)));
    }
    replay(&world, "r-1").await;
    let id = ReplayId::new("r-1");
    let stored = async |world: &World| world.ledger.replay(&id).await.unwrap().unwrap();
    for _ in 0..2 {
        world.until("it moves", async |w| stored(w).await.enqueued > 0).await;
        let paused = other.handle.change_replay(&id, ReplayState::Paused).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let now = stored(&world).await;
        assert_eq!((now.state, now.enqueued), (ReplayState::Paused, paused.enqueued), "it stands");
        other.handle.change_replay(&id, ReplayState::Running).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    for peer in [&ana, &ben] {
        peer.functions.rewrite(|_, _| Act::Answer);
    }
    leader.handle.shutdown(Duration::from_secs(5)).await;
    world.until("the replay is done", async |w| stored(w).await.state == ReplayState::Done).await;
    world.settled().await;
    assert_eq!(stored(&world).await.enqueued, 1_200);
    let calls = ana.functions.calls().len() + ben.functions.calls().len();
    assert_eq!(calls, 2_400, "each event once, and once again");
}
