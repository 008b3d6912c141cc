//! Random histories of two controllers on one ledger, compared with the model; see `histories/`.
//!
//! Some seeds are fixed, as many are drawn anew in every run. A failure names its seed: `SEED=7 ./test two_controllers`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::OnServer;
use crate::histories::{Dice, SHARED_VERBS, Wrong, run};

/// Steps of one history at most.
const STEPS: u64 = 40;

async fn history(seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed);
    let steps = dice.roll(STEPS) as usize + 1;
    let steps = dice.history(steps, SHARED_VERBS);
    run::<OnServer>(&steps).await.map(drop).map_err(|wrong| format!("SEED={seed} went wrong: {wrong}"))
}

/// Runs several at a time: most of it is waiting for the disk.
async fn histories(seeds: impl IntoIterator<Item = u64>) -> Result<(), Wrong> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut wrong = Vec::new();
    let mut waiting = seeds.into_iter();
    loop {
        while tasks.len() < 4
            && let Some(seed) = waiting.next()
        {
            tasks.spawn(history(seed));
        }
        match tasks.join_next().await {
            Some(done) => wrong.extend(done.unwrap().err()),
            None => break,
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Wrong(wrong)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_agree_with_the_model() -> Result<(), Wrong> {
    if let Ok(seed) = std::env::var("SEED") {
        return histories([seed.parse().unwrap()]).await;
    }
    let drawn = RandomState::new().build_hasher().finish();
    histories((1..=24).chain((0..24).map(|n| drawn.wrapping_add(n)))).await
}

/// The same in length, for whoever wants to be sure: `FIRST=5000 COUNT=1000`, `--run-ignored only`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes"]
async fn two_controllers_agree_with_the_model_for_long() -> Result<(), Wrong> {
    let number = |name, otherwise| std::env::var(name).map_or(otherwise, |s| s.parse().unwrap());
    let (first, count): (u64, u64) = (number("FIRST", 1_000), number("COUNT", 60));
    histories((0..count).map(|n| first.wrapping_add(n))).await
}
