//! A row with one event in scalar columns: an event by its address, a dead letter.

use std::sync::Arc;

use bellwire_schemas::{Address, Event, Lane, Seq, SourceName};
use bytes::Bytes;
use tokio_postgres::Row;

use super::{Time, unescape};
use crate::attributes::StoredAttributes;
use crate::{Error, StoredEvent};

/// Reads an event out of the columns from `at` on, in the order of `bellwire.event_at`: lane, seq, accepted_at, the name of
/// the source, type, id, key, attributes, meta, data.
///
/// # Errors
/// [`Error::Corrupt`] when the row has other columns or its JSON is broken.
pub(in crate::postgres) fn event_of(row: &Row, at: usize) -> Result<StoredEvent, Error> {
    let broken = |e: tokio_postgres::Error| Error::Corrupt(format!("read an event: {e}"));
    let lane: i16 = row.try_get(at).map_err(broken)?;
    let seq: i64 = row.try_get(at + 1).map_err(broken)?;
    let address = Address::new(Lane(u16::try_from(lane).unwrap_or(0)), Seq(u64::try_from(seq).unwrap_or(0)));
    let text = |column: usize| -> Result<String, Error> {
        Ok(unescape(row.try_get(at + column).map_err(broken)?).into_owned())
    };
    let json = |e: serde_json::Error| Error::Corrupt(format!("read event {address}: {e}"));
    let attributes: StoredAttributes =
        serde_json::from_str(row.try_get(at + 7).map_err(broken)?).map_err(json)?;
    let meta: Option<&str> = row.try_get(at + 8).map_err(broken)?;
    let data: Option<&[u8]> = row.try_get(at + 9).map_err(broken)?;
    let key: Option<&str> = row.try_get(at + 6).map_err(broken)?;
    let event = Event {
        id: text(5)?,
        source: attributes.source,
        kind: text(4)?,
        subject: attributes.subject,
        time: attributes.time,
        datacontenttype: attributes.datacontenttype,
        dataschema: attributes.dataschema,
        extensions: attributes.extensions.unwrap_or_default(),
        data: data.map(Bytes::copy_from_slice),
        meta: meta.map(serde_json::from_str).transpose().map_err(json)?.unwrap_or_default(),
    };
    Ok(StoredEvent {
        address,
        source: SourceName::new(text(3)?),
        accepted_at: row.try_get::<_, Time>(at + 2).map_err(broken)?.0,
        key: key.map(|key| unescape(key).into_owned()),
        event: Arc::new(event),
    })
}
