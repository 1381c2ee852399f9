"""Deadlines for many short waits: one timer looks at all of them, instead of one timer each.

`asyncio.timeout` costs more than a whole request on a memory store. Here a wait costs a set entry, and a
deadline is kept to within one tick.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

TICK = 0.025
"""Seconds between two looks at the open waits."""


class Deadlines:
    """The open waits of one event loop."""

    def __init__(self, tick: float = TICK) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick = tick
        self._open: set[Guard] = set()
        self._armed = False
        self.now = self._loop.time

    def within(self, seconds: float) -> Guard:
        """A `with` block that raises TimeoutError when it takes longer than `seconds` without `progress`."""
        return Guard(self, seconds)

    def _add(self, guard: Guard) -> None:
        self._open.add(guard)
        if not self._armed:
            self._armed = True
            self._loop.call_later(self._tick, self._look)

    def _look(self) -> None:
        # The next look first: whatever one wait does when it is ended, the others still end.
        self._armed = bool(self._open)
        if self._armed:
            self._loop.call_later(self._tick, self._look)
        now = self._loop.time()
        for guard in [guard for guard in self._open if guard.at <= now]:
            guard.expire()


class Guard:
    """One wait; the same arithmetic of cancellations as `asyncio.timeout`."""

    __slots__ = ("_cancelling", "_expired", "_owner", "_seconds", "_task", "at")

    def __init__(self, owner: Deadlines, seconds: float) -> None:
        self._owner = owner
        self._seconds = seconds
        self._expired = False
        self.at = 0.0

    def __enter__(self) -> Guard:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to cancel")
        self._task = task
        self._cancelling = task.cancelling()
        self.at = self._owner.now() + self._seconds
        self._owner._add(self)
        return self

    def progress(self, seconds: float | None = None) -> None:
        """Count anew from now, with `seconds` instead of the first figure where given."""
        self.at = self._owner.now() + (self._seconds if seconds is None else seconds)

    def pause(self) -> None:
        """Stop counting until the next `progress`: somebody else's deadline runs."""
        self.at = math.inf

    def expire(self) -> None:
        self._expired = True
        self.at = math.inf
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner._open.discard(self)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
