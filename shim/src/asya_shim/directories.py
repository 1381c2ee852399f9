"""`os.listdir` and `os.scandir` below a mount: one request for a directory, none for each of its entries."""

from __future__ import annotations

import os

from asya_shim import namespace, scopes
from asya_shim.lookups import Entry, watch
from asya_shim.paths import Place
from asya_shim.scopes import pending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, List, Optional


class DirEntry:
    """What `os.scandir` yields: kind, size and time came with the listing. A `stat` gives the scope a weak token."""

    __slots__ = ("_entry", "_place", "_status", "name", "path")

    def __init__(self, place: Place, entry: Entry, name: Any, path: Any) -> None:
        self._place = place
        self._entry = entry
        self._status: Optional[os.stat_result] = None
        self.name = name
        self.path = path

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory."""
        return not self._entry.is_file

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        return self._entry.is_file

    def is_symlink(self) -> bool:
        """There are no links."""
        return False

    def is_junction(self) -> bool:
        """There are no links."""
        return False

    def inode(self) -> int:
        """The same number that `os.stat` gives."""
        return self.stat().st_ino

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As of the listing, like the first `stat` on a disk's entry would be cached."""
        if self._status is None:
            entry = self._entry
            if not entry.is_file:
                self._status = namespace.directory_status(self._place)
            else:
                scope = scopes.current()
                if entry.version and pending(scope, self._place) is None:
                    scope.ledger.saw_name(self._place.id, entry.version)
                self._status = namespace.file_status(self._place, entry.size, entry.mtime_ns, entry.version or None)
        return self._status


class Scan:
    """The iterator that `os.scandir` returns."""

    def __init__(self, entries: List[DirEntry]) -> None:
        self._entries: Iterator[DirEntry] = iter(entries)

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> DirEntry:
        return next(self._entries)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Yield nothing more."""
        self._entries = iter(())


def names(place: Place) -> List[Any]:
    """`os.listdir`: bytes for a path given as bytes."""
    found = [entry.name for entry in namespace.listing(place)]
    return found if isinstance(place.shown, bytes) else [os.fsdecode(name) for name in found]


def scan(place: Place) -> Scan:
    """`os.scandir`; paths of entries begin as the path was given, of a descriptor they are bare names."""
    shown = place.shown
    base: Any = None if shown is None or isinstance(shown, int) else os.fspath(shown)
    before: Any = os.path.join(base, base[:0]) if base is not None else "" if isinstance(shown, int) else "./"
    entries: List[DirEntry] = []
    listed = watch.listed
    for entry in namespace.listing(place):
        name: Any = entry.name if isinstance(base, bytes) else os.fsdecode(entry.name)
        path = before + name
        child = place.child(entry.name, path)
        if listed is not None and not entry.is_file:
            listed.add(child.id)
        entries.append(DirEntry(child, entry, name, path))
    return Scan(entries)
