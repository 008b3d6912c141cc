//! Objects put into a bucket by a public client, told to a queue, read as events of the bucket's source.

use std::process::Stdio;

use bellwire_schemas::SourceName;

use super::*;

/// Puts, copies and deletes objects, and sends a message of another kind.
const UPLOAD: &str = r#"
import sys, boto3
endpoint, bucket, queue = sys.argv[1:]
login = dict(endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id='test', aws_secret_access_key='test')
s3, sqs = boto3.client('s3', **login), boto3.client('sqs', **login)
arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
s3.create_bucket(Bucket=bucket)
s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={'QueueConfigurations': [
    {'QueueArn': arn, 'Events': ['s3:ObjectCreated:*', 's3:ObjectRemoved:*']}]})
for n in range(20):
    s3.put_object(Bucket=bucket, Key=f'in/{n} a+ü.txt', Body=b'x')
s3.copy_object(Bucket=bucket, Key='copy', CopySource={'Bucket': bucket, 'Key': 'in/0 a+ü.txt'})
s3.delete_object(Bucket=bucket, Key='copy')
sqs.send_message(QueueUrl=queue, MessageBody='hello')
"#;

async fn upload(bucket: &str, queue: &str) {
    let python = std::env::var("BELLWIRE_TEST_PYTHON")
        .expect("BELLWIRE_TEST_PYTHON: a python with boto3; ./test installs one and sets it");
    let ran = tokio::process::Command::new(python)
        .args(["-c", UPLOAD, &server(), bucket, queue])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test]
async fn objects_in_a_bucket_become_events_by_way_of_a_queue() {
    let queue = TestQueue::new(false).await;
    let bucket = format!("b-{}", Uuid::new_v4().simple());
    let kind = SourceKind::S3 { bucket: bucket.clone(), via: Some("sqs.q".into()) };
    let running = Running::new(vec![spec_of(queue.spec()), source("s3.photos", kind)]).await;
    upload(&bucket, &queue.url).await;
    // Twenty puts, a copy, a deletion; and the store's test event and the other message, which stay the queue's.
    until("all are stored", async || running.stored().await.len() >= 24).await;
    queue.is_empty().await;
    let stored = running.stored().await;
    assert_eq!(stored.len(), 24);
    let of = |name: &str| {
        let events = stored.iter().filter(|event| event.source == SourceName::new(name));
        events.map(|event| event.event.clone()).collect::<Vec<_>>()
    };
    let photos = of("s3.photos");
    let count = |kind: &str| photos.iter().filter(|e| e.kind == format!("com.amazonaws.s3.{kind}")).count();
    assert_eq!((count("ObjectCreated:Put"), count("ObjectCreated:Copy")), (20, 1));
    assert_eq!(count("ObjectRemoved:Delete"), 1);
    assert!(photos.iter().any(|e| e.subject.as_deref() == Some("in/7 a+ü.txt")), "keys are decoded");
    let others: Vec<_> = of("sqs.q").iter().map(|event| event.envelope()["data"].clone()).collect();
    assert!(others.contains(&"hello".into()), "{others:?}");
    assert!(others.iter().any(|data| data["Event"] == "s3:TestEvent"), "{others:?}");
    let reports = running.intake.status();
    assert_eq!((reports[0].counts.accepted, reports[1].counts.accepted), (2, 22));
}
