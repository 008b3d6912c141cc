//! Kafka: one topic of four partitions, filled once; every reader begins at its first record.

use bellwire_schemas::brokers::{KafkaCluster, KafkaSource, LostPositions, StartingPosition};
use bellwire_schemas::service::{SourceKind, SourceSpec};
use bellwire_test_servers::shared::unique;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::block_in_place;

use super::{KEYS, PATIENCE, Pace, Upstream, payload};

const PARTITIONS: i32 = 4;

/// A filled topic.
pub struct Topic {
    bootstrap: String,
    name: String,
    messages: usize,
}

impl Topic {
    /// Makes a topic and puts so many records into it.
    pub async fn fill(bootstrap: &str, messages: usize) -> anyhow::Result<Self> {
        let topic = Self { bootstrap: bootstrap.into(), name: unique("rates"), messages };
        let admin: AdminClient<DefaultClientContext> = topic.client().create()?;
        let new = NewTopic::new(&topic.name, PARTITIONS, TopicReplication::Fixed(1));
        for made in admin.create_topics([&new], &AdminOptions::new()).await? {
            made.map_err(|(name, code)| anyhow::anyhow!("make topic {name}: {code}"))?;
        }
        block_in_place(|| topic.produce())?;
        Ok(topic)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    fn produce(&self) -> anyhow::Result<()> {
        let producer: BaseProducer = self.client().set("linger.ms", "20").create()?;
        for number in 0..self.messages {
            let (key, value) = (format!("k{}", number % KEYS), payload(number));
            let mut record = BaseRecord::to(&self.name).key(&key).payload(&value);
            while let Err((error, back)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                producer.poll(std::time::Duration::from_millis(10));
                record = back;
            }
        }
        Ok(producer.flush(PATIENCE)?)
    }

    fn consume(&self) -> anyhow::Result<f64> {
        let mut config = self.client();
        config.set("group.id", unique("bare")).set("enable.auto.commit", "false").set("check.crcs", "true");
        // As the source has it: what is fetched ahead of the first message would not count.
        config.set("queued.max.messages.kbytes", "16384").set("fetch.queue.backoff.ms", "10");
        let consumer: BaseConsumer = config.create()?;
        let mut all = TopicPartitionList::new();
        all.add_partition_range(&self.name, 0, PARTITIONS - 1);
        all.set_all_offsets(Offset::Beginning)?;
        consumer.assign(&all)?;
        let (mut pace, mut seen) = (Pace::new(), 0);
        loop {
            if let Some(record) = consumer.poll(std::time::Duration::from_millis(100)) {
                record?;
                seen += 1;
            }
            if let Some(rate) = pace.seen(seen, self.messages)? {
                return Ok(rate);
            }
        }
    }
}

impl Upstream for Topic {
    fn messages(&self) -> usize {
        self.messages
    }

    async fn refill(&mut self) -> anyhow::Result<()> {
        // A log keeps its records.
        Ok(())
    }

    async fn bare(&mut self) -> anyhow::Result<f64> {
        block_in_place(|| self.consume())
    }

    fn source(&self) -> SourceSpec {
        let cluster =
            KafkaCluster { bootstrap_servers: vec![self.bootstrap.clone()], ..KafkaCluster::default() };
        let source = KafkaSource {
            cluster,
            topics: vec![self.name.clone()],
            group_id: unique("ours"),
            starting_position: StartingPosition::Earliest,
            lost_positions: LostPositions::Halt,
        };
        super::source("kafka.bench", SourceKind::Kafka(source))
    }
}
