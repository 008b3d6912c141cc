use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_broker_is_read_once_over_restarts() {
    let bootstrap = broker();
    let topic = topic(&bootstrap, 3).await;
    let ledger = ModelLedger::new(1);
    let source = spec(kafka(&bootstrap, &[&topic]));
    for round in 0..3 {
        let running = Running::start(&ledger, "one", source.clone()).await;
        produce(&bootstrap, &topic, round * 1_000, 1_000).await;
        until_stored(&ledger, round * 1_000 + 500).await;
        running.stop().await;
    }
    let running = Running::start(&ledger, "one", source).await;
    once_and_in_order(&until_stored(&ledger, 3_000).await, 3_000);
    running.stop().await;
}
