//! The selector grammar as a query string, page cursors, and how both reach the ledger.

use std::time::Duration;

use axum::http::Uri;
use bellwire_ledger::Cursor;
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingName, Clock, SourceName, Span, Timestamp};

use crate::server::problem::Problem;

/// Items of a list when none are asked for.
const DEFAULT_LIMIT: usize = 100;
/// The most items of one answer.
const MAX_LIMIT: usize = 1_000;

/// What a list request asked for.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Which items.
    pub selector: Selector,
    /// At most this many.
    pub limit: usize,
    /// Oldest first.
    pub ascending: bool,
    /// Go on after this place.
    pub after: Option<Cursor>,
}

impl ListQuery {
    /// Reads the query part of a URI; unknown parameters are refused by name.
    ///
    /// # Errors
    /// 400 pointing at the parameter.
    pub fn parse(uri: &Uri, clock: &Clock) -> Result<Self, Problem> {
        let mut query =
            Self { selector: Selector::default(), limit: DEFAULT_LIMIT, ascending: false, after: None };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()) {
            query
                .set(&name, &value, clock.now())
                .map_err(|detail| Problem::bad_request(detail).pointer(name))?;
        }
        Ok(query)
    }

    fn set(&mut self, name: &str, value: &str, now: Timestamp) -> Result<(), String> {
        let selector = &mut self.selector;
        match name {
            "address" => selector.addresses.push(value.parse()?),
            "id" => selector.ids.push(value.into()),
            "since" => selector.since = Some(moment(value, now)?),
            "until" => selector.until = Some(moment(value, now)?),
            "source" => selector.source = Some(SourceName::new(value)),
            "binding" => selector.binding = Some(BindingName::new(value)),
            "type" => selector.kind = Some(value.into()),
            "key" => selector.key = Some(value.into()),
            "state" => selector.state = Some(value.into()),
            "error" => selector.error = Some(value.into()),
            "filter" => {
                let pattern =
                    serde_json::from_str(value).map_err(|e| format!("the filter is no JSON: {e}"))?;
                selector.filter = Some(pattern);
            }
            "limit" => {
                self.limit = value.parse().map_err(|_| format!("`{value}` is no number"))?;
                if !(1..=MAX_LIMIT).contains(&self.limit) {
                    return Err(format!("limit must be 1 to {MAX_LIMIT}"));
                }
            }
            "order" => {
                self.ascending = match value {
                    "asc" => true,
                    "desc" => false,
                    _ => return Err("order is asc or desc".into()),
                }
            }
            "cursor" => self.after = Some(read_cursor(value).ok_or("this cursor was not made here")?),
            _ => return Err(format!("unknown parameter `{name}`")),
        }
        Ok(())
    }
}

/// Writes a cursor: time and address of the last item.
pub fn write_cursor(cursor: Cursor) -> String {
    format!("{}.{}", cursor.at.micros(), cursor.address)
}

/// Reads a cursor that [`write_cursor`] wrote.
pub fn read_cursor(text: &str) -> Option<Cursor> {
    let (at, address) = text.split_once('.')?;
    Some(Cursor { at: Timestamp::from_micros(at.parse().ok()?), address: address.parse::<Address>().ok()? })
}

/// RFC 3339, or how long ago: `2h`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    match text.parse::<Span>() {
        Ok(Span(ago)) => Ok(now.minus(ago.min(Duration::from_secs(86_400 * 36_500)))),
        Err(_) => Timestamp::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reads_every_condition_and_refuses_the_rest() {
        let clock = Clock::manual(Timestamp::from_millis(10_000_000));
        let parse = |text: &str| ListQuery::parse(&format!("/v1/events?{text}").parse().unwrap(), &clock);
        let query =
            parse("address=1-3&address=1-4&since=2h&type=a%26b&limit=7&order=asc&cursor=55.1-9").unwrap();
        assert_eq!(query.selector.addresses.len(), 2);
        assert_eq!(query.selector.since, Some(Timestamp::from_millis(10_000_000 - 7_200_000)));
        assert_eq!(query.selector.kind.as_deref(), Some("a&b"));
        assert_eq!((query.limit, query.ascending), (7, true));
        assert_eq!(write_cursor(query.after.unwrap()), "55.1-9");
        for bad in
            ["limit=0", "limit=x", "adress=1-3", "address=x", "filter={", "since=yesterday", "cursor=1"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
