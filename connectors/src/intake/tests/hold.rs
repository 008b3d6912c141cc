//! A hold, at doors and at a timer.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hold_is_an_answer_shows_at_every_source_and_ends_at_once() {
    let off = SourceSpec { enabled: false, ..topic("off") };
    let rig = rig(Limits::default(), vec![topic("t"), minutely(Missed::All), off]).await;
    positioned(&rig).await;
    rig.intake.hold(Some("1 MB are free on the ledger's disk".into()));
    let states = || -> Vec<_> {
        rig.intake.status().into_iter().map(|r| (r.state, r.reason.unwrap_or_default(), r.since)).collect()
    };
    let held = ("paused", "ledger-full: 1 MB are free on the ledger's disk".to_owned(), Some(START));
    assert_eq!(states(), [held.clone(), held.clone(), ("paused", "enabled: false".into(), None)]);
    let answer = rig.publish("a").await;
    assert_eq!((answer.status.as_u16(), body(&answer)["code"].as_str()), (429, Some("ledger-full")));
    assert!(answer.headers.iter().any(|(name, value)| name == RETRY_AFTER && value == "30"));

    rig.clock.advance(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.stored().await, [""; 0]);
    assert_eq!(
        states()[1],
        ("paused", held.1, Some(START.plus(Duration::from_secs(60)))),
        "when it first mattered"
    );
    let before = tokio::time::Instant::now();
    rig.intake.hold(None);
    while rig.stored().await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tokio::time::Instant::now(), before, "the tick was waiting, and no time has passed");
    assert_eq!(rig.publish("a").await.status, 202);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(states()[..2].iter().all(|(state, ..)| *state == "ok"), "{:?}", states());
}
