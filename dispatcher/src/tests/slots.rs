//! Limits that several controllers share: exact whoever comes and goes, and lent where they are not needed.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::Ledger as _;
use bellwire_ledger::append::lane_of;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::world::{Act, Functions, Peer, World, binding, event, function};
use crate::LeaseOptions;

/// All controllers call the same functions, which count how many run at once.
fn functions(each: Duration) -> Arc<Functions> {
    Functions::new(move |_, _| Act::After(each))
}

async fn world(lanes: u16, concurrency: u32, own: Option<u32>) -> World {
    let mut spec = binding("f", "in");
    spec.concurrency = own;
    let mut world = World::new(lanes, functions(Duration::ZERO), vec![spec]).await;
    world.known.insert("f".into(), function("f", concurrency));
    world
}

async fn balanced(world: &World, peers: &[Peer]) {
    let lanes = usize::from(world.ledger.lanes());
    let (least, most) = (lanes / peers.len(), lanes.div_ceil(peers.len()));
    let fair = |peer: &Peer| (least..=most).contains(&peer.owned());
    world
        .until("balanced", async |_| {
            peers.iter().all(fair) && peers.iter().map(Peer::owned).sum::<usize>() == lanes
        })
        .await;
}

/// One event into each lane in turn.
async fn send(world: &mut World, peer: &Peer, from: usize, to: usize) {
    for n in from..to {
        world.send_through(&Arc::clone(&peer.feed), "in", vec![event(&format!("e{n}"), &json!(n))]).await;
    }
}

/// Controllers come, leave in order, fall silent and die, under load: there are never more calls at once than the limit
/// allows, and everything is called.
async fn at_most(limit: u32, own: Option<u32>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = world(8, limit, own).await;
    let functions = functions(Duration::from_millis(20));
    let most = own.map_or(limit, |own| own.min(limit)) as usize;
    let mut peers = vec![world.peer(1, Arc::clone(&functions)).await];
    let (mut next, mut sent) = (2, 0);
    for _ in 0..25 {
        let burst = random.random_range(0..60);
        let through = random.random_range(0..peers.len());
        send(&mut world, &peers[through], sent, sent + burst).await;
        sent += burst;
        let who = random.random_range(0..peers.len());
        match random.random_range(0..6) {
            0 | 1 if peers.len() < 4 => {
                peers.push(world.peer(next, Arc::clone(&functions)).await);
                next += 1;
            }
            2 if peers.len() > 1 => peers.remove(who).handle.shutdown(Duration::from_secs(10)).await,
            3 if peers.len() > 1 => {
                // Dead; the others learn it when its lease ends.
                let Peer { id, handle, .. } = peers.remove(who);
                drop(handle);
                tokio::time::sleep(Duration::from_millis(random.random_range(0..3_000))).await;
                world.ledger.expire(id);
            }
            4 => {
                // Cut off until its lease has ended, and back again.
                let id = peers[who].id;
                world.ledger.refuse_heartbeats(id, true);
                tokio::time::sleep(LeaseOptions::default().ttl).await;
                world.ledger.expire(id);
                tokio::time::sleep(Duration::from_millis(random.random_range(0..2_000))).await;
                world.ledger.refuse_heartbeats(id, false);
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        assert!(functions.most() <= most, "{} calls at once, seed {seed}", functions.most());
    }
    world.settled().await;
    assert!(functions.most() <= most, "{} calls at once, seed {seed}", functions.most());
    assert!(functions.calls().len() >= sent, "{} of {sent}", functions.calls().len());
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_function_holds_whoever_comes_and_goes() {
    for seed in 0..8 {
        at_most(5, None, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_binding_holds_whoever_comes_and_goes() {
    for seed in 0..6 {
        at_most(9, Some(4), seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fewer_slots_than_controllers_are_taken_in_turns() {
    for seed in 0..3 {
        at_most(1, None, seed).await;
        at_most(2, None, 100 + seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_slot_serves_the_lanes_of_all() {
    let mut world = world(3, 1, None).await;
    let functions: Vec<_> = (0..3).map(|_| functions(Duration::from_millis(10))).collect();
    let mut peers = Vec::new();
    for (n, functions) in (1..).zip(&functions) {
        peers.push(world.peer(n, Arc::clone(functions)).await);
    }
    balanced(&world, &peers).await;
    send(&mut world, &peers[0], 0, 2_400).await;
    let from = world.clock.now();
    world.until("each had its turn", async |_| functions.iter().all(|f| f.calls().len() > 100)).await;
    let took = world.clock.now().since(from);
    assert!(took < Duration::from_secs(30), "a turn is 5 s, and not longer: {took:?}");
    world.settled().await;
    let took = world.clock.now().since(from);
    assert!(took < Duration::from_secs(2_400 / 100 + 20), "the slot was seldom idle: {took:?}");
}

/// Events into the lane of one of two controllers.
async fn send_to(world: &World, peer: &Peer, count: usize) {
    let lanes = peer.handle.lanes();
    let lane = lanes.iter().find(|lane| lane.epoch.is_some()).unwrap().lane;
    let in_lane = |key: &String| lane_of(Some(key), 0, world.ledger.lanes()) == lane;
    let keys: Vec<String> = (0..).map(|k| format!("k{k}")).filter(in_lane).take(count).collect();
    let events = keys.iter().map(|key| (event(key, &json!(1)), key.as_str())).collect();
    world.send_keyed(&peer.feed, "in", events).await;
}

async fn two(limit: u32, each: Duration) -> (World, Arc<Functions>, [Peer; 2]) {
    let (world, functions) = (world(2, limit, None).await, functions(each));
    let peers = [world.peer(1, Arc::clone(&functions)).await, world.peer(2, Arc::clone(&functions)).await];
    balanced(&world, &peers).await;
    (world, functions, peers)
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_holds_as_soon_as_what_ran_has_ended() {
    let (mut world, functions, peers) = two(10, Duration::from_secs(3)).await;
    for peer in &peers {
        send_to(&world, peer, 100).await;
    }
    world.until("both have half", async |_| functions.running() == 10).await;
    world.known.insert("f".into(), function("f", 4));
    for peer in &peers {
        peer.handle.apply(world.configuration().await).await.unwrap();
    }
    world.until("they have gone down", async |_| functions.running() <= 4).await;
    let (until, mut most) = (world.clock.now().plus(Duration::from_secs(30)), 0);
    while world.clock.now() < until {
        most = most.max(functions.running());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(most, 4);
}

#[tokio::test(start_paused = true)]
async fn what_ran_beyond_a_lease_counts_when_its_controller_is_back() {
    let (world, functions, peers) = two(4, Duration::from_secs(30)).await;
    send_to(&world, &peers[0], 40).await;
    world.until("all run", async |_| functions.running() == 4).await;
    world.ledger.refuse_heartbeats(peers[0].id, true);
    send_to(&world, &peers[1], 40).await;
    tokio::time::sleep(LeaseOptions::default().ttl).await;
    world.ledger.expire(peers[0].id);
    world.until("the other one has its slots", async |_| functions.running() > 4).await;
    world.ledger.refuse_heartbeats(peers[0].id, false);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let until = world.clock.now().plus(Duration::from_secs(120));
    while world.clock.now() < until {
        assert!(functions.running() <= 4, "{} run", functions.running());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_idle_now_and_then_is_not_waited_for_by_turns() {
    let (world, functions, peers) = two(1, Duration::from_millis(5)).await;
    let mut longest = Duration::ZERO;
    for n in 0..60 {
        let from = world.clock.now();
        send_to(&world, &peers[n % 2], 1).await;
        world.until("it was called", async |_| functions.calls().len() == n + 1).await;
        longest = longest.max(world.clock.now().since(from));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_a_slot_and_has_nothing_to_do_any_more_does_not_hold_it_up() {
    let (mut world, functions, peers) = two(1, Duration::from_millis(10)).await;
    send_to(&world, &peers[0], 3_000).await;
    world.until("one of them runs", async |_| functions.running() == 1).await;
    send_to(&world, &peers[1], 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Paused, the second one waits no more.
    world.specs[0].enabled = false;
    peers[1].handle.apply(world.configuration().await).await.unwrap();
    world.until("all of the first are done", async |_| functions.calls().len() >= 3_000).await;
    let took = world.clock.now().since(super::world::START);
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn slots_that_lapsed_unseen_are_given_back() {
    let (world, functions, peers) = two(1, Duration::from_secs(3)).await;
    send_to(&world, &peers[0], 1).await;
    world.until("it runs", async |_| functions.running() == 1).await;
    world.ledger.refuse_heartbeats(peers[0].id, true);
    tokio::time::sleep(LeaseOptions::default().ttl).await;
    world.ledger.expire(peers[0].id);
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.ledger.refuse_heartbeats(peers[0].id, false);
    world.until("it is done", async |_| functions.running() == 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    send_to(&world, &peers[1], 1).await;
    let from = world.clock.now();
    world.until("the other one is called", async |_| functions.running() == 1).await;
    let took = world.clock.now().since(from);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn slots_of_idle_controllers_are_lent_and_given_back() {
    let world = world(2, 10, None).await;
    let functions: Vec<_> = (0..2).map(|_| functions(Duration::from_millis(100))).collect();
    let peers =
        [world.peer(1, Arc::clone(&functions[0])).await, world.peer(2, Arc::clone(&functions[1])).await];
    balanced(&world, &peers).await;
    send_to(&world, &peers[0], 1_500).await;
    world.until("all of the limit is lent to one", async |_| functions[0].most() == 10).await;
    send_to(&world, &peers[1], 300).await;
    let from = world.clock.now();
    world.until("half of it is given back", async |_| functions[1].most() == 5).await;
    let took = world.clock.now().since(from);
    assert!(took < Duration::from_secs(2), "{took:?}");
    world.settled().await;
    let took = world.clock.now().since(from);
    assert!(took < Duration::from_secs(20 + 5), "the slots were seldom idle: {took:?}");
}
