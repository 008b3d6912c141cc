use std::collections::HashMap;
use std::sync::Arc;

use bellwire_schemas::{Event, Lane, Seq, Timestamp};
use bytes::{Bytes, BytesMut};
use postgres_types::{FromSql, ToSql, Type};
use proptest::prelude::*;
use serde_json::json;

use super::batch::Elements;
use super::*;
use crate::StoredEvent;

fn words() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,9}", any::<String>(), "[\u{0}\u{10FFFF}01a]{0,6}"]
}

fn events() -> impl Strategy<Value = (i32, Option<String>, Event)> {
    let data = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let optional = || proptest::option::of(words());
    let attributes = (words(), words(), words(), words(), optional(), optional(), optional());
    (0..3_i32, optional(), attributes, data, any::<bool>()).prop_map(|(source, key, a, data, rich)| {
        let (id, of, kind, time, subject, datacontenttype, dataschema) = a;
        let mut event = Event {
            id,
            source: of,
            kind,
            subject,
            time,
            datacontenttype,
            dataschema,
            data: data.map(Bytes::from),
            ..Event::default()
        };
        if rich {
            event.extensions = [("traceparent".into(), json!("\u{0}00-1")), ("n".into(), json!(7))].into();
            event.meta =
                json!({"headers": {"x": "\u{0}\u{10FFFF}"}}).as_object().cloned().unwrap_or_default();
        }
        (source, key, event)
    })
}

fn written(column: &dyn ToSql) -> BytesMut {
    let mut out = BytesMut::new();
    column.to_sql_checked(&Type::TEXT_ARRAY, &mut out).unwrap();
    out
}

/// Writes the columns of some events and reads them again, as the server would hand them back.
fn through(items: &[Item<'_>]) -> Vec<StoredEvent> {
    let columns = Columns::new(items);
    let raw = [&columns.sources, &columns.types, &columns.ids, &columns.attributes].map(|c| written(c));
    let optional = [&columns.keys, &columns.metas, &columns.data].map(|c| c.as_ref().map(|c| written(c)));
    let read =
        |raw: &BytesMut| Elements::from_sql(&Type::TEXT_ARRAY, &raw.clone().freeze()).map(|_| ()).unwrap();
    raw.iter().for_each(read);
    let elements = |n: usize| Elements::from_sql(&Type::TEXT_ARRAY, &raw[n]).unwrap();
    let maybe =
        |n: usize| optional[n].as_ref().map(|raw| Elements::from_sql(&Type::TEXT_ARRAY, raw).unwrap());
    let batch = Batch {
        lane: Lane(2),
        first: 10,
        count: items.len(),
        at: Timestamp::from_micros(5),
        sources: elements(0),
        types: elements(1),
        ids: elements(2),
        keys: maybe(0),
        attributes: elements(3),
        metas: maybe(1),
        data: maybe(2),
    };
    let names: HashMap<_, _> = (0..3).map(|n| (n, format!("s{n}").as_str().into())).collect();
    batch.events().map(|raw| raw.unwrap().decode(&names).unwrap()).collect()
}

proptest! {
    #[test]
    fn texts_come_back(text in words()) {
        let escaped = escape(&text);
        prop_assert!(!escaped.contains('\0'));
        let back = unescape(&escaped);
        prop_assert_eq!(back.as_ref(), text.as_str());
    }

    #[test]
    fn events_come_back(events in proptest::collection::vec(events(), 1..24)) {
        let items: Vec<_> =
            events.iter().map(|(source, key, event)| Item { source: *source, key: key.as_deref(), event }).collect();
        for (n, (stored, (source, key, event))) in through(&items).into_iter().zip(&events).enumerate() {
            prop_assert_eq!(stored.address.seq, Seq(10 + n as u64));
            prop_assert_eq!(stored.source.as_str(), format!("s{source}"));
            prop_assert_eq!(&stored.key, key);
            prop_assert_eq!(&stored.event, &Arc::new(event.clone()));
        }
    }

    #[test]
    fn attributes_are_the_json_that_serde_writes((_, _, event) in events()) {
        let mut out = BytesMut::new();
        super::json::put_attributes(&event, &mut out).unwrap();
        prop_assert_eq!(out, serde_json::to_vec(&crate::attributes::attributes(&event)).unwrap());
    }

    #[test]
    fn a_broken_row_is_an_error_and_no_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(elements) = Elements::from_sql(&Type::TEXT_ARRAY, &raw) {
            prop_assert!(elements.take(100).count() <= 100);
        }
    }
}

#[test]
fn moments_come_back_within_the_servers_range() {
    for (micros, back) in [
        (0, 0),
        (1_700_000_000_123_456, 1_700_000_000_123_456),
        (-1, -1),
        (i64::MAX, i64::MAX),
        (i64::MIN, i64::MIN),
        (FIRST + EPOCH, FIRST + EPOCH),
    ] {
        let mut out = BytesMut::new();
        Time(Timestamp::from_micros(micros)).to_sql_checked(&Type::TIMESTAMPTZ, &mut out).unwrap();
        let read = Time::from_sql(&Type::TIMESTAMPTZ, &out).unwrap();
        assert_eq!(read.0.micros(), back, "{micros}");
    }
}

#[test]
fn a_signature_holds_its_words_and_few_others() {
    let words: Vec<_> =
        (0..1_000).map(|n| (format!("id-{n}"), (n % 2 == 0).then(|| format!("key-{n}")))).collect();
    let filter = sig(words.iter().map(|(id, key)| (id.as_str(), key.as_deref()))).unwrap();
    assert_eq!(filter.len(), 1_500 * 10 / 8);
    let holds = |word: &str| {
        let (a, b) = hashes(word);
        assert!((0..1 << 31).contains(&a) && (0..1 << 31).contains(&b));
        (0..4).all(|i| {
            let bit = (a + i * b) as usize % (filter.len() * 8);
            filter[bit / 8] >> (bit % 8) & 1 == 1
        })
    };
    assert!(words.iter().all(|(id, key)| holds(id) && key.as_deref().is_none_or(holds)));
    let wrong = (0..10_000).filter(|n| holds(&format!("other-{n}"))).count();
    assert!(wrong < 250, "{wrong} of 10,000 foreign words taken for the batch's own");
    assert_eq!(sig([("a", None); 8].into_iter()), None);
}
