"""Blocking SDK calls off the event loop, in bounded pools.

Nothing here knows a backend. A pool never queues without bound: beyond it `Busy` is raised at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Generic, TypeVar

from asya_proxy.errors import Busy, Unavailable

_T = TypeVar("_T")


class Pool:
    """`threads` calls at a time and `waiting` more in a queue."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._name = name
        self._limit = threads + waiting
        self._slots = threading.BoundedSemaphore(self._limit)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], _T]) -> _T:
        """The result of `work()` in a thread. A caller that gives up frees its place only when the thread is
        done. Raises Busy beyond the bound."""
        if not self._slots.acquire(blocking=False):
            raise Busy(f"{self._name}: {self._limit} requests to the backend are under way or waiting; try again")
        try:
            future = self._executor.submit(copy_context().run, work)
        except RuntimeError:
            self._slots.release()
            raise Unavailable(f"{self._name}: the store is closed", ambiguous=False) from None
        future.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Start nothing more; calls under way end by their own time-outs."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Shared(Generic[_T]):
    """Work that is done once for all who ask for it while it is under way, whoever of them gives up."""

    def __init__(self) -> None:
        self._task: asyncio.Task[_T] | None = None

    async def run(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What `work()` comes to, or what another's that is under way does."""
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.ensure_future(_awaited(work))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # maybe nobody waits any more
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def _awaited(work: Callable[[], Awaitable[_T]]) -> _T:
    return await work()
