"""The queue between triggers and passes: each actor at most once in it, never in two workers at a time, failures
tried again later. Bounded by the number of actors."""

import asyncio
from collections import deque

from asya_operator.rollout import Key

FIRST_RETRY = 1.0
LAST_RETRY = 300.0


class WorkQueue:
    """Keys to work on. A key added while it is being worked on is worked on again afterwards."""

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        # Since when, by the loop's clock.
        self._queued: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def oldest(self) -> float:
        """Seconds that the key waits that has waited longest; 0 where none does."""
        since = min(self._queued.values(), default=None)
        return 0.0 if since is None else max(0.0, asyncio.get_running_loop().time() - since)

    @property
    def retrying(self) -> int:
        """Keys whose last pass failed."""
        return len(self._failures)

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Work on `key` in `delay` seconds; an earlier appointment stays, a later one is replaced."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if self._closed:
            return
        if delay > 0:
            if key not in self._queued and (timer is None or timer.when() > loop.time() + delay):
                self._cancel(key)
                self._timers[key] = loop.call_later(delay, self._due, key)
            return
        self._cancel(key)
        if key not in self._queued:
            self._queued[key] = loop.time()
            if key not in self._busy:
                self._ready.append(key)
                self._wake.set()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def take(self) -> Key | None:
        """The next key, to be given back by `done` or `failed`; None once the queue is closed."""
        while not self._ready and not self._closed:
            self._wake.clear()
            await self._wake.wait()
        if self._closed:
            return None
        key = self._ready.popleft()
        self._queued.pop(key, None)
        self._busy.add(key)
        return key

    def done(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._give_back(key)

    def failed(self, key: Key, at_least: float = 0.0) -> float:
        """Try again later, each time later. The seconds until then."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(FIRST_RETRY * 2.0 ** min(count - 1, 16), LAST_RETRY)
        delay = max(delay, min(at_least, LAST_RETRY))
        self._give_back(key)
        self.add(key, delay)
        return delay

    def _give_back(self, key: Key) -> None:
        self._busy.discard(key)
        if key in self._queued:
            self._ready.append(key)
            self._wake.set()

    def close(self) -> None:
        """Hand out no more keys, and forget all appointments."""
        self._closed = True
        self._wake.set()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
