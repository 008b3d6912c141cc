"""Prices orders that come from Kafka. An order without items is the sender's mistake, and fails."""

import base64
import json

from notes import note

PRICES = {"apple": 40, "pear": 55, "quince": 90}


def handler(event, context):
    priced = None
    for records in event["records"].values():
        for record in records:
            order = json.loads(base64.b64decode(record["value"]))
            if not order.get("items"):
                raise ValueError("order " + order["order_id"] + " has no items")
            total = sum(PRICES[item] for item in order["items"])
            priced = {"order_id": order["order_id"], "total_cents": total}
            note("priced", {**priced, "position": f"{record['topic']}/{record['partition']}@{record['offset']}"})
    # What is returned goes on to RabbitMQ: `on_success`, payload `result`.
    return priced
