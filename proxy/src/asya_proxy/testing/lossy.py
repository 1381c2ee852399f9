"""A store in front of another that loses answers, as a network does: the change lands or not, and nobody says."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from asya_proxy.errors import Unavailable
from asya_proxy.stores.base import Appended, Body, Change, Page, Precondition, Reading, Stat, Store

_T = TypeVar("_T")


class LossyStore:
    """Wraps `inner`. Each change is, by a seeded dice, lost before it lands (`lose_request`), lost after it
    landed (`lose_answer`), or refused outright (`refuse`, not ambiguous); reads fail with `fail_read`.

    `lost`, `landed`, `refused` and `failed` count what happened.
    """

    def __init__(
        self,
        inner: Store,
        seed: int,
        *,
        lose_request: float = 0.0,
        lose_answer: float = 0.0,
        refuse: float = 0.0,
        fail_read: float = 0.0,
    ) -> None:
        self.inner = inner
        self.traits = inner.traits
        self._dice = random.Random(seed)  # noqa: S311
        self._lose_request = lose_request
        self._lose_answer = lose_answer
        self._refuse = refuse
        self._fail_read = fail_read
        self.lost = self.landed = self.refused = self.failed = 0

    async def connect(self) -> None:
        await self.inner.connect()
        self.traits = self.inner.traits

    async def close(self) -> None:
        await self.inner.close()

    async def ping(self) -> None:
        await self.inner.ping()

    async def _change(self, act: Callable[[], Awaitable[_T]]) -> _T:
        throw = self._dice.random()
        if throw < self._refuse:
            self.refused += 1
            raise Unavailable("refused before it was sent", ambiguous=False)
        if throw < self._refuse + self._lose_request:
            self.lost += 1
            raise Unavailable("the request was lost", ambiguous=True)
        outcome = await act()
        if throw < self._refuse + self._lose_request + self._lose_answer:
            self.landed += 1
            raise Unavailable("the answer was lost", ambiguous=True)
        return outcome

    def _reading(self) -> None:
        if self._dice.random() < self._fail_read:
            self.failed += 1
            raise Unavailable("the read failed", ambiguous=False)

    async def head(self, key: bytes) -> Stat | None:
        self._reading()
        return await self.inner.head(key)

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        self._reading()
        return await self.inner.get(key, start=start, end=end, version=version)

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        self._reading()
        return await self.inner.list(prefix, delimiter=delimiter, after=after, limit=limit)

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        return await self._change(lambda: self.inner.put(key, body, change))

    async def delete(self, key: bytes, change: Change) -> None:
        await self._change(lambda: self.inner.delete(key, change))

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        return await self._change(lambda: self.inner.append(key, body, change))

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        return await self._change(lambda: self.inner.rename(source, target, change, when_source))

    async def rename_tree(self, source: bytes, target: bytes, change: Change) -> int:
        return await self._change(lambda: self.inner.rename_tree(source, target, change))

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        return await self._change(lambda: self.inner.copy(source, target, change, when_source))

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        return await self._change(lambda: self.inner.set_attrs(key, attrs, change))
