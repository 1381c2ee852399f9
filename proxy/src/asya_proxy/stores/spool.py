"""A body on its way out, cut into the parts that an upload in several requests takes.

Shared by the stores. At most one part is in memory here; how many are under way is theirs to bound. Whoever takes a
part lets go of it before the next one, or each upload holds another one, and releases what is sent, to be used again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import NamedTuple


class _Spare:
    """The memory of a part that was sent, for the next one: fresh memory costs as much as the copy into it. No more
    than one of the whole process, and none while nothing is uploaded."""

    def __init__(self) -> None:
        self._buffer: bytearray | None = None
        self._uploads = 0

    def __enter__(self) -> None:
        self._uploads += 1

    def __exit__(self, *_error: object) -> None:
        self._uploads -= 1
        if not self._uploads:
            self._buffer = None

    def give(self, buffer: bytearray) -> None:
        if self._uploads:
            self._buffer = buffer

    def take(self, size: int) -> bytearray:
        """Of `size` bytes to write over, or an empty one that grows."""
        buffer, self._buffer = self._buffer, None
        return buffer if buffer is not None and len(buffer) == size else bytearray()


_spare = _Spare()


class Part(NamedTuple):
    """`offset` is that of the first byte in the whole body."""

    number: int
    offset: int
    data: bytes | bytearray
    last: bool

    def release(self) -> None:
        """Nobody reads the data any more: the next part may use its memory."""
        if isinstance(self.data, bytearray):
            _spare.give(self.data)


async def parts(body: AsyncIterable[bytes], size_of: Callable[[int], int]) -> AsyncGenerator[Part, None]:
    """Parts of exactly `size_of(number)` bytes, numbered from 1, and a last one of at most that; of an empty body
    one empty part. What the body raises passes through."""
    number, offset, filled = 1, 0, 0
    size = size_of(1)
    buffer = bytearray()
    with _spare:
        try:
            async for piece in body:
                view = memoryview(piece)
                while filled + len(view) > size:  # only more than a part shows that this part is not the last
                    room = size - filled
                    buffer[filled:] = view[:room]
                    view = view[room:]
                    full, buffer = buffer, bytearray()
                    yield Part(number, offset, full, last=False)
                    del full
                    number, offset, filled = number + 1, offset + size, 0
                    size = size_of(number)
                    buffer = _spare.take(size)
                buffer[filled : filled + len(view)] = view
                filled += len(view)
        except BaseException:
            buffer = bytearray()  # what was raised may keep this frame for long
            raise
    with memoryview(buffer) as view:
        data = bytes(view[:filled])
    del buffer
    yield Part(number, offset, data, last=True)


async def chained(first: list[Part], rest: AsyncIterator[Part] | None = None) -> AsyncIterator[Part]:
    """The parts in `first`, which is emptied, then those of `rest`."""
    while first:
        yield first.pop(0)
    if rest is not None:
        async for part in rest:
            yield part
            del part
