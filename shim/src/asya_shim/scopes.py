"""Whose file calls these are: the scope of the code that is running.

A scope is one observer of the state: a turn, or outside turns one asyncio task or thread. It owns a
ledger of tokens, the files open in it, and what it has seen of directories. Two scopes see of each
other only what is committed, as two pods would.
"""

from __future__ import annotations

import errno
import os
import sys
from _contextvars import ContextVar
from _thread import _local

from asya_shim import paths
from asya_shim.paths import Place
from asya_shim.tokens import Imported, Ledger, ProcessLedger

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    import weakref
    from typing import Any, Dict, List, Optional, Set

    from asya_shim.handles import RawFile
    from asya_shim.nodes import Node
    from asya_shim.paths import FileId


class Scope:
    """One observer. `nodes` are the files it has changes of, or handles on, by name."""

    is_turn = False

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.nodes: Dict[FileId, Node] = {}
        self.files: Dict[int, weakref.ref[RawFile]] = {}
        self.directories: Set[FileId] = set()
        self.touched: Set[Node] = set()
        self.lost: List[BaseException] = []
        self.stored = False
        self.cancelled = False
        self.ended = False
        self.traceparent: Optional[str] = None

    def open_files(self) -> List[RawFile]:
        """The files opened in this scope that are still open, oldest first."""
        found = [reference() for reference in list(self.files.values())]
        return [file for file in found if file is not None and not file.closed]


imported = Imported()
"""What the process read before its first turn."""

current_turn: ContextVar[Optional[Scope]] = ContextVar("asya_turn", default=None)
_carried: ContextVar[Optional[Scope]] = ContextVar("asya_carried", default=None)
"""Whose work the running call is. Of a context and not of a thread, since greenlets take turns on one."""
ambient: List[Scope] = []
"""Process-wide turns, innermost last: they own whatever has no turn of its own."""


class _Thread(_local):
    scope: Optional[Scope] = None


_thread = _Thread()
_owned: Optional[weakref.WeakKeyDictionary[Any, Scope]] = None


def current() -> Scope:
    """The scope of the running code.

    Raises:
        OSError: ECANCELED, its turn was cancelled (its time is up, or its client has gone).
    """
    scope = current_turn.get()
    if scope is None or not scope.is_turn:
        scope = _uncancelled()
    if scope.cancelled:
        raise OSError(errno.ECANCELED, "the turn that this call belongs to was cancelled")
    return scope


def writer(uncancelled: bool = False) -> Optional[Scope]:
    """The turn whose end commits what the running code writes now; None outside any turn that goes on."""
    if not ambient and current_turn.get() is None and _carried.get() is None:
        return None
    scope = _uncancelled() if uncancelled else current()
    if (scope.ended or not scope.is_turn) and ambient:
        scope = ambient[-1]
    return scope if scope.is_turn and not scope.ended else None


def _outside() -> Scope:
    events = sys.modules.get("asyncio.events")
    if events is not None and events._get_running_loop() is not None:
        task = sys.modules["asyncio"].current_task()
        if task is not None:
            return _of(task)
    # None too while it is being imported, and of a module of somebody's own by that name.
    getcurrent = getattr(sys.modules.get("greenlet"), "getcurrent", None)
    if getcurrent is not None:
        # Each of gevent's is a thread to its program; a thread's first one has no parent.
        greenlet = getcurrent()
        if greenlet.parent is not None:
            return _of(greenlet)
    scope = _thread.scope
    if scope is None:
        scope = _thread.scope = Scope(ProcessLedger(imported))
    return scope


def _of(owner: Any) -> Scope:
    """The scope of a task or greenlet."""
    global _owned
    if _owned is None:
        import weakref

        _owned = weakref.WeakKeyDictionary()
    scope = _owned.get(owner)
    if scope is None:
        scope = _owned[owner] = Scope(ProcessLedger(imported))
    return scope


def pending(scope: Scope, place: Place) -> Optional[Node]:
    """The node whose unsent changes calls of this scope must see, if there is one."""
    node = scope.nodes.get(place.id)
    if node is not None and node.pending:
        return node
    for touched in scope.touched:
        if touched.place.id == place.id and touched.pending:
            return touched
    return None


def refuse_below_unsent(scope: Scope, place: Place) -> None:
    """Raise NotADirectoryError where a parent of `place` is a file that only this scope knows of."""
    if not scope.nodes and not scope.touched:
        return
    end = place.key.find(b"/")
    while end > 0:
        node = pending(scope, Place(place.mount, place.key[:end], place.shown))
        if node is not None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place.shown)
        end = place.key.find(b"/", end + 1)


class Carried:
    """A call that runs as work of the scope that submitted it, in whatever thread."""

    __slots__ = ("_call", "_scope")

    def __init__(self, call: Any, scope: Scope) -> None:
        self._call = call
        self._scope = scope

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = _carried.set(self._scope)
        reset = current_turn.set(self._scope if self._scope.is_turn else None)
        try:
            return self._call(*args, **kwargs)
        finally:
            current_turn.reset(reset)
            _carried.reset(before)


def traceparent() -> Optional[str]:
    """The trace that the running code works for; None where there is none."""
    return _uncancelled().traceparent


def is_active() -> bool:
    """Whether there are mounts at all."""
    return bool(paths.mounts)


def carry(call: Any) -> Any:
    """`call` as work of the running code's scope."""
    return Carried(call, _uncancelled())


def _uncancelled() -> Scope:
    scope = current_turn.get() or _carried.get()
    if scope is None or not scope.is_turn:
        scope = ambient[-1] if ambient else scope or _outside()
    return scope


def start_plain(thread: threading.Thread) -> None:
    """Start a thread of the shim's own: it belongs to no turn."""
    import threading

    reset, carried = current_turn.set(None), _carried.set(None)
    try:
        threading.Thread.start(thread)
    finally:
        current_turn.reset(reset)
        _carried.reset(carried)
