"""An actor that remembers: it counts its visitors in a file below /state."""

import json
from typing import Any

VISITORS = "/state/visitors.json"


def process(payload: dict[str, Any]) -> dict[str, Any]:
    """`{"name": ...}` in; the same with a greeting and the number of visits of that name out."""
    try:
        with open(VISITORS) as f:
            visitors = json.load(f)
    except FileNotFoundError:
        visitors = {}
    name = str(payload.get("name", "stranger"))
    visitors[name] = visitors.get(name, 0) + 1
    with open(VISITORS, "w") as f:
        json.dump(visitors, f)
    return {**payload, "greeting": f"Hello, {name}!", "visits": visitors[name]}
