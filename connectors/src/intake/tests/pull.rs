//! Pull connectors through the shared loop.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pull_connector_is_drained_and_bad_messages_are_kept() {
    let rig = rig(Limits { event_bytes: 1_000, ..Limits::default() }, vec![topic("t")]).await;
    let upstream = crate::memory::MemoryUpstream::default();
    for (id, data) in
        [("a", Bytes::from_static(b"1")), ("b", Bytes::from(vec![b'x'; 2_000])), ("c", Bytes::new())]
    {
        let event = bellwire_schemas::Event { id: id.into(), data: Some(data), ..Default::default() };
        let content = Content::Event(Box::new(Draft { event, ..Draft::default() }));
        upstream.push(Parcel { source: Arc::new(topic("t")), content });
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let connect = {
        let upstream = upstream.clone();
        move || Box::new(upstream.connect()) as Box<dyn crate::Connector>
    };
    let task = tokio::spawn(crate::pump::keep(
        connect,
        "topic.t".into(),
        rig.intake.appender.clone(),
        rig.intake.limits.clone(),
        stop.clone(),
    ));
    rig.ledger.fail_next_append(Error::Unavailable("down".into()));
    rig.ledger.commit_then_fail_append(Error::Unavailable("cut".into()));
    while !upstream.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.stored().await, ["a", "c"]);
    assert_eq!(rig.ledger.quarantined(None, 10).await.unwrap().len(), 1);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pull_connector_that_breaks_down_is_noted_and_made_anew() {
    let rig = rig(Limits::default(), vec![topic("t")]).await;
    let upstream = crate::memory::MemoryUpstream::default();
    let event = bellwire_schemas::Event { id: "a".into(), ..Default::default() };
    let content = Content::Event(Box::new(Draft { event, ..Draft::default() }));
    upstream.push(Parcel { source: Arc::new(topic("t")), content });
    let made = std::sync::atomic::AtomicUsize::new(0);
    let connect = {
        let upstream = upstream.clone();
        move || match made.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Box::new(Breaking) as Box<dyn crate::Connector>,
            _ => Box::new(upstream.connect()),
        }
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let (appender, limits) = (rig.intake.appender.clone(), rig.intake.limits.clone());
    let task = tokio::spawn(crate::pump::keep(connect, "topic.t".into(), appender, limits, stop.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = &rig.intake.status()[0];
    assert_eq!(report.state, "failing");
    assert!(report.reason.as_ref().unwrap().contains("broke down"), "{report:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.stored().await, ["a"]);
    assert_eq!(rig.intake.status()[0].state, "ok");
    stop.cancel();
    task.await.unwrap();
}

/// A connector that panics at once.
struct Breaking;

#[async_trait::async_trait]
impl crate::Connector for Breaking {
    async fn receive(&mut self, _: crate::Limit) -> Result<crate::Batch, crate::ConnectorError> {
        panic!("a test said so")
    }

    async fn confirm(
        &mut self,
        _: crate::Receipt,
        _: &crate::Committed,
    ) -> Result<(), crate::ConnectorError> {
        Ok(())
    }

    async fn release(&mut self, _: crate::Receipt, _: crate::Release) {}
}
