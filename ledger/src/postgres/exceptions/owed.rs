//! Owed deliveries by selector, a page at a time: their rows first, then the names of their events.

use std::collections::{BTreeMap, HashMap};

use bellwire_schemas::{Address, BindingId, Lane, Seq, SourceName};
use postgres_types::Type;
use tokio_postgres::Row;

use super::list::Where;
use super::{address_of, place_of, text_at, time_at};
use crate::deliveries::Gathering;
use crate::postgres::Shared;
use crate::postgres::codec::Time;
use crate::postgres::connect::Param;
use crate::postgres::deliver::owed_at;
use crate::postgres::fault::misread;
use crate::{Cursor, DeliveryQuery, Error, EventHead, OwedDelivery, Page};

/// Owed deliveries by selector, newest event first. Their rows are sorted: they are few beside the events.
pub(in crate::postgres) async fn deliveries(
    shared: &Shared,
    query: &DeliveryQuery,
) -> Result<Page<OwedDelivery>, Error> {
    let mut gathering = Gathering::new(query);
    loop {
        let clause = conditions(query, gathering.after)?;
        let sql = format!(
            "select t.seq, t.attempts, t.next_at, t.since, t.error, t.reason, t.replay, t.key, t.binding, t.lane,
               t.accepted_at
             from bellwire.retry t{}
             order by t.accepted_at desc, t.lane desc, t.seq desc, t.binding desc
             limit {} + (select count(*) from bellwire.binding)",
            clause.sql,
            gathering.room() + 1
        );
        let rows = shared.pool.ask(&shared.schema.replace(&sql), &clause.params()).await?;
        let rows = rows.iter().map(delivery_of).collect::<Result<_, _>>()?;
        let (mut rows, more) = gathering.step(rows);
        name(shared, &mut rows).await?;
        if let Some(page) = gathering.take(rows, more) {
            return Ok(page);
        }
    }
}

fn delivery_of(row: &Row) -> Result<OwedDelivery, Error> {
    let binding: i32 = row.try_get(8).map_err(misread)?;
    Ok(OwedDelivery {
        binding: BindingId(binding.unsigned_abs()),
        address: address_of(row.try_get(9).map_err(misread)?, row.try_get(0).map_err(misread)?),
        accepted_at: time_at(row, 10)?,
        owed: owed_at(row)?,
        event: None,
    })
}

fn conditions(query: &DeliveryQuery, after: Option<Cursor>) -> Result<Where, Error> {
    let selector = &query.selector;
    let mut clause = Where::default();
    for (condition, time) in [("t.accepted_at >= ?", selector.since), ("t.accepted_at < ?", selector.until)] {
        if let Some(time) = time {
            clause.and(condition, [(Box::new(Time(time)), Type::TIMESTAMPTZ)]);
        }
    }
    if let Some(binding) = query.binding {
        clause.and("t.binding = ?", [(Box::new(i64::from(binding.0)), Type::INT8)]);
    }
    if let Some(name) = &selector.binding {
        clause.text("t.binding = (select n.id from bellwire.binding n where n.name = ?)", name.as_str());
    }
    if let Some(key) = &selector.key {
        clause.text("t.key = ?", key);
    }
    if !query.reasons.is_empty() {
        let codes: Vec<i16> = query.reasons.iter().flat_map(|r| r.codes()).copied().collect();
        clause.and("t.reason = any (?)", [(Box::new(codes), Type::INT2_ARRAY)]);
    }
    if !selector.addresses.is_empty() {
        let (lanes, seqs): (Vec<i16>, Vec<i64>) =
            selector.addresses.iter().filter_map(|address| place_of(*address)).unzip();
        clause.and(
            "(t.lane, t.seq) in (select * from unnest(?, ?))",
            [(Box::new(lanes), Type::INT2_ARRAY), (Box::new(seqs), Type::INT8_ARRAY)],
        );
    }
    if let Some(Cursor { at, address }) = after {
        let Some((lane, seq)) = place_of(address) else {
            return Err(Error::NotFound(format!("address {address} does not exist")));
        };
        clause.and(
            "(t.accepted_at, t.lane, t.seq) < (?, ?, ?)",
            [
                (Box::new(Time(at)), Type::TIMESTAMPTZ),
                (Box::new(lane), Type::INT2),
                (Box::new(seq), Type::INT8),
            ],
        );
    }
    Ok(clause)
}

/// Gives the deliveries the names of their events.
async fn name(shared: &Shared, deliveries: &mut [OwedDelivery]) -> Result<(), Error> {
    let mut lanes: BTreeMap<Lane, Vec<i64>> = BTreeMap::new();
    for (lane, (_, seq)) in deliveries.iter().filter_map(|d| Some((d.address.lane, place_of(d.address)?))) {
        lanes.entry(lane).or_default().push(seq);
    }
    let sql = shared.sql(
        "select e.seq, e.id, e.type, s.name from bellwire.events_at($1, $2) e
         join bellwire.source s on s.id = e.source",
    );
    let mut heads: HashMap<Address, EventHead> = HashMap::new();
    for (lane, seqs) in lanes {
        let number = i16::try_from(lane.0).unwrap_or(0);
        let params: [Param<'_>; 2] = [(&number, Type::INT2), (&seqs, Type::INT8_ARRAY)];
        for row in shared.pool.ask(&sql, &params).await? {
            let seq: i64 = row.try_get(0).map_err(misread)?;
            let source = SourceName::new(text_at(&row, 3)?);
            let head = EventHead { id: text_at(&row, 1)?, kind: text_at(&row, 2)?, source };
            heads.insert(Address::new(lane, Seq(seq.unsigned_abs())), head);
        }
    }
    for delivery in deliveries {
        delivery.event = heads.get(&delivery.address).cloned();
    }
    Ok(())
}
