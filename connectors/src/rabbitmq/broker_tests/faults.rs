//! Everything that can break between the broker and the ledger, and everything a broker does on its own account.

use bellwire_schemas::brokers::RabbitmqDeclare;
use bellwire_schemas::outlet::Outlet;
use bellwire_test_servers::proxy::Mode;
use bellwire_test_servers::{Proxy, Rabbitmq};
use lapin::options::QueueDeleteOptions;
use tokio::task::block_in_place;

use super::*;
use crate::contract::{Limit, Release};
use crate::{Content, Draft};

const LIMIT: Limit = Limit { items: 1_000, bytes: 1 << 20 };

pub(super) async fn proxy() -> Proxy {
    let host = url().rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    Proxy::start(tokio::net::lookup_host(host).await.unwrap().next().unwrap()).await.unwrap()
}

fn draft(batch: &Batch) -> &Draft {
    match &batch.parcels[0].content {
        Content::Event(draft) => draft,
        other => panic!("{other:?}"),
    }
}

async fn exactly_once(world: &World, count: usize) {
    let mut ids: Vec<String> = world.events().await.iter().map(|e| e.event.id.clone()).collect();
    ids.sort_unstable();
    let expected: Vec<String> = (0..count).map(|n| format!("{n:05}")).collect();
    assert!(ids == expected, "{} stored of {count}; {:?}", ids.len(), world.report());
}

/// Numbered messages, each sent until the broker has confirmed it.
async fn publish_all(url: &str, queue: &str, numbers: std::ops::Range<usize>) {
    let mut publisher = None;
    for number in numbers {
        loop {
            let channel = match &publisher {
                Some(Publisher { channel, .. }) => channel,
                None => match Publisher::try_at(url).await {
                    Ok(new) => &publisher.insert(new).channel,
                    Err(_) => {
                        sleep(STEP).await;
                        continue;
                    }
                },
            };
            if publish(channel, queue, &format!("{number:05}"), b"{\"a\":1}").await.unwrap_or(false) {
                break;
            }
            publisher = None;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_stored_once_whatever_happens_to_the_connection() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("quorum").await;
    let proxy = proxy().await;
    let world = World::new(settings(&proxy.url(&url()), &queue)).await;
    let modes = [
        Mode::CutFromServer(20_000),
        Mode::Stall,
        Mode::CutToServer(600),
        Mode::BlackHole,
        Mode::Refuse,
        Mode::Delay(Duration::from_millis(5)),
        Mode::Reset,
        Mode::CutFromServer(3_000),
    ];
    let each = 250;
    for (round, mode) in modes.iter().enumerate() {
        proxy.set(mode.clone()).await;
        publish_all(&url(), &queue, round * each..(round + 1) * each).await;
        sleep(Duration::from_millis(150)).await;
        proxy.set(Mode::Pass).await;
        if round % 2 == 0 {
            proxy.reset_all().await;
        }
        let wanted = ((round + 1) * each - each / 2) as u64;
        until("most come through", || world.stored() >= wanted).await;
        let reason = world.report().reason.unwrap_or_default();
        assert!(!reason.contains("unknown delivery tag") && !reason.contains("PRECONDITION"), "{reason}");
    }
    let count = modes.len() * each;
    until("all come through", || world.stored() == count as u64).await;
    exactly_once(&world, count).await;
    world.drained(&publisher, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_sign_of_life_is_given_up() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("classic").await;
    let proxy = proxy().await;
    let world = World::new(settings(&proxy.url(&url()), &queue)).await;
    publisher.send(&queue, "00000", b"1").await;
    until("the first comes", || world.stored() == 1).await;
    proxy.set(Mode::BlackHole).await;
    publisher.send(&queue, "00001", b"1").await;
    let connections = proxy.accepted();
    until("another connection is tried", || proxy.accepted() > connections).await;
    proxy.set(Mode::Pass).await;
    until("the second comes", || world.stored() == 2).await;
    exactly_once(&world, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_is_waited_for() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("quorum").await;
    let world = World::new(settings(&url(), &queue)).await;
    publisher.send(&queue, "00000", b"1").await;
    until("the first comes", || world.stored() == 1).await;
    publisher.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let complaint = world.complaint("does not exist").await;
    assert!(complaint.contains(&queue) && complaint.contains("declare"), "{complaint}");
    publisher.declare_as(&queue, "quorum").await;
    publisher.send(&queue, "00001", b"1").await;
    until("the second comes", || world.stored() == 2).await;
    until("all is well", || world.report().state == "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_queue_is_made_again_when_it_is_deleted() {
    let publisher = Publisher::new().await;
    let queue = shared::unique("bellwire");
    let mut source = settings(&url(), &queue);
    source.declare = Some(RabbitmqDeclare {
        queue_type: Default::default(),
        exchange: Some("amq.topic".into()),
        routing_keys: vec![format!("{queue}.#"), "other".into()],
    });
    let world = World::new(source).await;
    for id in ["00000", "00001"] {
        let key = format!("{queue}.new");
        // A topic exchange drops what nothing is bound for, so it is sent until it is stored.
        let (end, before) = (Instant::now() + PATIENCE, world.stored());
        while world.stored() == before {
            assert!(Instant::now() < end, "{:?}", world.report());
            let properties = BasicProperties::default().with_message_id(id.into());
            let options = BasicPublishOptions::default();
            let sent = publisher.channel.basic_publish(
                "amq.topic".into(),
                key.as_str().into(),
                options,
                b"1",
                properties,
            );
            sent.await.unwrap().await.unwrap();
            sleep(STEP * 5).await;
        }
        publisher.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
    let event = &world.events().await[0].event;
    assert_eq!(
        (event.meta["exchange"].as_str(), event.subject.as_deref()),
        (Some("amq.topic"), Some(format!("{queue}.new").as_str()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_old_channel_is_acknowledged_on_a_new_one() {
    let mut rig = BrokerRig::new("quorum", None).await;
    let proxy = proxy().await;
    let settings = settings(&proxy.url(&url()), &rig.queue);
    let mut connector = RabbitmqConnector::new(Arc::new(plan(&settings).unwrap()), "test");
    rig.produce(1).await;
    let old = connector.receive(LIMIT).await.unwrap();
    proxy.reset_all().await;
    let new = loop {
        // What was handed over before comes until the reset is noticed.
        let Ok(batch) = connector.receive(LIMIT).await else { continue };
        if draft(&batch).event.meta["redelivered"] == true {
            break batch;
        }
    };
    let committed = rig.commit(&old).await;
    connector.confirm(old.receipt, &committed).await.unwrap();
    connector.release(new.receipt, Release::Failed("test".into())).await;
    let again = connector.receive(LIMIT).await.unwrap();
    let draft_again = draft(&again);
    assert_eq!(
        (draft_again.event.meta["redelivered"].as_bool(), draft_again.dedup.as_deref()),
        (Some(true), Some("001"))
    );
    connector.confirm(again.receipt, &committed).await.unwrap();
    rig.produce(1).await;
    let next = connector.receive(LIMIT).await.unwrap();
    assert_eq!(draft(&next).dedup.as_deref(), Some("002"), "the first was acknowledged once and for all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_that_outlives_its_channel_acknowledges_nothing() {
    let mut rig = BrokerRig::new("quorum", Some(1)).await;
    let proxy = proxy().await;
    let mut settings = settings(&proxy.url(&url()), &rig.queue);
    settings.prefetch = Some(1);
    let mut connector = RabbitmqConnector::new(Arc::new(plan(&settings).unwrap()), "test");
    rig.produce(2).await;
    let batch = connector.receive(LIMIT).await.unwrap();
    proxy.reset_all().await;
    let committed = rig.commit(&batch).await;
    // The acknowledgement is lost with the connection, whether or not that was noticed already.
    let _ = connector.confirm(batch.receipt, &committed).await;
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("002") {
        let Ok(batch) = connector.receive(LIMIT).await else { continue };
        seen.push(draft(&batch).event.id.clone());
        connector.confirm(batch.receipt, &committed).await.unwrap();
    }
    assert_eq!(seen, ["001", "002"], "it comes again, and is not taken for the next one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_prefetch_works() {
    for prefetch in [Some(1), Some(5_000), None] {
        let publisher = Publisher::new().await;
        let queue = publisher.declare("classic").await;
        publish_all(&url(), &queue, 0..400).await;
        let mut settings = settings(&url(), &queue);
        settings.prefetch = prefetch;
        let world = World::new(settings).await;
        until("all come", || world.stored() == 400).await;
        exactly_once(&world, 400).await;
        world.drained(&publisher, &queue).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefetch_of_our_own_choice_follows_the_weight_of_messages() {
    let rig = BrokerRig::new("quorum", None).await;
    let mut connector =
        RabbitmqConnector::new(Arc::new(plan(&settings(&url(), &rig.queue)).unwrap()), "test");
    let mut step = async |count: usize, body: &[u8]| {
        for number in 0..count {
            rig.publisher.send(&rig.queue, &number.to_string(), body).await;
        }
        let mut seen = 0;
        while seen < count {
            let batch = connector.receive(LIMIT).await.unwrap();
            seen += batch.parcels.len();
            let committed = rig.commit(&batch).await;
            connector.confirm(batch.receipt, &committed).await.unwrap();
        }
        connector.prefetch()
    };
    assert_eq!(step(1, b"1").await, Some(32));
    assert_eq!(step(200, b"1").await, Some(2_000), "small ones fill two batches");
    let few = step(60, &[b'x'; 400_000]).await.unwrap();
    assert!((16..100).contains(&few), "large ones are few: {few}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_and_a_crash_of_the_broker_are_survived() {
    let mut broker = block_in_place(Rabbitmq::start).unwrap();
    let publisher = Publisher::at(&broker.url()).await;
    let queue = publisher.declare("quorum").await;
    let world = World::new(settings(&broker.url(), &queue)).await;
    let outlet = super::outlet::outlet(&broker.url(), "", &queue);
    outlet.send(&super::outlet::outgoing("00000")).await.unwrap();
    until("the first comes", || world.stored() == 1).await;

    block_in_place(|| broker.ctl(&["set_vm_memory_high_watermark", "0.0000001"])).unwrap();
    let end = Instant::now() + PATIENCE;
    let blocked = loop {
        match outlet.send(&super::outlet::outgoing("00001")).await {
            Err(error) => break error.to_string(),
            Ok(_) => assert!(Instant::now() < end, "the alarm holds nothing back"),
        }
    };
    assert!(blocked.contains("short of memory"), "{blocked}");
    block_in_place(|| broker.ctl(&["set_vm_memory_high_watermark", "0.4"])).unwrap();
    while outlet.send(&super::outlet::outgoing("00001")).await.is_err() {
        assert!(Instant::now() < end, "nothing goes through after the alarm");
    }
    until("the second comes", || world.stored() == 2).await;

    let (url, name) = (broker.url(), queue.clone());
    let publishing = tokio::spawn(async move { publish_all(&url, &name, 2..600).await });
    until("some come", || world.stored() > 100).await;
    block_in_place(|| broker.kill()).unwrap();
    block_in_place(|| broker.start_again()).unwrap();
    publishing.await.unwrap();
    until("all come", || world.stored() == 600).await;
    exactly_once(&world, 600).await;
}
