"""Notes the size of every new photo: an AWS Lambda handler for S3 notifications, nothing in it knows Bellwire.

A real one would fetch the object with boto3 and scale it; this one reads it from PHOTOS_DIR, so that it runs on a
machine without an object store.
"""

import json
import os
import urllib.parse
from pathlib import Path

from image_size import image_size

PHOTOS = Path(os.environ["PHOTOS_DIR"])
OUT = Path(os.environ["OUT_DIR"])


def handler(event, context):
    for record in event["Records"]:
        key = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
        if key == "flaky.jpg":
            fail_twice(key)
        note(key, record["s3"]["bucket"]["name"])


def note(key, bucket):
    photo = inside(PHOTOS, key)
    facts = {"bucket": bucket, "key": key}
    if photo.exists():
        facts["format"], facts["width"], facts["height"] = image_size(photo.read_bytes())
        facts["bytes"] = photo.stat().st_size
        text = f"{facts['width']}×{facts['height']}"
    else:
        text = f"without a size: {key} is not in {PHOTOS}/"
    target = inside(OUT, key + ".json")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The same event may arrive twice: written beside and renamed, the file is whole whatever happens.
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.write_text(json.dumps(facts, indent=2) + "\n")
    fresh.replace(target)
    print(f"wrote {target} {text}")


def inside(folder, key):
    """The path of a key below a folder; keys come from outside and may hold `..`."""
    path = (folder / key).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the key {key!r} leaves its folder")
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def fail_twice(key):
    """Fails the first two times, then works. The count lies in a file: it survives restarts of anything."""
    OUT.mkdir(parents=True, exist_ok=True)
    counter = OUT / f".tries-of-{key}"
    tries = int(counter.read_text()) if counter.exists() else 0
    if tries < 2:
        counter.write_text(str(tries + 1))
        raise IOError("disk says no")
    counter.unlink()
