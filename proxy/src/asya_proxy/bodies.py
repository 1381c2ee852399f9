"""Request bodies on their way in: whole in memory while small, a stream beyond, within one budget of bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asya_proxy.connection import Request
from asya_proxy.errors import BadRequest, Busy, TooLarge
from asya_proxy.metrics import MountMetrics
from asya_proxy.stores.base import Body

WHOLE_KNOWN = 8 << 20
"""Bodies of a known length up to this are read whole, so that an attempt can be repeated."""
WHOLE_UNKNOWN = 1 << 20
STREAM = 2 << 20
"""What a stream holds in memory: a piece and the socket's buffers."""


class Budget:
    """Bytes of request bodies that may be in memory at once, over all mounts."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Incoming:
    """One request's body; a `with` block around its use returns what it took of the budget."""

    __slots__ = ("_budget", "_figures", "_max_size", "_request", "_taken")

    def __init__(self, request: Request, budget: Budget, figures: MountMetrics, max_size: int) -> None:
        self._request = request
        self._budget = budget
        self._figures = figures
        self._max_size = max_size
        self._taken = 0

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_error: object) -> None:
        self.done()

    def done(self) -> None:
        """Return what was taken; for where a `with` block costs too much."""
        self._budget.used -= self._taken
        self._figures.buffered -= self._taken

    def _take(self, count: int) -> None:
        """Raises Busy where the budget is used up."""
        budget = self._budget
        used = budget.used
        if used and used + count > budget.limit:
            raise Busy(f"{used} bytes of bodies are in memory, more than STATE_MAX_BUFFERED allows with this one")
        budget.used = used + count
        self._taken += count
        self._figures.buffered += count

    def whole(self) -> Body:
        """The body of a request that is complete. Raises TooLarge, Busy."""
        data = self._request.take()
        size = len(data)
        if self._max_size and size > self._max_size:
            raise self._too_large()
        self._take(size)
        self._figures.bytes_in += size
        return Body(data)

    async def body(self) -> Body:
        """The body for a store. Raises BadRequest where it ends early, TooLarge, Busy."""
        request = self._request
        if request.complete:
            return self.whole()
        length = _length(request)
        if self._max_size and (length or 0) > self._max_size:
            raise self._too_large()
        if length is not None and length <= min(WHOLE_KNOWN, self._budget.limit // 2):
            self._take(length)
            return Body(b"".join([piece async for piece in self._counted(request.pieces())]))
        self._take(STREAM if length is not None else WHOLE_UNKNOWN + STREAM)
        pieces = self._counted(request.pieces())
        if length is not None:
            return Body(stream=pieces, size=length)
        return await _whole_if_small(pieces)

    async def _counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        total = 0
        async for piece in pieces:
            total += len(piece)
            if self._max_size and total > self._max_size:
                raise self._too_large()
            self._figures.bytes_in += len(piece)
            yield piece

    def _too_large(self) -> TooLarge:
        return TooLarge(f"more than the {self._max_size} bytes a file may have here")


async def _whole_if_small(pieces: AsyncIterator[bytes]) -> Body:
    first: list[bytes] = []
    size = 0
    async for piece in pieces:
        first.append(piece)
        size += len(piece)
        if size > WHOLE_UNKNOWN:
            return Body(stream=_chained(first, pieces))
    return Body(b"".join(first))


async def _chained(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while first:
        yield first.pop(0)
    async for piece in rest:
        yield piece


def _length(request: Request) -> int | None:
    """Content-Length; None for chunked bodies."""
    text = request.headers.get("Content-Length")
    if text is None:
        return None
    if not text.isdecimal():
        raise BadRequest(f"Content-Length {text!r} is no number")
    return int(text)
