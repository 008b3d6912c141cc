//! Questions about events and places.

use bellwire_schemas::{Address, Lane, Seq};
use postgres_types::Type;
use tokio_postgres::Row;

use super::Shared;
use super::codec::Batch;
use super::fault::misread;
use super::lease::Seen;
use super::pool::Param;
use super::reading::{is_gone, lane_number};
use crate::{Error, StoredEvent};

/// Rows fetched in one question at most.
const ROWS: usize = 64;
/// What a row is taken to weigh before one was read, bytes.
const ROW_BYTES: usize = 64 << 10;
/// Batches of a generation from a place on, with the columns that [`Batch::of`] reads.
const READ: &str = "select b.first_seq, b.count, b.appended_at, b.sources, b.types, b.ids, b.keys, b.attributes, b.metas, b.data,
    (select max(q.gen) from bellwire.generation q), b.append_id
  from bellwire.event_batch_{g} b
  where b.lane = $1 and b.first_seq < $3 and b.first_seq + b.count > $2
    and b.first_seq >= coalesce((select t.first_seq from bellwire.event_batch_{g} t
      where t.lane = $1 and t.first_seq <= $2 order by t.first_seq desc limit 1), 0)
  order by b.first_seq limit $4";
/// How often a question is asked anew because generations came or went meanwhile.
const TRIES: usize = 5;

/// The last place used in a lane.
pub(super) async fn tail(shared: &Shared, lane: Lane) -> Result<Seq, Error> {
    shared.check_lane(lane)?;
    let tails = tails(shared).await?;
    tails.get(usize::from(lane.0) - 1).copied().ok_or_else(|| no_lanes(shared))
}

/// The last place used in every lane, all of one moment.
pub(super) async fn tails(shared: &Shared) -> Result<Vec<Seq>, Error> {
    let mut ranges = shared.ranges().await?;
    for _ in 0..TRIES {
        let Some(generation) = ranges.newest() else { break };
        let sql = shared.sql_in(
            "select (select max(q.gen) from bellwire.generation q), array(
               select coalesce(
                 (select t.first_seq + t.count from bellwire.event_batch_{g} t where t.lane = l.lane
                   order by t.first_seq desc limit 1),
                 (select s.first_seq from bellwire.lane_start s where s.gen = {g} and s.lane = l.lane)) - 1
               from bellwire.lane l order by l.lane)",
            generation,
        );
        match shared.look(&sql, &[]).await {
            Ok(rows) => {
                let row = rows.first().ok_or_else(|| no_lanes(shared))?;
                if row.try_get::<_, Option<i32>>(0).map_err(misread)? == Some(generation) {
                    let tails: Vec<i64> = row.try_get(1).map_err(misread)?;
                    return Ok(tails.into_iter().map(|tail| Seq(u64::try_from(tail).unwrap_or(0))).collect());
                }
            }
            Err(fault) if is_gone(&fault) => {}
            Err(fault) => return Err(fault.into()),
        }
        ranges = shared.load_ranges().await?;
    }
    Err(no_lanes(shared))
}

fn no_lanes(shared: &Shared) -> Error {
    Error::Corrupt(format!("schema `{}` has no open generation for every lane", shared.schema))
}

/// Events of a lane from a place on.
pub(super) async fn read(
    shared: &Shared,
    lane: Lane,
    from: Seq,
    limit: usize,
    bytes: usize,
) -> Result<Vec<StoredEvent>, Error> {
    shared.check_lane(lane)?;
    let mut taken = Taken { events: Vec::new(), limit, bytes, size: 0 };
    let mut next = from.max(Seq(1));
    if let Some(batch) = shared.reading.batch(lane, next) {
        next = taken.take(&batch, next);
    }
    let mut ranges = shared.ranges().await?;
    let mut at = ranges.of(lane, next);
    let mut tries = 0;
    while let Some((generation, place)) = at {
        if taken.is_full() {
            break;
        }
        next = next.max(place);
        let fetched = match fetch(shared, lane, generation, next, &mut taken).await {
            Ok(fetched) => fetched,
            Err(Failed::Gone) if tries < TRIES => {
                tries += 1;
                ranges = shared.load_ranges().await?;
                at = ranges.of(lane, next);
                continue;
            }
            Err(Failed::Gone) => {
                return Err(Error::Unavailable(format!("generations of lane {lane} keep changing")));
            }
            Err(Failed::Other(error)) => return Err(error),
        };
        next = fetched.next;
        if fetched.exhausted {
            // A place that is left out must be gone by what the database says now: a server that took over may have
            // opened its generations elsewhere.
            let doubtful = match ranges.after(lane, generation) {
                Some((_, first)) => first > next,
                None => fetched.newest != ranges.newest(),
            };
            if doubtful {
                ranges = shared.load_ranges().await?;
            }
            at = ranges.after(lane, generation);
        }
    }
    Ok(taken.events)
}

/// What a read has gathered.
struct Taken {
    events: Vec<StoredEvent>,
    limit: usize,
    bytes: usize,
    size: usize,
}

impl Taken {
    /// Whether nothing more fits.
    fn is_full(&self) -> bool {
        self.events.len() >= self.limit || self.size > self.bytes
    }

    /// Takes what fits of some events in order, from a place on; returns the place after.
    fn take(&mut self, events: &[StoredEvent], from: Seq) -> Seq {
        let mut next = from;
        let skip = events.partition_point(|e| e.address.seq < from);
        for event in &events[skip..] {
            if self.events.len() >= self.limit {
                break;
            }
            self.size += event.event.data.as_ref().map_or(0, |d| d.len()).max(1);
            if self.size > self.bytes && !self.events.is_empty() {
                break;
            }
            self.events.push(event.clone());
            next = event.address.seq.next();
        }
        next
    }
}

/// Where a read stands after one question.
struct Fetched {
    next: Seq,
    /// Whether the generation had no more.
    exhausted: bool,
    /// The newest generation, when the answer says it.
    newest: Option<i32>,
}

enum Failed {
    /// The generation is gone.
    Gone,
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Fetches batches of one generation from a place on.
async fn fetch(
    shared: &Shared,
    lane: Lane,
    generation: i32,
    from: Seq,
    taken: &mut Taken,
) -> Result<Fetched, Failed> {
    let sql = shared.sql_in(READ, generation);
    let weight = shared.reading.row_bytes(lane).unwrap_or(ROW_BYTES).max(1);
    let room = taken.bytes.saturating_sub(taken.size);
    let most = (room / weight + 1).min(ROWS);
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let left = u64::try_from(taken.limit - taken.events.len()).unwrap_or(u64::MAX);
    let (number_of_lane, first, end) =
        (lane_number(lane), number(from.0), number(from.0.saturating_add(left)));
    let limit = i64::try_from(most).unwrap_or(1);
    let params: &[Param<'_>] =
        &[(&number_of_lane, Type::INT2), (&first, Type::INT8), (&end, Type::INT8), (&limit, Type::INT8)];
    let rows = match shared.look(&sql, params).await {
        Ok(rows) => rows,
        Err(fault) if is_gone(&fault) => return Err(Failed::Gone),
        Err(fault) => return Err(Failed::Other(fault.into())),
    };
    let newest = rows.first().map(|row| row.try_get(10)).transpose().map_err(misread)?;
    let batches = rows.iter().map(|row| Batch::of(row, lane)).collect::<Result<Vec<_>, _>>()?;
    let mut next = from;
    for batch in &batches {
        if batch.first() > next {
            let hole = Address::new(lane, next);
            return Err(Failed::Other(Error::Corrupt(format!("there is a hole in the ledger at {hole}"))));
        }
        next = batch.last().next();
    }
    let exhausted = rows.len() < most && number(next.0) < end;
    let weight = rows.iter().map(Row::raw_size_bytes).sum::<usize>().checked_div(rows.len());
    let mut next = from;
    let mut last = Vec::new();
    for events in shared.decode(&batches).await? {
        if taken.is_full() {
            break;
        }
        next = taken.take(&events, next);
        last = events;
    }
    if let (Some(batch), Some(row)) = (batches.last(), rows.last()) {
        let append = row.try_get(11).map_err(misread)?;
        shared.leases.saw(lane, Seen { generation, first: batch.first(), append });
    }
    if let Some(weight) = weight {
        shared.reading.remember(lane, last, weight);
    }
    Ok(Fetched { next, exhausted, newest })
}

/// One event by address.
pub(super) async fn event(shared: &Shared, address: Address) -> Result<Option<StoredEvent>, Error> {
    let Ok(seq) = i64::try_from(address.seq.0) else { return Ok(None) };
    if address.lane.0 == 0 || address.lane.0 > shared.lanes {
        return Ok(None);
    }
    Ok(shared.events_at(address.lane, &[seq]).await?.pop())
}
