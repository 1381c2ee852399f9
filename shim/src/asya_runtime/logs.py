"""The runtime's own log lines: one JSON object per line on standard error.

Not the `logging` module: that belongs to the handler, which may configure, silence or replace it, and
`sys.stderr` with it. The handler's output is left alone. Never a payload, never file content.
"""

import datetime
import json
import os
from typing import Any

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_threshold = _LEVELS["info"]
_actor = ""


def set_up(level: str, actor: str) -> None:
    """Write lines of `level` (debug, info, warning, error) and above, each with the actor's name."""
    global _threshold, _actor
    _threshold, _actor = _LEVELS[level], actor


def log(level: str, message: str, /, **fields: Any) -> None:
    """Write one line with the fields that are not None; `asya_contract.logs` names them."""
    if _LEVELS[level] < _threshold:
        return
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "logger": "asya_runtime", "message": message}
    if _actor:
        line["actor"] = _actor
    line.update((name, value) for name, value in fields.items() if value is not None)
    _write(json.dumps(line, default=str) + "\n")


def say(text: str) -> None:
    """Write a plain message for a person, such as why the runtime does not start."""
    _write(text if text.endswith("\n") else text + "\n")


def _write(text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        # Nobody reads standard error; there is nowhere else to say so.
        return
