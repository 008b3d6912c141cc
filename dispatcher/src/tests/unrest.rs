//! Controllers that come, go, die, fall silent and are taken for dead while they are not, in random order: whatever
//! happens, every event ends once, and nobody starts anything on leases that ran out.

use std::time::Duration;

use bellwire_ledger::{Error, Ledger, LogOutcome};
use bellwire_schemas::{Address, FailureClass, FinalState};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::world::{Act, Functions, Peer, World, binding, event};
use crate::LeaseOptions;

const EVENTS: usize = 300;
const MOST_PEERS: usize = 4;

fn temper() -> std::sync::Arc<Functions> {
    Functions::new(|call, number| {
        match (call.id.trim_start_matches('e').parse::<usize>().unwrap_or(0) % 9, number) {
            (0, _) => Act::Fail(FailureClass::Function, "ValidationError"),
            (1, 1) => Act::Fail(FailureClass::Function, "ValueError"),
            (2, _) => Act::After(Duration::from_millis(700)),
            (3, _) => Act::After(Duration::from_millis(40)),
            _ => Act::Answer,
        }
    })
}

pub(super) async fn unrest(
    world: &mut World,
    peers: &mut Vec<Peer>,
    rng: &mut StdRng,
    next: &mut u128,
    harsh: bool,
) {
    let some = |rng: &mut StdRng, peers: &Vec<Peer>| rng.random_range(0..peers.len().max(1));
    match rng.random_range(0..12) {
        0 | 1 if peers.len() < MOST_PEERS => {
            peers.push(world.peer(*next, world.functions.clone()).await);
            *next += 1;
        }
        2 if peers.len() > 1 => {
            // Killed: nobody hears of it before its lease has run out.
            let dead = peers.remove(some(rng, peers)).id;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
            world.ledger.expire(dead);
        }
        3 if peers.len() > 1 => {
            // Killed and started again under its id.
            let id = peers.remove(some(rng, peers)).id;
            peers.push(world.peer(id.0.as_u128(), world.functions.clone()).await);
        }
        4 if peers.len() > 1 => {
            let leaves = peers.remove(some(rng, peers));
            leaves.handle.shutdown(Duration::from_secs(1)).await;
        }
        5 | 6 if !peers.is_empty() => {
            let silent = &peers[some(rng, peers)];
            world.ledger.refuse_heartbeats(silent.id, true);
            let length = Duration::from_millis(rng.random_range(0..9_000));
            tokio::time::sleep(length).await;
            if length > LeaseOptions::default().ttl {
                world.ledger.expire(silent.id);
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
            }
            world.ledger.refuse_heartbeats(silent.id, false);
        }
        // Taken for dead while it is alive, as when the database's clock jumps.
        7 if harsh && !peers.is_empty() => world.ledger.expire(peers[some(rng, peers)].id),
        8 => world.ledger.fail_next_flush(Error::Unavailable("a test said so".into())),
        9 => world.ledger.commit_then_fail_flush(Error::Unavailable("a test said so".into())),
        _ => tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await,
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let specs = vec![binding("f", "in"), binding("g", "in")];
    let mut world = World::new(5, temper(), specs).await;
    let mut peers = vec![world.peer(1, world.functions.clone()).await];
    let (mut next, mut sent) = (2, Vec::<Address>::new());
    while sent.len() < EVENTS {
        let feed = std::sync::Arc::clone(&peers[rng.random_range(0..peers.len())].feed);
        let batch = rng.random_range(1..12).min(EVENTS - sent.len());
        let events = (sent.len()..sent.len() + batch).map(|n| event(&format!("e{n}"), &json!(n))).collect();
        sent.extend(world.send_through(&feed, "in", events).await);
        unrest(&mut world, &mut peers, &mut rng, &mut next, true).await;
    }
    world.settled().await;
    for record in world.ledger.bindings().await.unwrap() {
        for (n, address) in sent.iter().enumerate() {
            let log = world.ledger.log(*address, Some(record.id)).await.unwrap();
            let finals: Vec<_> = log.iter().filter_map(|(_, e)| final_of(e.outcome)).collect();
            let expected = if n % 9 == 0 { FinalState::Dead } else { FinalState::Delivered };
            assert_eq!(finals, [expected], "seed {seed}: event {n} for {}", record.name);
        }
    }
    world
        .until("every lane has one owner", async |_| peers.iter().map(Peer::owned).sum::<usize>() == 5)
        .await;
}

fn final_of(outcome: LogOutcome) -> Option<FinalState> {
    match outcome {
        LogOutcome::Final(state) => Some(state),
        LogOutcome::Failed => None,
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_ends_once_whoever_owns_its_lane() {
    for seed in 0..6 {
        run(seed).await;
    }
}

/// The same for longer: `SEEDS=1000 cargo test -p bellwire-dispatcher unrest_soak -- --ignored`.
#[tokio::test(start_paused = true)]
#[ignore = "takes as long as it is told to"]
async fn unrest_soak() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for seed in 1_000..1_000 + seeds {
        run(seed).await;
    }
}
