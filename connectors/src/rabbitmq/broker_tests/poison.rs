//! Messages that nobody can read: kept with their bytes, acknowledged, and out of the way of the others.

use std::io::{Read, Write};
use std::net::TcpStream;

use bellwire_schemas::service::Decode;
use tokio::task::block_in_place;

use super::*;

/// Publishes by hand, byte for byte, what no client would: a frame each, then waits for the broker's last word.
struct Raw(TcpStream);

impl Raw {
    fn new() -> Self {
        let host = url().rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let mut raw = Self(TcpStream::connect(host).unwrap());
        raw.0.set_read_timeout(Some(PATIENCE)).unwrap();
        raw.0.write_all(b"AMQP\0\0\x09\x01").unwrap();
        raw.expect(10, 10);
        // start-ok: no properties, PLAIN, and the locale.
        raw.method(
            0,
            &[&[0, 10, 0, 11, 0, 0, 0, 0, 5], &b"PLAIN\0\0\0\x0c\0guest\0guest\x05en_US"[..]].concat(),
        );
        raw.expect(10, 30);
        // tune-ok: one channel, frames of 128 KiB, no heartbeat.
        raw.method(0, &[0, 10, 0, 31, 0, 1, 0, 2, 0, 0, 0, 0]);
        raw.method(0, &[0, 10, 0, 40, 1, b'/', 0, 0]);
        raw.expect(10, 41);
        raw.method(1, &[0, 20, 0, 10, 0]);
        raw.expect(20, 11);
        raw
    }

    fn frame(&mut self, kind: u8, channel: u8, payload: &[u8]) {
        let mut frame = vec![kind, 0, channel];
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame.push(0xCE);
        self.0.write_all(&frame).unwrap();
    }

    fn method(&mut self, channel: u8, payload: &[u8]) {
        self.frame(1, channel, payload);
    }

    fn expect(&mut self, class: u8, method: u8) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).unwrap();
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; size + 1];
        self.0.read_exact(&mut payload).unwrap();
        assert_eq!(payload[..4], [0, class, 0, method], "{}", String::from_utf8_lossy(&payload));
    }

    /// A message to a topic exchange with such a routing key and header table.
    fn publish(&mut self, routing_key: &[u8], table: &[u8]) {
        let mut publish = vec![0, 60, 0, 40, 0, 0, 9];
        publish.extend(b"amq.topic");
        publish.push(routing_key.len() as u8);
        publish.extend(routing_key);
        publish.push(0);
        self.method(1, &publish);
        let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x20, 0];
        header.extend((table.len() as u32).to_be_bytes());
        header.extend(table);
        self.frame(2, 1, &header);
        self.frame(3, 1, b"{}");
    }

    /// Closes in order, so that everything before has arrived.
    fn close(mut self) {
        self.method(1, &[0, 20, 0, 40, 0, 200, 0, 0, 0, 0, 0]);
        self.expect(20, 41);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_no_text_and_bottomless_headers_pass() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("classic").await;
    let binding = publisher.channel.queue_bind(
        queue.as_str().into(),
        "amq.topic".into(),
        format!("{queue}.#").as_str().into(),
        Default::default(),
        FieldTable::default(),
    );
    binding.await.unwrap();
    let mut deep = Vec::new();
    for _ in 0..20_000 {
        let mut outer = vec![0, b'F'];
        outer.extend((deep.len() as u32).to_be_bytes());
        outer.append(&mut deep);
        deep = outer;
    }
    block_in_place(|| {
        let mut raw = Raw::new();
        let key = |end: &[u8]| [queue.as_bytes(), b".", end].concat();
        raw.publish(&key(b"\xff\xfe"), b"");
        raw.publish(&key(b"deep"), &deep);
        raw.publish(&key(b"header"), b"\x02\xffxS\0\0\0\x02\xff\xfe");
        raw.close();
    });
    publisher.send(&queue, "last", b"{}").await;
    let world = World::new(settings(&url(), &queue)).await;
    until("all come", || world.stored() == 4).await;
    let events = world.events().await;
    let subjects: Vec<_> = events.iter().filter_map(|e| e.event.subject.as_deref()).collect();
    assert!(subjects.contains(&format!("{queue}.??").as_str()), "{subjects:?}");
    let kept =
        events.iter().find(|e| e.event.meta.get("headers").is_some_and(|h| h.get("?x").is_some())).unwrap();
    assert_eq!(kept.event.meta["headers"]["?x"]["base64"], "//4=");
    world.drained(&publisher, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_kept_with_its_bytes() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("quorum").await;
    let large = vec![b'1'; 3 << 20];
    let deep = "[".repeat(10_000);
    for (id, body) in [
        ("good", b"{}".as_slice()),
        ("broken", b"\xff{"),
        ("large", &large),
        ("deep", deep.as_bytes()),
        ("empty", b""),
        ("last", b"[]"),
    ] {
        publisher.send(&queue, id, body).await;
    }
    let world = World::with(settings(&url(), &queue), |spec| spec.decode = Decode::Json).await;
    until("all come", || world.report().counts.received == 6).await;
    let counts = world.report().counts;
    assert_eq!((counts.accepted, counts.quarantined), (2, 4), "{counts:?}");
    let kept = world.ledger.quarantined(Some(&world.spec.name), 10).await.unwrap();
    let bytes: Vec<usize> = {
        let mut sizes: Vec<usize> = kept.iter().map(|k| k.bytes.len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(bytes, [0, 2, 10_000, 1 << 20], "as they came, up to what quarantine keeps");
    assert!(kept.iter().all(|k| k.meta.contains("\"queue\"")));
    world.drained(&publisher, &queue).await;
}
