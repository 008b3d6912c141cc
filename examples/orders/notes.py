"""What the handlers saw, one line each in OUT_DIR, so that one can look."""

import json
import os


def note(name, what):
    """Appends a line of JSON to `<name>.jsonl`."""
    folder = os.environ.get("OUT_DIR", "out")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name + ".jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps(what, sort_keys=True) + "\n")
