//! Many appends as one call of the function that appends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::{Address, Lane, Seq, SourceName, Timestamp};
use postgres_types::Type;
use tokio_postgres::Row;
use uuid::Uuid;

use super::job::{Fate, Job};
use super::tried::Tried;
use crate::append::QUARANTINED_BYTES;
use crate::postgres::Shared;
use crate::postgres::codec::{Columns, Item, Time, escape, sig};
use crate::postgres::connect::{Connection, Param};
use crate::postgres::fault::{Fault, Outcome};
use crate::postgres::names::Sources;
use crate::{Appended, Error, PositionAdvance};

/// How long one call may take, waiting for the lanes included.
const CALL: Duration = Duration::from_secs(10);

/// The call with events only, with positions and identities, and with everything: arguments that are left out cost
/// nothing, those that are null a little each.
const CALLS: [(usize, &str); 3] = [
    (
        17,
        "select bellwire.append_{g}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    ),
    (
        26,
        "select bellwire.append_{g}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
    $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)",
    ),
    (
        37,
        "select bellwire.append_{g}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
    $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37)",
    ),
];

/// A flush with an append after it, and the same with exceptions; how many arguments of the flush come before those of
/// the append.
const OUTBOX: (usize, &str, &str) = (
    26,
    "select bellwire.outbox_{g}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42,
    $43, $44, $45, $46, $47, $48, $49, $50)",
    "select bellwire.outbox_{g}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42,
    $43, $44, $45, $46, $47, $48, $49, $50, $51, $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64, $65,
    $66, $67, $68, $69, $70, $71, $72, $73, $74, $75, $76, $77, $78, $79, $80)",
);

/// The answer of a call.
pub(super) enum Told {
    /// Committed: when, and the first place in each lane of the group.
    Stored { at: Timestamp, firsts: Vec<i64> },
    /// Nothing was written: these jobs are there already.
    Present(Vec<usize>),
    /// Nothing was written: these identities are remembered. Job, event, address of the first.
    Duplicates(Vec<(usize, usize, Address)>),
}

/// The numbers of all names in a group, and the history that they are of.
pub(super) struct Named {
    pub history: i32,
    pub sources: Arc<Sources>,
    /// Of each job, the numbers of the shards that it moves.
    pub shards: Vec<Vec<i32>>,
}

/// A group worked out, borrowed from its jobs.
pub(super) struct Group<'a> {
    jobs: &'a [Job],
    now: Timestamp,
    retry: bool,
    /// By lane: job, event, in order.
    lanes: BTreeMap<u16, Vec<(usize, usize)>>,
    known: Vec<i64>,
    items: Vec<Item<'a>>,
    sources: &'a Sources,
    /// The history that the numbers are of.
    history: i32,
    /// Job, index in its append, number of the shard; ascending by shard.
    positions: Vec<(usize, usize, i32)>,
}

impl<'a> Group<'a> {
    /// Works out a group; `tried` says of each job where it can be, `names` has the numbers of its names.
    ///
    /// # Errors
    /// When a source has no number, which the caller has seen to.
    pub fn new(jobs: &'a [Job], tried: &[Tried], names: &'a Named) -> Result<Self, Error> {
        let Named { history, sources, shards } = names;
        let mut lanes: BTreeMap<u16, Vec<(usize, usize)>> = BTreeMap::new();
        let mut positions = Vec::new();
        for (n, job) in jobs.iter().enumerate() {
            let fresh =
                (0..).zip(&job.append.events).zip(&job.fates).filter(|(_, fate)| **fate == Fate::Fresh);
            match job.only_lane() {
                Some(lane) if job.stores() => {
                    lanes.entry(lane).or_default().extend(fresh.map(|((event, _), _)| (n, event)));
                }
                _ => {
                    for ((event, new), _) in fresh {
                        lanes.entry(new.lane.0).or_default().push((n, event));
                    }
                }
            }
            positions.extend(shards[n].iter().enumerate().map(|(index, shard)| (n, index, *shard)));
        }
        positions.sort_by_key(|(_, _, shard)| *shard);
        let known = lanes.keys().map(|lane| known_of(*lane, tried)).collect();
        let mut items = Vec::with_capacity(lanes.values().map(Vec::len).sum());
        // Neighbours are nearly always of one source.
        let mut known_source: Option<(&SourceName, i32)> = None;
        for (job, event) in lanes.values().flatten() {
            let new = &jobs[*job].append.events[*event];
            let source = match known_source {
                Some((name, number)) if *name == new.source => number,
                _ => number(sources, &new.source)?,
            };
            known_source = Some((&new.source, source));
            items.push(Item { source, key: new.key.as_deref(), event: &new.event });
        }
        let now = tried.iter().map(|tried| tried.now).max().unwrap_or_default();
        let retry = jobs.iter().any(|job| job.unknown);
        Ok(Self { jobs, now, retry, lanes, known, items, sources, history: *history, positions })
    }

    /// The rows that it writes: lanes, ascending, with how many events each gets and the first append in it.
    pub fn rows(&self) -> impl Iterator<Item = (u16, usize, Uuid)> {
        let append = |events: &[(usize, usize)]| events.first().map(|(job, _)| self.jobs[*job].id());
        self.lanes.iter().map(move |(lane, events)| (*lane, events.len(), append(events).unwrap_or_default()))
    }

    /// The advance that a refusal means, counted from 1 as it was sent.
    pub fn position(&self, sent: usize) -> Option<&'a PositionAdvance> {
        let (job, index, _) = self.positions.get(sent.checked_sub(1)?)?;
        self.jobs[*job].append.positions.get(*index)
    }

    /// The answer to each job of a group that was stored.
    pub fn answers(&self, at: Timestamp, firsts: &[i64]) -> Vec<Result<Appended, Error>> {
        let mut places: Vec<Vec<Option<Address>>> =
            self.jobs.iter().map(|job| vec![None; job.fates.len()]).collect();
        for ((lane, events), first) in self.lanes.iter().zip(firsts) {
            for ((job, event), seq) in events.iter().zip(u64::try_from(*first).unwrap_or(0)..) {
                places[*job][*event] = Some(Address::new(Lane(*lane), Seq(seq)));
            }
        }
        let answer = |(job, places): (&Job, Vec<Option<Address>>)| {
            let short = || Error::Corrupt(format!("append {} was answered for fewer lanes", job.id()));
            let items = job.items(|event| places.get(event).copied().flatten()).ok_or_else(short)?;
            Ok(Appended { items, accepted_at: at })
        };
        self.jobs.iter().zip(places).map(answer).collect()
    }

    /// Sends the group.
    ///
    /// # Errors
    /// Refusals of the function and whatever happens to connections. An answer that cannot be read is one too.
    pub async fn send(&self, shared: &Shared, connection: &Connection, generation: i32) -> Outcome<Told> {
        let ids: Vec<Uuid> = self.jobs.iter().map(Job::id).collect();
        let marks: Vec<Uuid> = self.jobs.iter().filter(|job| !job.stores()).map(Job::id).collect();
        let marks = Some(marks).filter(|m| !m.is_empty());
        let numbers: Vec<i16> = self.lanes.keys().map(|lane| i16::try_from(*lane).unwrap_or(0)).collect();
        let counts: Vec<i32> = self.lanes.values().map(|events| int(events.len())).collect();
        let parts = self.parts();
        let columns = Columns::new(&self.items);
        let sigs = self.sigs();
        let hashes = self.hashes();
        let buckets = shared.appenders.buckets.live();
        let moves = self.moves();
        let duplicates = self.duplicates();
        let quarantine = self.quarantine();
        let params: [(&(dyn postgres_types::ToSql + Sync), Type); 37] = [
            (&Time(self.now), Type::TIMESTAMPTZ),
            (&self.retry, Type::BOOL),
            (&self.history, Type::INT4),
            (&ids, Type::UUID_ARRAY),
            (&marks, Type::UUID_ARRAY),
            (&numbers, Type::INT2_ARRAY),
            (&counts, Type::INT4_ARRAY),
            (&parts, Type::INT4_ARRAY),
            (&self.known, Type::INT8_ARRAY),
            (&columns.sources, Type::INT4_ARRAY),
            (&columns.types, Type::TEXT_ARRAY),
            (&columns.ids, Type::TEXT_ARRAY),
            (&columns.keys, Type::TEXT_ARRAY),
            (&columns.attributes, Type::TEXT_ARRAY),
            (&columns.metas, Type::TEXT_ARRAY),
            (&columns.data, Type::BYTEA_ARRAY),
            (&sigs, Type::BYTEA_ARRAY),
            (&moves.as_ref().map(|m| &m.shards), Type::INT4_ARRAY),
            (&moves.as_ref().map(|m| &m.versions), Type::INT8_ARRAY),
            (&moves.as_ref().map(|m| &m.values), Type::TEXT_ARRAY),
            (&moves.as_ref().map(|m| &m.movers), Type::INT4_ARRAY),
            (&&buckets[..], Type::INT4_ARRAY),
            (&hashes.as_ref().map(|h| &h.hashes), Type::UUID_ARRAY),
            (&hashes.as_ref().map(|h| &h.lanes), Type::INT2_ARRAY),
            (&hashes.as_ref().map(|h| &h.offsets), Type::INT4_ARRAY),
            (&hashes.as_ref().map(|h| &h.until), Type::TIMESTAMPTZ_ARRAY),
            (&duplicates.as_ref().map(|d| &d.parts), Type::INT4_ARRAY),
            (&duplicates.as_ref().map(|d| &d.events), Type::INT4_ARRAY),
            (&duplicates.as_ref().map(|d| &d.sources), Type::INT4_ARRAY),
            (&duplicates.as_ref().map(|d| &d.ids), Type::TEXT_ARRAY),
            (&duplicates.as_ref().map(|d| &d.lanes), Type::INT2_ARRAY),
            (&duplicates.as_ref().map(|d| &d.seqs), Type::INT8_ARRAY),
            (&quarantine.as_ref().map(|q| &q.parts), Type::INT4_ARRAY),
            (&quarantine.as_ref().map(|q| &q.sources), Type::INT4_ARRAY),
            (&quarantine.as_ref().map(|q| &q.reasons), Type::TEXT_ARRAY),
            (&quarantine.as_ref().map(|q| &q.bytes), Type::BYTEA_ARRAY),
            (&quarantine.as_ref().map(|q| &q.metas), Type::TEXT_ARRAY),
        ];
        let plain = moves.is_none() && hashes.is_none();
        let (count, sql) = match (duplicates.is_some() || quarantine.is_some(), plain) {
            (true, _) => CALLS[2],
            (false, false) => CALLS[1],
            (false, true) => CALLS[0],
        };
        let rows = connection.query(&shared.sql_in(sql, generation), &params[..count], CALL).await?;
        let events = hashes.map(|h| h.events).unwrap_or_default();
        told(&rows, &events)
    }

    /// Sends a flush with its own arguments, and the group, of one append without positions, as what it emits; see
    /// `migrations/postgres/0010_outbox.sql`.
    ///
    /// # Errors
    /// As [`Group::send`], and refusals of the flush.
    pub async fn send_with_flush(
        &self,
        shared: &Shared,
        flush: Vec<Param<'_>>,
        generation: i32,
    ) -> Outcome<Told> {
        let ids: Vec<Uuid> = self.jobs.iter().map(Job::id).collect();
        let numbers: Vec<i16> = self.lanes.keys().map(|lane| i16::try_from(*lane).unwrap_or(0)).collect();
        let counts: Vec<i32> = self.lanes.values().map(|events| int(events.len())).collect();
        let columns = Columns::new(&self.items);
        let sigs = self.sigs();
        let hashes = self.hashes();
        let buckets = shared.appenders.buckets.live();
        let duplicates = self.duplicates();
        let (before, plain, whole) = OUTBOX;
        let emitted: [Param<'_>; 24] = [
            (&Time(self.now), Type::TIMESTAMPTZ),
            (&self.history, Type::INT4),
            (&ids, Type::UUID_ARRAY),
            (&numbers, Type::INT2_ARRAY),
            (&counts, Type::INT4_ARRAY),
            (&columns.sources, Type::INT4_ARRAY),
            (&columns.types, Type::TEXT_ARRAY),
            (&columns.ids, Type::TEXT_ARRAY),
            (&columns.keys, Type::TEXT_ARRAY),
            (&columns.attributes, Type::TEXT_ARRAY),
            (&columns.metas, Type::TEXT_ARRAY),
            (&columns.data, Type::BYTEA_ARRAY),
            (&sigs, Type::BYTEA_ARRAY),
            (&&buckets[..], Type::INT4_ARRAY),
            (&hashes.as_ref().map(|h| &h.hashes), Type::UUID_ARRAY),
            (&hashes.as_ref().map(|h| &h.lanes), Type::INT2_ARRAY),
            (&hashes.as_ref().map(|h| &h.offsets), Type::INT4_ARRAY),
            (&hashes.as_ref().map(|h| &h.until), Type::TIMESTAMPTZ_ARRAY),
            (&duplicates.as_ref().map(|d| &d.parts), Type::INT4_ARRAY),
            (&duplicates.as_ref().map(|d| &d.events), Type::INT4_ARRAY),
            (&duplicates.as_ref().map(|d| &d.sources), Type::INT4_ARRAY),
            (&duplicates.as_ref().map(|d| &d.ids), Type::TEXT_ARRAY),
            (&duplicates.as_ref().map(|d| &d.lanes), Type::INT2_ARRAY),
            (&duplicates.as_ref().map(|d| &d.seqs), Type::INT8_ARRAY),
        ];
        let mut params: Vec<Param<'_>> = flush;
        let sql = if params.len() > before { whole } else { plain };
        let exceptions = params.split_off(before.min(params.len()));
        params.extend(emitted);
        params.extend(exceptions);
        let answer = shared.flushes.call(&shared.sql_in(sql, generation), &params).await;
        let events = hashes.map(|h| h.events).unwrap_or_default();
        match answer {
            Ok(rows) => told(&rows, &events),
            Err(fault) if fault.code() == "BW004" => {
                let answer: Vec<i64> =
                    fault.detail().split(' ').filter_map(|number| number.parse().ok()).collect();
                meaning(&answer, &events)
            }
            Err(fault) => Err(fault),
        }
    }

    /// How many events of each append go to each lane; left out for one append.
    fn parts(&self) -> Option<Vec<i32>> {
        let jobs = self.jobs.len();
        if jobs == 1 {
            return None;
        }
        let mut parts = vec![0; self.lanes.len() * jobs];
        for (n, events) in self.lanes.values().enumerate() {
            for (job, _) in events {
                parts[n * jobs + job] += 1;
            }
        }
        Some(parts)
    }

    fn sigs(&self) -> Option<Vec<Option<Vec<u8>>>> {
        let mut rest = &self.items[..];
        let mut sigs = Vec::with_capacity(self.lanes.len());
        for events in self.lanes.values() {
            let (mine, others) = rest.split_at_checked(events.len())?;
            sigs.push(sig(mine.iter().map(|item| (item.event.id.as_str(), item.key))));
            rest = others;
        }
        sigs.iter().any(Option::is_some).then_some(sigs)
    }

    fn hashes(&self) -> Option<Hashes> {
        let mut all = Hashes::default();
        for (n, events) in self.lanes.values().enumerate() {
            for (offset, (job, event)) in events.iter().enumerate() {
                let Some(hash) = self.jobs[*job].hashes[*event] else { continue };
                let window = self.jobs[*job].append.events[*event].dedup.as_ref().map(|d| d.window);
                all.hashes.push(hash);
                all.lanes.push(i16::try_from(n + 1).unwrap_or(0));
                all.offsets.push(int(offset));
                all.until.push(Time(self.now.plus(window.unwrap_or_default())));
                all.events.push((*job, *event));
            }
        }
        (!all.hashes.is_empty()).then_some(all)
    }

    fn moves(&self) -> Option<Moves<'a>> {
        let mut all = Moves::default();
        for (job, index, shard) in &self.positions {
            let advance = &self.jobs[*job].append.positions[*index];
            all.shards.push(*shard);
            all.versions.push(i64::try_from(advance.expected).unwrap_or(i64::MAX));
            all.values.push(escape(&advance.value));
            all.movers.push(int(job + 1));
        }
        (!all.shards.is_empty()).then_some(all)
    }

    fn duplicates(&self) -> Option<Duplicates<'a>> {
        let mut all = Duplicates::default();
        let mut fresh: BTreeMap<(usize, usize), (u16, usize)> = BTreeMap::new();
        if self.jobs.iter().any(|job| job.fates.iter().any(|fate| matches!(fate, Fate::Repeats(_)))) {
            for (lane, events) in &self.lanes {
                fresh.extend(events.iter().enumerate().map(|(offset, place)| (*place, (*lane, offset))));
            }
        }
        for (n, job) in self.jobs.iter().enumerate() {
            for (event, fate) in job.fates.iter().enumerate() {
                let of = match fate {
                    Fate::Fresh => continue,
                    Fate::Repeats(first) => job.fates[*first],
                    known => *known,
                };
                let (lane, seq) = match (of, fate) {
                    (Fate::Duplicate(first), _) => (first.lane.0, i64::try_from(first.seq.0).unwrap_or(0)),
                    // The first is stored by this very call.
                    (_, Fate::Repeats(first)) => {
                        let Some((lane, offset)) = fresh.get(&(n, *first)) else { continue };
                        (*lane, -i64::from(int(*offset)))
                    }
                    _ => continue,
                };
                let new = &job.append.events[event];
                all.parts.push(int(n + 1));
                all.events.push(int(event));
                all.sources.push(self.sources.numbers.get(&new.source).copied().unwrap_or(0));
                all.ids.push(escape(&new.event.id));
                all.lanes.push(i16::try_from(lane).unwrap_or(0));
                all.seqs.push(seq);
            }
        }
        (!all.parts.is_empty()).then_some(all)
    }

    fn quarantine(&self) -> Option<Messages<'a>> {
        let mut all = Messages::default();
        for (n, job) in self.jobs.iter().enumerate() {
            for message in &job.append.quarantined {
                all.parts.push(int(n + 1));
                all.sources.push(self.sources.numbers.get(&message.source).copied().unwrap_or(0));
                all.reasons.push(escape(&message.reason));
                all.bytes.push(&message.bytes[..message.bytes.len().min(QUARANTINED_BYTES)]);
                all.metas.push(escape(&message.meta));
            }
        }
        (!all.parts.is_empty()).then_some(all)
    }
}

#[derive(Default)]
struct Hashes {
    hashes: Vec<Uuid>,
    lanes: Vec<i16>,
    offsets: Vec<i32>,
    until: Vec<Time>,
    events: Vec<(usize, usize)>,
}

type Texts<'a> = Vec<std::borrow::Cow<'a, str>>;

#[derive(Default)]
struct Moves<'a> {
    shards: Vec<i32>,
    versions: Vec<i64>,
    values: Texts<'a>,
    movers: Vec<i32>,
}

#[derive(Default)]
struct Duplicates<'a> {
    parts: Vec<i32>,
    events: Vec<i32>,
    sources: Vec<i32>,
    ids: Texts<'a>,
    lanes: Vec<i16>,
    seqs: Vec<i64>,
}

#[derive(Default)]
struct Messages<'a> {
    parts: Vec<i32>,
    sources: Vec<i32>,
    reasons: Texts<'a>,
    bytes: Vec<&'a [u8]>,
    metas: Texts<'a>,
}

/// The earliest place that an append of the group can have in a lane.
fn known_of(lane: u16, tried: &[Tried]) -> i64 {
    let all = tried.iter().flat_map(|tried| &tried.known);
    all.filter(|(at, _)| *at == lane).map(|(_, known)| *known).min().unwrap_or(0)
}

fn number(sources: &Sources, name: &SourceName) -> Result<i32, Error> {
    let unknown = || Error::Unavailable(format!("source `{name}` has no number yet; try again"));
    sources.numbers.get(name).copied().ok_or_else(unknown)
}

/// Counts of one call, which stay far below the limit.
fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Reads an answer; its form is said in `migrations/postgres/0002_append.sql`. One that cannot be read leaves the outcome
/// unknown.
fn told(rows: &[Row], events: &[(usize, usize)]) -> Outcome<Told> {
    let answer: Vec<i64> = match rows.first() {
        Some(row) => row.try_get(0)?,
        None => Vec::new(),
    };
    meaning(&answer, events)
}

fn meaning(answer: &[i64], events: &[(usize, usize)]) -> Outcome<Told> {
    // Numbers from 1.
    let index = |n: i64| usize::try_from(n - 1).ok();
    match answer {
        [0, at, firsts @ ..] => Ok(Told::Stored { at: Timestamp::from_micros(*at), firsts: firsts.to_vec() }),
        [1, present @ ..] => Ok(Told::Present(present.iter().filter_map(|n| index(*n)).collect())),
        [2, hits @ ..] => {
            let hit = |hit: &[i64]| {
                let (job, event) = *events.get(index(*hit.first()?)?)?;
                let lane = Lane(u16::try_from(*hit.get(1)?).ok()?);
                Some((job, event, Address::new(lane, Seq(u64::try_from(*hit.get(2)?).ok()?))))
            };
            Ok(Told::Duplicates(hits.chunks(3).filter_map(hit).collect()))
        }
        _ => Err(Fault::Lost("the answer to an append cannot be read".into())),
    }
}
