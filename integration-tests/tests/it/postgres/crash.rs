//! A controller ends at every gap between two durable writes, while another one runs.

use bellwire_integration_tests::{Load, Oracle};
use tokio::time::Instant;

use super::{LANES, REPEATED_PER_CRASH, balanced, on_database, taken_over, until_owns};

/// One crash point, armed to fire after a few passes; the controller comes back each time, at last it stays away.
async fn crash_at(point: &str, passes: &[u32]) {
    let (_database, mut cluster) = on_database(2);
    let mut oracle = Oracle::default();
    cluster.start(1, None).await.unwrap();
    let mut ended_at = Instant::now();
    for (round, pass) in passes.iter().enumerate() {
        cluster.start(0, Some(&format!("{point}={pass}*off->return"))).await.unwrap();
        let load = Load::start(&cluster.doors, 4, &format!("e{round}"));
        let status = cluster.members[0].ended().await;
        let status =
            status.unwrap_or_else(|e| panic!("{point} did not end the process: {e}\n{}", cluster.logs()));
        ended_at = Instant::now();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(6), "the process ended for another reason: {status}\n{}", cluster.logs());
        load.accepts(20).await.unwrap();
        oracle.merge(load.finish().await.unwrap());
    }
    until_owns(&cluster.members[1], LANES).await.unwrap();
    taken_over(&format!("the crash at {point}"), ended_at.elapsed());
    cluster.settle_and_count(&oracle, passes.len() * REPEATED_PER_CRASH).await.unwrap();
}

macro_rules! crash_tests {
    ($($test:ident: $point:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crash_at($point, &[1, 7, 40]).await;
            }
        )*
    };
}

crash_tests! {
    after_receive: "source.recv",
    before_append: "append.before",
    after_append: "append.after_commit",
    after_append_before_ack: "append.after_commit_before_ack",
    before_confirm: "source.ack",
    before_dispatch: "dispatch.before",
    after_the_answer: "invoke.result",
    before_flush: "flush.before",
    after_flush: "flush.after_commit",
}

/// SIGKILL under load, at moments that the load decides: one, the other, both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment() {
    let (_database, mut cluster) = on_database(2);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 4, "k");
    let victims: [&[usize]; 6] = [&[0], &[1], &[0, 1], &[1], &[0], &[0, 1]];
    for (round, victims) in victims.iter().enumerate() {
        load.accepts(37 + 61 * round).await.unwrap();
        for &victim in *victims {
            cluster.kill(victim).await;
        }
        if victims.len() == 1 {
            load.accepts(23).await.unwrap();
        }
        for &victim in *victims {
            cluster.start(victim, None).await.unwrap();
        }
    }
    load.accepts(100).await.unwrap();
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, 8 * REPEATED_PER_CRASH).await.unwrap();
}

/// SIGKILL of one of two that both work: the other has all lanes in time and serves what waits in them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn take_over_after_sigkill() {
    let (_database, mut cluster) = on_database(2);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 4, "t");
    load.accepts(200).await.unwrap();
    cluster.kill(0).await;
    let time = until_owns(&cluster.members[1], LANES).await.unwrap();
    taken_over("SIGKILL", time);
    load.accepts(50).await.unwrap();
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, REPEATED_PER_CRASH).await.unwrap();
}
