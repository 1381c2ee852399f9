"""File semantics over flat keys: directories, what a name is, listings, renames, attributes.

A directory is there if a marker `d/` is, or any key below it. Nothing here knows HTTP, write ids' fate or SDKs.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asya_contract.names import RESERVED_SEGMENT
from asya_proxy.consistency import Consistency, Wish
from asya_proxy.errors import (
    BadRequest,
    Conflict,
    Exists,
    IsDirectory,
    KeyNotFound,
    NotDirectory,
    NotEmpty,
    PreconditionRequired,
    ReadOnly,
    StoreError,
    Unsupported,
)
from asya_proxy.stores.base import (
    ABSENT,
    ANY,
    NOTHING_KNOWN,
    Appended,
    Body,
    Entry,
    Known,
    Precondition,
    Reading,
    Stat,
    match,
)
from asya_proxy.tree_moves import TreeMove

_RESERVED = RESERVED_SEGMENT.encode() + b"/"
MAX_PAGE = 1000
_ATTR_TRIES = 8
_DEEPEST = 33
"""Segments of a name that are looked at as parents, from the top."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page: files, names that end with `/`, the name to go on after (None: that was all), and whether the
    directory asked for is there at all."""

    files: Sequence[Entry]
    directories: Sequence[bytes]
    next: bytes | None
    exists: bool


class Service:
    """One mount's files."""

    def __init__(self, consistency: Consistency, *, read_only: bool = False) -> None:
        self._store = consistency
        self._read_only = read_only

    # Reading.

    async def read(self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None) -> Reading:
        """Content of a file. Raises KeyNotFound, IsDirectory, NotDirectory, Conflict, RangeInvalid."""
        reading = await self._store.get(key, start=start, end=end, version=version)
        if reading is None:
            raise await self._absent(key)
        return reading

    async def stat(self, key: bytes) -> Stat | None:
        """A file's facts; None for a directory. Raises KeyNotFound, NotDirectory."""
        stat = await self._store.head(key)
        if stat is not None:
            return stat
        absent = await self._absent(key)
        if isinstance(absent, IsDirectory):
            return None
        raise absent

    async def stat_directory(self, directory: bytes) -> None:
        """Raise KeyNotFound or NotDirectory unless `directory` (ends with `/`, or is empty: the mount) is there."""
        if directory and not await self._is_directory(directory):
            name = directory[:-1]
            if await self._store.head(name) is not None:
                raise NotDirectory("the name is a file")
            raise await self._absent(name)

    async def list(self, prefix: bytes, *, delimiter: bool, after: bytes, limit: int) -> Listing:
        """Names that start with `prefix`, in byte order, without our own records."""
        files: list[Entry] = []
        directories: list[bytes] = []
        exists = prefix == b""
        limit = min(limit, MAX_PAGE)
        while True:
            page = await self._store.list(
                prefix, delimiter=delimiter, after=after, limit=limit - len(files) - len(directories)
            )
            reserved = False
            last = after
            for name, entry in _merged(page.entries, page.prefixes):
                last = name
                exists = True
                if name.startswith(_RESERVED):
                    reserved = True
                elif entry is not None and not name.endswith(b"/"):
                    files.append(entry)
                elif name != prefix:
                    directories.append(name)
            if not page.more:
                return Listing(files, directories, None, exists)
            after = max(last, _RESERVED + b"\xff") if reserved else last
            if len(files) + len(directories) >= limit:
                return Listing(files, directories, after, exists)

    # Changing files.

    async def write(self, key: bytes, body: Body, wish: Wish) -> Stat:
        """Write the whole file. Raises what `Consistency.put` does, IsDirectory, NotDirectory."""
        self._writable()
        self._conditional(wish.when)
        if not self._store.traits.tree:
            await self._check_place(key, wish.when)
        return await self._store.put(key, body, wish)

    async def append(self, key: bytes, body: Body, wish: Wish) -> Appended:
        self._writable()
        if not self._store.traits.tree:
            await self._check_place(key, ANY)
        return await self._store.append(key, body, wish)

    async def remove(self, key: bytes, wish: Wish) -> None:
        """Remove a file. Raises KeyNotFound, IsDirectory, NotDirectory, Conflict."""
        self._writable()
        self._conditional(wish.when)
        try:
            await self._store.delete(key, wish)
        except KeyNotFound:
            raise await self._absent(key) from None

    async def make_directory(self, directory: bytes, wish: Wish) -> None:
        """mkdir: Exists where a file or directory is, NotDirectory below a file."""
        self._writable()
        name = directory[:-1]
        page = await self._store.list(directory, limit=1)
        if page.entries and page.entries[0].key != directory:
            raise Exists("the directory is there")
        if await self._store.head(name) is not None:
            raise Exists("the name is a file")
        if not self._store.traits.tree:
            await self._check_parents(name)
        when = ABSENT if self._store.traits.conditional_put else ANY
        if page.entries and when is ANY:
            raise Exists("the directory is there")
        await self._store.put(directory, Body(b""), Wish(wish.id, when, wish.named))

    async def remove_directory(self, directory: bytes, wish: Wish) -> None:
        """rmdir: NotEmpty, KeyNotFound, NotDirectory."""
        self._writable()
        page = await self._store.list(directory, limit=2)
        marker = next((e for e in page.entries if e.key == directory), None)
        if len(page.entries) > (marker is not None):
            raise NotEmpty("the directory is not empty")
        try:
            await self._store.delete(directory, Wish(wish.id, ANY, wish.named))
        except KeyNotFound:
            if await self._store.head(directory[:-1]) is not None:
                raise NotDirectory("the name is a file") from None
            raise await self._absent(directory[:-1]) from None

    # Renaming.

    async def rename(
        self, source: bytes, target: bytes, wish: Wish, when_source: Precondition, known: Known = NOTHING_KNOWN
    ) -> Stat | Mapping[bytes, str]:
        """Give a file or a directory another name. One that ends with `/` is a directory's: the answer to it tells
        the new versions of those files `known` that were moved at the version given there, and at no other."""
        self._writable()
        old, new = source.rstrip(b"/"), target.rstrip(b"/")
        unconditional = self._store.cas and wish.when.any
        if source.endswith(b"/") or (unconditional and await self._is_directory(old + b"/")):
            return await self._rename_directory(old + b"/", new + b"/", wish, known)
        self._conditional(wish.when)
        if old == new:
            return await self.stat(old) or {}
        try:
            if target.endswith(b"/"):
                raise await self._absent(old) if await self.stat(old) is None else NotDirectory("the source is a file")
            if not self._store.traits.tree:
                await self._check_place(new, wish.when)
            return await self._store.rename(old, new, wish, when_source)
        except KeyNotFound:
            absent = await self._absent(old)
        except IsDirectory as error:
            # Either name may be the directory.
            absent = await self._absent(old)
            if not isinstance(absent, IsDirectory):
                raise error from None
        if isinstance(absent, IsDirectory):
            return await self._rename_directory(old + b"/", new + b"/", wish, known)
        raise absent

    async def _rename_directory(self, source: bytes, target: bytes, wish: Wish, known: Known) -> Mapping[bytes, str]:
        if target == source:
            await self.stat_directory(source)
            return {}
        if target.startswith(source):
            raise BadRequest("a directory cannot become a part of itself")
        if await self._store.head(target[:-1]) is not None:
            raise NotDirectory("the new name is a file")
        if wish.when.absent and await self._is_directory(target):
            raise Exists("the new name is a directory")
        if self._store.traits.rename_tree:
            return (await self._store.rename_tree(source, target, Wish(wish.id, ANY, wish.named), known)).versions
        await self._check_parents(target[:-1])
        move = TreeMove(self._store, source, target, wish, known)
        if not await move.has_begun():
            await self.stat_directory(source)
            await move.begin()
        return await move.finish()

    # Attributes.

    async def attributes(self, key: bytes) -> Mapping[str, str]:
        """All attributes of a file, decoded, and none of a directory."""
        if not self._store.traits.attributes:
            raise Unsupported("this backend has no attributes that change atomically")
        stat = await self.stat(key)
        return {} if stat is None else {_plain(name): _plain(value) for name, value in stat.attrs.items()}

    async def change_attribute(self, key: bytes, name: str, value: str | None, wish: Wish) -> Stat:
        """Set an attribute, or remove it (`value` None). Raises KeyNotFound where there is none to remove."""
        self._writable()
        if not self._store.traits.attributes:
            raise Unsupported("this backend has no attributes that change atomically")
        for attempt in range(_ATTR_TRIES):
            stat = await self.stat(key)
            if stat is None:
                raise IsDirectory("directories have no attributes")
            attrs = dict(stat.attrs)
            if value is not None:
                attrs[_coded(name)] = _coded(value)
            elif attrs.pop(_coded(name), None) is None:
                raise KeyNotFound(f"no attribute {name!r}")
            when = match(stat.version) if wish.when.any else wish.when
            try:
                return await self._store.set_attrs(key, attrs, Wish(wish.id, when, wish.named))
            except Conflict:
                if not wish.when.any or attempt == _ATTR_TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    # What a name is.

    def _writable(self) -> None:
        if self._read_only:
            raise ReadOnly("the mount is read-only")

    def _conditional(self, when: Precondition) -> None:
        if self._store.cas and when.any:
            raise PreconditionRequired("in cas a change of a file needs If-Match or If-None-Match: *")

    async def _is_directory(self, directory: bytes) -> bool:
        return bool((await self._store.list(directory, limit=1)).entries)

    async def _absent(self, key: bytes) -> StoreError:
        """Why there is no file `key`: it is a directory, lies below a file, or is just not there."""
        looks = [self._is_directory(key + b"/"), *(self._is_file(parent) for parent in _parents(key))]
        is_directory, *files = await asyncio.gather(*looks)
        if is_directory:
            return IsDirectory("the name is a directory")
        if any(files):
            return NotDirectory("a parent of the name is a file")
        return KeyNotFound("no such file")

    async def _is_file(self, key: bytes) -> bool:
        return await self._store.head(key) is not None

    async def _check_place(self, key: bytes, when: Precondition) -> None:
        """Whether a file may be created here. Best effort, for stores that do not do it by themselves."""
        if when.version is not None or key in self._store.seen:
            return
        absent = await self._absent(key)
        if not isinstance(absent, KeyNotFound):
            raise absent

    async def _check_parents(self, key: bytes) -> None:
        if any(await asyncio.gather(*(self._is_file(parent) for parent in _parents(key)))):
            raise NotDirectory("a parent of the name is a file")


def _parents(key: bytes) -> list[bytes]:
    segments = key.split(b"/")
    return [b"/".join(segments[:count]) for count in range(1, min(len(segments), _DEEPEST))]


def _merged(entries: Sequence[Entry], prefixes: Sequence[bytes]) -> list[tuple[bytes, Entry | None]]:
    """Entries and folded prefixes of a page, in byte order."""
    both: list[tuple[bytes, Entry | None]] = [(entry.key, entry) for entry in entries]
    both.extend((prefix, None) for prefix in prefixes)
    both.sort(key=lambda item: item[0])
    return both


def _coded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _plain(coded: str) -> str:
    return base64.urlsafe_b64decode(coded).decode("utf-8", "surrogateescape")
