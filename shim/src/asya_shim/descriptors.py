"""Real descriptors of state files: `fileno()`, and the `os.open` family.

A descriptor is a memfd's, so reading, writing, seeking and mapping are the kernel's. What the shim has
to see are the ends: `close` and `fsync` store, `fstat` shows the state file's identity.
"""

from __future__ import annotations

import errno
import os

from asya_shim import original, paths, scopes
from asya_shim.handles import RawFile
from asya_shim.lookups import absent, stat
from asya_shim.namespace import is_particular, keep_creation_mode
from asya_shim.nodes import Node
from asya_shim.opening import open_raw
from asya_shim.paths import Place
from asya_shim.scopes import Scope, pending, refuse_below_unsent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional


class _OpenFiles(dict):  # type: ignore[type-arg]
    """A duplicate may be closed where nobody sees it (numpy does so in C), and its number be another file's by now."""

    def get(self, fd: Any, default: Any = None) -> Any:
        file = super().get(fd, default)
        if file is not None and fd in _duplicates and _duplicates[fd] != _identity(fd):
            _duplicates.pop(fd, None)
            self.pop(fd, None)
            _left(file, fd)
            return default
        return file

    def __contains__(self, fd: object) -> bool:
        return self.get(fd) is not None


_duplicates: Dict[int, Any] = {}
"""What the duplicates among `open_files` have to be descriptors of."""


def _identity(fd: int) -> Any:
    try:
        found = original.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


open_files: Dict[int, RawFile] = _OpenFiles()
"""State files by descriptor. Those of `os.open` live here alone, so the table holds them."""

_O_TMPFILE = getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY


def expose(file: RawFile, position: int) -> int:
    """A descriptor for a file object, at `position`."""
    fd = file.open_descriptor()
    if position:
        original.lseek(fd, position, 0)
    open_files.get(fd)  # forgets who had the number before
    open_files[fd] = file
    return fd


def withdraw(fd: int) -> None:
    """Close a file object's descriptor."""
    known = open_files.keys() >= {fd}
    file = open_files.get(fd)
    if known and file is None:
        return  # it was closed in C, and the number may be another file's
    open_files.pop(fd, None)
    _duplicates.pop(fd, None)
    original.close(fd)
    if file is not None and file.shared_descriptors:
        for other in [other for other, owner in open_files.items() if owner is file]:
            open_files.get(other)  # forgets it where it is closed


def open_descriptor(place: Place, flags: int, mode: int = 0o777) -> int:
    """`os.open` below a mount."""
    access = flags & os.O_ACCMODE
    reads, writes = access != os.O_WRONLY, access != os.O_RDONLY
    scope = scopes.current()
    if _O_TMPFILE and flags & _O_TMPFILE:
        node = Node(scope, place, b"")
        node.unlinked = True
        return _descriptor(RawFile(node, place.shown, "rb+", reads=reads, writes=writes))
    if flags & os.O_DIRECTORY or not place.key or place.directory or (not writes and place.id in scope.directories):
        return _directory(place, flags)
    if flags & os.O_CREAT and flags & os.O_EXCL:
        file = open_raw(place, "x", reads, scope)
        file.keep_when_abandoned()
        keep_creation_mode(place, mode)
    elif flags & (os.O_TRUNC | os.O_APPEND) and writes:
        creates = flags & os.O_CREAT and is_particular(mode) and _is_missing(scope, place)
        if not flags & os.O_CREAT and _is_missing(scope, place):
            raise absent(place)
        file = open_raw(place, "w" if flags & os.O_TRUNC else "a", reads, scope)
        if creates:
            keep_creation_mode(place, mode)
    else:
        try:
            file = open_raw(place, "r", writes, scope, reads)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            file = _created(scope, place, reads, writes)
            keep_creation_mode(place, mode)
        except IsADirectoryError:
            if writes:
                raise
            return _directory(place, flags)
    if flags & os.O_APPEND and writes:
        file.append_only()
    return _descriptor(file)


def _created(scope: Scope, place: Place, reads: bool, writes: bool) -> RawFile:
    if writes:
        return open_raw(place, "w", reads, scope)
    try:
        open_raw(place, "x", False, scope).close()
    except FileExistsError:
        pass  # somebody else has just created it
    return open_raw(place, "r", False, scope)


def _is_missing(scope: Scope, place: Place) -> bool:
    refuse_below_unsent(scope, place)
    return pending(scope, place) is None and stat(scope, place) is None


def _descriptor(file: RawFile) -> int:
    fd = file.fileno()
    if file.appends:
        original.lseek(fd, 0, 0)
    return fd


def _directory(place: Place, flags: int) -> int:
    """A descriptor that stands for a directory; the kernel answers ENOTDIR to whatever gets past the hooks."""
    scope = scopes.current()
    if place.key:
        refuse_below_unsent(scope, place)
        unsent = pending(scope, place) is not None
        info = None if unsent else stat(scope, place)
        if flags & os.O_CREAT and os.fsencode(place.shown).endswith(b"/"):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place.shown)
        if info is None and not unsent and place.id not in scope.directories:
            raise absent(place)
        if unsent or (info is not None and info.is_file):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place.shown)
    if flags & os.O_CREAT and flags & os.O_EXCL:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place.shown)
    if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_CREAT:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place.shown)
    fd: int = original.open_fd(os.devnull, os.O_PATH | os.O_CLOEXEC)
    paths.directories[fd] = place
    return fd


def close(fd: int) -> bool:
    """`os.close` of a descriptor of ours; False where it is not."""
    if paths.directories.pop(fd, None) is not None:
        original.close(fd)
        return True
    file = open_files.get(fd)
    if file is None:
        return False
    if file.shared_descriptors:
        for other in [other for other, owner in open_files.items() if owner is file]:
            open_files.get(other)  # forgets it where it is closed
    if file.descriptor == fd and not file.shared_descriptors:
        outer = file.outer
        (outer if outer is not None else file).close()
        return True
    # One of several descriptors of an open file: the last one stores.
    _part(file, fd)
    original.close(fd)
    return True


def _part(file: RawFile, fd: int) -> None:
    del open_files[fd]
    _duplicates.pop(fd, None)
    _left(file, fd)


def _left(file: RawFile, fd: int) -> None:
    """`fd` is no descriptor of `file` any more; it goes on with another one, if it has any."""
    file.shared_descriptors = max(file.shared_descriptors - 1, 0)
    if file.descriptor == fd:
        file.move_descriptor(next((other for other, owner in open_files.items() if owner is file), -1))


def alone(fd: int) -> RawFile:
    """The open file of a descriptor that is to get a file object: one of its own, where there are duplicates."""
    file = open_files[fd]
    if not file.shared_descriptors:
        return file
    _part(file, fd)
    own = open_files[fd] = file.beside(fd)
    return own


def duplicate(fd: int, made: int) -> None:
    """`made` is a duplicate of `fd`, made by the kernel."""
    place = paths.directories.get(fd)
    if place is not None:
        paths.directories[made] = place
    file = open_files.get(fd)
    if file is not None:
        open_files[made] = file
        _duplicates[made] = _identity(made)
        file.shared_descriptors += 1


def store(fd: Any) -> Optional[bool]:
    """`os.fsync` of a descriptor of ours; None where it is not."""
    file = open_files.get(fd)
    if file is None:
        return True if fd in paths.directories else None
    file.store()
    return True
