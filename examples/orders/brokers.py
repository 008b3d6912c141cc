"""Stands for everything around the service: makes its topics, queues and bucket, sends orders, reads the audit.

    python brokers.py setup      topics, queues, bucket with its notification
    python brokers.py send       three orders, one without items, and an invoice
    python brokers.py audit      prints what came to the topic order-audit
    python brokers.py check      all of it, and compares what the handlers saw with what they should have seen

Needs boto3 and confluent-kafka. Reads KAFKA_BOOTSTRAP_SERVERS and AWS_ENDPOINT_URL, as bellwire.yaml does.
"""

import json
import os
import sys
import time
import uuid

import boto3
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

KAFKA = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
AWS = {
    "endpoint_url": os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
    "region_name": "us-east-1",
    "aws_access_key_id": os.environ.get("AWS_ACCESS_KEY_ID", "test"),
    "aws_secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY", "test"),
}
OUT = os.environ.get("OUT_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "out"))
PATIENCE_SECONDS = 60


def setup():
    admin = AdminClient({"bootstrap.servers": KAFKA})
    topics = [NewTopic("orders", 3, 1), NewTopic("order-audit", 1, 1)]
    for name, made in admin.create_topics(topics).items():
        try:
            made.result(30)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
        print("topic", name)
    sqs, s3 = boto3.client("sqs", **AWS), boto3.client("s3", **AWS)
    for name in ("uploads", "problems"):
        print("queue", sqs.create_queue(QueueName=name)["QueueUrl"])
    if "invoices" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket="invoices")
    s3.put_bucket_notification_configuration(
        Bucket="invoices",
        NotificationConfiguration={"QueueConfigurations": [
            {"QueueArn": "arn:aws:sqs:us-east-1:000000000000:uploads", "Events": ["s3:ObjectCreated:*"]},
        ]},
    )
    print("bucket invoices, which notifies the queue uploads")


def send():
    run = uuid.uuid4().hex[:8]
    orders = [
        {"order_id": run + "-1", "items": ["apple", "pear"]},
        {"order_id": run + "-2", "items": []},
        {"order_id": run + "-3", "items": ["quince"]},
    ]
    producer = Producer({"bootstrap.servers": KAFKA, "enable.idempotence": False, "acks": "all"})
    for order in orders:
        producer.produce("orders", key=order["order_id"], value=json.dumps(order))
    if producer.flush(30):
        sys.exit("not every order was taken by Kafka")
    boto3.client("s3", **AWS).put_object(Bucket="invoices", Key=run + ".pdf", Body=b"%PDF-1.7")
    print("sent the orders", ", ".join(order["order_id"] for order in orders), "and the invoice", run + ".pdf")
    return run


def audit(until=None):
    consumer = Consumer({"bootstrap.servers": KAFKA, "group.id": "audit", "enable.auto.commit": False})
    consumer.assign([TopicPartition("order-audit", 0, OFFSET_BEGINNING)])
    seen, end = [], time.monotonic() + (PATIENCE_SECONDS if until else 10)
    while time.monotonic() < end and not (until and until(seen)):
        message = consumer.poll(1)
        if message is not None and not message.error():
            seen.append(json.loads(message.value()))
    consumer.close()
    return seen


def notes(name):
    try:
        with open(os.path.join(OUT, name + ".jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


def wait_for(name, wanted, found):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found():
            print("✓", name)
            return
        time.sleep(0.2)
    sys.exit(f"{name}: {wanted} did not come within {PATIENCE_SECONDS} s")


def check():
    setup()
    run = send()
    good = {run + "-1": 95, run + "-3": 90}
    for name in ("priced", "shipped"):
        wait_for(name, good, lambda name=name: good == {
            line["order_id"]: line["total_cents"] for line in notes(name) if line["order_id"].startswith(run)
        })
    wait_for("filed", run + ".pdf", lambda: any(line["key"] == run + ".pdf" for line in notes("filed")))
    wait_for("apologised", run + "-2", lambda: any(run + "-2" in line["error"] for line in notes("apologised")))

    def shipped(records):
        answers = [record["responsePayload"] or {} for record in records]
        return good.keys() <= {answer.get("order_id") for answer in answers}

    if not shipped(audit(shipped)):
        sys.exit("the audit lacks an order")
    print("✓ audit")


if __name__ == "__main__":
    commands = {"setup": setup, "send": send, "check": check}
    if sys.argv[1:] == ["audit"]:
        for line in audit():
            print(json.dumps(line, indent=1))
    elif len(sys.argv) == 2 and sys.argv[1] in commands:
        commands[sys.argv[1]]()
    else:
        sys.exit(__doc__)
