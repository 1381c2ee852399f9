"""Blocking SDK calls off the event loop, in bounded pools.

Nothing here knows a backend. A pool never queues without bound: beyond it `Busy` is raised at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
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
