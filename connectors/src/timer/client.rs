//! Waits for ticks and keeps the position.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellwire_ledger::{Ledger, Position, PositionAdvance};
use bellwire_schemas::{Clock, Timestamp, crash_point};

use super::Timer;
use super::envelope::text;
use crate::contract::{
    Batch, Committed, Connector, ConnectorError, Content, Limit, Parcel, Receipt, Release,
};

/// The wall clock is looked at again at least this often, because it may jump and machines sleep.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The connector of one timer.
pub struct TimerConnector {
    timer: Arc<Timer>,
    ledger: Arc<dyn Ledger>,
    clock: Clock,
    mark: Option<Mark>,
    receipts: u64,
    pending: Option<(Receipt, Mark)>,
}

/// The position as the ledger holds it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    version: u64,
    last: Timestamp,
    /// The ledger holds no position for this rule: it must be written before the first tick.
    unwritten: bool,
}

impl TimerConnector {
    /// A connector that reads its position from the ledger when it is first asked.
    pub fn new(timer: Arc<Timer>, ledger: Arc<dyn Ledger>, clock: Clock) -> Self {
        Self { timer, ledger, clock, mark: None, receipts: 0, pending: None }
    }

    fn shard(&self) -> String {
        self.timer.source.name.to_string()
    }

    /// A new rule begins now: no tick for the time before it was written, none twice.
    async fn load(&self) -> Result<Mark, ConnectorError> {
        let unavailable = |e: bellwire_ledger::Error| ConnectorError::Unavailable(e.to_string());
        let now = self.clock.now();
        let Some(Position { version, value }) =
            self.ledger.position(&self.shard()).await.map_err(unavailable)?
        else {
            return Ok(Mark { version: 0, last: now, unwritten: true });
        };
        let (tick, rule) = value.split_once(' ').unwrap_or((&value, ""));
        let last = Timestamp::parse(tick).map_err(|e| {
            ConnectorError::Unavailable(format!(
                "position of `{}` cannot be read: {e}",
                self.timer.source.name
            ))
        })?;
        let same = rule == self.timer.fingerprint();
        Ok(Mark { version, last: if same { last } else { last.max(now) }, unwritten: !same })
    }

    fn batch(&mut self, mark: Mark, through: Timestamp, ticks: &[Timestamp]) -> Batch {
        self.receipts += 1;
        let receipt = Receipt(self.receipts);
        self.pending = Some((receipt, Mark { version: mark.version + 1, last: through, unwritten: false }));
        let parcel = |tick: &Timestamp| Parcel {
            source: self.timer.source.clone(),
            content: Content::Event(Box::new(self.timer.envelope(*tick))),
        };
        let value = format!("{} {}", text(through), self.timer.fingerprint());
        let advance = PositionAdvance { shard: self.shard(), expected: mark.version, value };
        Batch { receipt, parcels: ticks.iter().map(parcel).collect(), positions: vec![advance] }
    }
}

#[async_trait]
impl Connector for TimerConnector {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        loop {
            let mark = match self.mark {
                Some(mark) => mark,
                None => *self.mark.insert(self.load().await?),
            };
            if mark.unwritten {
                return Ok(self.batch(mark, mark.last, &[]));
            }
            let now = self.clock.now();
            let plan = self.timer.plan(mark.last, now, limit.items.max(1));
            if let Some(through) = plan.through {
                crash_point("timer.fire");
                return Ok(self.batch(mark, through, &plan.ticks));
            }
            let wait = plan.wake.map_or(LOOK_AGAIN, |wake| wake.since(now).min(LOOK_AGAIN));
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }

    async fn confirm(&mut self, receipt: Receipt, _committed: &Committed) -> Result<(), ConnectorError> {
        if let Some((_, mark)) = self.pending.take_if(|(pending, _)| *pending == receipt) {
            self.mark = Some(mark);
        }
        Ok(())
    }

    async fn release(&mut self, receipt: Receipt, _why: Release) {
        self.pending.take_if(|(pending, _)| *pending == receipt);
        self.mark = None;
    }

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        let Some(mark) = self.mark else { return Ok(None) };
        let overdue = self.timer.plan(mark.last, self.clock.now(), 1).through.is_some();
        Ok(Some(u64::from(overdue)))
    }
}
