"""What Arrow gets of an open file, such that its threads may let go of it at any time.

They do so after the call that used it has returned. A thread that lets go of a Python object while the interpreter
ends takes the whole process down: it needs the GIL, and is ended for that in the midst of C++. A path on a disk never
meets this, so that one below a mount must not either: content that is in memory is read as a file of C++, and for
the rest the interpreter waits.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref

from pyarrow import OSFile, PythonFile

from asya_shim.content import Ranges
from asya_shim.layers import below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict

AT_MOST = 1.0
"""Seconds that the end of the interpreter waits; what a module keeps in a global is not let go at all."""

lent: Dict[int, weakref.ref[Any]] = {}
"""What Arrow may hold, by its `id`; not all of it can be hashed."""


def lend(thing: Any, *_: Any) -> Any:
    """The thing, which a thread of Arrow may be the last to hold."""
    key = id(thing)
    lent[key] = weakref.ref(thing, lambda _: lent.pop(key, None))
    return thing


def source(file: Any, *_: Any) -> Any:
    """A file of Arrow that reads what a state file has, which is left open only where that comes in ranges."""
    raw = below(file)
    if raw is None or isinstance(raw.node.content, Ranges):
        return PythonFile(lend(file), mode="r")
    with file:
        return OSFile(f"/proc/self/fd/{file.fileno()}")


@atexit.register
def settle() -> None:
    """Let the threads have the GIL until they hold nothing of ours, and are out of the code that this runs."""
    deadline = time.monotonic() + AT_MOST
    while (lent or _foreign()) and time.monotonic() < deadline:
        time.sleep(0.001)


def _foreign() -> bool:
    """Whether a thread that is none of Python's own runs Python."""
    own = {thread.ident for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}
    return not own.issuperset(sys._current_frames())
