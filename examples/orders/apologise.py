"""Writes to customers whose order could not be priced. What comes here is Lambda's destination record."""

import json

from notes import note


def handler(event, context):
    for message in event["Records"]:
        record = json.loads(message["body"])
        note("apologised", {
            "condition": record["requestContext"]["condition"],
            "error": record["responsePayload"]["errorMessage"],
        })
