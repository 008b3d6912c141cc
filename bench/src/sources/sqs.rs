//! SQS: a standard queue, a new one for each round: what a reader was handed and left, nobody else sees for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry};
use bellwire_schemas::brokers::{SqsQueue, SqsSource};
use bellwire_schemas::service::{SourceKind, SourceSpec};
use bellwire_test_servers::shared::unique;
use tokio::task::JoinSet;

use super::{Pace, Upstream, payload};

/// Messages per request (Amazon SQS developer guide, "Message quotas").
const BATCH: usize = 10;
/// Requests at once, when the queue is filled and when the bare client empties it.
const CALLERS: usize = 4;

/// A queue of the benchmark's own.
pub struct Queue {
    client: Client,
    url: String,
    endpoint: String,
    messages: usize,
}

impl Queue {
    /// Queues for so many messages.
    pub fn new(endpoint: &str, messages: usize) -> Self {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        let client = Client::from_conf(config.build());
        Self { client, url: String::new(), endpoint: endpoint.into(), messages }
    }

    async fn send(client: Client, url: String, numbers: Vec<usize>) -> anyhow::Result<()> {
        let entry = |number: &usize| {
            SendMessageBatchRequestEntry::builder()
                .id(number.to_string())
                .message_body(payload(*number))
                .build()
        };
        let entries: Vec<_> = numbers.iter().map(entry).collect::<Result<_, _>>()?;
        let sent = client.send_message_batch().queue_url(url).set_entries(Some(entries)).send().await?;
        anyhow::ensure!(sent.failed.is_empty(), "messages were not taken: {:?}", sent.failed);
        Ok(())
    }

    /// Receives and deletes until all were seen by all pollers together.
    async fn drain(client: Client, url: String, seen: Arc<AtomicUsize>, goal: usize) -> anyhow::Result<()> {
        while seen.load(Ordering::Relaxed) < goal {
            let call = client.receive_message().queue_url(&url).max_number_of_messages(BATCH as i32);
            let messages = call.wait_time_seconds(1).send().await?.messages.unwrap_or_default();
            if messages.is_empty() {
                continue;
            }
            let entry = |(index, message): (usize, &aws_sdk_sqs::types::Message)| {
                let handle = message.receipt_handle.clone().unwrap_or_default();
                DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(handle).build()
            };
            let entries: Vec<_> = messages.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
            client.delete_message_batch().queue_url(&url).set_entries(Some(entries)).send().await?;
            seen.fetch_add(messages.len(), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Upstream for Queue {
    fn messages(&self) -> usize {
        self.messages
    }

    async fn refill(&mut self) -> anyhow::Result<()> {
        let made = self.client.create_queue().queue_name(unique("rates")).send().await?;
        self.url = made.queue_url.context("a queue has a URL")?;
        let numbers: Vec<usize> = (0..self.messages).collect();
        let mut tasks = JoinSet::new();
        for batch in numbers.chunks(BATCH) {
            if tasks.len() == CALLERS {
                tasks.join_next().await.transpose()?.transpose()?;
            }
            tasks.spawn(Self::send(self.client.clone(), self.url.clone(), batch.to_vec()));
        }
        while let Some(sent) = tasks.join_next().await {
            sent??;
        }
        Ok(())
    }

    async fn bare(&mut self) -> anyhow::Result<f64> {
        let seen = Arc::new(AtomicUsize::new(0));
        let mut pace = Pace::new();
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            tasks.spawn(Self::drain(self.client.clone(), self.url.clone(), seen.clone(), self.messages));
        }
        loop {
            if let Some(rate) = pace.seen(seen.load(Ordering::Relaxed), self.messages)? {
                return Ok(rate);
            }
            tokio::select! {
                Some(ended) = tasks.join_next() => ended??,
                () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
            }
        }
    }

    fn source(&self) -> SourceSpec {
        let queue = SqsQueue {
            queue: self.url.clone(),
            endpoint: Some(self.endpoint.clone()),
            region: Some("us-east-1".into()),
        };
        super::source("sqs.bench", SourceKind::Sqs(SqsSource { queue }))
    }
}
