//! A row of `event_batch` into events, without copying what is skipped.

use std::collections::HashMap;
use std::sync::Arc;

use bellwire_schemas::{Address, Event, Lane, Seq, SourceName, Timestamp};
use bytes::Bytes;
use postgres_types::{FromSql, Type};
use tokio_postgres::Row;

use super::{Converted, Time, unescape};
use crate::attributes::StoredAttributes;
use crate::{Error, StoredEvent};

/// A row of events, or some of them: its arrays have one element per event, or one for all where the table says so.
pub(in crate::postgres) struct Batch<'a> {
    pub(super) lane: Lane,
    pub(super) first: u64,
    pub(super) count: usize,
    pub(super) at: Timestamp,
    pub(super) sources: Elements<'a>,
    pub(super) types: Elements<'a>,
    pub(super) ids: Elements<'a>,
    pub(super) keys: Option<Elements<'a>>,
    pub(super) attributes: Elements<'a>,
    pub(super) metas: Option<Elements<'a>>,
    pub(super) data: Option<Elements<'a>>,
}

impl<'a> Batch<'a> {
    /// Reads a row that begins with the columns first_seq, count, appended_at, sources, types, ids, keys, attributes,
    /// metas, data of `event_batch`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the row is no batch.
    pub fn of(row: &'a Row, lane: Lane) -> Result<Self, Error> {
        let broken = |e: tokio_postgres::Error| Error::Corrupt(format!("read a batch of lane {lane}: {e}"));
        let count: i32 = row.try_get(1).map_err(broken)?;
        let first: i64 = row.try_get(0).map_err(broken)?;
        Ok(Self {
            lane,
            first: u64::try_from(first).unwrap_or(0),
            count: usize::try_from(count).unwrap_or(0),
            at: row.try_get::<_, Time>(2).map_err(broken)?.0,
            sources: row.try_get(3).map_err(broken)?,
            types: row.try_get(4).map_err(broken)?,
            ids: row.try_get(5).map_err(broken)?,
            keys: row.try_get(6).map_err(broken)?,
            attributes: row.try_get(7).map_err(broken)?,
            metas: row.try_get(8).map_err(broken)?,
            data: row.try_get(9).map_err(broken)?,
        })
    }

    /// The place of its first event.
    pub fn first(&self) -> Seq {
        Seq(self.first)
    }

    /// The place of its last event.
    pub fn last(&self) -> Seq {
        Seq((self.first + self.count as u64).saturating_sub(1))
    }

    /// The numbers of the sources in it, repeated as in the row.
    pub fn sources(&self) -> impl Iterator<Item = i32> + 'a {
        self.sources.clone().map(|raw| raw.map_or(0, number))
    }

    /// Its events in order.
    pub fn events(&self) -> RawEvents<'a> {
        RawEvents {
            lane: self.lane,
            at: self.at,
            next: self.first,
            left: self.count,
            sources: Repeat::of(self.sources.clone()),
            types: Repeat::of(self.types.clone()),
            ids: self.ids.clone(),
            keys: self.keys.clone(),
            attributes: self.attributes.clone(),
            metas: self.metas.clone(),
            data: self.data.clone(),
        }
    }
}

/// An event as it lies in its row.
#[derive(Clone, Copy)]
pub(in crate::postgres) struct RawEvent<'a> {
    /// Where it lies.
    pub address: Address,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The number of its source.
    pub source: i32,
    /// Its type, id and key as stored, that is escaped.
    pub kind: &'a str,
    pub id: &'a str,
    pub key: Option<&'a str>,
    attributes: &'a [u8],
    meta: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl<'a> RawEvent<'a> {
    /// Reads a row that holds one event: from a column on seq, accepted_at, source, type, id, key, attributes, meta,
    /// data, as the function `events_at` answers.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the row is none.
    pub fn of(row: &'a Row, column: usize, lane: Lane) -> Result<Self, Error> {
        let read = || -> Result<Self, tokio_postgres::Error> {
            let seq: i64 = row.try_get(column)?;
            Ok(Self {
                address: Address::new(lane, Seq(u64::try_from(seq).unwrap_or(0))),
                accepted_at: row.try_get::<_, Time>(column + 1)?.0,
                source: row.try_get(column + 2)?,
                kind: row.try_get(column + 3)?,
                id: row.try_get(column + 4)?,
                key: row.try_get(column + 5)?,
                attributes: row.try_get::<_, &str>(column + 6)?.as_bytes(),
                meta: row.try_get::<_, Option<&str>>(column + 7)?.map(str::as_bytes),
                data: row.try_get(column + 8)?,
            })
        };
        read().map_err(|e| Error::Corrupt(format!("read an event of lane {lane}: {e}")))
    }

    /// The event itself.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its JSON is broken or its source has no name.
    pub fn decode(&self, names: &HashMap<i32, SourceName>) -> Result<StoredEvent, Error> {
        let address = self.address;
        let broken = |e: serde_json::Error| Error::Corrupt(format!("read event {address}: {e}"));
        let Some(source) = names.get(&self.source) else {
            return Err(Error::Corrupt(format!("event {address} is of source {}, unknown", self.source)));
        };
        let attributes: StoredAttributes = serde_json::from_slice(self.attributes).map_err(broken)?;
        let event = Event {
            id: unescape(self.id).into_owned(),
            source: attributes.source,
            kind: unescape(self.kind).into_owned(),
            subject: attributes.subject,
            time: attributes.time,
            datacontenttype: attributes.datacontenttype,
            dataschema: attributes.dataschema,
            extensions: attributes.extensions.unwrap_or_default(),
            data: self.data.map(Bytes::copy_from_slice),
            meta: self.meta.map(serde_json::from_slice).transpose().map_err(broken)?.unwrap_or_default(),
        };
        Ok(StoredEvent {
            address,
            source: source.clone(),
            accepted_at: self.accepted_at,
            key: self.key.map(|key| unescape(key).into_owned()),
            event: Arc::new(event),
        })
    }
}

/// The events of a row, one by one; ends early with an error when an array is too short.
pub(in crate::postgres) struct RawEvents<'a> {
    lane: Lane,
    at: Timestamp,
    next: u64,
    left: usize,
    sources: Repeat<'a>,
    types: Repeat<'a>,
    ids: Elements<'a>,
    keys: Option<Elements<'a>>,
    attributes: Elements<'a>,
    metas: Option<Elements<'a>>,
    data: Option<Elements<'a>>,
}

impl<'a> RawEvents<'a> {
    fn step(&mut self, address: Address) -> Option<RawEvent<'a>> {
        let text = |raw: Option<&'a [u8]>| raw.and_then(|raw| std::str::from_utf8(raw).ok());
        Some(RawEvent {
            address,
            accepted_at: self.at,
            source: number(self.sources.next()??),
            kind: text(self.types.next()?)?,
            id: text(self.ids.next()?)?,
            key: match &mut self.keys {
                Some(keys) => text(keys.next()?),
                None => None,
            },
            attributes: self.attributes.next()??,
            meta: match &mut self.metas {
                Some(metas) => metas.next()?,
                None => None,
            },
            data: match &mut self.data {
                Some(data) => data.next()?,
                None => None,
            },
        })
    }
}

impl<'a> Iterator for RawEvents<'a> {
    type Item = Result<RawEvent<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let address = Address::new(self.lane, Seq(self.next));
        self.left -= 1;
        self.next += 1;
        let event = self.step(address);
        if event.is_none() {
            self.left = 0;
        }
        Some(event.ok_or_else(|| Error::Corrupt(format!("the row of event {address} is broken"))))
    }
}

/// An array with an element per event, or one for all.
struct Repeat<'a> {
    rest: Elements<'a>,
    one: Option<Option<&'a [u8]>>,
}

impl<'a> Repeat<'a> {
    fn of(mut elements: Elements<'a>) -> Self {
        let one = if elements.left == 1 { elements.next() } else { None };
        Self { rest: elements, one }
    }

    fn next(&mut self) -> Option<Option<&'a [u8]>> {
        self.one.or_else(|| self.rest.next())
    }
}

/// The elements of an array of one dimension, each null or its bytes.
#[derive(Clone)]
pub(in crate::postgres) struct Elements<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (length, rest) = self.rest.split_first_chunk()?;
        self.left -= 1;
        self.rest = rest;
        // A negative length means null.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else { return Some(None) };
        let (element, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Some(element))
    }
}

impl<'a> FromSql<'a> for Elements<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        let word = |at: usize| -> Converted<i32> {
            let bytes = raw.get(at..at + 4).ok_or("array cut short")?;
            Ok(i32::from_be_bytes(bytes.try_into()?))
        };
        match word(0)? {
            0 => Ok(Self { left: 0, rest: &[] }),
            1 => {
                let rest = raw.get(20..).ok_or("array cut short")?;
                Ok(Self { left: usize::try_from(word(12)?)?, rest })
            }
            _ => Err("array of several dimensions".into()),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY].contains(kind)
    }
}

fn number(raw: &[u8]) -> i32 {
    raw.try_into().map_or(0, i32::from_be_bytes)
}
