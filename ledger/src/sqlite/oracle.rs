//! Random histories on SQLite, and whether the file is sound after them; see `histories/`.

use proptest::prelude::*;

use super::tests::OnDisk;
use crate::histories::{Dice, VERBS, run};

fn check(steps: &[(u8, u64)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let subject: OnDisk = runtime.block_on(run(steps)).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_intact(&subject.path());
}

/// SQLite's own check of the file, and that nothing outlives what it belongs to.
pub(super) fn assert_intact(path: &std::path::Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let orphans: u64 = conn
        .query_row("SELECT count(*) FROM log WHERE place NOT IN (SELECT place FROM event)", [], |r| r.get(0))
        .unwrap();
    assert_eq!(orphans, 0, "log lines without their event");
    let unowned: u64 = conn
        .query_row("SELECT count(*) FROM owed WHERE place NOT IN (SELECT place FROM event)", [], |r| r.get(0))
        .unwrap();
    assert_eq!(unowned, 0, "debts without their event");
    let both: u64 = conn
        .query_row("SELECT count(*) FROM owed JOIN dead_letter USING (binding, place)", [], |r| r.get(0))
        .unwrap();
    assert_eq!(both, 0, "deliveries both owed and dead");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree(steps in prop::collection::vec((0..VERBS, any::<u64>()), 1..70)) {
        check(&steps);
    }
}

/// The same in length, for whoever wants to be sure: `--run-ignored only`.
#[test]
#[ignore = "takes minutes"]
fn long_random_histories_agree() {
    let mut dice = Dice(std::env::var("SEED").map_or(1, |s| s.parse().unwrap()));
    for _ in 0..200 {
        check(&dice.history(300, VERBS));
    }
}
