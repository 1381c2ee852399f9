"""A body on its way out, cut into the parts that an upload in several requests takes.

Shared by the object stores. At most one part is in memory here; how many are under way is theirs to bound. Whoever
takes a part lets go of it before the next one, or each upload holds another 8 MiB.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NamedTuple

from asya_proxy.stores.base import Body


class Part(NamedTuple):
    """`offset` is that of the first byte in the whole body."""

    number: int
    offset: int
    data: bytes
    last: bool


async def parts(body: Body, size_of: Callable[[int], int]) -> AsyncGenerator[Part, None]:
    """Parts of exactly `size_of(number)` bytes, numbered from 1, and a last one of at most that; of an empty body
    one empty part. What the body raises passes through."""
    number, offset, size = 1, 0, size_of(1)
    buffer = io.BytesIO()
    async for piece in body:
        while buffer.tell() + len(piece) > size:  # only more than a part shows that this part is not the last
            room = size - buffer.tell()
            buffer.write(piece[:room])
            piece = piece[room:]
            full, buffer = buffer.getvalue(), io.BytesIO()  # without a copy, where the buffer is given up
            yield Part(number, offset, full, last=False)
            del full
            number, offset = number + 1, offset + size
            size = size_of(number)
        buffer.write(piece)
    yield Part(number, offset, buffer.getvalue(), last=True)


async def chained(first: list[Part], rest: AsyncIterator[Part] | None = None) -> AsyncIterator[Part]:
    """The parts in `first`, which is emptied, then those of `rest`."""
    while first:
        yield first.pop(0)
    if rest is not None:
        async for part in rest:
            yield part
            del part
