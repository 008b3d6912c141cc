//! `concurrency` is a limit of all controllers together, whoever comes, goes or dies.

use std::collections::HashMap;

use bellwire_integration_tests::{Cluster, Load};
use bellwire_test_servers::Database;

use super::{CONCURRENCY, HANDLER, REPEATED_PER_CRASH, service};

/// Most calls at once by the notes of the functions. A call that has no end was killed or broken off, who knows when: it is
/// left out.
fn most_at_once(notes: &str) -> usize {
    let mut starts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut steps = vec![0_i64; notes.lines().count()];
    for (number, line) in notes.lines().enumerate() {
        let [id, word, who] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("not a note: {line}") };
        if word == "start" {
            starts.insert((id, who), number);
        } else if let Some(start) = starts.remove(&(id, who)) {
            (steps[start], steps[number]) = (1, -1);
        }
    }
    let running = steps.iter().scan(0, |sum, step| {
        *sum += step;
        Some(*sum)
    });
    usize::try_from(running.max().unwrap_or(0)).unwrap()
}

async fn limit_holds(limit: usize, each: &str) {
    let database = Database::create().unwrap();
    let yaml = service().replace(&format!("concurrency: {CONCURRENCY}"), &format!("concurrency: {limit}"));
    let slow = HANDLER
        .replace("import os\n", "import os, time\n")
        .replace("    note(event, \"ok\")\n", &format!("    time.sleep({each})\n    note(event, \"ok\")\n"));
    let mut cluster = Cluster::new(&yaml, &[("note.py", &slow)], &vec![database.url(); 3]).unwrap();
    cluster.start_all().await.unwrap();
    let load = Load::start(&cluster.doors, 2, "l");
    let functions = cluster.members[0].get("/v1/functions").await.unwrap();
    assert!(functions["items"][0]["slots"].as_u64().unwrap() <= limit as u64, "{functions}");
    let kills = 3;
    for round in 0..kills {
        load.accepts(60).await.unwrap();
        let (victim, leaver) = (round % 3, (round + 1) % 3);
        cluster.kill(victim).await;
        load.accepts(40).await.unwrap();
        assert!(cluster.stop(leaver).await.unwrap().success(), "{}", cluster.logs());
        cluster.start(victim, None).await.unwrap();
        cluster.start(leaver, None).await.unwrap();
    }
    load.accepts(60).await.unwrap();
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, kills * REPEATED_PER_CRASH).await.unwrap();
    let most = most_at_once(&std::fs::read_to_string(cluster.notes()).unwrap());
    assert_eq!(most, limit, "calls at once of all controllers together");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_as_the_limit_says_over_kills_and_leaves() {
    limit_holds(5, "0.04").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_over_kills_and_leaves() {
    limit_holds(1, "0.005").await;
}
