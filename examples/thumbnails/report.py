"""Says how many photos were noted: every minute, on weekday mornings in Berlin, and when somebody pushes to main."""

import json
import os
from pathlib import Path

OUT = Path(os.environ["OUT_DIR"])


def handler(event, context):
    photos = [json.loads(path.read_text()) for path in sorted(OUT.rglob("*.json"))]
    pixels = sum(photo.get("width", 0) * photo.get("height", 0) for photo in photos)
    print(f"{why(event)}: {len(photos)} photos, {pixels:,} pixels")
    return {"photos": len(photos), "pixels": pixels}


def why(event):
    if event.get("detail-type") == "Scheduled Event":
        return f"tick of {event['time']}"
    push = event.get("data") or {}  # a webhook arrives as a CloudEvent
    message = (push.get("head_commit") or {}).get("message", "no message")
    return f"push to {push.get('ref', '?')}: {message}"
