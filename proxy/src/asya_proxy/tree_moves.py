"""Renames of directories where the store cannot do them in one step: file by file, and resumable.

It knows names below two directories and the changes of one file that `consistency` offers; whether there is such a
directory, and whether the new name is free for it, is found out before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from asya_contract.names import RESERVED_SEGMENT
from asya_contract.wire import encode_key
from asya_proxy.consistency import Consistency, Wish
from asya_proxy.errors import Conflict, Exists, KeyNotFound, NotEmpty
from asya_proxy.stores.base import ABSENT, ANY, Body, Known, match

_TRIES = 8


class TreeMove:
    """One rename of `source` to `target`, which end with `/`. A record of it makes a repeat with the same write id
    go on where it stopped."""

    def __init__(self, store: Consistency, source: bytes, target: bytes, wish: Wish, known: Known) -> None:
        self._store = store
        self._source = source
        self._target = target
        self._wish = wish
        self._known = known
        self._versions: dict[bytes, str] = {}
        self._moved_before: set[bytes] = set()
        name = hashlib.sha256(wish.id.encode()).hexdigest()[:32]
        self._record = f"{RESERVED_SEGMENT}/move/{name}".encode()

    async def has_begun(self) -> bool:
        """Whether this repeats a rename that was interrupted."""
        begun = self._wish.named and await self._store.head(self._record) is not None
        if begun:
            self._moved_before = set(self._known)
        return begun

    async def begin(self) -> None:
        """Leave the record. Raises NotEmpty."""
        page = await self._store.list(self._target, limit=2)
        if any(entry.key != self._target for entry in page.entries):
            raise NotEmpty("the new name is a directory with files in it")
        await self._store.put(self._record, Body(self._source + b"\n" + self._target), self._step(self._record))

    async def finish(self) -> Mapping[bytes, str]:
        """Move all that is there by now; the new versions of those files `known` that were moved at their version.

        Raises Conflict where files had to stay, since in CAS others have created files of their new names.
        """
        taken = await self._move_all()
        for name in self._moved_before:
            with suppress(Exists):
                await self._move_known(name, self._known[name])
        with suppress(KeyNotFound):  # a repeat that ran beside this one was first
            await self._store.delete(self._record, self._step(self._record + b"-"))
        if taken:
            raise Conflict(
                f"{len(taken)} of its files stay where they were, since others have meanwhile written files of their "
                f"names in the new directory; the first is {encode_key(taken[0])!r}"
            )
        return self._versions

    async def _move_all(self) -> list[bytes]:
        """The names that are taken in the new directory."""
        taken: list[bytes] = []
        after = b""
        while True:
            page = await self._store.list(self._source, after=after)
            for entry in page.entries:
                name = entry.key[len(self._source) :]
                self._moved_before.discard(name)
                try:
                    await (self._move_marker(name) if entry.key.endswith(b"/") else self._move_file(name))
                except Exists:
                    taken.append(name)
                after = entry.key
            if not page.more:
                return taken

    async def _move_file(self, name: bytes) -> None:
        """Move it as it is by now: who wrote or removed it since the listing is no conflict of the directory."""
        version = self._known.get(name)
        if version is not None and await self._move_known(name, version):
            return
        for attempt in range(_TRIES):
            try:
                stat = await self._store.rename(self._source + name, self._target + name, self._moving(name))
            except KeyNotFound:
                return
            except Conflict:
                if attempt == _TRIES - 1:
                    raise
            else:
                if name in self._known and version is None:
                    self._versions[name] = stat.version
                return

    async def _move_known(self, name: bytes, version: str | None) -> bool:
        """Move it if it is at `version`, or learn where this very change has moved it to. False: it is at another."""
        when_source = ANY if version is None else match(version)
        step = self._moving(name, version)
        try:
            stat = await self._store.rename(self._source + name, self._target + name, step, when_source)
        except KeyNotFound:
            return True
        except Conflict:
            return False
        self._versions[name] = stat.version
        return True

    async def _move_marker(self, name: bytes) -> None:
        await self._store.put(self._target + name, Body(b""), self._step(self._target + name))
        with suppress(KeyNotFound):
            await self._store.delete(self._source + name, self._step(self._source + name))

    def _moving(self, name: bytes, version: str | None = None) -> Wish:
        """The step that moves one file; in CAS never over what somebody has written there since the move began."""
        step = self._step(self._target + name + (b"" if version is None else b"\0" + version.encode()))
        return Wish(step.id, ABSENT, step.named) if self._store.cas else step

    def _step(self, name: bytes) -> Wish:
        """A step of the move: an id of its own, the same each time."""
        digest = hashlib.sha256(self._wish.id.encode() + b"/" + name).hexdigest()
        return Wish(digest[:32], ANY, self._wish.named)
