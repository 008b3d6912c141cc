//! What leaves, as a public client reads it.

use bellwire_schemas::Event;
use bellwire_schemas::brokers::{RabbitmqDestination, Tls};
use bellwire_schemas::outlet::{Outgoing, Outlet, OutletError};
use bellwire_schemas::service::Secret;
use bellwire_test_servers::proxy::Mode;
use bytes::Bytes;
use lapin::options::BasicGetOptions;

use super::*;
use crate::rabbitmq::{RabbitmqOutlet, values};

pub(super) fn outlet(url: &str, exchange: &str, routing_key: &str) -> RabbitmqOutlet {
    RabbitmqOutlet::new(&RabbitmqDestination {
        url: Secret::new(url),
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        tls: Tls::Off,
    })
    .unwrap()
}

pub(super) fn outgoing(id: &str) -> Outgoing {
    let event = Event {
        id: id.into(),
        source: "/shop".into(),
        kind: "order.placed".into(),
        subject: Some("7".into()),
        time: "2026-01-01T00:00:00Z".into(),
        data: Some(Bytes::from_static(b"{\"total\":1}")),
        extensions: [("tries".to_owned(), serde_json::json!(3))].into(),
        ..Event::default()
    };
    Outgoing { event: Arc::new(event), key: Some("k".into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_travels_as_a_cloudevent_in_binary_mode() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("classic").await;
    let place = outlet(&url(), "", &queue).send(&outgoing("e-1")).await.unwrap();
    assert_eq!(place, format!("queue {queue}"));
    let got = publisher.channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await;
    let message = got.unwrap().unwrap();
    assert_eq!(message.data, b"{\"total\":1}");
    let properties = serde_json::Value::Object(values::properties(&message.properties));
    assert_eq!(
        properties,
        serde_json::json!({ "contentType": "application/json", "deliveryMode": 2, "messageId": "e-1" })
    );
    let headers = values::headers(message.properties.headers().as_ref().unwrap());
    assert_eq!(
        serde_json::Value::Object(headers),
        serde_json::json!({
            "cloudEvents_specversion": "1.0", "cloudEvents_id": "e-1", "cloudEvents_source": "/shop",
            "cloudEvents_type": "order.placed", "cloudEvents_subject": "7",
            "cloudEvents_time": "2026-01-01T00:00:00Z", "cloudEvents_tries": "3",
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_nowhere_to_go_is_refused() {
    let nowhere = outlet(&url(), "amq.direct", "no-such-key");
    for _ in 0..2 {
        let error = nowhere.send(&outgoing("1")).await.unwrap_err();
        assert!(
            matches!(&error, OutletError::Refused(text) if text.contains("no queue is bound")),
            "{error}"
        );
    }
    let error = outlet(&url(), "no-such-exchange", "k").send(&outgoing("1")).await.unwrap_err();
    assert!(matches!(&error, OutletError::Refused(text) if text.contains("does not exist")), "{error}");
    let error = outlet("amqp://guest:guest@127.0.0.1:1/%2f", "", "q").send(&outgoing("1")).await.unwrap_err();
    assert!(
        matches!(&error, OutletError::Unavailable(text) if text.contains("cannot be reached")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_each_answered_and_a_broken_connection_is_made_anew() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("classic").await;
    let proxy = super::faults::proxy().await;
    let outlet = Arc::new(outlet(&proxy.url(&url()), "", &queue));
    for round in 0..3 {
        let sends = (0..50).map(|n| {
            let outlet = outlet.clone();
            async move { outlet.send(&outgoing(&format!("{round}-{n}"))).await }
        });
        let answers = futures::future::join_all(sends).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        proxy.reset_all().await;
    }
    proxy.set(Mode::Refuse).await;
    proxy.reset_all().await;
    let error = outlet.send(&outgoing("x")).await.unwrap_err();
    assert!(matches!(error, OutletError::Unavailable(_)), "{error}");
    proxy.set(Mode::Pass).await;
    outlet.send(&outgoing("y")).await.unwrap();
}
