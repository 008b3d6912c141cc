//! Dead letters by selector, a page at a time.

use bellwire_schemas::{Address, BindingId};
use postgres_types::{ToSql, Type};
use tokio_postgres::Row;

use super::{place_of, text_at, time_at};
use crate::postgres::Shared;
use crate::postgres::codec::{Time, escape, event_of};
use crate::postgres::connect::Param;
use crate::postgres::fault::misread;
use crate::{Cursor, DeadLetter, DeadLetterQuery, Error, Page};

/// Most items on a page, whatever was asked, but for those that share the last one's place.
const PAGE: usize = 10_000;
/// Payload bytes after which a page ends early: 32 MiB.
const PAGE_BYTES: i64 = 32 << 20;

/// Columns of a dead letter, read by [`dead_letter_of`].
pub(super) const DEAD_LETTER: &str =
    "select d.lane, d.seq, d.accepted_at, s.name, d.type, d.id, d.key, d.attributes, d.meta, d.data,
       d.binding, d.died_at, d.first_at, d.attempts, d.error, d.fingerprint, d.logs
     from bellwire.dead d join bellwire.source s on s.id = d.source";

/// A dead letter out of the columns of [`DEAD_LETTER`].
pub(super) fn dead_letter_of(row: &Row) -> Result<DeadLetter, Error> {
    let event = event_of(row, 0)?;
    let json = |e: serde_json::Error| Error::Corrupt(format!("read dead letter {}: {e}", event.address));
    let binding: i32 = row.try_get(10).map_err(misread)?;
    let attempts: i32 = row.try_get(13).map_err(misread)?;
    Ok(DeadLetter {
        binding: BindingId(u32::try_from(binding).unwrap_or(0)),
        died_at: time_at(row, 11)?,
        first_at: time_at(row, 12)?,
        attempts: u32::try_from(attempts).unwrap_or(0),
        error: serde_json::from_str(row.try_get(14).map_err(misread)?).map_err(json)?,
        fingerprint: text_at(row, 15)?,
        logs: serde_json::from_str(row.try_get(16).map_err(misread)?).map_err(json)?,
        event,
    })
}

/// Conditions of a statement under construction, and their values.
#[derive(Default)]
pub(super) struct Where {
    pub sql: String,
    values: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Where {
    /// Adds a condition; each `?` in it stands for the next of the values.
    pub fn and<const N: usize>(
        &mut self,
        condition: &str,
        values: [(Box<dyn ToSql + Sync + Send>, Type); N],
    ) {
        self.sql.push_str(if self.sql.is_empty() { " where " } else { " and " });
        let mut parts = condition.split('?');
        self.sql.push_str(parts.next().unwrap_or_default());
        for (value, part) in values.into_iter().zip(parts) {
            self.values.push(value);
            self.sql.push_str(&format!("${}{part}", self.values.len()));
        }
    }

    /// Adds a condition on a text.
    pub fn text(&mut self, condition: &str, text: &str) {
        self.and(condition, [(Box::new(escape(text).into_owned()), Type::TEXT)]);
    }

    /// The values as arguments.
    pub fn params(&self) -> Vec<Param<'_>> {
        self.values
            .iter()
            .map(|(value, kind)| (value.as_ref() as &(dyn ToSql + Sync), kind.clone()))
            .collect()
    }
}

/// Dead letters by selector, newest death first.
pub(in crate::postgres) async fn dead_letters(
    shared: &Shared,
    query: &DeadLetterQuery,
) -> Result<Page<DeadLetter>, Error> {
    let limit = query.limit.min(PAGE);
    let mut clause = conditions(query);
    if let Some(after) = query.after {
        let Some((lane, seq)) = place_of(after.address) else {
            return Err(Error::NotFound(format!("address {} does not exist", after.address)));
        };
        clause.and(
            "(d.died_at, d.lane, d.seq) < (?, ?, ?)",
            [
                (Box::new(Time(after.at)), Type::TIMESTAMPTZ),
                (Box::new(lane), Type::INT2),
                (Box::new(seq), Type::INT8),
            ],
        );
    }
    // `before` counts the payloads before a place without reading them.
    let sql = format!(
        "with found as materialized (
           select d.binding, d.lane, d.seq, d.died_at, coalesce(octet_length(d.data), 0) as bytes from bellwire.dead d{}
           order by d.died_at desc, d.lane desc, d.seq desc fetch first {limit} rows with ties),
         last as (select f.died_at, f.lane, f.seq from found f order by f.died_at, f.lane, f.seq limit 1),
         weighed as (
           select f.*, count(*) over () as total, sum(bytes) over up_to - sum(bytes) over place as before from found f
           window up_to as (order by died_at desc, lane desc, seq desc), place as (partition by died_at, lane, seq))
         {}, w.total, (select exists (select from bellwire.dead d{} (d.died_at, d.lane, d.seq) <
             (select l.died_at, l.lane, l.seq from last l)))
         from weighed w join bellwire.dead d using (binding, lane, seq) join bellwire.source s on s.id = d.source
         where w.before <= {PAGE_BYTES} order by d.died_at desc, d.lane desc, d.seq desc, d.binding desc",
        clause.sql,
        DEAD_LETTER.split_once("\n     from").map_or(DEAD_LETTER, |(columns, _)| columns),
        if clause.sql.is_empty() { " where".into() } else { format!("{} and", clause.sql) },
    );
    let rows = shared.pool.ask(&shared.schema.replace(&sql), &clause.params()).await?;
    let items = rows.iter().map(dead_letter_of).collect::<Result<Vec<_>, _>>()?;
    let Some(last) = rows.last() else { return Ok(Page { items, next: None }) };
    let (total, more): (i64, bool) = (last.try_get(17).map_err(misread)?, last.try_get(18).map_err(misread)?);
    let cut = more || usize::try_from(total).is_ok_and(|total| total > items.len());
    let place = items.last().map(|d| Cursor { at: d.died_at, address: d.event.address });
    Ok(Page { next: place.filter(|_| cut), items })
}

fn conditions(query: &DeadLetterQuery) -> Where {
    let selector = &query.selector;
    let mut clause = Where::default();
    for (condition, time) in [("d.died_at >= ?", selector.since), ("d.died_at < ?", selector.until)] {
        if let Some(time) = time {
            clause.and(condition, [(Box::new(Time(time)), Type::TIMESTAMPTZ)]);
        }
    }
    if let Some(binding) = query.binding {
        clause.and("d.binding = ?", [(Box::new(i64::from(binding.0)), Type::INT8)]);
    }
    let name_of = "(select n.id from bellwire.";
    for (condition, text) in [
        (
            format!("d.binding = {name_of}binding n where n.name = ?)"),
            selector.binding.as_ref().map(|b| b.as_str()),
        ),
        (
            format!("d.source = {name_of}source n where n.name = ?)"),
            selector.source.as_ref().map(|s| s.as_str()),
        ),
        ("d.type = ?".into(), selector.kind.as_deref()),
        ("d.key = ?".into(), selector.key.as_deref()),
        ("d.fingerprint = ?".into(), selector.error.as_deref()),
    ] {
        if let Some(text) = text {
            clause.text(&condition, text);
        }
    }
    if !selector.ids.is_empty() {
        let ids: Vec<String> = selector.ids.iter().map(|id| escape(id).into_owned()).collect();
        clause.and("d.id = any (?)", [(Box::new(ids), Type::TEXT_ARRAY)]);
    }
    if !selector.addresses.is_empty() {
        let (lanes, seqs): (Vec<i16>, Vec<i64>) =
            selector.addresses.iter().filter_map(|address: &Address| place_of(*address)).unzip();
        clause.and(
            "(d.lane, d.seq) in (select * from unnest(?, ?))",
            [(Box::new(lanes), Type::INT2_ARRAY), (Box::new(seqs), Type::INT8_ARRAY)],
        );
    }
    clause
}
