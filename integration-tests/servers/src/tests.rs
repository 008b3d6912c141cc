//! The brokers keep what they promise to tests, seen through public clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Kafka, Ministack, Rabbitmq, python};

/// Runs a Python program with the brokers' public clients: what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(python::python().unwrap()).args(["-c", program]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

const PUBLISH: &str = "
import pika, sys
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
channel.confirm_delivery()
channel.queue_declare('q', durable=True, arguments={'x-queue-type': 'quorum'})
for n in range(100):
    channel.basic_publish('', 'q', b'%d' % n, pika.BasicProperties(delivery_mode=2))
";
// A node that has just started answers with an internal error until its quorum queues have elected a leader.
const COUNT_QUEUE: &str = "
import pika, sys, time
seen, end = set(), time.time() + 60
while len(seen) < 100 and time.time() < end:
    try:
        channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
        for method, properties, body in channel.consume('q', inactivity_timeout=5):
            if method is None: break
            seen.add(body)
            channel.basic_ack(method.delivery_tag)
            if len(seen) == 100: break
    except pika.exceptions.AMQPError as error:
        print(repr(error), file=sys.stderr)
        time.sleep(0.2)
print(len(seen))
";

#[test]
fn rabbitmq_keeps_confirmed_messages_through_a_kill() {
    let mut server = Rabbitmq::start().unwrap();
    let (url, pid) = (server.url(), server.pid().unwrap());
    run(PUBLISH, &[&url]);
    // A quorum queue survives a kill only once the node has saved its directory of queues, half a second after the
    // declaration. The statistics that are listed come later than that.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server.ctl(&["list_queues"]).unwrap().contains("100") {
        assert!(Instant::now() < deadline, "the messages are never listed");
    }
    server.kill().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the node is gone");
    server.start_again().unwrap();
    assert_eq!(url, server.url(), "the address stays");
    assert_eq!(run(COUNT_QUEUE, &[&url]), "100", "{}", server.log());
    server.stop().unwrap();
}

const PRODUCE: &str = "
import sys
from confluent_kafka import Producer
producer = Producer({'bootstrap.servers': sys.argv[1], 'acks': 'all'})
for n in range(200):
    producer.produce('t', b'%d' % n)
producer.flush()
";
const COUNT_TOPIC: &str = "
import sys, time
from confluent_kafka import Consumer
consumer = Consumer({'bootstrap.servers': sys.argv[1], 'group.id': 'g', 'session.timeout.ms': 6000, 'auto.offset.reset': 'earliest',
    'enable.auto.commit': False})
consumer.subscribe(['t'])
seen, end, wanted = set(), time.time() + 40, int(sys.argv[2])
while len(seen) < wanted and time.time() < end:
    for message in consumer.consume(1000 if wanted > 100 else 1, 0.2):
        if not message.error(): seen.add(message.value())
consumer.commit(asynchronous=False)
consumer.close()
print(len(seen))
";

#[test]
fn a_durable_kafka_keeps_records_and_offsets_through_a_kill() {
    let mut server = Kafka::durable().unwrap();
    let bootstrap = server.bootstrap();
    run(PRODUCE, &[&bootstrap]);
    assert_eq!(run(COUNT_TOPIC, &[&bootstrap, "50"]), "50");
    server.kill().unwrap();
    server.start_again().unwrap();
    assert_eq!(bootstrap, server.bootstrap(), "the address stays");
    assert_eq!(run(COUNT_TOPIC, &[&bootstrap, "150"]), "150", "the other three quarters");
}

const NOTIFY: &str = "
import boto3, json, sys
def client(name):
    return boto3.client(name, endpoint_url=sys.argv[1], region_name='us-east-1',
        aws_access_key_id='test', aws_secret_access_key='test')
sqs, s3 = client('sqs'), client('s3')
queue = sqs.create_queue(QueueName='q')['QueueUrl']
arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
s3.create_bucket(Bucket='bucket')
s3.put_bucket_notification_configuration(Bucket='bucket', NotificationConfiguration={
    'QueueConfigurations': [{'QueueArn': arn, 'Events': ['s3:ObjectCreated:*']}]})
s3.put_object(Bucket='bucket', Key='in/a b', Body=b'x')
while True:
    for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get('Messages', []):
        for record in json.loads(message['Body']).get('Records', []):
            print(record['s3']['object']['key'])
            sys.exit()
";

#[test]
fn ministack_tells_a_queue_of_a_new_object() {
    let mut server = Ministack::start().unwrap();
    assert_eq!(run(NOTIFY, &[&server.url()]), "in/a+b");
    server.kill().unwrap();
    server.start_again().unwrap();
    assert_eq!(run(NOTIFY, &[&server.url()]), "in/a+b", "it is empty after a restart");
}
