"""The brokers' own public clients, as a user's programs use them. Each command prints one line per fact.

  produce kafka|rabbitmq|sqs ADDRESS PLACE PREFIX RATE LIMIT
      sends {"id": "<PREFIX>-<n>"} until LIMIT or until stdin closes; prints `ok ID` when the broker has confirmed it,
      `unknown ID` when nobody knows. Every id is sent once: what a client does not know, it does not repeat.
  make kafka|rabbitmq|sqs ADDRESS PLACE        makes the topic (4 partitions) or the queue (messages of an SQS queue come
      again after 3 seconds); prints the queue's URL
  drop rabbitmq ADDRESS PLACE                  deletes the queue
  raw kafka|rabbitmq|sqs ADDRESS PLACE KEY     sends what stdin holds as one message
  read kafka|rabbitmq|sqs ADDRESS PLACE COUNT  takes so many messages off, prints the body of each as a JSON text
  member kafka ADDRESS PLACE GROUP             joins the group until stdin closes; prints `record` for each it is handed
  lag rabbitmq|sqs ADDRESS PLACE               how many messages are there, given out ones included with SQS
  proxy sqs ADDRESS ACTION FAILURES            a proxy before the service that answers so many requests of this action
      (`DeleteMessageBatch`) with an error of the server; prints its URL, then a line for each
  bucket sqs ADDRESS QUEUE BUCKET              makes a bucket that tells the queue of new objects
  put sqs ADDRESS BUCKET KEY                   puts what stdin holds into an object
"""

import json
import os
import sys
import threading
import time

STOP = threading.Event()


def stop_with_stdin():
    def wait():
        # Not through `sys.stdin`: a reader of it may not outlive the interpreter.
        while os.read(0, 64):
            pass
        STOP.set()

    threading.Thread(target=wait, daemon=True).start()


def say(*words):
    print(*words, flush=True)


def ids(prefix, rate, limit):
    start = time.monotonic()
    for n in range(limit):
        if STOP.is_set():
            return
        wait = start + n / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        else:
            # What was missed while the broker was away is not caught up with.
            start -= wait
        yield f"{prefix}-{n}"


def body(name):
    n = int(name.rsplit("-", 1)[1])
    return json.dumps({"id": name, "poison": n % 50 == 7, "filler": "x" * 200}).encode()


class Kafka:
    def __init__(self, address, place):
        from confluent_kafka import Producer

        self.address, self.place = address, place
        # A client that repeats would make two records of one: this one says "unknown" instead.
        self.settings = {"bootstrap.servers": address, "acks": "all", "retries": 0, "linger.ms": 5,
                         "request.timeout.ms": 5000, "delivery.timeout.ms": 8000, "message.timeout.ms": 8000,
                         "log_level": 0}
        self.producer = Producer(self.settings)

    def make(self):
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(self.place, 4, 1)])[self.place].result(30)
        return self.place

    def produce(self, names):
        for name in names:
            def done(error, _message, name=name):
                say("unknown" if error else "ok", name)

            self.producer.produce(self.place, body(name), key=name, on_delivery=done)
            self.producer.poll(0)
        self.producer.flush(20)

    def raw(self, data, key):
        settings = self.settings | {"message.max.bytes": 20_000_000}
        from confluent_kafka import Producer

        producer, wrong = Producer(settings), []
        producer.produce(self.place, data, key=key or None, on_delivery=lambda e, m: wrong.append(e) if e else None)
        producer.flush(20)
        assert not wrong, wrong

    def consumer(self, group):
        from confluent_kafka import Consumer

        settings = {"bootstrap.servers": self.address, "group.id": group, "auto.offset.reset": "earliest",
                    "session.timeout.ms": 6000, "enable.auto.commit": False}
        return Consumer(settings | {"partition.assignment.strategy": "cooperative-sticky"})

    def read(self, count):
        consumer = self.consumer(f"reader-{os.getpid()}")
        consumer.subscribe([self.place])
        while count and not STOP.is_set():
            for message in consumer.consume(count, 0.2):
                if not message.error():
                    count -= 1
                    yield message.value()
        consumer.close()

    def member(self, group):
        consumer = self.consumer(group)
        consumer.subscribe([self.place])
        while not STOP.is_set():
            message = consumer.poll(0.2)
            if message and not message.error():
                say("record")
        consumer.close()


class Rabbitmq:
    def __init__(self, address, place):
        self.address, self.place = address, place

    def channel(self):
        import pika

        return pika.BlockingConnection(pika.URLParameters(self.address)).channel()

    def make(self):
        self.channel().queue_declare(self.place, durable=True, arguments={"x-queue-type": "quorum"})
        return self.place

    def drop(self):
        self.channel().queue_delete(self.place)

    def publish(self, channel, data, name):
        import pika

        properties = pika.BasicProperties(delivery_mode=2, message_id=name, content_type="application/json")
        channel.basic_publish("", self.place, data, properties, mandatory=True)

    def produce(self, names):
        import pika

        channel = None
        for name in names:
            while channel is None and not STOP.is_set():
                try:
                    channel = self.channel()
                    channel.confirm_delivery()
                except (pika.exceptions.AMQPError, OSError):
                    channel = None
                    time.sleep(0.1)
            if channel is None:
                return
            try:
                self.publish(channel, body(name), name)
                say("ok", name)
            except (pika.exceptions.AMQPError, OSError):
                say("unknown", name)
                channel = None

    def raw(self, data, key):
        channel = self.channel()
        channel.confirm_delivery()
        self.publish(channel, data, key)

    def read(self, count):
        channel = self.channel()
        for method, _properties, data in channel.consume(self.place, inactivity_timeout=0.2):
            if method:
                channel.basic_ack(method.delivery_tag)
                count -= 1
                yield data
            if not count or STOP.is_set():
                return

    def lag(self):
        return self.channel().queue_declare(self.place, passive=True).method.message_count


class Sqs:
    def __init__(self, address, place):
        import boto3

        self.client, self.s3 = (
            boto3.client(name, endpoint_url=address, region_name="us-east-1", aws_access_key_id="test",
                         aws_secret_access_key="test")
            for name in ("sqs", "s3")
        )
        self.address, self.place = address, place

    def make(self):
        attributes = {"VisibilityTimeout": "3"}
        if self.place.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        return self.client.create_queue(QueueName=self.place, Attributes=attributes)["QueueUrl"]

    def bucket(self, name):
        asked = self.client.get_queue_attributes(QueueUrl=self.place, AttributeNames=["QueueArn"])
        told = {"QueueArn": asked["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        self.s3.create_bucket(Bucket=name)
        self.s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"QueueConfigurations": [told]})

    def put(self, data, key):
        self.s3.put_object(Bucket=self.place, Key=key, Body=data)

    def proxy(self, failures):
        import http.client
        import http.server

        target, action = self.address.removeprefix("http://"), self.place
        left = iter(range(failures))

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                data = self.rfile.read(int(self.headers["content-length"]))
                status, kind, answer = 500, "application/x-amz-json-1.0", b'{"__type": "InternalFailure"}'
                failed = self.headers.get("x-amz-target", "").endswith(action) and next(left, None) is not None
                if failed:
                    say("failed")
                else:
                    server = http.client.HTTPConnection(target, timeout=60)
                    server.request("POST", self.path, data, dict(self.headers))
                    got = server.getresponse()
                    status, kind, answer = got.status, got.getheader("content-type"), got.read()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        say(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        STOP.wait()

    def more(self, name):
        if not self.place.endswith(".fifo"):
            return {}
        return {"MessageGroupId": f"g{hash(name) % 5}", "MessageDeduplicationId": name}

    def produce(self, names):
        # In tens, as the service takes them: singly the emulator is the bottleneck.
        batch = []

        def send():
            entries = [{"Id": str(n), "MessageBody": body(name).decode()} | self.more(name)
                       for n, name in enumerate(batch)]
            answer = self.client.send_message_batch(QueueUrl=self.place, Entries=entries) if entries else {}
            for done in answer.get("Successful", []):
                say("ok", batch[int(done["Id"])])
            for failed in answer.get("Failed", []):
                say("unknown", batch[int(failed["Id"])])
            batch.clear()

        for name in names:
            batch.append(name)
            if len(batch) == 10:
                send()
        send()

    def raw(self, data, key):
        self.client.send_message(QueueUrl=self.place, MessageBody=data.decode())

    def read(self, count):
        while count and not STOP.is_set():
            answer = self.client.receive_message(QueueUrl=self.place, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                self.client.delete_message(QueueUrl=self.place, ReceiptHandle=message["ReceiptHandle"])
                count -= 1
                yield message["Body"].encode()

    def lag(self):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.client.get_queue_attributes(QueueUrl=self.place, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


def main(command, kind, address, place, *more):
    broker = {"kafka": Kafka, "rabbitmq": Rabbitmq, "sqs": Sqs}[kind](address, place)
    if command == "raw":
        return broker.raw(sys.stdin.buffer.read(), more[0])
    if command == "make":
        return say(broker.make())
    if command == "lag":
        return say(broker.lag())
    if command == "drop":
        return broker.drop()
    if command == "bucket":
        return broker.bucket(more[0])
    if command == "put":
        return broker.put(sys.stdin.buffer.read(), more[0])
    stop_with_stdin()
    if command == "produce":
        prefix, rate, limit = more
        broker.produce(ids(prefix, float(rate), int(limit)))
    elif command == "read":
        for data in broker.read(int(more[0])):
            say(json.dumps(data.decode()))
    elif command == "member":
        broker.member(more[0])
    elif command == "proxy":
        broker.proxy(int(more[0]))
    else:
        sys.exit(f"no command {command}")


main(*sys.argv[1:])
