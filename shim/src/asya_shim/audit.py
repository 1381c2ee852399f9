"""The leak alarm: an `open` of a state path that reaches the interpreter got past the hooks, and must not succeed.

The shim itself never opens a state path, so there is nothing to tell apart. An audit hook can refuse
but not redirect, and cannot be removed; disarmed, it returns at once.
"""

from __future__ import annotations

import errno
import sys

from asya_shim.paths import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Tuple

_armed = False
_added = False


def arm() -> None:
    """Refuse from now on."""
    global _armed, _added
    _armed = True
    if not _added:
        _added = True
        sys.addaudithook(_hook)


def disarm() -> None:
    """Let everything pass."""
    global _armed
    _armed = False


def _hook(event: str, args: Tuple[Any, ...]) -> None:
    if event == "open":
        if _armed and type(args[0]) is not int and locate(args[0]) is not None:
            raise OSError(
                errno.ENOTSUP,
                "this way of opening a state file gets past the file hooks; open() it and pass the file object",
                args[0],
            )
    elif event == "sqlite3.connect" and _armed and locate(args[0]) is not None:
        raise OSError(
            errno.ENOTSUP,
            "SQLite cannot open a state file by path: keep the database in memory, load it with "
            "Connection.deserialize(open(path, 'rb').read()) and store Connection.serialize() with open(path, 'wb')",
            args[0],
        )
