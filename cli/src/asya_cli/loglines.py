"""Log lines of proxy and runtime as a person reads them: JSON on the wire, `level message key=value` here."""

from __future__ import annotations

import json
from typing import Any

_TIME = ("time", "ts")
# `msg` first: beside it, `message` is what an exception said.
_MESSAGE = ("msg", "message")
_ALARMING = frozenset({"warning", "error", "critical"})


def readable(line: str) -> tuple[str, bool]:
    """The line in words, and whether it is a warning or worse. What is no JSON log line stays as it is."""
    record = _record(line)
    if record is None:
        return line, False
    level = str(record.pop("level"))
    message = next((str(record.pop(name)) for name in _MESSAGE if name in record), "")
    for name in (*_TIME, "logger"):
        record.pop(name, None)
    # A traceback is text of several lines, and last.
    tail = [str(record.pop(name)) for name in ("exception", "exc_info", "traceback") if record.get(name)]
    words = [f"{level:<7}", message, *(f"{name}={_value(value)}" for name, value in record.items())]
    return "\n".join([" ".join(words), *tail]), level in _ALARMING


def _record(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if isinstance(record, dict) and "level" in record and any(name in record for name in _MESSAGE):
        return record
    return None


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if value and not any(c in value for c in ' "=') else json.dumps(value)
    return json.dumps(value, separators=(",", ":"))
