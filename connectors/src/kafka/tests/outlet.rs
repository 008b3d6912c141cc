use bellwire_schemas::Event;
use bellwire_schemas::brokers::KafkaDestination;
use bellwire_schemas::outlet::{Outgoing, OutletError};
use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use serde_json::json;

use super::*;

fn destination(bootstrap: &str, key: Option<&str>) -> KafkaDestination {
    let cluster = kafka(bootstrap, &[]).cluster;
    let librdkafka = BTreeMap::from([("message.timeout.ms".to_owned(), "3000".to_owned())]);
    let cluster = KafkaCluster { librdkafka, ..cluster };
    KafkaDestination { cluster, topic: "out".into(), key: key.map(str::to_owned) }
}

fn outgoing(id: &str) -> Outgoing {
    let event = Event {
        id: id.into(),
        source: "bellwire:orders".into(),
        kind: "bellwire.result".into(),
        time: "2026-01-01T00:00:00Z".into(),
        data: Some(Bytes::from_static(b"{\"order\":{\"id\":7}}")),
        ..Event::default()
    };
    Outgoing { event: Arc::new(event), key: Some("k".into()) }
}

/// What is sent out comes in again as the same CloudEvent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_the_same_cloudevent_when_it_is_read() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("out", 1, 1).unwrap();
    let bootstrap = cluster.bootstrap_servers();
    let outlet = crate::kafka::open_outlet(&destination(&bootstrap, None)).unwrap();
    assert_eq!(outlet.send(&outgoing("1")).await.unwrap(), "out/0@0");
    let by_path = crate::kafka::open_outlet(&destination(&bootstrap, Some("data.order.id"))).unwrap();
    assert_eq!(by_path.send(&outgoing("2")).await.unwrap(), "out/0@1");

    let ledger = ModelLedger::new(1);
    let running = Running::start(&ledger, "one", spec(kafka(&bootstrap, &["out"]))).await;
    let events = until_stored(&ledger, 2).await;
    for (stored, id, key) in [(&events[0], "1", "k"), (&events[1], "2", "7")] {
        assert_eq!((stored.event.id.as_str(), stored.key.as_deref()), (id, Some(key)));
        assert_eq!(stored.event.kind, "bellwire.result");
        assert_eq!(stored.event.data_json(), Some(json!({"order": {"id": 7}})));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_sent_is_told_from_what_may_be_sent_later() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("out", 1, 1).unwrap();
    let outlet = crate::kafka::open_outlet(&destination(&cluster.bootstrap_servers(), None)).unwrap();
    outlet.send(&outgoing("1")).await.unwrap();
    let mut large = outgoing("2");
    Arc::make_mut(&mut large.event).data = Some(Bytes::from(vec![b'x'; 9 << 20]));
    let refused = outlet.send(&large).await;
    assert!(matches!(refused, Err(OutletError::Refused(_))), "{refused:?}");
    cluster.broker_down(1).unwrap();
    let down = outlet.send(&outgoing("3")).await;
    assert!(matches!(down, Err(OutletError::Unavailable(_))), "{down:?}");
    cluster.broker_up(1).unwrap();
    until("the broker is back", async || outlet.send(&outgoing("4")).await.is_ok()).await;
}
