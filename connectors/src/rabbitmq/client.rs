//! Reads a queue: what is there becomes a batch, and is acknowledged once the ledger holds it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::message::Delivery;
use tokio::time::Instant;

use super::config::Plan;
use super::envelope::{self, Message};
use super::link::Reader;
use crate::contract::{Batch, Committed, Connector, ConnectorError, Limit, Parcel, Receipt, Release};
use crate::opening::Opening;
use crate::pressure::Share;

/// The first prefetch when none is given: little, because nobody knows yet what messages weigh.
const FIRST_PREFETCH: u16 = 32;
/// Batches that may wait in memory when no prefetch is given: one that is being committed, and the next.
const BATCHES_AHEAD: usize = 2;
/// Batches' worth of bytes that may wait in memory when no prefetch is given.
const BYTES_AHEAD: usize = 8;
/// A consumer that lived so long may be followed by the next at once; one that ends sooner is waited for.
const SETTLED: Duration = Duration::from_secs(1);

/// The connector of one queue.
pub struct RabbitmqConnector {
    plan: Arc<Plan>,
    name: String,
    reader: Option<(Reader, Instant)>,
    opening: Opening<Result<Reader, String>>,
    share: Share,
    /// Counts the channels: what was handed over on one cannot be acknowledged on another.
    epoch: u64,
    /// Messages of the current epoch that are not acknowledged, in order.
    held: VecDeque<Held>,
    pending: Option<Pending>,
    receipts: u64,
    limit: Limit,
    /// What a message weighs, a moving average in bytes.
    weight: usize,
    /// The broker had handed over all that it may.
    full: bool,
}

/// A message that is not acknowledged yet.
struct Held {
    tag: u64,
    message: Message,
}

/// The batch that the intake has.
struct Pending {
    receipt: Receipt,
    epoch: u64,
    messages: usize,
}

impl RabbitmqConnector {
    /// A connector that connects when it is first asked, under the name of this controller and source.
    pub fn new(plan: Arc<Plan>, controller: &str) -> Self {
        let name = format!("bellwire {controller} {}", plan.source.name);
        // Consumer tags are short strings; the number behind the name needs room too.
        let name = name.chars().take(100).collect();
        Self {
            plan,
            name,
            reader: None,
            opening: Opening::default(),
            share: Share::default(),
            epoch: 0,
            held: VecDeque::new(),
            pending: None,
            receipts: 0,
            limit: Limit { items: 1, bytes: 1 },
            weight: 0,
            full: false,
        }
    }

    /// The same, with a prefetch of its own choice bounded by what sources share.
    pub(crate) fn within(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// The prefetch of the reader, while there is one.
    #[cfg(test)]
    pub(super) fn prefetch(&self) -> Option<u16> {
        self.reader.as_ref().map(|(reader, _)| reader.prefetch())
    }

    /// Ends the epoch: the broker hands over again what was not acknowledged.
    fn disconnect(&mut self) {
        self.reader = None;
        self.held.clear();
        self.epoch += 1;
    }

    async fn connect(&mut self) -> Result<(), String> {
        let prefetch = self.plan.prefetch.unwrap_or_else(|| match self.weight {
            0 => FIRST_PREFETCH,
            _ => self.target(),
        });
        let (plan, name) = (self.plan.clone(), self.name.clone());
        let open = || async move { Reader::open(&plan, &name, prefetch).await };
        let reader = self.opening.wait(open).await??;
        tracing::debug!(source = %self.plan.source.name, epoch = self.epoch, prefetch, "reading from rabbitmq");
        self.reader = Some((reader, Instant::now()));
        Ok(())
    }

    /// Takes what is there, up to the limit; waits for the first message only. Cancel-safe: what was taken is held.
    async fn fill(&mut self) -> Result<(), String> {
        let Some((reader, _)) = self.reader.as_mut() else { return Err("not connected".into()) };
        let mut bytes: usize = self.held.iter().map(Held::bytes).sum();
        while self.held.len() < self.limit.items && bytes < self.limit.bytes {
            let delivery = match reader.take()? {
                Some(delivery) => delivery,
                None if self.held.is_empty() => reader.next().await?,
                None => break,
            };
            let held = Held::new(delivery);
            bytes += held.bytes();
            self.weight = weigh(self.weight, held.bytes());
            self.held.push_back(held);
        }
        self.full = self.held.len() >= usize::from(reader.prefetch());
        Ok(())
    }

    /// The batch at the front; one message that is larger than the limit goes alone.
    fn batch(&mut self) -> Batch {
        let mut parcels = Vec::with_capacity(self.held.len().min(self.limit.items));
        let (mut messages, mut bytes) = (0, 0);
        for held in self.held.iter().take(self.limit.items.max(1)) {
            bytes += held.bytes();
            if messages > 0 && bytes > self.limit.bytes {
                break;
            }
            messages += 1;
            let contents = envelope::contents(&self.plan.queue, self.plan.broker.vhost(), &held.message);
            parcels.extend(
                contents.into_iter().map(|c| Parcel { source: self.plan.source.clone(), content: c }),
            );
        }
        self.receipts += 1;
        let receipt = Receipt(self.receipts);
        self.pending = Some(Pending { receipt, epoch: self.epoch, messages });
        Batch { receipt, parcels, positions: Vec::new() }
    }

    /// The prefetch that fits what messages weigh.
    fn target(&self) -> u16 {
        let bytes = self.share.of(self.limit.bytes.saturating_mul(BYTES_AHEAD));
        let by_weight = bytes / self.weight.max(1);
        let most = self.limit.items.saturating_mul(BATCHES_AHEAD);
        u16::try_from(by_weight.clamp(1, most.max(1))).unwrap_or(u16::MAX)
    }

    /// Changes a prefetch of our own choice when it is far from what fits.
    async fn adapt(&mut self) -> Result<(), String> {
        let target = self.target();
        let Some((reader, _)) = self.reader.as_mut() else { return Ok(()) };
        let now = reader.prefetch();
        let grow = self.full && target / 2 >= now;
        if self.plan.prefetch.is_some() || !(grow || target <= now / 2) {
            return Ok(());
        }
        let left = reader.resize(target).await?;
        for held in left.into_iter().map(Held::new) {
            self.weight = weigh(self.weight, held.bytes());
            self.held.push_back(held);
        }
        tracing::debug!(source = %self.plan.source.name, from = now, to = target, "another prefetch");
        Ok(())
    }
}

/// A moving average that rises fast and falls slowly: memory runs out faster than it is missed.
fn weigh(average: usize, size: usize) -> usize {
    match size.checked_sub(average) {
        _ if average == 0 => size,
        Some(more) => average + more / 4,
        None => average - (average - size) / 32,
    }
}

impl Held {
    fn new(delivery: Delivery) -> Self {
        let message = Message {
            exchange: delivery.exchange.into(),
            routing_key: delivery.routing_key.into(),
            redelivered: delivery.redelivered,
            properties: delivery.properties,
            data: Bytes::from(delivery.data),
        };
        Self { tag: delivery.delivery_tag, message }
    }

    fn bytes(&self) -> usize {
        self.message.data.len()
    }
}

#[async_trait]
impl Connector for RabbitmqConnector {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        self.limit = limit;
        self.pending = None;
        loop {
            if self.reader.is_none() {
                self.connect().await.map_err(ConnectorError::Unavailable)?;
            }
            let Err(why) = self.fill().await else { break };
            let settled = self.reader.as_ref().is_some_and(|(_, since)| since.elapsed() >= SETTLED);
            self.disconnect();
            if !settled {
                return Err(ConnectorError::Unavailable(why));
            }
            tracing::info!(source = %self.plan.source.name, %why, "connecting to rabbitmq again");
        }
        Ok(self.batch())
    }

    async fn confirm(&mut self, receipt: Receipt, _committed: &Committed) -> Result<(), ConnectorError> {
        let Some(pending) = self.pending.take_if(|pending| pending.receipt == receipt) else { return Ok(()) };
        if pending.epoch != self.epoch {
            return Ok(());
        }
        let Some(last) = self.held.drain(..pending.messages.min(self.held.len())).next_back() else {
            return Ok(());
        };
        let Some((reader, _)) = self.reader.as_ref() else { return Ok(()) };
        let told = match reader.acknowledge(last.tag).await {
            Ok(()) => self.adapt().await,
            failed => failed,
        };
        if let Err(why) = told {
            self.disconnect();
            return Err(ConnectorError::Unavailable(why));
        }
        Ok(())
    }

    async fn release(&mut self, receipt: Receipt, _why: Release) {
        self.pending.take_if(|pending| pending.receipt == receipt);
    }

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        let Some((reader, _)) = self.reader.as_mut() else {
            return Err(ConnectorError::Unavailable("no connection to rabbitmq yet".into()));
        };
        reader.waiting().await.map(Some).map_err(ConnectorError::Unavailable)
    }

    fn complaint(&self) -> Option<String> {
        let blocked = self.reader.as_ref().is_some_and(|(reader, _)| reader.is_blocked());
        blocked.then(|| "the broker is short of memory or disk and holds back what we send".to_owned())
    }
}
