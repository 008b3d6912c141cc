//! Pull connectors through the shared loop.

use bellwire_schemas::Timestamp;

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

/// Three controllers tick the same schedules; whoever is first appends, and the others go on without a word.
#[tokio::test(start_paused = true)]
async fn every_tick_comes_once_however_many_controllers_there_are() {
    let tick = |name: &str, jitter: Duration| {
        let mut spec = schedule("* * * * * *", Missed::All);
        spec.jitter = jitter;
        source(name, SourceKind::Schedule(spec))
    };
    let sources = vec![tick("schedule.plain", Duration::ZERO), tick("schedule.late", Duration::from_secs(3))];
    let (ledger, clock) = (ModelLedger::new(4), Clock::manual(START));
    let mut rigs = Vec::new();
    for _ in 0..3 {
        rigs.push(rig_over(ledger.clone(), clock.clone(), Limits::default(), sources.clone()).await);
    }
    let seconds = 120;
    for n in 0..seconds * 20 {
        clock.advance(Duration::from_millis(50));
        if n == 600 {
            // One of them ends in the middle.
            rigs.remove(0).intake.shutdown(Duration::from_secs(1)).await;
        }
        if n % 300 == 0 {
            ledger.commit_then_fail_append(Error::Unavailable("cut".into()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(
            rigs.iter()
                .flat_map(|rig| rig.intake.status())
                .all(|report| report.reason.is_none() || n % 300 < 60)
        );
    }
    for name in ["schedule.plain", "schedule.late"] {
        let query = EventQuery { limit: 1_000, ascending: true, ..EventQuery::default() };
        let events = ledger.events(&query).await.unwrap().items;
        let of = events.iter().filter(|e| e.source.as_str() == name);
        let mut times: Vec<_> = of.map(|e| Timestamp::parse(&e.event.time).unwrap()).collect();
        times.sort();
        assert!(times.len() + 4 >= seconds, "{name}: {} of {seconds}", times.len());
        let ticks = (1..).map(|n| START.plus(Duration::from_secs(n)));
        assert!(ticks.zip(&times).all(|(tick, time)| tick == *time), "{name}: {times:?}");
    }
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
