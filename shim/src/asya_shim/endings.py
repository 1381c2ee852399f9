"""What happens to open files when something ends: a turn, the interpreter, a second outside any turn.

Failures that no call can raise any more (a file collected without `close()`, an append in the
background) are kept with their scope, logged and counted, and make the turn or the process fail.
"""

from __future__ import annotations

import atexit
import os
import sys
from _thread import allocate_lock
from _weakref import ref

from asya_shim import scopes
from asya_shim.handles import RawFile
from asya_shim.scopes import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    import weakref
    from typing import Callable, Dict, List, Set

    from asya_shim.nodes import Node

EXIT_STATUS = 74
"""EX_IOERR of sysexits.h: a file could not be stored when the interpreter ended."""
APPEND_WITHIN = 1.0
"""Seconds after which bytes flushed to an append handle outside any turn are stored."""

failures: Dict[str, int] = {"collected": 0, "background": 0, "exit": 0, "forked": 0}
"""How often a change was lost where no call could raise it."""
before_commit: List[Callable[[], None]] = []
"""What has to write its data out before a scope is committed (databases with an index in memory)."""
before_discard: List[Callable[[Scope], None]] = []
"""What has to be closed above the files of a scope before they are dropped (libraries that would write to them)."""

_lost: List[BaseException] = []


def commit_scope(scope: Scope) -> None:
    """Store all that is open in `scope` or was touched by it; raise the first failure after trying all."""
    errors: List[BaseException] = []
    for write_out in before_commit:
        _attempt(write_out, errors)
    for file in scope.open_files():
        if file.writes:
            _attempt(lambda file=file: _flush_and_store(file), errors)  # type: ignore[misc]
    touched, scope.touched = scope.touched, set()
    for node in touched:
        _attempt(node.commit, errors)
    errors = scope.lost + errors
    scope.lost = []
    if errors:
        raise errors[0]


def discard_scope(scope: Scope) -> None:
    """Drop all that is open in `scope`, but store what was flushed to append handles.

    Files are closed, but not those of a cancelled turn, whose code may still be running: its next call
    has to raise ECANCELED.
    """
    errors: List[BaseException] = []
    for close in before_discard:
        _attempt(lambda close=close: close(scope), errors)  # type: ignore[misc]
    for file in scope.open_files():
        if file.appends and not file.node.rewritten:
            _attempt(file.node.commit, errors)
        _attempt(file.abandon, errors)
        if not scope.cancelled:
            outer = file.outer
            _attempt((outer if outer is not None else file).close, errors)
    touched, scope.touched = scope.touched, set()
    for node in touched:
        if not node.rewritten:
            _attempt(node.commit, errors)
    scope.lost = []
    if errors:
        raise errors[0]


def _flush_and_store(file: RawFile) -> None:
    outer = file.outer
    if outer is not None and outer is not file and not outer.closed:
        outer.flush()
    file.store()


def _attempt(step: Callable[[], object], errors: List[BaseException]) -> None:
    try:
        step()
    except Exception as error:
        errors.append(error)


def lose(scope: Scope, error: BaseException) -> None:
    """Keep a failure that its call could not raise: a file was collected while open."""
    failures["collected"] += 1
    _log("a file that was collected without close() could not be stored: %s", error)
    if scope.is_turn and not scope.ended:
        scope.lost.append(error)
    else:
        _lost.append(error)


def _log(text: str, *args: object) -> None:
    try:
        import logging

        logging.getLogger("asya.shim").error(text, *args)
    except ImportError:
        # The interpreter is being torn down.
        sys.stderr.write(f"asya: {text % args}\n")


# Appends outside any turn

_waiting: Set[weakref.ref[Node]] = set()
_waiting_lock = allocate_lock()
_timer: List[threading.Timer] = []
_exiting = False


def append_soon(node: Node) -> None:
    """Store the node's flushed appends within APPEND_WITHIN seconds, unless something does so before."""
    if _exiting:
        return  # `at_exit` stores it, and no thread starts any more
    with _waiting_lock:
        _waiting.add(ref(node))
        if not _timer:
            import threading

            timer = threading.Timer(APPEND_WITHIN * 0.8, _append_now)
            timer.daemon = True
            _timer.append(timer)
            scopes.start_plain(timer)


def _append_now() -> None:
    with _waiting_lock:
        nodes = [reference() for reference in _waiting]
        _waiting.clear()
        _timer.clear()
    for node in nodes:
        if node is None or node.rewritten:
            continue
        try:
            node.commit()
        except OSError as error:
            failures["background"] += 1
            _log("appended bytes could not be stored: %s", error)


# The interpreter's end


def is_exiting() -> bool:
    """Whether the interpreter ends."""
    return _exiting


def _every_file() -> List[RawFile]:
    found = [reference() for reference in list(RawFile.all_writers.values())]
    return [file for file in found if file is not None and not file.closed]


def at_exit() -> None:
    """Store every open file of this process. A failure makes the exit status EXIT_STATUS."""
    global _exiting
    _exiting = True
    errors = list(_lost)
    for write_out in before_commit:
        _attempt(write_out, errors)
    for file in _every_file():
        if file.scope.cancelled or file.node.disowned:
            continue
        known = len(errors)
        outer = file.outer
        _attempt((outer if outer is not None else file).close, errors)
        for error in errors[known:]:
            failures["exit"] += 1
            print(f"asya: {file.name!r} could not be stored at exit: {error}", file=sys.stderr)
    if errors:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                _attempt(stream.flush, errors)
        os._exit(EXIT_STATUS)


def install() -> None:
    """From now on the interpreter's end stores what is open."""
    atexit.register(at_exit)


def uninstall() -> None:
    """The inverse of `install`."""
    atexit.unregister(at_exit)


def forget_parent() -> None:
    """In a forked child: what waits is the parent's."""
    global _waiting_lock
    _waiting_lock = allocate_lock()
    _waiting.clear()
    _timer.clear()
    _lost.clear()
