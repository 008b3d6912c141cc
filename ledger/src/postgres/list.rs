//! Events by selector, in pages ordered by (time, address): places first, lane by lane, then the events of this page only.
//!
//! In a lane the order of time is the order of places, so a page is a merge of the lanes. A search looks at a stretch of
//! a lane at a time, so that none holds a snapshot for long.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, Lane, Seq, Timestamp};
use postgres_types::Type;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::codec::{Time, escape, hashes};
use super::fault::misread;
use super::pool::Param;
use super::reading::{is_gone, lane_number};
use super::{Shared, ask};
use crate::{Cursor, Error, EventQuery, Page, StoredEvent};

/// Most items on a page, whatever was asked.
const PAGE: usize = 10_000;
/// Payload bytes after which a page ends early: 32 MiB.
const PAGE_BYTES: usize = 32 << 20;
/// Events fetched at a time.
const CHUNK: usize = 256;
/// Places of a lane searched in one question, at first and at most: an empty answer doubles it.
const STRETCH: (i64, i64) = (50_000, 1_000_000);
/// How long one page is searched for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time and place of an event: what pages are ordered by.
type Spot = (Timestamp, Address);

/// Events by selector.
pub(super) async fn events(shared: &Shared, query: &EventQuery) -> Result<Page<StoredEvent>, Error> {
    let limit = query.limit.min(PAGE);
    let spots = match query.selector.addresses.is_empty() {
        true => search(shared, query, limit + 1).await?,
        false => named(shared, query).await?,
    };
    page(shared, spots, limit).await
}

/// The events of the first spots, as many as the page may hold.
async fn page(shared: &Shared, mut spots: Vec<Spot>, limit: usize) -> Result<Page<StoredEvent>, Error> {
    let mut more = spots.len() > limit;
    spots.truncate(limit);
    let (mut items, mut bytes): (Vec<StoredEvent>, _) = (Vec::with_capacity(spots.len()), 0);
    'page: for chunk in spots.chunks(CHUNK) {
        let mut events = fetch(shared, chunk.iter().map(|(_, address)| *address)).await?;
        for (_, address) in chunk {
            if bytes > PAGE_BYTES {
                more = true;
                break 'page;
            }
            // Retention may have come between.
            let Some(event) = events.remove(address) else { continue };
            bytes += event.event.data.as_ref().map_or(0, |d| d.len());
            items.push(event);
        }
    }
    let last = items.last().map(|e| Cursor { at: e.accepted_at, address: e.address });
    Ok(Page { items, next: last.filter(|_| more) })
}

async fn fetch(
    shared: &Shared,
    addresses: impl Iterator<Item = Address>,
) -> Result<HashMap<Address, StoredEvent>, Error> {
    let mut lanes: BTreeMap<Lane, Vec<i64>> = BTreeMap::new();
    for Address { lane, seq } in addresses {
        if let Ok(seq) = i64::try_from(seq.0) {
            lanes.entry(lane).or_default().push(seq);
        }
    }
    let mut events = HashMap::new();
    for (lane, seqs) in lanes {
        events.extend(shared.events_at(lane, &seqs).await?.into_iter().map(|e| (e.address, e)));
    }
    Ok(events)
}

/// Those of the addresses named whose events meet the other conditions.
async fn named(shared: &Shared, query: &EventQuery) -> Result<Vec<Spot>, Error> {
    let addresses: BTreeSet<_> = query.selector.addresses.iter().copied().collect();
    let addresses: Vec<_> =
        addresses.into_iter().filter(|a| a.lane.0 > 0 && a.lane.0 <= shared.lanes).collect();
    let mut spots = Vec::new();
    for chunk in addresses.chunks(CHUNK) {
        let events = fetch(shared, chunk.iter().copied()).await?;
        let meant = events.values().filter(|e| meets(&query.selector, e));
        spots.extend(meant.map(|e| (e.accepted_at, e.address)).filter(|spot| is_ahead(query, *spot)));
    }
    spots.sort_unstable();
    if !query.ascending {
        spots.reverse();
    }
    Ok(spots)
}

fn meets(selector: &Selector, event: &StoredEvent) -> bool {
    let Selector { ids, since, until, source, kind, key, .. } = selector;
    (ids.is_empty() || ids.contains(&event.event.id))
        && since.is_none_or(|s| event.accepted_at >= s)
        && until.is_none_or(|u| event.accepted_at < u)
        && source.as_ref().is_none_or(|s| *s == event.source)
        && kind.as_ref().is_none_or(|k| *k == event.event.kind)
        && key.as_ref().is_none_or(|k| Some(k) == event.key.as_ref())
}

/// Whether a spot lies behind the cursor, that is where the page goes on.
fn is_ahead(query: &EventQuery, spot: Spot) -> bool {
    query.after.is_none_or(|after| {
        let after = (after.at, after.address);
        if query.ascending { spot > after } else { spot < after }
    })
}

/// The first spots that meet the conditions, in the order asked.
async fn search(shared: &Shared, query: &EventQuery, limit: usize) -> Result<Vec<Spot>, Error> {
    let Some(words) = Words::of(shared, &query.selector).await? else { return Ok(Vec::new()) };
    let mut lanes = stretches(shared, query).await?;
    let mut spots = Vec::new();
    let until = Instant::now() + PATIENCE;
    while spots.len() < limit {
        for lane in &mut lanes {
            while lane.found.is_empty() && lane.first <= lane.last {
                if Instant::now() > until {
                    return late(spots, lane, query.ascending);
                }
                lane.look(shared, &words, query.ascending, limit - spots.len()).await?;
            }
        }
        let heads = lanes.iter().enumerate().filter_map(|(n, lane)| Some((*lane.found.front()?, n)));
        let best = if query.ascending { heads.min() } else { heads.max() };
        let Some((spot, lane)) = best else { break };
        lanes[lane].found.pop_front();
        spots.push(spot);
    }
    Ok(spots)
}

/// What was found so far is a page; nothing is none, and the caller must ask for less.
fn late(spots: Vec<Spot>, lane: &Stretch, ascending: bool) -> Result<Vec<Spot>, Error> {
    if spots.is_empty() {
        let at = if ascending { lane.first } else { lane.last };
        return Err(Error::Unavailable(format!(
            "a search of {} s found nothing and has come to {}-{at}: give times, so that there is less to search",
            PATIENCE.as_secs(),
            lane.lane
        )));
    }
    Ok(spots)
}

/// Conditions as the function `find` takes them.
struct Words {
    source: Option<i32>,
    kind: Option<String>,
    ids: Option<Vec<String>>,
    key: Option<String>,
    /// The hashes of the ids, or else of the key.
    hashes: Option<(Vec<i64>, Vec<i64>)>,
}

impl Words {
    /// Nothing when the source was never written.
    async fn of(shared: &Shared, selector: &Selector) -> Result<Option<Self>, Error> {
        let source = match &selector.source {
            None => None,
            Some(name) => match shared.source_number(name).await? {
                None => return Ok(None),
                number => number,
            },
        };
        let words: Vec<_> = match selector.ids.is_empty() {
            false => selector.ids.iter().collect(),
            true => selector.key.iter().collect(),
        };
        let escaped = |word: &String| escape(word).into_owned();
        Ok(Some(Self {
            source,
            kind: selector.kind.as_ref().map(escaped),
            ids: (!selector.ids.is_empty()).then(|| selector.ids.iter().map(escaped).collect()),
            key: selector.key.as_ref().map(escaped),
            hashes: (!words.is_empty()).then(|| words.into_iter().map(|word| hashes(word)).unzip()),
        }))
    }

    /// Whether every event is meant.
    fn is_empty(&self) -> bool {
        self.source.is_none() && self.kind.is_none() && self.hashes.is_none()
    }
}

/// What is left to search of a lane, and what was found in front of it.
struct Stretch {
    lane: Lane,
    first: i64,
    last: i64,
    width: i64,
    found: VecDeque<Spot>,
}

impl Stretch {
    /// Searches the next part.
    async fn look(
        &mut self,
        shared: &Shared,
        words: &Words,
        ascending: bool,
        limit: usize,
    ) -> Result<(), Error> {
        let width = if words.is_empty() { i64::MAX } else { self.width };
        let (first, last) = match ascending {
            true => (self.first, self.first.saturating_add(width - 1).min(self.last)),
            false => (self.last.saturating_sub(width - 1).max(self.first), self.last),
        };
        let rows = find(shared, self.lane, (first, last), words, ascending, limit).await?;
        for row in &rows {
            let seq: i64 = row.try_get(0).map_err(misread)?;
            let at: Time = row.try_get(1).map_err(misread)?;
            let seq = Seq(u64::try_from(seq).unwrap_or(0));
            self.found.push_back((at.0, Address::new(self.lane, seq)));
        }
        // A full answer may have more behind its last place in this part.
        let end = self.found.back().filter(|_| rows.len() >= limit).map(|(_, address)| address.seq.0 as i64);
        match ascending {
            true => self.first = end.unwrap_or(last) + 1,
            false => self.last = end.unwrap_or(first) - 1,
        }
        if rows.is_empty() {
            self.width = (self.width * 2).min(STRETCH.1);
        }
        Ok(())
    }
}

async fn find(
    shared: &Shared,
    lane: Lane,
    (first, last): (i64, i64),
    words: &Words,
    ascending: bool,
    limit: usize,
) -> Result<Vec<Row>, Error> {
    let sql = shared.sql("select * from bellwire.find($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)");
    let lane = lane_number(lane);
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    let (a, b) = words.hashes.clone().unzip();
    let params: &[Param<'_>] = &[
        (&lane, Type::INT2),
        (&first, Type::INT8),
        (&last, Type::INT8),
        (&ascending, Type::BOOL),
        (&limit, Type::INT4),
        (&words.source, Type::INT4),
        (&words.kind, Type::TEXT),
        (&words.ids, Type::TEXT_ARRAY),
        (&words.key, Type::TEXT),
        (&a, Type::INT8_ARRAY),
        (&b, Type::INT8_ARRAY),
    ];
    match shared.look(&sql, params).await {
        // A generation was dropped meanwhile; the next look does not see it.
        Err(fault) if is_gone(&fault) => Ok(shared.look(&sql, params).await?),
        other => Ok(other?),
    }
}

/// The places of every lane between the times asked for and behind the cursor.
async fn stretches(shared: &Shared, query: &EventQuery) -> Result<Vec<Stretch>, Error> {
    let tails = ask::tails(shared).await?;
    let mut all = Vec::new();
    for (lane, tail) in (1..).map(Lane).zip(tails) {
        let (mut first, mut last) = (1, i64::try_from(tail.0).unwrap_or(i64::MAX));
        let (from, before) = times(query, lane);
        if let Some(from) = from {
            first = first_since(shared, lane, from, last).await?.unwrap_or(i64::MAX);
        }
        if let Some(before) = before.filter(|_| first <= last) {
            last = first_since(shared, lane, before, last).await?.map_or(last, |place| place - 1);
        }
        if let Some(after) = query.after.filter(|after| after.address.lane == lane) {
            let place = i64::try_from(after.address.seq.0).unwrap_or(i64::MAX);
            match query.ascending {
                true => first = first.max(place.saturating_add(1)),
                false => last = last.min(place - 1),
            }
        }
        all.push(Stretch { lane, first, last, width: STRETCH.0, found: VecDeque::new() });
    }
    Ok(all)
}

/// From when on and before when events of a lane are meant. Of events at the cursor's own moment, those of lanes below
/// its lane come before it and those above behind it.
fn times(query: &EventQuery, lane: Lane) -> (Option<Timestamp>, Option<Timestamp>) {
    let (mut from, mut before) = (query.selector.since, query.selector.until);
    if let Some(after) = query.after.filter(|after| after.address.lane != lane) {
        let same_moment = if lane < after.address.lane { Duration::from_micros(1) } else { Duration::ZERO };
        let bound = after.at.plus(same_moment);
        match query.ascending {
            true => from = Some(from.map_or(bound, |from| from.max(bound))),
            false => before = Some(before.map_or(bound, |before| before.min(bound))),
        }
    }
    (from, before)
}

/// The first place of a lane whose event was accepted at a time or later.
async fn first_since(shared: &Shared, lane: Lane, since: Timestamp, last: i64) -> Result<Option<i64>, Error> {
    let sql = shared.sql("select bellwire.first_since($1, $2, $3)");
    let (lane, since) = (lane_number(lane), Time(since));
    let params: &[Param<'_>] = &[(&lane, Type::INT2), (&since, Type::TIMESTAMPTZ), (&last, Type::INT8)];
    super::one(&shared.look(&sql, params).await?, 0)
}
