"""Large content that goes up in pieces, and what comes in between: shared by the tests of the object stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asya_proxy.errors import Conflict, Exists
from asya_proxy.stores.base import ABSENT, CHUNK, Body, Store, match
from asya_proxy.testing.samples import MIB, Stalling, change, read, write


async def pieces(data: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    """`data` piece by piece, and in the end what cuts it off."""
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]
    if then is not None:
        raise then


async def another_writer_comes_in(store: Store) -> None:
    """While the parts are on their way: the condition counts when the upload is completed."""
    first = await write(store, b"f", b"first")

    async def body(key: bytes) -> AsyncIterator[bytes]:
        async for piece in pieces(bytes(9 * MIB)):
            yield piece
        await write(store, key, b"other")

    with pytest.raises(Conflict):
        await store.put(b"f", Body(stream=body(b"f")), change(match(first.version)))
    with pytest.raises(Exists):
        await store.put(b"new", Body(stream=body(b"new")), change(ABSENT))
    assert await read(store, b"f") == await read(store, b"new") == b"other"


async def cancelled(store: Store, size: int) -> None:
    """An upload that is cancelled when `size` bytes have been given to it leaves no file."""
    source = Stalling([piece async for piece in pieces(bytes(size))])
    upload = asyncio.create_task(store.put(b"f", Body(stream=aiter(source)), change()))
    await source.reached.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await store.head(b"f") is None
