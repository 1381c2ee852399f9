"""Which write ids lie in the stream of ids, as far as this process can tell without asking for them.

A busy file's messages have no room for all the ids of the window, so most of its changes would ask that stream for an
id that is not there. Where this process has seen every id go there, it knows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from asya_proxy.stores.nats_record import Head

BITS = 1 << 22
"""Of each of two maps, half a MiB: a thousand ids a second for two minutes fill 3 % of one."""


class Spilled:
    """`window` is how long write ids are remembered, `files` how many files are known, the latest first."""

    def __init__(self, window: float, files: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._files = files
        self._clock = clock
        self._whole: OrderedDict[bytes, int] = OrderedDict()
        """The versions of files all of whose spilled ids are in the maps."""
        # Two generations, each filled for a window, so that each id stays for one at least.
        self._new = self._old = bytearray()
        self._turned = clock()

    def read(self, key: bytes, head: Head, since_ns: int) -> None:
        """A file was found at `head`; ids from before `since_ns` count no more."""
        if head.spilled_ns < since_ns:
            self._keep(key, head.version)
        elif self._whole.get(key) != head.version:
            self._whole.pop(key, None)

    def wrote(self, key: bytes, previous: Head, head: Head, tokens: Iterable[str]) -> None:
        """`head` was made of `previous` here, after the ids of `tokens` went into the stream."""
        self._turn()
        for token in tokens:
            self._new = self._new or bytearray(BITS // 8)
            place = hash((key, token)) % BITS
            self._new[place >> 3] |= 1 << (place & 7)
        if self._whole.get(key) == previous.version:
            self._keep(key, head.version)
        else:
            self._whole.pop(key, None)

    def lacks(self, key: bytes, head: Head, token: str) -> bool:
        """Whether the stream certainly does not have `token` of a file that is at `head`."""
        if self._whole.get(key) != head.version:
            return False
        self._turn()
        place = hash((key, token)) % BITS
        return not any(bits[place >> 3] & 1 << (place & 7) for bits in (self._new, self._old) if bits)

    def _keep(self, key: bytes, version: int) -> None:
        self._whole[key] = version
        self._whole.move_to_end(key)
        if len(self._whole) > self._files:
            self._whole.popitem(last=False)

    def _turn(self) -> None:
        now = self._clock()
        if now - self._turned > self._window:
            fresh = now - self._turned <= 2 * self._window
            self._old, self._new = (self._new if fresh else bytearray()), bytearray()
            self._turned = now
