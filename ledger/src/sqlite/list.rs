//! Lists by selector: events and dead letters, in pages ordered by (time, address).

use bellwire_schemas::selector::Selector;
use bellwire_schemas::{BindingId, SourceName, Timestamp};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row, params_from_iter};

use super::codec::{address_of, place_of, places_of, time_at};
use super::fault::Outcome;
use super::readers::Reader;
use super::rows::{DEAD_LETTER, EVENT, dead_letter_at, event_at, owed_at};
use crate::deliveries::Gathering;
use crate::{
    Cursor, DeadLetter, DeadLetterQuery, DeliveryQuery, EventHead, EventQuery, OwedDelivery, Page,
    StoredEvent,
};

/// Most items on a page, whatever was asked.
const PAGE: usize = 10_000;
/// Payload bytes after which a page ends early: 32 MiB.
const PAGE_BYTES: usize = 32 << 20;
/// Bits of a place inside one group of the indexes by id and key; see `migrations/sqlite/0001_ledger.sql`.
const GROUP_BITS: u32 = 12;

/// Time and place of an item: what pages are ordered by.
type Spot = (i64, i64);

/// Conditions of a statement, joined by "and", with their values.
#[derive(Default)]
struct Where {
    sql: String,
    values: Vec<Value>,
}

impl Where {
    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
        self.values.extend(values);
    }
}

/// Events by selector: their places first, from an index, then the rows of this page only.
pub(super) fn events(reader: &mut Reader, query: &EventQuery) -> Outcome<Page<StoredEvent>> {
    let limit = query.limit.min(PAGE);
    let mut spots = spots(reader, query, limit + 1)?;
    let mut more = spots.len() > limit;
    spots.truncate(limit);
    let mut items = Vec::with_capacity(spots.len());
    let mut bytes = 0;
    for (_, place) in spots {
        if bytes > PAGE_BYTES {
            more = true;
            break;
        }
        let event = event_by_place(reader, place)?;
        bytes += event.as_ref().and_then(|e| e.event.data.as_ref()).map_or(0, |d| d.len());
        items.extend(event);
    }
    let last = items.last().map(|e: &StoredEvent| Cursor { at: e.accepted_at, address: e.address });
    Ok(Page { items, next: last.filter(|_| more) })
}

/// One event.
pub(super) fn event_by_place(reader: &mut Reader, place: i64) -> Outcome<Option<StoredEvent>> {
    let Reader { conn, names } = reader;
    let mut statement = conn.prepare_cached(&format!("{EVENT} WHERE place = ?1"))?;
    Ok(statement.query_row([place], |r| event_at(r, conn, names)).optional()?)
}

/// The first so many spots that meet the conditions, in the order asked.
fn spots(reader: &Reader, query: &EventQuery, limit: usize) -> Outcome<Vec<Spot>> {
    let selector = &query.selector;
    let Some(base) = conditions(reader, query)? else { return Ok(Vec::new()) };
    let groups = |column: &str, word: &str, values: Vec<String>| -> Outcome<Vec<Spot>> {
        let mut found = Found::new(limit, query.ascending);
        for value in values {
            in_groups(reader, &base, column, word, &value, &mut found)?;
        }
        Ok(found.finish())
    };
    if !selector.addresses.is_empty() {
        let mut found = Found::new(limit, query.ascending);
        for address in &selector.addresses {
            let mut clause = Where { sql: base.sql.clone(), values: base.values.clone() };
            clause.and("place = ?", [place_of(*address).into()]);
            found.search(reader, "event", &clause)?;
        }
        Ok(found.finish())
    } else if !selector.ids.is_empty() {
        groups("id", "event_by_id", selector.ids.clone())
    } else if let Some(key) = &selector.key {
        groups("key", "event_by_key", vec![key.clone()])
    } else {
        let index = if selector.kind.is_some() { "event_by_type" } else { "event_by_time" };
        let direction = if query.ascending { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT accepted_at, place FROM event INDEXED BY {index}{}
             ORDER BY accepted_at {direction}, place {direction} LIMIT {limit}",
            base.sql
        );
        let mut statement = reader.conn.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(base.values), |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// The conditions of a selector, or nothing when it names a word that was never stored.
fn conditions(reader: &Reader, query: &EventQuery) -> Outcome<Option<Where>> {
    let selector = &query.selector;
    let mut clause = Where::default();
    times(&mut clause, "accepted_at", selector);
    if !words(reader, &mut clause, selector)? {
        return Ok(None);
    }
    if let Some(after) = query.after {
        after_cursor(&mut clause, "accepted_at", query.ascending, after);
    }
    Ok(Some(clause))
}

fn times(clause: &mut Where, column: &str, selector: &Selector) {
    let micros = |t: Timestamp| Value::from(t.micros());
    if let Some(since) = selector.since {
        clause.and(&format!("{column} >= ?"), [micros(since)]);
    }
    if let Some(until) = selector.until {
        clause.and(&format!("{column} < ?"), [micros(until)]);
    }
}

/// Conditions on source, type, key, ids and addresses; false when a word was never stored.
fn words(reader: &Reader, clause: &mut Where, selector: &Selector) -> Outcome<bool> {
    let names =
        [("source", selector.source.as_ref().map(|s| s.as_str())), ("type", selector.kind.as_deref())];
    for (column, word) in names {
        let Some(word) = word else { continue };
        let Some(id) = name_id(reader, word)? else { return Ok(false) };
        clause.and(&format!("{column} = ?"), [id.into()]);
    }
    if let Some(key) = &selector.key {
        clause.and("key = ?", [key.clone().into()]);
    }
    if !selector.ids.is_empty() {
        let ids = selector.ids.iter().map(|id| Value::from(id.clone()));
        clause.and(&one_of("id", selector.ids.len()), ids);
    }
    if !selector.addresses.is_empty() {
        let places = selector.addresses.iter().map(|a| Value::from(place_of(*a)));
        clause.and(&one_of("place", selector.addresses.len()), places);
    }
    Ok(true)
}

/// The number of a word, if it was ever stored.
pub(super) fn name_id(reader: &Reader, word: &str) -> Outcome<Option<i64>> {
    let mut statement = reader.conn.prepare_cached("SELECT id FROM name WHERE text = ?1")?;
    Ok(statement.query_row([word], |r| r.get(0)).optional()?)
}

fn after_cursor(clause: &mut Where, column: &str, ascending: bool, after: Cursor) {
    let (bound, sign) = if ascending { (">=", ">") } else { ("<=", "<") };
    let (at, place) = (after.at.micros(), place_of(after.address));
    // The first half lets the index skip to the cursor.
    clause.and(&format!("{column} {bound} ?"), [at.into()]);
    clause.and(&format!("({column}, place) {sign} (?, ?)"), [at.into(), place.into()]);
}

/// Searches every group of 4,096 places for an id or a key.
fn in_groups(
    reader: &Reader,
    base: &Where,
    column: &str,
    index: &str,
    value: &str,
    found: &mut Found,
) -> Outcome<()> {
    let mut lanes = reader.conn.prepare_cached("SELECT lane, tail FROM lane WHERE tail > 0")?;
    let lanes = lanes
        .query_map([], |r| Ok((r.get::<_, u16>(0)?, r.get::<_, i64>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut clause = Where { sql: base.sql.clone(), values: base.values.clone() };
    let group_at = clause.values.len();
    clause.and(&format!("place >> {GROUP_BITS} = ?"), [Value::Null]);
    clause.and(&format!("substr({column}, 1, 64) = substr(?, 1, 64)"), [value.to_owned().into()]);
    clause.and(&format!("{column} = ?"), [value.to_owned().into()]);
    for (lane, tail) in lanes {
        let (base_place, end) = places_of(bellwire_schemas::Lane(lane));
        let first: Option<i64> = reader
            .conn
            .prepare_cached("SELECT min(place) FROM event WHERE place BETWEEN ?1 AND ?2")?
            .query_row([base_place, end], |r| r.get(0))?;
        let Some(first) = first else { continue };
        for group in (first >> GROUP_BITS)..=((base_place + tail) >> GROUP_BITS) {
            clause.values[group_at] = group.into();
            found.search(reader, &format!("event INDEXED BY {index}"), &clause)?;
        }
    }
    Ok(())
}

/// The best so many spots of several searches.
struct Found {
    spots: Vec<Spot>,
    limit: usize,
    ascending: bool,
}

impl Found {
    fn new(limit: usize, ascending: bool) -> Self {
        Self { spots: Vec::new(), limit, ascending }
    }

    fn search(&mut self, reader: &Reader, from: &str, clause: &Where) -> Outcome<()> {
        let sql = format!("SELECT accepted_at, place FROM {from}{}", clause.sql);
        let mut statement = reader.conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&clause.values))?;
        while let Some(row) = rows.next()? {
            self.spots.push((row.get(0)?, row.get(1)?));
            if self.spots.len() > 2 * self.limit + 1_000 {
                self.cut();
            }
        }
        Ok(())
    }

    fn cut(&mut self) {
        self.spots.sort_unstable();
        self.spots.dedup();
        if !self.ascending {
            self.spots.reverse();
        }
        self.spots.truncate(self.limit);
    }

    fn finish(mut self) -> Vec<Spot> {
        self.cut();
        self.spots
    }
}

/// Owed deliveries by selector, newest event first. Their rows are sorted: they are few beside the events.
pub(super) fn deliveries(reader: &mut Reader, query: &DeliveryQuery) -> Outcome<Page<OwedDelivery>> {
    let mut gathering = Gathering::new(query);
    let bindings: usize =
        reader.conn.prepare_cached("SELECT count(*) FROM binding")?.query_row([], |r| r.get(0))?;
    loop {
        let clause = owed_conditions(query, gathering.after);
        let sql = format!(
            "SELECT o.place, o.attempts, o.next_at, o.since, o.error, o.reason, o.replay, o.key, o.binding,
               o.accepted_at, e.id, t.text, s.text
             FROM owed o LEFT JOIN event e ON e.place = o.place LEFT JOIN name t ON t.id = e.type
             LEFT JOIN name s ON s.id = e.source{}
             ORDER BY o.accepted_at DESC, o.place DESC, o.binding DESC LIMIT {}",
            clause.sql,
            gathering.room() + bindings + 1
        );
        let mut statement = reader.conn.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(clause.values), delivery_at)?;
        let (rows, more) = gathering.step(rows.collect::<Result<_, _>>()?);
        if let Some(page) = gathering.take(rows, more) {
            return Ok(page);
        }
    }
}

fn delivery_at(row: &Row<'_>) -> rusqlite::Result<OwedDelivery> {
    let event = match (row.get(10)?, row.get(11)?, row.get::<_, Option<String>>(12)?) {
        (Some(id), Some(kind), Some(source)) => Some(EventHead { id, kind, source: SourceName::new(source) }),
        _ => None,
    };
    Ok(OwedDelivery {
        binding: BindingId(row.get(8)?),
        address: address_of(row.get(0)?),
        accepted_at: time_at(row, 9)?,
        owed: owed_at(row)?,
        event,
    })
}

fn owed_conditions(query: &DeliveryQuery, after: Option<Cursor>) -> Where {
    let selector = &query.selector;
    let mut clause = Where::default();
    times(&mut clause, "o.accepted_at", selector);
    if let Some(binding) = query.binding {
        clause.and("o.binding = ?", [i64::from(binding.0).into()]);
    }
    if let Some(name) = &selector.binding {
        let name = name.as_str().to_owned();
        clause.and("o.binding = (SELECT id FROM binding WHERE name = ?)", [name.into()]);
    }
    if let Some(key) = &selector.key {
        clause.and("o.key = ?", [key.clone().into()]);
    }
    if !query.reasons.is_empty() {
        let codes = query.reasons.iter().flat_map(|r| r.codes());
        let codes: Vec<_> = codes.map(|code| Value::from(i64::from(*code))).collect();
        clause.and(&one_of("o.reason", codes.len()), codes);
    }
    if !selector.addresses.is_empty() {
        let places = selector.addresses.iter().map(|a| Value::from(place_of(*a)));
        clause.and(&one_of("o.place", selector.addresses.len()), places);
    }
    if let Some(Cursor { at, address }) = after {
        clause.and("(o.accepted_at, o.place) < (?, ?)", [at.micros().into(), place_of(address).into()]);
    }
    clause
}

fn one_of(column: &str, count: usize) -> String {
    format!("{column} IN ({})", vec!["?"; count].join(", "))
}

/// Dead letters by selector, newest death first.
pub(super) fn dead_letters(reader: &mut Reader, query: &DeadLetterQuery) -> Outcome<Page<DeadLetter>> {
    let selector = &query.selector;
    let mut clause = Where::default();
    times(&mut clause, "died_at", selector);
    let none = Page { items: Vec::new(), next: None };
    if !words(reader, &mut clause, selector)? {
        return Ok(none);
    }
    if let Some(binding) = query.binding {
        clause.and("binding = ?", [i64::from(binding.0).into()]);
    }
    if let Some(name) = &selector.binding {
        clause.and("binding = (SELECT id FROM binding WHERE name = ?)", [name.as_str().to_owned().into()]);
    }
    if let Some(fingerprint) = &selector.error {
        clause.and("fingerprint = ?", [fingerprint.clone().into()]);
    }
    if let Some(after) = query.after {
        after_cursor(&mut clause, "died_at", false, after);
    }
    let limit = query.limit.min(PAGE);
    let sql = format!("{DEAD_LETTER}{} ORDER BY died_at DESC, place DESC, binding DESC", clause.sql);
    let Reader { conn, names } = reader;
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(clause.values))?;
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let spot: Spot = (row.get(10)?, row.get(0)?);
        if (items.len() >= limit || bytes > PAGE_BYTES) && last != Some(spot) {
            let next =
                last.map(|(at, place)| Cursor { at: Timestamp::from_micros(at), address: address_of(place) });
            return Ok(Page { items, next });
        }
        last = Some(spot);
        let letter = dead_letter_at(row, conn, names)?;
        bytes += letter.event.event.data.as_ref().map_or(0, |d| d.len());
        items.push(letter);
    }
    Ok(Page { items, next: None })
}
