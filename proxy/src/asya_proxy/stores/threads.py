"""Blocking SDK calls off the event loop: bounded pools, and streams that cross between both worlds.

Nothing here knows a backend. A pool never queues without bound: beyond it `Busy` is raised at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from asya_proxy.errors import Busy, Unavailable

_T = TypeVar("_T")


class Pool:
    """`threads` calls at a time and `waiting` more in a queue."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._name = name
        self._limit = threads + waiting
        self._slots = threading.BoundedSemaphore(self._limit)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], _T], *, discard: Callable[[_T], None] | None = None) -> _T:
        """The result of `work()` in a thread. A caller that gives up frees its place only when the thread is
        done; `discard` then closes what nobody takes. Raises Busy beyond the bound."""
        if not self._slots.acquire(blocking=False):
            raise Busy(f"{self._name}: {self._limit} requests to the backend are under way or waiting; try again")
        try:
            future = self._executor.submit(work)
        except RuntimeError:
            self._slots.release()
            raise Unavailable(f"{self._name}: the store is closed", ambiguous=False) from None
        future.add_done_callback(lambda _: self._slots.release())
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if discard is not None:
                future.add_done_callback(lambda done: _discard(done, discard))
            raise

    def close(self) -> None:
        """Start nothing more; calls under way end by their own time-outs."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _discard(future: Future[_T], discard: Callable[[_T], None]) -> None:
    if not future.cancelled() and future.exception() is None:
        discard(future.result())


class PieceStream:
    """A blocking source as an async iterator, one piece read ahead while the last one is on its way out.

    `pull` awaits the next piece (empty at the end); `close` frees the source and may be called from any thread.
    """

    def __init__(
        self, first: bytes, size: int, pull: Callable[[], Awaitable[bytes]], close: Callable[[], None]
    ) -> None:
        self._piece = first
        self._left = size
        self._pull = pull
        self._close = close
        self._ahead: asyncio.Future[bytes] | None = None
        self._closed = False

    def __aiter__(self) -> PieceStream:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        try:
            if self._ahead is not None:
                # Shielded: a reader that gives up must not close the source under the thread that reads it.
                self._piece = await asyncio.shield(self._ahead)
                self._ahead = None
                if not self._piece:
                    raise Unavailable(f"the backend ended an answer {self._left} bytes early", ambiguous=False)
            self._left -= len(self._piece)
            if self._left > 0:
                self._ahead = asyncio.ensure_future(self._pull())
            else:
                await self.aclose()
            return self._piece
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._ahead is None or self._ahead.done():
            self._close()
        else:  # the thread is reading: the source is closed when it is done
            self._ahead.add_done_callback(self._end)

    def _end(self, ahead: asyncio.Future[bytes]) -> None:
        if not ahead.cancelled():
            ahead.exception()
        self._close()
