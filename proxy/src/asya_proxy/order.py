"""One change of a key at a time, in the order of arrival, within this proxy.

A repeat of an older write must not land after a newer one that this same proxy has already acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque

from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import Timeout


class Order:
    """Locks by key. A key that nobody changes costs nothing; waiters are bounded by the requests in flight."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._busy: dict[bytes, deque[asyncio.Future[None]] | None] = {}

    def __len__(self) -> int:
        return len(self._busy)

    def enter_now(self, key: bytes) -> bool:
        """Take the key if nobody has it."""
        if key in self._busy:
            return False
        self._busy[key] = None
        return True

    async def enter(self, key: bytes, seconds: float) -> None:
        """Take the key, waiting up to `seconds`. Raises Timeout, unambiguous: nothing was done."""
        if self.enter_now(key):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._busy[key]
        if waiters is None:
            waiters = self._busy[key] = deque()
        waiters.append(turn)
        try:
            with self._deadlines.within(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(key)
            else:
                turn.cancel()
            if isinstance(error, TimeoutError):
                raise Timeout("earlier changes of the same file are still at work", ambiguous=False) from None
            raise

    def leave(self, key: bytes) -> None:
        """Give the key to the next in line."""
        waiters = self._busy[key]
        while waiters:
            turn = waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._busy[key]
