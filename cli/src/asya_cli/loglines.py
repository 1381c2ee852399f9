"""Log lines of proxy and runtime as a person reads them: JSON on the wire, `level message key=value` here.

The keys are those of `asya_contract.logs`.
"""

from __future__ import annotations

import json
from typing import Any

_UNSAID = ("time", "logger", "actor")
"""What is the same in every line, or is on the screen already."""
_ALARMING = frozenset({"warning", "error", "critical"})


def readable(line: str) -> tuple[str, bool]:
    """The line in words, and whether it is a warning or worse. What is no JSON log line stays as it is."""
    record = _record(line)
    if record is None:
        return line, False
    level = str(record.pop("level"))
    message = str(record.pop("message"))
    for name in _UNSAID:
        record.pop(name, None)
    # A traceback is text of several lines, and last.
    tail = str(record.pop("exception", "")).rstrip("\n")
    words = [f"{level:<7}", message, *(f"{name}={_value(value)}" for name, value in record.items())]
    return " ".join(words) + (f"\n{tail}" if tail else ""), level in _ALARMING


def _record(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if isinstance(record, dict) and "level" in record and "message" in record:
        return record
    return None


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if value and not any(c in value for c in ' "=') else json.dumps(value)
    return json.dumps(value, separators=(",", ":"))
