"""A body whose length was said, as it comes from the socket: its pieces pass through as they are, without a parser.

It stands where aiohttp's `StreamReader` stands for other bodies, and answers to the same names.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol


class Source(Protocol):
    """What the bytes come from."""

    def hold_reading(self) -> None: ...

    def go_on_reading(self) -> None: ...


class Arriving:
    """`length` bytes, fed by the connection and read by one task. Beyond twice `limit` unread bytes the source is
    held, until less than `limit` are left."""

    __slots__ = ("_error", "_held", "_holding", "_limit", "_loop", "_missing", "_pieces", "_source", "_waiter")

    def __init__(self, length: int, source: Source, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self._missing = length
        self._source = source
        self._limit = limit
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._holding = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body, and give back what lies behind it."""
        surplus = data[self._missing :] if len(data) > self._missing else b""
        piece = data[: self._missing] if surplus else data
        if piece:
            self._pieces.append(piece)
            self._held += len(piece)
            self._missing -= len(piece)
            self._wake()
        # What is complete is never held: what comes next is not this body's.
        hold = bool(self._missing) and self._held > 2 * self._limit
        if hold and not self._holding:
            self._holding = True
            self._source.hold_reading()
        elif not self._missing:
            self._release()
        return surplus

    def set_exception(self, error: BaseException) -> None:
        """There will be no more: each read raises `error` from now on."""
        self._error = error
        self._wake()

    def is_eof(self) -> bool:
        """Whether all has arrived."""
        return not self._missing

    def at_eof(self) -> bool:
        """Whether all has arrived and was read."""
        return not self._missing and not self._pieces

    async def readany(self) -> bytes:
        """A piece as it came; empty at the end."""
        while self._error is None and not self._pieces and self._missing:
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._held < self._limit:
            self._release()
        return piece

    def read_nowait(self, _count: int = -1) -> bytes:
        """All that is here."""
        if self._error is not None:
            raise self._error
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        self._release()
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _release(self) -> None:
        if self._holding:
            self._holding = False
            self._source.go_on_reading()
