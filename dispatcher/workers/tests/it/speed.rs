//! Invocations per second of warm workers. Run in release:
//! `cargo test --release -p bellwire-workers --test it speed -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_schemas::service::FunctionSpec;

use crate::support::{Stage, invocation};
use bellwire_workers::Invoker as _;

async fn measure(name: &str, stage: Stage, mut spec: FunctionSpec, concurrency: u32) {
    spec.concurrency = concurrency;
    spec.warm.min = concurrency;
    stage.apply(&spec).await;
    stage.until(|status| status.idle == concurrency).await;
    let stage = Arc::new(stage);
    let begun = Instant::now();
    let calls = (0..concurrency).map(|_| {
        let stage = stage.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < Duration::from_secs(3) {
                let start = Instant::now();
                stage.workers.invoke(invocation("{\"n\":1}")).await.answer.unwrap();
                times.push(start.elapsed());
            }
            times
        })
    });
    let mut times = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        times.extend(call.await.unwrap());
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_micros();
    println!("{name:8} x{concurrency}: {rate:8.0}/s  p50 {} µs  p99 {} µs", at(0.5), at(0.99));
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread")]
async fn speed() {
    for concurrency in [1, 4, 16] {
        let stage = Stage::new();
        let spec = stage.native("echo");
        measure("native", stage, spec, concurrency).await;
        let stage = Stage::new();
        let spec = stage.python("def handler(event, context): return event\n");
        measure("python3", stage, spec, concurrency).await;
        let stage = Stage::new();
        let spec = stage.node("app.js", "exports.handler = async (event) => event;");
        measure("nodejs", stage, spec, concurrency).await;
    }
}
