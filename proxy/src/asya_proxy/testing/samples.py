"""What the suites write: names, contents, changes. No assertions, no fixtures."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping

from asya_proxy.errors import BadRequest
from asya_proxy.stores.base import ANY, Body, Change, Past, Precondition, Reading, Stat, Store

MIB = 1 << 20

ODD_NAMES: tuple[bytes, ...] = (
    b"a b",
    b" leading and trailing ",
    b"new\nline",
    b"tab\tand\rreturn",
    b"\x01\x1b\x7f",
    b"%2F",
    b"%",
    b"%zz%00",
    b"=41=",
    b"~1~0",
    b"back\\slash\\",
    b"...",
    b"..x",
    b"x..",
    b".hidden",
    b"trailing.",
    b"-rf",
    b"*?[x]",
    b"what?x=1&y#z",
    b"plus+and,comma;",
    b"quotes'\"`",
    b"a:b|c<d>e$f",
    b"{tag}",
    b"Case",
    b"case",
    "na\u00efve".encode(),
    "nai\u0308ve".encode(),
    "\u65e5\u672c\u8a9e/\u30d5\u30a1\u30a4\u30eb".encode(),
    "\U0001f600".encode(),
    b"\xff\xfe not UTF-8",
    b"half \xe6\x97",
    b"n" * 255,
    b"\xff" * 85,
    b"/".join([b"d" * 99] * 9),
    b".asya-not-reserved",
    b"dir/.asya",
)
"""Legal names that some backend, encoding or router is known to lose. Each is a whole key below the prefix."""


def pattern(size: int, seed: int = 0) -> bytes:
    """`size` bytes, the same for the same seed, in which no stretch looks like another."""
    return random.Random(seed).randbytes(size)  # noqa: S311


def new_id() -> str:
    """A fresh write id, as the shim makes them."""
    return secrets.token_urlsafe(16)


def change(
    when: Precondition = ANY,
    *,
    id: str | None = None,  # noqa: A002
    history: tuple[Past, ...] = (),
    attrs: Mapping[str, str] | None = None,
) -> Change:
    return Change(id or new_id(), when, history, attrs or {})


async def write(store: Store, key: bytes, data: bytes, when: Precondition = ANY) -> Stat:
    """One put under a fresh write id."""
    return await store.put(key, Body(data), change(when))


async def content(reading: Reading | None) -> bytes:
    """All bytes of an answer to `get`."""
    assert reading is not None, "the store said that the object is absent"
    if reading.data is not None:
        return bytes(reading.data)
    assert reading.stream is not None, "a reading has data or a stream"
    return b"".join([bytes(piece) async for piece in reading.stream])


async def read(store: Store, key: bytes) -> bytes | None:
    """The object's bytes; None where it is absent."""
    reading = await store.get(key)
    return None if reading is None else await content(reading)


async def names(store: Store, prefix: bytes = b"", limit: int = 1000) -> list[bytes]:
    """All keys that start with `prefix`, page by page."""
    found: list[bytes] = []
    after = b""
    while True:
        page = await store.list(prefix, after=after, limit=limit)
        found += [entry.key for entry in page.entries]
        if not page.more:
            return found
        assert page.entries, "a page that says `more` names where to continue"
        after = found[-1]


async def pieces(blocks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A source that gives these blocks, letting others run in between."""
    for block in blocks:
        await asyncio.sleep(0)
        yield block


async def cut(blocks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A source that ends early, as the proxy reports a client that went away."""
    async for block in pieces(blocks):
        yield block
    raise BadRequest("the body ended early")


class Stalling:
    """A source that gives its blocks and then stands still until cancelled; `reached` tells that it does."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks
        self.reached = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in pieces(self._blocks):
            yield block
        self.reached.set()
        await asyncio.Event().wait()
