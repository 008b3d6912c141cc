//! How values lie in columns: texts without U+0000, moments, and events as arrays.
//!
//! `columns.rs` writes the arrays of an append straight into the buffer of the connection, `batch.rs` reads them
//! straight out of a row; neither copies a payload more than once. `sig.rs` is the small filter that lets a search for
//! an id or a key skip batches. Binary formats: PostgreSQL's `array_recv`, `timestamptz_recv` (microseconds since 2000).

mod batch;
mod columns;
mod json;
mod row;
mod sig;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bellwire_schemas::Timestamp;
use bytes::{BufMut, BytesMut};
use postgres_types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

pub(super) use batch::{Batch, RawEvent};
pub(super) use columns::{Columns, Item, texts};
pub(super) use row::event_of;
pub(super) use sig::{hashes, sig};

/// What conversions answer with, as the driver wants it.
type Converted<T> = Result<T, Box<dyn std::error::Error + Sync + Send>>;

/// Begins an escape: a code point that no text is about (the last one of Unicode, a noncharacter).
const ESCAPE: char = '\u{10FFFF}';

/// A text that a column of type `text` can hold: U+0000, which the server refuses, is escaped. All other texts, except
/// for those with U+10FFFF, stay as they are.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    // 0xF4 is the first byte of U+10FFFF and of little else. No branch per byte: nearly every text is plain.
    if !text.bytes().fold(false, |seen, b| seen | (b == 0) | (b == 0xF4)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => escaped.extend([ESCAPE, '0']),
            ESCAPE => escaped.extend([ESCAPE, '1']),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// The text that was escaped.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.bytes().fold(false, |seen, b| seen | (b == 0xF4)) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            (ESCAPE, Some('0')) => plain.push('\0'),
            (ESCAPE, Some('1')) => plain.push(ESCAPE),
            (c, _) => {
                plain.push(c);
                continue;
            }
        }
        chars.next();
    }
    Cow::Owned(plain)
}

/// Microseconds from 1970 to 2000, the server's beginning of time.
const EPOCH: i64 = 946_684_800_000_000;
/// First moment of the server's range (4714-11-24 BC), microseconds since 2000: `MIN_TIMESTAMP` of `timestamp.h`.
const FIRST: i64 = -211_813_488_000_000_000;
/// A moment in a column of type `timestamptz`; moments before its range become its minus infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub Timestamp);

impl ToSql for Time {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        let micros = match self.0.micros().saturating_sub(EPOCH) {
            ..FIRST => i64::MIN,
            micros => micros,
        };
        out.put_i64(micros);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(Timestamp::from_micros(match micros {
            i64::MIN => i64::MIN,
            micros => micros.saturating_add(EPOCH),
        })))
    }

    accepts!(TIMESTAMPTZ);
}
