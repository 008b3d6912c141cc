//! A ledger in memory with events, bindings and debts, for the tests of what is read from it.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{
    Append, BindingFlush, BindingRecord, Flush, FlushOutcome, Ledger, NewEvent, Owed, OwedReason,
};
use bellwire_schemas::service::Start;
use bellwire_schemas::{
    BindingId, ControllerId, ErrorInfo, Event, FailureClass, Lane, Seq, SeqRanges, Timestamp,
};
use uuid::Uuid;

use crate::server::reads::Reads;

/// So many seconds after some start.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + seconds * 1_000) // 2026-01-01T00:00:00Z
}

/// A ledger of two lanes, read without a controller.
pub struct World {
    pub reads: Reads,
    pub ledger: Arc<dyn Ledger>,
}

impl World {
    /// With these bindings, all on the source `orders`.
    pub async fn new(names: &[&str]) -> Self {
        let ledger: Arc<dyn Ledger> = Arc::new(ModelLedger::new(2));
        let world = Self { reads: Reads::post_mortem(Arc::clone(&ledger), Duration::from_secs(60)), ledger };
        world.declare(names).await;
        world
    }

    /// Makes these the bindings of the configuration.
    pub async fn declare(&self, names: &[&str]) {
        let record = |name: &&str| BindingRecord {
            id: BindingId(0),
            name: (*name).into(),
            source: "orders".into(),
            function: "f".into(),
            filter: Vec::new(),
            start: Start::Earliest,
            revision: 0,
            paused: None,
            active: true,
            since: Default::default(),
        };
        self.ledger.declare_bindings(names.iter().map(record).collect(), at(0)).await.unwrap();
    }

    /// The binding of this name.
    pub async fn record(&self, name: &str) -> BindingRecord {
        let all = self.ledger.bindings().await.unwrap();
        all.into_iter().find(|record| record.name.as_str() == name).unwrap()
    }

    /// One event a second, its id its number from 1 on, by turns in the two lanes, each with this key.
    pub async fn events(&self, count: u16, key: &str) {
        for n in 1..=count {
            let event =
                Event { id: n.to_string(), source: "test".into(), kind: "made".into(), ..Event::default() };
            let (lane, event) = (Lane(2 - n % 2), Arc::new(event));
            let new = NewEvent { source: "orders".into(), lane, key: Some(key.into()), dedup: None, event };
            let (events, positions, quarantined) = (vec![new], Vec::new(), Vec::new());
            let append = Append { append_id: Uuid::now_v7(), events, positions, quarantined };
            self.ledger.append(append, at(n.into())).await.unwrap();
        }
    }

    /// The binding passes so many places of lane 1, and owes each for this reason since as many seconds.
    pub async fn owes(&self, name: &str, reasons: &[OwedReason]) {
        let lane = Lane(1);
        let epoch =
            self.ledger.acquire(ControllerId(Uuid::from_u128(7)), lane, at(0)).await.unwrap().unwrap();
        let error = ErrorInfo::platform(FailureClass::Function, "ValueError", "no");
        let owed = (1..).zip(reasons).map(|(seq, reason)| Owed {
            seq: Seq(seq),
            attempts: 1,
            next_at: at(1_000),
            since: at(i64::try_from(seq).unwrap()),
            error: Some(error.clone()),
            reason: reason.clone(),
            key: Some(format!("k{seq}")),
        });
        let part = BindingFlush {
            binding: self.record(name).await.id,
            version: 1,
            mark: Seq(reasons.len() as u64),
            done: SeqRanges::default(),
            log: Vec::new(),
            owed: owed.collect(),
            settled: Vec::new(),
            dead: Vec::new(),
            emitted: Vec::new(),
        };
        let flush = Flush { lane, epoch, at: at(100), bindings: vec![part] };
        assert_eq!(self.ledger.flush(flush).await.unwrap(), FlushOutcome::Flushed);
    }
}
