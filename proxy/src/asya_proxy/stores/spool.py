"""A body on its way out, cut into the parts that an upload in several requests takes.

Shared by the object stores. At most one part is in memory here; how many are under way is theirs to bound. Whoever
takes a part lets go of it before the next one, or each upload holds another 8 MiB.
"""

from __future__ import annotations

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
    number, offset, buffer = 1, 0, bytearray()
    size = size_of(number)
    async for piece in body:
        buffer += piece
        while len(buffer) > size:  # only more than a part shows that this part is not the last
            full = bytes(memoryview(buffer)[:size])
            del buffer[:size]
            yield Part(number, offset, full, last=False)
            del full
            number, offset = number + 1, offset + size
            size = size_of(number)
    yield Part(number, offset, bytes(buffer), last=True)


async def chained(first: list[Part], rest: AsyncIterator[Part] | None = None) -> AsyncIterator[Part]:
    """The parts in `first`, which is emptied, then those of `rest`."""
    while first:
        yield first.pop(0)
    if rest is not None:
        async for part in rest:
            yield part
            del part
