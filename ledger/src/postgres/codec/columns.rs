//! Events into the arrays of one row of `event_batch`, or of an append's arguments.

use bellwire_schemas::Event;
use bytes::{BufMut, BytesMut};
use postgres_types::{IsNull, ToSql, Type, to_sql_checked};

use super::json::put_attributes;
use super::{Converted, escape};
use crate::Error;
use crate::attributes::attributes;

/// One event to be written.
#[derive(Clone, Copy)]
pub(in crate::postgres) struct Item<'a> {
    /// The number of its source.
    pub source: i32,
    /// Its ordering key.
    pub key: Option<&'a str>,
    /// The event.
    pub event: &'a Event,
}

/// The arrays of some events, each a parameter. They are written from the events only when the statement is sent.
pub(in crate::postgres) struct Columns<'a> {
    /// `int4[]`: one element when all are of one source.
    pub sources: Column<'a>,
    /// `text[]`: one element when all are of one type.
    pub types: Column<'a>,
    /// `text[]`.
    pub ids: Column<'a>,
    /// `text[]`, or null when no event has one.
    pub keys: Option<Column<'a>>,
    /// `text[]`: JSON.
    pub attributes: Column<'a>,
    /// `text[]`: JSON, or null when no event has any.
    pub metas: Option<Column<'a>>,
    /// `bytea[]`, or null when no event has any.
    pub data: Option<Column<'a>>,
}

impl<'a> Columns<'a> {
    /// The columns of some events, in this order.
    pub fn new(items: &'a [Item<'a>]) -> Self {
        let column = |field| Column { items, field };
        let any = |has: fn(&Item<'a>) -> bool, field| items.iter().any(has).then(|| column(field));
        let same = |same: fn(&Item<'a>, &Item<'a>) -> bool| match items {
            [first, rest @ ..] if rest.iter().all(|item| same(first, item)) => &items[..1],
            _ => items,
        };
        Self {
            sources: Column { items: same(|a, b| a.source == b.source), field: Field::Source },
            types: Column { items: same(|a, b| a.event.kind == b.event.kind), field: Field::Kind },
            ids: column(Field::Id),
            keys: any(|item| item.key.is_some(), Field::Key),
            attributes: column(Field::Attributes),
            metas: any(|item| !item.event.meta.is_empty(), Field::Meta),
            data: any(|item| item.event.data.is_some(), Field::Data),
        }
    }
}

/// One array, not yet written.
#[derive(Clone, Copy)]
pub(in crate::postgres) struct Column<'a> {
    items: &'a [Item<'a>],
    field: Field,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Source,
    Kind,
    Id,
    Key,
    Attributes,
    Meta,
    Data,
}

impl Field {
    fn types(self) -> (Type, Type) {
        match self {
            Self::Source => (Type::INT4_ARRAY, Type::INT4),
            Self::Data => (Type::BYTEA_ARRAY, Type::BYTEA),
            _ => (Type::TEXT_ARRAY, Type::TEXT),
        }
    }

    /// Writes one element without its length; false when it is absent.
    fn write(self, item: &Item<'_>, out: &mut BytesMut) -> Converted<bool> {
        let event = item.event;
        match self {
            Self::Source => out.put_i32(item.source),
            Self::Kind => out.put_slice(escape(&event.kind).as_bytes()),
            Self::Id => out.put_slice(escape(&event.id).as_bytes()),
            // serde_json writes U+0000 as an escape of its own, so JSON text holds none.
            Self::Attributes => put_attributes(event, out)?,
            Self::Meta if event.meta.is_empty() => return Ok(false),
            Self::Meta => serde_json::to_writer(out.writer(), &event.meta)?,
            Self::Key => match item.key {
                Some(key) => out.put_slice(escape(key).as_bytes()),
                None => return Ok(false),
            },
            Self::Data => match &event.data {
                Some(data) => out.put_slice(data),
                None => return Ok(false),
            },
        }
        Ok(true)
    }
}

impl Column<'_> {
    fn write(&self, out: &mut BytesMut) -> Converted<()> {
        let header = out.len();
        let (_, element) = self.field.types();
        if self.items.is_empty() {
            out.put_slice(&[0; 8]);
            out.put_u32(element.oid());
            return Ok(());
        }
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.items.len())?);
        out.put_i32(1);
        for item in self.items {
            let at = out.len();
            out.put_i32(-1);
            if self.field.write(item, out)? {
                let size = i32::try_from(out.len() - at - 4)?;
                out[at..at + 4].copy_from_slice(&size.to_be_bytes());
            } else {
                // The second word says that there are nulls.
                out[header + 7] = 1;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Column<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {} events", self.field, self.items.len())
    }
}

impl ToSql for Column<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        self.write(out)?;
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY].contains(kind)
    }

    to_sql_checked!();
}

/// Attributes and metadata of one event as single texts, for tables that hold a row per event.
///
/// # Errors
/// [`Error::Corrupt`] when they cannot be written as JSON.
pub(in crate::postgres) fn texts(event: &Event) -> Result<(String, Option<String>), Error> {
    let corrupt = |e| Error::Corrupt(format!("write an event's attributes as JSON: {e}"));
    let attributes = serde_json::to_string(&attributes(event)).map_err(corrupt)?;
    let meta = (!event.meta.is_empty()).then(|| serde_json::to_string(&event.meta)).transpose();
    Ok((attributes, meta.map_err(corrupt)?))
}
