"""Greets whoever sends an event. Edit this file while `bellwire dev` runs: it reloads."""


def handler(event, context):
    name = "world"
    if isinstance(event.get("data"), dict):  # a webhook or a topic: a CloudEvent with its data
        name = event["data"].get("name", name)
    elif event.get("detail-type") == "Scheduled Event":
        name = f"tick of {event['time']}"
    print(f"hello, {name}")
    return {"greeted": name}
