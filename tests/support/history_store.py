"""A bucket as S3 is one: flat, no ids of its own, history stored beside each object; and a script of faults.

It shares nothing with the stores of the package but the protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from typing import TypeVar

from asya_proxy.errors import Conflict, Exists, KeyNotFound, StoreError, Unavailable
from asya_proxy.stores.base import BaseStore, Body, Change, Entry, Page, Past, Precondition, Reading, Stat, Traits

_T = TypeVar("_T")

Meanwhile = Callable[[], Awaitable[object]]


class HistoryStore(BaseStore):
    """`script` holds what happens to the next changes: None (all is well), "before" (lost before it landed),
    "after" (landed, answer lost), an error to raise, or an async function to run after it landed and before the
    answer is lost. An empty script is all is well. `asked` lists every call by name."""

    def __init__(self, **traits: bool) -> None:
        self.traits = replace(Traits(), **traits)  # type: ignore[arg-type]
        self.objects: dict[bytes, tuple[bytes, Stat]] = {}
        self.script: deque[str | StoreError | Meanwhile | None] = deque()
        self.asked: list[str] = []
        self.unreadable: StoreError | None = None
        self._versions = count(1)

    async def connect(self) -> None:
        return None

    async def ping(self) -> None:
        self._read("ping")

    def _read(self, name: str) -> None:
        self.asked.append(name)
        if self.unreadable is not None:
            raise self.unreadable

    async def head(self, key: bytes) -> Stat | None:
        self._read("head")
        return self.objects[key][1] if key in self.objects else None

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        self._read("get")
        if key not in self.objects:
            return None
        data, stat = self.objects[key]
        if version is not None and version != stat.version:
            raise Conflict("another version")
        return Reading(stat, data[start:end])

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        self._read("list")
        names = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        entries = [Entry(k, s.version, s.size, s.mtime_ns) for k, s in ((k, self.objects[k][1]) for k in names)]
        return Page(entries[:limit], [], len(entries) > limit)

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        data = await body.read()

        def act() -> Stat:
            self._check(key, change.when)
            history = (Past(change.id, change.when.version), *change.history)
            stat = Stat(f"v{next(self._versions)}", len(data), 0, history)
            self.objects[key] = (data, stat)
            return stat

        return await self._change("put", act)

    async def delete(self, key: bytes, change: Change) -> None:
        def act() -> None:
            self._check(key, change.when)
            if key not in self.objects:
                raise KeyNotFound("absent")
            del self.objects[key]

        await self._change("delete", act)

    async def _change(self, name: str, act: Callable[[], _T]) -> _T:
        self.asked.append(name)
        fault = self.script.popleft() if self.script else None
        if fault == "before":
            raise Unavailable("the request was lost")
        if isinstance(fault, StoreError):
            raise fault
        outcome = act()
        if fault is not None:
            if callable(fault):
                await fault()
            raise Unavailable("the answer was lost")
        return outcome

    def _check(self, key: bytes, when: Precondition) -> None:
        current = self.objects[key][1].version if key in self.objects else None
        if when.absent and current is not None:
            raise Exists("taken")
        if when.version is not None and current != when.version:
            raise Conflict("another version")
