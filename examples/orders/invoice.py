"""Files invoices that were put into the bucket `invoices`."""

import urllib.parse

from notes import note


def handler(event, context):
    for record in event["Records"]:
        key = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
        note("filed", {"bucket": record["s3"]["bucket"]["name"], "key": key, "event": record["eventName"]})
