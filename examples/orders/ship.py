"""Ships priced orders that come from RabbitMQ."""

import base64
import json

from notes import note


def handler(event, context):
    shipped = None
    for place, messages in event["rmqMessagesByQueue"].items():
        for message in messages:
            order = json.loads(base64.b64decode(message["data"]))
            shipped = {"order_id": order["order_id"], "total_cents": order["total_cents"], "queue": place}
            note("shipped", shipped)
    # The record of this call, request and answer, goes to the Kafka topic `order-audit`.
    return shipped
