"""The leak alarm: an `open` of a state path that reaches the interpreter got past the hooks, and must not succeed.

The shim itself never opens a state path, so there is nothing to tell apart. An audit hook can refuse
but not redirect, and cannot be removed; disarmed, it returns at once.
"""

from __future__ import annotations

import os
import sys

from asya_shim import paths
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
            from asya_shim import leaks

            raise leaks.refused(args[0], leaks.caller(), "this way of opening a state file gets past the file hooks")
    elif event == "sqlite3.connect":
        path = _database(args[0])
        if _armed and locate(path) is not None:
            from asya_shim import leaks

            raise leaks.refused(path, "sqlite3", "SQLite cannot open a state file by path")
    elif event == "subprocess.Popen" and _armed and paths.needle in repr(args[1:3]):
        from asya_shim import leaks

        leaks.explain_program(*args[:3])
    elif event == "os.system" and _armed and paths.needle in os.fsdecode(args[0]):
        from asya_shim import leaks

        leaks.explain_program("sh", ["sh", args[0]])


def _database(name: Any) -> Any:
    """The path in what `sqlite3.connect` was given: a path, or a URI of https://sqlite.org/uri.html."""
    if type(name) is bytes:
        name = os.fsdecode(name)
    if type(name) is not str or not name.startswith("file:"):
        return name
    path, _, query = name[len("file:") :].partition("#")[0].partition("?")
    if "mode=memory" in query:
        return None
    if path.startswith("//"):
        path = path[path.find("/", 2) :]
    from urllib.parse import unquote

    return unquote(path)
