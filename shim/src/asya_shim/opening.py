"""`open` of a state file: its arguments, what each mode asks of the state, and the node that it gets.

Modes and arguments that are wrong are refused in the words of the real `open`.
"""

from __future__ import annotations

import errno
import os
from itertools import permutations

from asya_shim import changes, lookups, original, scopes
from asya_shim.handles import RAW_MODES, RawFile
from asya_shim.layers import dress, dress_bytes
from asya_shim.nodes import Node, held
from asya_shim.scopes import Scope, pending, refuse_below_unsent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple

    from asya_shim.paths import Place

_NEWLINES = (None, "", "\n", "\r", "\r\n")
_PARSED = {
    "".join(order): (letter, bool(plus), kind == "b")
    for letter in "rwxa"
    for plus in ("", "+")
    for kind in ("", "b", "t")
    for order in permutations(letter + plus + kind)
}


def parse_mode(mode: Any) -> Optional[Tuple[str, bool, bool]]:
    """`(r|w|x|a, +, b)`, or None where `open` would refuse it."""
    try:
        return _PARSED.get(mode)
    except TypeError:
        return None


def open_state(
    place: Place,
    mode: Any = "r",
    buffering: int = -1,
    encoding: Optional[str] = None,
    errors: Optional[str] = None,
    newline: Optional[str] = None,
    closefd: bool = True,
) -> Any:
    """What `open(path, ...)` does, for a path below a mount. `place.shown` is what it was given."""
    parsed = _PARSED.get(mode) if type(mode) is str else parse_mode(mode)
    if parsed is not None and parsed[2] and buffering == -1 and encoding is errors is newline is None and closefd:
        return dress_bytes(open_raw(place, parsed[0], parsed[1]), parsed)
    textual = encoding is not None or errors is not None or newline is not None
    if (
        parsed is None
        or (textual and (parsed[2] or newline not in _NEWLINES))
        or not closefd
        or type(buffering) is not int
        or buffering == 0
    ):
        # Raises exactly what it should, for every wrong combination; succeeds for unbuffered binary.
        probed = mode.replace("x", "w") if parsed is not None else mode
        original.open_file(os.devnull, probed, buffering, encoding, errors, newline, closefd).close()
        if parsed is None:
            parsed = ("r", False, "b" in mode)  # "U" before Python 3.11
    raw = open_raw(place, parsed[0], parsed[1])
    return dress(raw, parsed, mode, buffering, encoding, errors, newline)


def open_raw(
    place: Place, letter: str, plus: bool, scope: Optional[Scope] = None, reads: Optional[bool] = None
) -> RawFile:
    """Open the file itself; `letter` is one of r, w, x, a. `reads` False makes a write-only handle of any.

    Raises:
        FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError: as on a disk.
        StateConflictError, StateUnavailableError: see `changes.condition`.
    """
    scope = scope or scopes.current()
    if not place.key or place.directory:
        _refuse_directory(scope, place, letter)
    if scope.nodes or scope.touched:
        refuse_below_unsent(scope, place)
    mode = RAW_MODES[letter, plus]
    if letter == "r":
        return RawFile(_for_reading(scope, place), place.shown, mode, reads is not False, plus)
    if letter == "a":
        return RawFile(_for_appending(scope, place), place.shown, mode, plus, True, appends=True)
    if letter == "x":
        node = _create(scope, place)
        return RawFile(node, place.shown, mode, plus, True, creates=True)
    changes.condition(scope, place)
    if place.id in scope.directories:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place.shown)
    shared = _shared(scope, place) if scope.nodes else None
    if shared is None:
        shared = Node(scope, place, bytearray())
        shared.rewritten = True
    else:
        shared.truncate(0)
    return RawFile(shared, place.shown, mode, plus, True)


def _refuse_directory(scope: Scope, place: Place, letter: str) -> None:
    """A name that can only be a directory is never opened as a file."""
    number = errno.EISDIR
    if place.key:
        refuse_below_unsent(scope, place)
        info = lookups.stat(scope, place)
        if letter != "r" and os.fsencode(place.shown).endswith(b"/"):
            pass  # the kernel refuses to create it, whatever is there
        elif pending(scope, place) is not None or (info is not None and info.is_file):
            number = errno.ENOTDIR
        elif info is None and place.id not in scope.directories:
            number = errno.ENOENT
        elif letter == "x":
            number = errno.EEXIST
    raise OSError(number, os.strerror(number), place.shown)


def _shared(scope: Scope, place: Place) -> Optional[Node]:
    node = scope.nodes.get(place.id)
    if node is not None and node.dead is None and not node.disowned:
        return node
    return None


def _for_reading(scope: Scope, place: Place) -> Node:
    node = pending(scope, place) if scope.nodes or scope.touched else None
    if node is not None:
        return node
    found = lookups.read(scope, place)
    data, size = found.data, found.size
    content = data if len(data) == size else held(place, data, found.version, size)
    if scope.nodes:
        node = _shared(scope, place)
        if node is not None and node.version == found.version:
            if node.content is None:
                node.content = content
            return node
    node = Node(scope, place, content)
    node.version = found.version
    node.stored_size = found.size
    node.mtime_ns = found.mtime_ns
    return node


def _for_appending(scope: Scope, place: Place) -> Node:
    node = pending(scope, place)
    if node is not None:
        return node
    info = lookups.peek(scope, place)
    if (info is not None and not info.is_file) or (info is None and place.id in scope.directories):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place.shown)
    node = scope.nodes.get(place.id)
    if node is not None and info is not None and node.version == info.version and node.content is not None:
        return node
    node = Node(scope, place, None)
    node.missing = info is None
    if info is not None:
        node.version = info.version
        node.stored_size = info.size
        node.mtime_ns = info.mtime_ns
    return node


def _create(scope: Scope, place: Place) -> Node:
    if pending(scope, place) is not None or place.id in scope.directories:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place.shown)
    try:
        version = changes.create(scope, place)
    except IsADirectoryError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place.shown) from None
    node = Node(scope, place, b"")
    node.version = version
    return node
