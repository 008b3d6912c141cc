use bellwire_ledger::NewEvent;
use bellwire_schemas::{Event, Lane};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::*;
use crate::contract::{Batch, Committed, Connector, Fate, Limit};
use crate::pressure::Share;
use crate::registry::{Around, Opened, Pull};
use crate::suite::pressure::pushes_back;
use crate::suite::{Rig, START, keeps_the_contract};

struct KafkaRig {
    cluster: MockCluster<'static, DefaultProducerContext>,
    pull: Arc<dyn Pull>,
    ledger: ModelLedger,
    made: usize,
}

impl KafkaRig {
    async fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("a", 1, 1).unwrap();
        let source = kafka(&cluster.bootstrap_servers(), &["a"]);
        let Ok(Opened::Pull(pull)) = crate::kafka::open(&Arc::new(spec(source.clone())), &source) else {
            panic!()
        };
        let rig = Self { cluster, pull, ledger: ModelLedger::new(1), made: 0 };
        let first = rig.connect().receive(Limit { items: 10, bytes: 1 << 20 }).await.unwrap();
        assert!(first.parcels.is_empty(), "how many partitions the topic began with comes first");
        rig.commit(&first).await;
        rig
    }
}

impl Rig for KafkaRig {
    const IDLE: Duration = Duration::from_secs(1);
    const SOURCE: &str = "kafka.t";

    fn ledger(&self) -> ModelLedger {
        self.ledger.clone()
    }

    async fn produce(&mut self, count: usize) {
        produce(&self.cluster.bootstrap_servers(), "a", self.made, count).await;
        self.made += count;
    }

    fn connect(&self) -> Box<dyn Connector> {
        let ledger = Arc::new(self.ledger.clone());
        self.pull.connect(&Around {
            ledger,
            clock: Clock::system(),
            controller: "one".into(),
            share: Share::default(),
        })
    }

    async fn commit(&self, batch: &Batch) -> Committed {
        let event = |_| NewEvent {
            source: "kafka.t".into(),
            lane: Lane(1),
            key: None,
            dedup: None,
            event: Arc::new(Event::default()),
        };
        let append = Append {
            append_id: Uuid::now_v7(),
            events: batch.parcels.iter().map(event).collect(),
            positions: batch.positions.clone(),
            quarantined: Vec::new(),
        };
        self.ledger.append(append, START).await.unwrap();
        let fates = batch.parcels.iter().map(|_| Fate::Quarantined("kept".into())).collect();
        Committed { fates, accepted_at: START }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connector_keeps_the_contract() {
    keeps_the_contract(KafkaRig::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connector_is_pushed_back() {
    pushes_back(KafkaRig::new().await).await;
}
