"""Which paths lie below a mount, and under which key.

Purely textual: no disk and no proxy is asked. `..` and `//` are resolved as written, relative paths
against the working directory, which may itself be below a mount (`cwd`). Most calls in a process have
nothing to do with state, so there is one cheap negative test: a path that does not contain `needle`
cannot be below a mount.
"""

from __future__ import annotations

import errno
import os
import sys

from asya_shim import original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from asya_shim.remote import Remote

    FileId = Tuple[str, bytes]
    """Mount name and key: what identifies a state file within the process."""


class MountPoint:
    """One mount: where it is, whom to ask, and the device number its files show."""

    __slots__ = ("device", "name", "parts", "remote", "root", "under")

    def __init__(self, name: str, root: str, remote: Remote, device: int) -> None:
        self.name = name
        self.root = root
        self.under = root + "/"
        self.parts = root.split("/")[1:]
        self.remote = remote
        self.device = device


class Place:
    """A path below a mount. `shown` is the path as the caller gave it, for error messages;
    `directory`: it ended with a slash, so that only a directory will do.

    Never changed once made: all calls with the same path share one, and so do the nodes of its file."""

    __slots__ = ("directory", "id", "key", "mount", "remote", "shown")

    def __init__(self, mount: MountPoint, key: bytes, shown: Any, directory: bool = False) -> None:
        self.mount = mount
        self.remote = mount.remote
        self.key = key
        self.id: FileId = (mount.name, key)
        self.shown = shown
        self.directory = directory

    @property
    def path(self) -> str:
        """The absolute, normalised path."""
        return self.mount.under + os.fsdecode(self.key) if self.key else self.mount.root

    def called(self, shown: Any) -> Place:
        """The same place, given otherwise."""
        return Place(self.mount, self.key, shown, self.directory)

    def child(self, name: bytes, shown: Any) -> Place:
        """The entry `name` of this directory."""
        return Place(self.mount, self.key + b"/" + name if self.key else name, shown)


_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()

mounts: List[MountPoint] = []
needle = "\0"
"""No path without this text is below a mount. Never empty, but where each path has to be looked at."""
cwd: Optional[str] = None
"""The working directory where it is below a mount, else None (then the kernel knows it)."""
directories: Dict[int, Place] = {}
"""Open descriptors of state directories, for `dir_fd`."""
_listeners: List[Callable[[str, str], None]] = []
known: Dict[str, Place] = {}
"""The places of paths that were opened or asked for before."""
_KEPT = 4096


def on_needle(listener: Callable[[str, str], None]) -> None:
    """Call `listener(needle, root)` now and whenever they change; `root` is "" unless there is exactly one mount."""
    _listeners.append(listener)
    listener(needle, _root())


def _root() -> str:
    return mounts[0].root if len(mounts) == 1 else ""


def set_mounts(new: List[MountPoint]) -> None:
    """Replace the mounts."""
    mounts[:] = new
    known.clear()
    _sharpen()


def set_cwd(path: Optional[str]) -> None:
    """Say that the working directory is `path`, below a mount, or (None) is the kernel's again."""
    global cwd
    cwd = path
    _sharpen()


def _sharpen() -> None:
    global needle
    if not mounts:
        needle = "\0"
    elif cwd is not None:
        needle = ""
    else:
        needle = _common([mount.parts[-1] for mount in mounts])
    for listener in _listeners:
        listener(needle, _root())


def _common(names: List[str]) -> str:
    """The longest text that is part of each name."""
    first = min(names, key=len)
    for length in range(len(first), 0, -1):
        for start in range(len(first) - length + 1):
            piece = first[start : start + length]
            if all(piece in name for name in names):
                return piece
    return ""


def locate(path: Any, dir_fd: Optional[int] = None) -> Optional[Place]:
    """The place of `path` below a mount; None where it is not below one, or is no path at all.

    Raises:
        PermissionError: EACCES, the path begins in a mount and leaves it by `..`.
        ValueError: a path below a mount with a NUL byte.
    """
    kind = type(path)
    if kind is str:
        place = known.get(path)
        if place is not None:
            return place
        text = path
    elif kind is bytes:
        text = os.fsdecode(path)
    elif path is None or kind is int:
        return None
    else:
        try:
            text = path = os.fspath(path)
        except TypeError:
            return None
        if isinstance(text, bytes):
            text = os.fsdecode(text)
    if dir_fd is not None and not text.startswith("/"):
        base = directories.get(dir_fd)
        if base is None or not text:
            return None
        return _resolve(base.path + "/" + text, path)
    if needle not in text or not text:
        return None
    if len(mounts) == 1 and text[0] == "/" and "/." not in text and "//" not in text:
        mount = mounts[0]
        if not text.startswith(mount.under):
            return None if text != mount.root else _resolve(text, path)
        if text[-1] != "/":
            if "\0" in text:
                raise ValueError("embedded null byte")
            place = Place(mount, text[len(mount.under) :].encode(_ENCODING, _ERRORS), path)
            if kind is str:
                if len(known) >= _KEPT:
                    known.clear()
                known[text] = place
            return place
    return _resolve(text, path)


def _resolve(text: str, shown: Any) -> Optional[Place]:
    if text[0] != "/":
        base = cwd
        if base is None:
            try:
                base = original.getcwd()
            except OSError:
                return None
        text = base + "/" + text
    inside: Optional[MountPoint] = None
    stack: List[str] = []
    for part in text.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if inside is not None and len(stack) <= len(inside.parts):
                raise PermissionError(
                    errno.EACCES, f"the path leaves the state mount {inside.root} by '..'; write it without", shown
                )
            if stack:
                stack.pop()
            continue
        stack.append(part)
        if inside is None:
            for mount in mounts:
                if stack == mount.parts:
                    inside = mount
    if inside is None:
        return None
    if "\0" in text:
        raise ValueError("embedded null byte")
    key = os.fsencode("/".join(stack[len(inside.parts) :]))
    return Place(inside, key, shown, directory=text.endswith(("/", "/.", "/..")))
