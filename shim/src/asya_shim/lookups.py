"""How asking the state meets the ledger: every read, stat and listing of the shim goes through here.

Three rules of the contract live in this room. What was answered is remembered as a token. What could
not be answered marks the file, so that nothing overwrites it by accident. And whoever swallows
`OSError` around a lookup by design (`watch`) is told of outages all the same.
"""

from __future__ import annotations

import errno
import os
from _thread import _local

from asya_shim.errors import StateUnavailableError
from asya_shim.paths import Place
from asya_shim.scopes import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, List, Optional, Set, TypeVar

    from asya_shim.paths import FileId
    from asya_shim.remote import Content, Info, Listed

    _T = TypeVar("_T")

HELD = 16 * 2**20
"""Files up to this size are fetched whole when they are opened."""


class Entry:
    """One name in a directory."""

    __slots__ = ("is_file", "mtime_ns", "name", "size", "version")

    def __init__(self, name: bytes, is_file: bool, size: int, mtime_ns: int, version: str) -> None:
        self.name = name
        self.is_file = is_file
        self.size = size
        self.mtime_ns = mtime_ns
        self.version = version


class _Watch(_local):
    outages: Optional[List[BaseException]] = None
    listed: Optional[Set[FileId]] = None
    """Directories that the walk that is running has seen in a listing, and will ask of each whether it is a link."""


watch = _Watch()
"""What this thread met that a function of the standard library, which calls the hooks, has to be told of."""


def ask(place: Place, call: Callable[..., _T], *args: Any) -> _T:
    """`call(*args)`, with the path as the user gave it in what it raises."""
    try:
        return call(*args)
    except OSError as error:
        raise named(error, place) from None


def named(error: OSError, place: Place) -> OSError:
    """`error` about the path of `place`, reported to whoever watches for outages."""
    error.filename = place.shown
    if watch.outages is not None and isinstance(error, StateUnavailableError):
        watch.outages.append(error)
    return error


def absent(place: Place) -> FileNotFoundError:
    """What looking for a file that is not there raises."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place.shown)


def _unanswered(scope: Scope, place: Place, error: OSError) -> OSError:
    if isinstance(error, StateUnavailableError):
        scope.ledger.failed(place.id)
    return named(error, place)


def stat(scope: Scope, place: Place) -> Optional[Info]:
    """What is at `place`, remembered by the scope: a file gives a weak token, absence a strong one."""
    try:
        info = place.remote.stat(place.key)
    except OSError as error:
        raise _unanswered(scope, place, error) from None
    if info is None:
        if place.id not in scope.directories:
            scope.ledger.saw(place.id, None)
    elif info.is_file:
        scope.ledger.saw_name(place.id, info.version)
    else:
        scope.directories.add(place.id)
    return info


def peek(scope: Scope, place: Place) -> Optional[Info]:
    """What is at `place`, for a question that the program did not ask: no token. An outage still marks the file."""
    try:
        return place.remote.stat(place.key)
    except OSError as error:
        raise _unanswered(scope, place, error) from None


def read(scope: Scope, place: Place) -> Content:
    """The content of a file, or of a large one its beginning. Raises FileNotFoundError, IsADirectoryError."""
    try:
        found = place.remote.read(place.key, 0, HELD)
    except OSError as error:
        raise _unanswered(scope, place, error) from None
    if found is None:
        scope.ledger.saw(place.id, None)
        raise absent(place)
    scope.ledger.saw(place.id, found.version)
    return found


def read_range(place: Place, start: int, end: int, version: str) -> bytes:
    """Bytes of one version of a file. Raises StateConflictError where it was replaced."""
    found = ask(place, place.remote.read, place.key, start, end, version)
    if found is None or len(found.data) != end - start:
        raise named(place.remote.failure("conflict", "the file was replaced while it was read", place.key), place)
    return found.data


def listing(place: Place) -> Iterator[Listed]:
    """The names in a directory, in pages fetched as they are reached."""
    names = place.remote.list(place.key + b"/" if place.key else b"")
    while True:
        try:
            found = next(names)
        except StopIteration:
            return
        except OSError as error:
            raise named(error, place) from None
        yield found
