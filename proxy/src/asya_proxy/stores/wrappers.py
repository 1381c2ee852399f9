"""Stores around a store: what is the same for each backend and belongs to none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Literal, Protocol, TypeVar, runtime_checkable

from asya_proxy.deadlines import Deadlines, Guard
from asya_proxy.errors import StoreError, Timeout, Unavailable
from asya_proxy.stores.base import (
    NOTHING_KNOWN,
    Appended,
    BaseStore,
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
from asya_proxy.stores.capabilities import InParts, Prepared

_T = TypeVar("_T")

UPLOAD_RATE = 1 << 20
"""Bytes a second: what a slow but working link manages. A whole body is given so much more time."""


@runtime_checkable
class Immediate(Protocol):
    """A store that never waits for anything, so that there is nothing to bound."""

    immediate: Literal[True]


class BoundedStore(BaseStore):
    """Each attempt ends: `attempt` seconds after the last byte of progress, `commit` seconds after the last byte
    of an upload. And each failure is one of `asya_proxy.errors`."""

    def __init__(self, store: Store, deadlines: Deadlines, attempt: float, commit: float) -> None:
        self._store = store
        self._deadlines = deadlines
        self._attempt = attempt
        self._commit = commit
        self.traits = store.traits

    async def _bounded(self, work: Awaitable[_T], seconds: float, *, change: bool = True) -> _T:
        guard = self._deadlines.within(seconds)
        try:
            with guard:
                return await work
        except StoreError:
            raise
        except TimeoutError:
            raise Timeout(f"no answer within {seconds:g} s", ambiguous=change) from None
        except Exception as error:
            raise Unavailable(f"the store failed: {type(error).__name__}: {error}", ambiguous=change) from error

    async def connect(self) -> None:
        await self._bounded(self._store.connect(), self._commit, change=False)
        self.traits = self._store.traits

    async def close(self) -> None:
        await self._bounded(self._store.close(), self._attempt, change=False)

    async def ping(self) -> None:
        await self._bounded(self._store.ping(), self._attempt, change=False)

    async def head(self, key: bytes) -> Stat | None:
        return await self._bounded(self._store.head(key), self._attempt, change=False)

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        work = self._store.get(key, start=start, end=end, version=version)
        reading = await self._bounded(work, self._attempt, change=False)
        if reading is None or reading.stream is None:
            return reading
        return Reading(reading.stat, None, _BoundedStream(self, reading.stream))

    async def piece(self, stream: AsyncIterator[bytes]) -> bytes | None:
        """The next piece of a stream of this store; None at its end."""
        return await self._bounded(_next(stream), self._attempt, change=False)

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        if body.data is not None:
            return await self._bounded(self._store.put(key, body, change), self._time_for(body))
        return await self._stream(body, lambda watched: self._store.put(key, watched, change))

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        if body.data is not None:
            return await self._bounded(self._store.append(key, body, change), self._time_for(body))
        return await self._stream(body, lambda watched: self._store.append(key, watched, change))

    def _time_for(self, body: Body) -> float:
        return self._attempt + (body.size or 0) / UPLOAD_RATE

    async def _stream(self, body: Body, work: Callable[[Body], Awaitable[_T]]) -> _T:
        guard = self._deadlines.within(self._attempt)

        async def watched() -> AsyncIterator[bytes]:
            # While the client is waited for, the store's time stands still: the client has its own deadline.
            guard.pause()
            async for piece in body:
                guard.progress()
                yield piece
                guard.pause()
            guard.progress(self._commit)

        return await self._upload(guard, work(Body(stream=watched(), size=body.size)))

    async def _upload(self, guard: Guard, work: Awaitable[_T]) -> _T:
        try:
            with guard:
                return await work
        except StoreError:
            raise
        except TimeoutError:
            raise Timeout("the upload made no progress") from None
        except Exception as error:
            raise Unavailable(f"the store failed: {type(error).__name__}: {error}") from error

    async def delete(self, key: bytes, change: Change) -> None:
        await self._bounded(self._store.delete(key, change), self._attempt)

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        work = self._store.list(prefix, delimiter=delimiter, after=after, limit=limit)
        return await self._bounded(work, self._attempt, change=False)

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        return await self._bounded(self._store.rename(source, target, change, when_source), self._commit)

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        return await self._bounded(self._store.rename_tree(source, target, change, known), self._commit)

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        return await self._bounded(self._store.copy(source, target, change, when_source), self._commit)

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        return await self._bounded(self._store.set_attrs(key, attrs, change), self._attempt)


class BoundedInParts(BoundedStore):
    """The same of a store that writes large content by another operation than small."""

    def __init__(self, store: Store, deadlines: Deadlines, attempt: float, commit: float) -> None:
        super().__init__(store, deadlines, attempt, commit)
        assert isinstance(store, InParts)
        self._in_parts = store
        self.operations = store.operations

    async def prepare(self, key: bytes, data: bytes) -> Prepared:
        return _BoundedUpload(self, await self._bounded(self._in_parts.prepare(key, data), self._attempt))

    async def keeps_promises(self, key: bytes, passed: bytes, stale: str | None) -> bool:
        return await self._bounded(self._in_parts.keeps_promises(key, passed, stale), self._commit)

    async def finish(self, upload: Prepared, when: Precondition) -> str:
        return await self._bounded(upload.complete(when), self._commit)

    async def give_up(self, upload: Prepared) -> None:
        await self._bounded(upload.abort(), self._attempt, change=False)


def bounded(store: Store, deadlines: Deadlines, attempt: float, commit: float) -> BoundedStore:
    """`store` with bounds, and with what it has beyond `Store`."""
    kind = BoundedInParts if isinstance(store, InParts) else BoundedStore
    return kind(store, deadlines, attempt, commit)


class _BoundedUpload:
    def __init__(self, store: BoundedInParts, upload: Prepared) -> None:
        self._store = store
        self._upload = upload

    async def complete(self, when: Precondition) -> str:
        return await self._store.finish(self._upload, when)

    async def abort(self) -> None:
        await self._store.give_up(self._upload)


class _BoundedStream:
    """Content on its way out, each piece within the time of an attempt."""

    def __init__(self, store: BoundedStore, stream: AsyncIterator[bytes]) -> None:
        self._store = store
        self._stream = stream

    def __aiter__(self) -> _BoundedStream:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._store.piece(self._stream)
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    return await anext(stream, None)
