//! What handlers receive: AWS's exact JSON for a recorded notification.

use bellwire_integration_tests::Stack;
use bellwire_integration_tests::conformance::{Kind, corpus};
use serde_json::{Value, json};

const ECHO: &str = "import json, os
def handler(event, context):
    with open(os.environ['OUT'], 'a') as f:
        f.write(json.dumps(event) + '\\n')
";

/// Each S3 sample posted to `/s3` reaches the handler record by record, equal as JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_s3_notification_reaches_the_handler_unchanged() {
    let Some(file) = corpus(Kind::LambdaEvents) else { return };
    let samples: Vec<Value> = std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|case| case["source_kind"] == "aws:s3" && case["event"]["Records"].is_array())
        .map(|case| case["event"].clone())
        .collect();
    assert!(!samples.is_empty());
    let mut buckets: Vec<String> = Vec::new();
    for record in samples.iter().flat_map(|s| s["Records"].as_array().unwrap()) {
        let bucket = record["s3"]["bucket"]["name"].as_str().unwrap_or_default().to_string();
        if !bucket.is_empty() && !buckets.contains(&bucket) {
            buckets.push(bucket);
        }
    }
    let mut service = String::from(
        "service: shapes\nfunctions:\n  echo:\n    handler: echo.handler\n    concurrency: 1\n    environment: { OUT: \"${env:TEST_DIR}/out\" }\n    events:\n",
    );
    for (number, bucket) in buckets.iter().enumerate() {
        service += &format!("      - s3: {{ bucket: {} }}\n        name: b{number}\n", json!(bucket));
    }
    let mut stack = Stack::new(&service, &[("echo.py", ECHO)]).unwrap();
    stack.start(None).await.unwrap();
    let bearer = format!("Bearer {}", stack.token);
    let mut expected = Vec::new();
    for sample in &samples {
        let records = sample["Records"].as_array().unwrap();
        let named = |r: &&Value| r["s3"]["bucket"]["name"].as_str().is_some_and(|n| !n.is_empty());
        expected.extend(records.iter().filter(named).map(|record| json!({"Records": [record]})));
        let (status, answer) =
            stack.send("/s3", &[("authorization", &bearer)], sample.to_string()).await.unwrap();
        assert_eq!(status, 202, "{answer}");
    }
    stack.settled().await.unwrap();
    let status = stack.get("/v1/status").await.unwrap();
    let duplicates: u64 =
        status["sources"].as_array().unwrap().iter().map(|s| s["duplicate"].as_u64().unwrap()).sum();
    let mut received: Vec<Value> = std::fs::read_to_string(stack.path("out"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // Samples that are the same notification twice are stored once.
    let mut distinct: Vec<Value> = Vec::new();
    for event in expected.iter() {
        if !distinct.contains(event) {
            distinct.push(event.clone());
        }
    }
    assert!(
        received.len() + duplicates as usize >= distinct.len(),
        "{} of {}",
        received.len(),
        distinct.len()
    );
    received.retain(|event| !distinct.contains(event));
    assert_eq!(received, Vec::<Value>::new(), "the handler saw events that differ from the samples");
}
