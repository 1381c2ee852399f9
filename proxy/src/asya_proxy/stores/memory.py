"""A store in this process's memory: for tests, benchmarks and trying things out. Gone with the process.

Every operation is one step of the event loop, which is what makes it atomic.
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, TypeVar

from asya_proxy.errors import (
    Conflict,
    Exists,
    IsDirectory,
    KeyNotFound,
    NotDirectory,
    NotEmpty,
    RangeInvalid,
)
from asya_proxy.stores.base import (
    ANY,
    NOTHING_KNOWN,
    Appended,
    BaseStore,
    Body,
    Change,
    Entry,
    Known,
    Page,
    Precondition,
    Reading,
    Stat,
    StoreConfig,
    Traits,
    TreeMoved,
)

_T = TypeVar("_T")

# Before the key of a delete among the changes remembered; no key holds it.
_REMOVAL = b"\0"

MAX_REMEMBERED = 100_000
"""Changes remembered at most, whatever `write_window` says."""


class _Object:
    __slots__ = ("data", "stat")

    def __init__(self, data: bytes, stat: Stat) -> None:
        self.data = data
        self.stat = stat


class MemoryStore(BaseStore):
    """See the module. `config.prefix` and `config.bucket` mean nothing here: the store is nobody else's."""

    immediate: Literal[True] = True
    traits = Traits(
        idempotent=True,
        tree=True,
        append=True,
        rename=True,
        rename_tree=True,
        copy=True,
        attributes=True,
    )

    def __init__(self, config: StoreConfig) -> None:
        self._window = config.write_window
        self._objects: dict[bytes, _Object] = {}
        self._names: list[bytes] = []
        self._below: dict[bytes, int] = {}
        """How many keys lie below each directory (`d/`), its own marker included."""
        self._done: OrderedDict[tuple[str, bytes], tuple[float, object]] = OrderedDict()
        """Outcome of each change by its id and key (of renames and copies the target), oldest first."""
        self._epoch = secrets.token_hex(4)
        self._count = 0

    async def connect(self) -> None:
        return None

    async def ping(self) -> None:
        return None

    async def head(self, key: bytes) -> Stat | None:
        found = self._objects.get(key)
        return None if found is None else found.stat

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        found = self._objects.get(key)
        if found is None:
            return None
        stat = found.stat
        if version is not None and version != stat.version:
            raise Conflict("the file is at another version")
        if start == 0 and end is None:
            return Reading(stat, found.data)
        begin = max(0, stat.size + start) if start < 0 else start
        if begin >= stat.size and (end is None or end > begin):
            raise RangeInvalid(f"the range begins at {begin} of {stat.size} bytes")
        return Reading(stat, found.data[begin:end])

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        data = body.data if body.data is not None else await body.read()
        done = self._done.get((change.id, key))
        if done is not None:
            return done[1]  # type: ignore[return-value]
        self._check(key, change.when)
        return self._remember(change, key, self._write(key, data, change.attrs))

    async def delete(self, key: bytes, change: Change) -> None:
        removal = _REMOVAL + key
        if (change.id, removal) in self._done:
            return
        self._check(key, change.when)
        if key not in self._objects:
            raise KeyNotFound("no such file")
        self._drop(key)
        self._remember(change, removal, None)

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        names = self._names
        entries: list[Entry] = []
        prefixes: list[bytes] = []
        at = bisect_left(names, prefix)
        if after >= prefix:
            skip_below = delimiter and after.endswith(b"/") and after != prefix
            at = max(at, bisect_left(names, _beyond(after)) if skip_below else bisect_right(names, after))
        while at < len(names) and names[at].startswith(prefix):
            if len(entries) + len(prefixes) >= limit:
                return Page(entries, prefixes, True)
            name = names[at]
            slash = name.find(b"/", len(prefix)) if delimiter else -1
            if slash >= 0:
                folded = name[: slash + 1]
                prefixes.append(folded)
                at = bisect_left(names, _beyond(folded), at)
                continue
            stat = self._objects[name].stat
            entries.append(Entry(name, stat.version, stat.size, stat.mtime_ns))
            at += 1
        return Page(entries, prefixes, False)

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        data = await body.read()
        done = self._done.get((change.id, key))
        if done is not None:
            return done[1]  # type: ignore[return-value]
        found = self._objects.get(key)
        if found is None:
            return self._remember(change, key, Appended(self._write(key, data, change.attrs), None))
        base = found.stat.version
        stat = self._write(key, found.data + data, found.stat.attrs)
        return self._remember(change, key, Appended(stat, base))

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        done = self._done.get((change.id, target))
        if done is not None:
            return done[1]  # type: ignore[return-value]
        found = self._source(source, target, change, when_source)
        stat = self._write(target, found.data, found.stat.attrs, found.stat.mtime_ns)
        if source != target:
            self._drop(source)
        return self._remember(change, target, stat)

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        done = self._done.get((change.id, target))
        if done is not None:
            return done[1]  # type: ignore[return-value]
        self._check(target, change.when)
        if target[:-1] in self._objects:
            raise NotDirectory("the new name is a file")
        if self._below.get(target, 0) > (target in self._objects):
            raise NotEmpty("the new name is a directory with files in it")
        first = bisect_left(self._names, source)
        moving = self._names[first : bisect_left(self._names, _beyond(source))]
        if not moving:
            raise KeyNotFound("no such directory")
        self._check_parents(target)
        if target in self._objects:
            self._drop(target)
        versions: dict[bytes, str] = {}
        for key in moving:
            old = self._objects[key]
            self._drop(key)
            name = key[len(source) :]
            new = self._write(target + name, old.data, old.stat.attrs, old.stat.mtime_ns)
            if name in known and known[name] in (None, old.stat.version):
                versions[name] = new.version
        return self._remember(change, target, TreeMoved(len(moving), versions))

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        done = self._done.get((change.id, target))
        if done is not None:
            return done[1]  # type: ignore[return-value]
        found = self._source(source, target, change, when_source)
        return self._remember(change, target, self._write(target, found.data, found.stat.attrs))

    def _source(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> _Object:
        found = self._objects.get(source)
        if found is None:
            raise KeyNotFound("no such file")
        self._check(source, when_source)
        self._check(target, change.when)
        return found

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        done = self._done.get((change.id, key))
        if done is not None:
            return done[1]  # type: ignore[return-value]
        self._check(key, change.when)
        found = self._objects.get(key)
        if found is None:
            raise KeyNotFound("no such file")
        found.stat = found.stat._replace(version=self._version(), attrs=dict(attrs))
        return self._remember(change, key, found.stat)

    def _check(self, key: bytes, when: Precondition) -> None:
        if when is ANY:
            return
        found = self._objects.get(key)
        if when.absent and found is not None:
            raise Exists("the name is taken")
        if when.version is not None and (found is None or found.stat.version != when.version):
            raise Conflict("the file is gone" if found is None else "the file is at another version")

    def _check_parents(self, key: bytes) -> None:
        for parent in _directories(key):
            if parent != key and parent[:-1] in self._objects:
                raise NotDirectory("a parent of the name is a file")

    def _version(self) -> str:
        self._count += 1
        return f"{self._epoch}-{self._count}"

    def _write(self, key: bytes, data: bytes, attrs: Mapping[str, str], mtime_ns: int | None = None) -> Stat:
        found = self._objects.get(key)
        if found is None:
            self._enter(key)
        stat = Stat(self._version(), len(data), time.time_ns() if mtime_ns is None else mtime_ns, (), attrs)
        if found is None:
            self._objects[key] = _Object(data, stat)
        else:
            found.data = data
            found.stat = stat
        return stat

    def _enter(self, key: bytes) -> None:
        if key.endswith(b"/"):
            if key[:-1] in self._objects:
                raise NotDirectory("the name is a file")
        elif key + b"/" in self._below:
            raise IsDirectory("the name is a directory")
        self._check_parents(key)
        for directory in _directories(key):
            self._below[directory] = self._below.get(directory, 0) + 1
        insort(self._names, key)

    def _drop(self, key: bytes) -> None:
        del self._objects[key]
        del self._names[bisect_left(self._names, key)]
        for directory in _directories(key):
            left = self._below[directory] - 1
            if left:
                self._below[directory] = left
            else:
                del self._below[directory]

    def _remember(self, change: Change, key: bytes, outcome: _T) -> _T:
        done = self._done
        now = time.monotonic()
        done[change.id, key] = (now + self._window, outcome)
        while len(done) > MAX_REMEMBERED or done[next(iter(done))][0] < now:
            done.popitem(last=False)
        return outcome


def _directories(key: bytes) -> list[bytes]:
    """`a/b/c` gives `a/` and `a/b/`; a marker counts below itself."""
    out: list[bytes] = []
    slash = key.find(b"/")
    while slash >= 0:
        out.append(key[: slash + 1])
        slash = key.find(b"/", slash + 1)
    return out


def _beyond(prefix: bytes) -> bytes:
    """The first name in byte order after all that start with `prefix`, which ends with a slash."""
    return prefix[:-1] + b"0"
