"""What this process must purge later: replaced chunks after a grace, delete markers after the window of write ids.

Lost with the process, and bounded; what is lost or did not fit is found by the store's sweep.
"""

from __future__ import annotations

import heapq
import itertools
import time

from asya_proxy.stores.nats_jetstream import JetStream

MAX_GARBAGE = 10_000


class Garbage:
    """Subjects of streams, each with the time from which on it may go."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, str, int]] = []
        self._ordinal = itertools.count()

    def add(self, seconds: float, stream: str, subject: str, before: int = 0) -> None:
        """Purge a subject in `seconds`, up to sequence `before` if given."""
        if len(self._heap) < MAX_GARBAGE:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._ordinal), stream, subject, before))

    async def purge_due(self, jetstream: JetStream, now: float | None = None) -> int:
        """Purge what is due by `now` (monotonic seconds); how many subjects. What fails is left to the sweep."""
        done = 0
        while self._heap and self._heap[0][0] <= (time.monotonic() if now is None else now):
            _, _, stream, subject, before = heapq.heappop(self._heap)
            await jetstream.purge(stream, subject, before)
            done += 1
        return done
