//! The contract, verb by verb: each goes to the writer or to a reader.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bellwire_schemas::{Address, BindingId, ControllerId, Epoch, Lane, ReplayId, Seq, SourceName, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::append::{Prepared, append, used_bytes};
use super::book::{Book, check_lane, tail};
use super::codec::place_of;
use super::fault::Outcome;
use super::schema::beside;
use super::writer::Kind;
use super::{SqliteLedger, ask, bindings, flush, list, operate, retain, totals};
use crate::{
    Append, Appended, ArrivalTotals, BindingRecord, BindingRevision, BindingTotals, Checkpoint, Cluster,
    DeadLetter, DeadLetterQuery, DeliveryKey, DeliveryQuery, DueRetries, Duplicate, Error, EventQuery, Flush,
    FlushOutcome, Heartbeat, LaneOwner, Ledger, LogEntry, Member, Owed, OwedDelivery, Page, Pause, Position,
    QuarantineRecord, Refusal, ReplayRecord, Retained, StoredEvent,
};

#[async_trait]
impl Ledger for SqliteLedger {
    fn lanes(&self) -> u16 {
        self.shared.lanes
    }

    async fn append(&self, batch: Append, now: Timestamp) -> Result<Appended, Error> {
        let batch = Prepared::new(batch)?;
        self.write(Kind::Append, batch.bytes, move |book| append(book, &batch, now)).await
    }

    async fn position(&self, shard: &str) -> Result<Option<Position>, Error> {
        let shard = shard.to_owned();
        self.ask(move |reader| ask::position(reader, &shard)).await
    }

    async fn tail(&self, lane: Lane) -> Result<Seq, Error> {
        check_lane(lane, self.shared.lanes)?;
        self.ask(move |reader| tail(&reader.conn, lane)).await
    }

    async fn tails(&self) -> Result<Vec<Seq>, Error> {
        let lanes = self.shared.lanes;
        self.ask(move |reader| (1..=lanes).map(|lane| tail(&reader.conn, Lane(lane))).collect()).await
    }

    async fn read(
        &self,
        lane: Lane,
        from: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        check_lane(lane, self.shared.lanes)?;
        self.ask(move |reader| ask::read(reader, lane, from, limit, bytes)).await
    }

    /// The file has one controller, the caller: no lease can end, and nobody else changes anything.
    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Cluster, Error> {
        let (id, name, version) = (beat.controller, beat.name.clone(), beat.version.clone());
        let lanes = self.ask(|reader| owners(&reader.conn)).await?;
        let (since, leaving) = (Timestamp::default(), beat.leaving);
        let member = Member { id, name, version, since, leaving };
        Ok(Cluster { controllers: vec![member], lanes, changes: 0, rewound: Vec::new() })
    }

    async fn leave(&self, controller: ControllerId) -> Result<(), Error> {
        self.change(move |book| {
            book.conn.execute(
                "UPDATE lane SET owner = NULL, taken_at = NULL WHERE owner = ?1",
                [controller.0.as_bytes()],
            )?;
            Ok(())
        })
        .await
    }

    async fn acquire(
        &self,
        controller: ControllerId,
        lane: Lane,
        now: Timestamp,
    ) -> Result<Option<Epoch>, Error> {
        self.change(move |book| acquire(book, controller, lane, now)).await
    }

    async fn release(&self, lane: Lane, epoch: Epoch) -> Result<(), Error> {
        self.change(move |book| {
            book.check_lane(lane)?;
            book.conn.execute(
                "UPDATE lane SET owner = NULL, taken_at = NULL WHERE lane = ?1 AND epoch = ?2",
                (lane.0, epoch.0),
            )?;
            Ok(())
        })
        .await
    }

    async fn declare_bindings(
        &self,
        declared: Vec<BindingRecord>,
        now: Timestamp,
    ) -> Result<Vec<BindingRecord>, Error> {
        self.change(move |book| bindings::declare(book, &declared, now)).await
    }

    async fn bindings(&self) -> Result<Vec<BindingRecord>, Error> {
        self.ask(|reader| bindings::bindings(&reader.conn)).await
    }

    async fn filter_of(
        &self,
        binding: BindingId,
        revision: u32,
    ) -> Result<Option<Vec<serde_json::Value>>, Error> {
        self.ask(move |reader| bindings::filter_of(&reader.conn, binding, revision)).await
    }

    async fn revisions(&self, binding: BindingId) -> Result<Vec<BindingRevision>, Error> {
        self.ask(move |reader| bindings::revisions(&reader.conn, binding)).await
    }

    async fn set_paused(&self, binding: BindingId, pause: Option<Pause>) -> Result<(), Error> {
        self.change(move |book| bindings::set_paused(book, binding, pause.as_ref())).await
    }

    async fn checkpoint(&self, lane: Lane, binding: BindingId) -> Result<Checkpoint, Error> {
        check_lane(lane, self.shared.lanes)?;
        self.ask(move |reader| Ok(flush::checkpoint(&reader.conn, lane, binding)?.0)).await
    }

    async fn flush(&self, flush: Flush) -> Result<FlushOutcome, Error> {
        let flush = flush::Prepared::new(flush, self.shared.lanes)?;
        self.write(Kind::Flush, flush.bytes, move |book| flush::flush(book, &flush)).await
    }

    async fn due(
        &self,
        lane: Lane,
        binding: BindingId,
        now: Timestamp,
        limit: usize,
    ) -> Result<DueRetries, Error> {
        self.ask(move |reader| ask::due(reader, lane, binding, now, limit)).await
    }

    async fn debts(
        &self,
        lane: Lane,
        binding: BindingId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Owed>, Error> {
        self.ask(move |reader| ask::debts(reader, lane, binding, after, limit)).await
    }

    async fn has_parked(&self, lane: Lane, binding: BindingId) -> Result<bool, Error> {
        self.ask(move |reader| ask::has_parked(reader, lane, binding)).await
    }

    async fn redrive(&self, dead: &[DeliveryKey], now: Timestamp) -> Result<u64, Error> {
        let dead = dead.to_vec();
        self.change(move |book| operate::redrive(book, &dead, now)).await
    }

    async fn discard(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let (deliveries, reason, by) = (deliveries.to_vec(), reason.to_owned(), by.to_owned());
        self.change(move |book| operate::discard(book, &deliveries, &reason, &by, now)).await
    }

    async fn cancel(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let (deliveries, reason, by) = (deliveries.to_vec(), reason.to_owned(), by.to_owned());
        self.change(move |book| operate::cancel(book, &deliveries, &reason, &by, now)).await
    }

    async fn save_replay(&self, replay: &ReplayRecord, owed: &[(Address, Owed)]) -> Result<u64, Error> {
        let (replay, owed) = (replay.clone(), owed.to_vec());
        self.change(move |book| operate::save_replay(book, &replay, &owed)).await
    }

    async fn replays(&self) -> Result<Vec<ReplayRecord>, Error> {
        self.ask(|reader| ask::replays(reader, None)).await
    }

    async fn replay(&self, id: &ReplayId) -> Result<Option<ReplayRecord>, Error> {
        let id = id.clone();
        self.ask(move |reader| Ok(ask::replays(reader, Some(&id))?.pop())).await
    }

    async fn note_refusal(&self, refusal: Refusal) -> Result<(), Error> {
        self.change(move |book| operate::note_refusal(book, &refusal)).await
    }

    async fn event(&self, address: Address) -> Result<Option<StoredEvent>, Error> {
        self.ask(move |reader| list::event_by_place(reader, place_of(address))).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<StoredEvent>, Error> {
        let query = query.clone();
        self.ask(move |reader| list::events(reader, &query)).await
    }

    async fn log(
        &self,
        address: Address,
        binding: Option<BindingId>,
    ) -> Result<Vec<(BindingId, LogEntry)>, Error> {
        self.ask(move |reader| ask::log(reader, address, binding)).await
    }

    async fn owed(&self, delivery: DeliveryKey) -> Result<Option<Owed>, Error> {
        self.ask(move |reader| ask::owed(reader, delivery)).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<OwedDelivery>, Error> {
        let query = query.clone();
        self.ask(move |reader| list::deliveries(reader, &query)).await
    }

    async fn dead_letter(&self, delivery: DeliveryKey) -> Result<Option<DeadLetter>, Error> {
        self.ask(move |reader| ask::dead_letter(reader, delivery)).await
    }

    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Page<DeadLetter>, Error> {
        let query = query.clone();
        self.ask(move |reader| list::dead_letters(reader, &query)).await
    }

    async fn duplicates(&self, first: Address) -> Result<Vec<Duplicate>, Error> {
        self.ask(move |reader| ask::duplicates(reader, first)).await
    }

    async fn duplicates_of_id(&self, id: &str, source: Option<&SourceName>) -> Result<Vec<Duplicate>, Error> {
        let (id, source) = (id.to_owned(), source.cloned());
        self.ask(move |reader| ask::duplicates_of_id(reader, &id, source.as_ref())).await
    }

    async fn quarantined(
        &self,
        source: Option<&SourceName>,
        limit: usize,
    ) -> Result<Vec<QuarantineRecord>, Error> {
        let source = source.cloned();
        self.ask(move |reader| ask::quarantined(reader, source.as_ref(), limit)).await
    }

    async fn refusals(&self, since: Timestamp) -> Result<Vec<Refusal>, Error> {
        self.ask(move |reader| ask::refusals(reader, since)).await
    }

    async fn totals(&self) -> Result<BTreeMap<BindingId, BindingTotals>, Error> {
        let lanes = self.shared.lanes;
        self.ask(move |reader| totals::totals(reader, lanes)).await
    }

    async fn arrivals(&self) -> Result<BTreeMap<SourceName, ArrivalTotals>, Error> {
        self.ask(|reader| totals::arrivals(reader)).await
    }

    async fn retain(&self, before: Timestamp, now: Timestamp) -> Result<Retained, Error> {
        let mut retained = Retained::default();
        let mut after = None;
        loop {
            let looked = self.ask(move |reader| retain::look(reader, before, after)).await?;
            let free = looked.free.len() as u64;
            retained.kept_for_debts += looked.needed;
            if free > 0 {
                let removed = self.change(move |book| retain::remove(book, &looked.free)).await?;
                retained.events += removed;
                retained.kept_for_debts += free - removed;
            }
            after = looked.next;
            if after.is_none() {
                break;
            }
        }
        while self.change(move |book| retain::prune(book, before, now)).await? {}
        Ok(retained)
    }

    async fn size_bytes(&self) -> Result<u64, Error> {
        let log = beside(&self.shared.path, "-wal");
        self.ask(move |reader| {
            let log = std::fs::metadata(&log).map_or(0, |m| m.len());
            Ok(used_bytes(&reader.conn)? + log)
        })
        .await
    }

    async fn close(&self) {
        // Readers first: the last connection to close, the writer's, then leaves one tidy file.
        self.shared.readers.close().await;
        if let Some(writer) = &self.shared.writer {
            writer.close().await;
        }
    }
}

fn acquire(book: &mut Book, controller: ControllerId, lane: Lane, now: Timestamp) -> Outcome<Option<Epoch>> {
    book.check_lane(lane)?;
    let epoch = book
        .conn
        .prepare_cached(
            "UPDATE lane SET owner = ?2, taken_at = ?3, epoch = epoch + 1
             WHERE lane = ?1 AND (owner IS NULL OR owner = ?2) RETURNING epoch",
        )?
        .query_row((lane.0, controller.0.as_bytes(), now.micros()), |r| r.get(0))
        .optional()?;
    Ok(epoch.map(Epoch))
}

fn owners(conn: &Connection) -> Outcome<Vec<LaneOwner>> {
    let mut statement = conn.prepare_cached("SELECT lane, epoch, owner FROM lane ORDER BY lane")?;
    let owner = |r: &rusqlite::Row<'_>| {
        let owner: Option<[u8; 16]> = r.get(2)?;
        Ok(LaneOwner {
            lane: Lane(r.get(0)?),
            epoch: Epoch(r.get(1)?),
            owner: owner.map(|id| ControllerId(uuid::Uuid::from_bytes(id))),
        })
    };
    Ok(statement.query_map([], owner)?.collect::<Result<_, _>>()?)
}
