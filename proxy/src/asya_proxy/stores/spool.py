"""A body on its way out, cut into the parts that an upload in several requests takes.

Shared by the stores. At most one part is in memory here; how many are under way is theirs to bound. Whoever takes a
part lets go of it before the next one, or each upload holds another one, and releases what is sent, to be used again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import NamedTuple


class Part(NamedTuple):
    """`offset` is that of the first byte in the whole body."""

    number: int
    offset: int
    data: bytes | bytearray
    last: bool
    spare: list[bytearray] | None = None

    def release(self) -> None:
        """Nobody reads the data any more: a later part may use its memory, as fresh memory costs as much as the copy
        into it."""
        if self.spare is not None and isinstance(self.data, bytearray):
            self.spare.append(self.data)


async def parts(body: AsyncIterable[bytes], size_of: Callable[[int], int]) -> AsyncGenerator[Part, None]:
    """Parts of exactly `size_of(number)` bytes, numbered from 1, and a last one of at most that; of an empty body
    one empty part. What the body raises passes through."""
    spare: list[bytearray] = []
    number, offset, filled = 1, 0, 0
    buffer = _buffer(size_of(1), spare)
    async for piece in body:
        view = memoryview(piece)
        while filled + len(view) > len(buffer):  # only more than a part shows that this part is not the last
            room = len(buffer) - filled
            buffer[filled:] = view[:room]
            view = view[room:]
            full, buffer = buffer, bytearray()
            yield Part(number, offset, full, last=False, spare=spare)
            number, offset, filled = number + 1, offset + len(full), 0
            del full
            buffer = _buffer(size_of(number), spare)
        buffer[filled : filled + len(view)] = view
        filled += len(view)
    with memoryview(buffer) as view:
        data = bytes(view[:filled])
    del buffer
    yield Part(number, offset, data, last=True)


def _buffer(size: int, spare: list[bytearray]) -> bytearray:
    while spare:
        buffer = spare.pop()
        if len(buffer) == size:
            return buffer
    return bytearray(size)


async def chained(first: list[Part], rest: AsyncIterator[Part] | None = None) -> AsyncIterator[Part]:
    """The parts in `first`, which is emptied, then those of `rest`."""
    while first:
        yield first.pop(0)
    if rest is not None:
        async for part in rest:
            yield part
            del part
