//! Random histories of two controllers on one ledger, compared with the model; see `histories/`.
//!
//! Some seeds are fixed, as many are drawn anew in every run. A failure names its seed: `SEED=7 ./test two_controllers`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::OnServer;
use crate::histories::{Dice, SHARED_VERBS, run};

/// Steps of one history at most.
const STEPS: u64 = 40;

async fn history(seed: u64) {
    let mut dice = Dice(seed);
    let steps = dice.roll(STEPS) as usize + 1;
    let steps = dice.history(steps, SHARED_VERBS);
    drop(run::<OnServer>(&steps).await);
}

/// Runs several at a time: most of it is waiting for the disk.
async fn histories(seeds: Vec<u64>) {
    let mut tasks = tokio::task::JoinSet::new();
    let mut failed = Vec::new();
    let mut waiting = seeds.into_iter();
    loop {
        while tasks.len() < 4
            && let Some(seed) = waiting.next()
        {
            tasks.spawn(async move {
                let fine = tokio::spawn(history(seed)).await.is_ok();
                if !fine {
                    eprintln!("SEED={seed} went wrong");
                }
                (seed, fine)
            });
        }
        match tasks.join_next().await {
            Some(done) => failed.extend(Some(done.unwrap()).filter(|(_, fine)| !fine)),
            None => break,
        }
    }
    assert!(failed.is_empty(), "histories went wrong: {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_agree_with_the_model() {
    if let Ok(seed) = std::env::var("SEED") {
        return history(seed.parse().unwrap()).await;
    }
    let drawn = RandomState::new().build_hasher().finish();
    histories((1..=24).chain((0..24).map(|n| drawn.wrapping_add(n))).collect()).await;
}

/// The same in length, for whoever wants to be sure: `--run-ignored only`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes"]
async fn two_controllers_agree_with_the_model_for_long() {
    let first = std::env::var("FIRST").map_or(1_000, |s| s.parse().unwrap());
    histories((first..first + 60).collect()).await;
}
