//! Random histories on Postgres: two controllers through two handles; see `histories/`.

use super::OnServer;
use crate::histories::{Dice, SHARED_VERBS, run};

/// Histories in an ordinary run.
const HISTORIES: u64 = 1;

async fn histories(seed: u64, count: u64, steps: usize) {
    for n in 0..count {
        let seed = seed.wrapping_add(n);
        eprintln!("history {seed}");
        run::<OnServer>(&Dice(seed).history(steps, SHARED_VERBS)).await;
    }
}

#[tokio::test]
async fn random_histories_agree() {
    let seed = std::env::var("SEED").map_or(1, |s| s.parse().unwrap());
    histories(seed, HISTORIES, 60).await;
}
