"""A store in front of another that loses answers, as a network does: the change lands or not, and nobody says."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from asya_proxy.errors import Unavailable
from asya_proxy.stores.base import (
    NOTHING_KNOWN,
    Appended,
    Body,
    Change,
    Known,
    Page,
    Precondition,
    Reading,
    Stat,
    Store,
    TreeMoved,
)

_T = TypeVar("_T")


class Fault(Enum):
    """What becomes of one change."""

    REFUSED = "refused"
    """Not sent, and the sender knows."""
    REQUEST_LOST = "request lost"
    """Did not land, and nobody knows."""
    ANSWER_LOST = "answer lost"
    """Landed, and nobody knows."""


@dataclass(frozen=True, slots=True)
class Scripted:
    """A fault for the next change, and what happens elsewhere before the sender hears of it."""

    fault: Fault
    meanwhile: Callable[[], Awaitable[object]] | None = None


class LossyStore:
    """Wraps `inner`. Faults in `script` are used up first, one per change (None: all is well); then a seeded dice
    decides with the given probabilities. Reads fail with `fail_read`, unambiguously. `suffered` and `attempts` count
    what happened."""

    def __init__(
        self,
        inner: Store,
        seed: int = 0,
        *,
        refused: float = 0.0,
        request_lost: float = 0.0,
        answer_lost: float = 0.0,
        fail_read: float = 0.0,
        script: Sequence[Scripted | Fault | None] = (),
    ) -> None:
        self.inner = inner
        self.traits = inner.traits
        self.fail_read = fail_read
        self.script = deque(Scripted(fault) if isinstance(fault, Fault) else fault for fault in script)
        self.suffered: Counter[str] = Counter()
        self.attempts = 0
        self._dice = random.Random(seed)  # noqa: S311
        self._weights = (refused, request_lost, answer_lost)

    async def connect(self) -> None:
        await self.inner.connect()
        self.traits = self.inner.traits

    async def close(self) -> None:
        await self.inner.close()

    async def ping(self) -> None:
        await self.inner.ping()

    def _throw(self) -> Scripted | None:
        if self.script:
            return self.script.popleft()
        throw = self._dice.random()
        for fault, weight in zip(Fault, self._weights, strict=True):
            if throw < weight:
                return Scripted(fault)
            throw -= weight
        return None

    async def _change(self, act: Callable[[], Awaitable[_T]]) -> _T:
        self.attempts += 1
        scripted = self._throw()
        if scripted is None:
            return await act()
        self.suffered[scripted.fault.value] += 1
        if scripted.fault is Fault.ANSWER_LOST:
            await act()
        if scripted.meanwhile is not None:
            await scripted.meanwhile()
        raise Unavailable(scripted.fault.value, ambiguous=scripted.fault is not Fault.REFUSED)

    def _reading(self) -> None:
        if self._dice.random() < self.fail_read:
            self.suffered["read failed"] += 1
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

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        return await self._change(lambda: self.inner.rename_tree(source, target, change, known))

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        return await self._change(lambda: self.inner.copy(source, target, change, when_source))

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        return await self._change(lambda: self.inner.set_attrs(key, attrs, change))
