"""Content that does not fit one message: cut into chunks, and put together again.

An upload is written under a fresh name and never changes. Nobody sees it until a file's message names
it (`nats_record.Run`); where that never happens, whoever uploaded drops it, or the sweep does.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from asya_proxy.stores.base import Body
from asya_proxy.stores.nats_jetstream import JetStream, changing_nothing
from asya_proxy.stores.nats_record import Piece, Run, pieces
from asya_proxy.stores.nats_streams import Streams
from asya_proxy.stores.spool import Part, parts

PARALLEL = 4
"""Chunks of one transfer in flight."""


@dataclass(frozen=True, slots=True)
class Content:
    """A body taken in: `data` where it is small, else the runs it was uploaded as."""

    size: int
    data: bytes = b""
    runs: tuple[Run, ...] = ()


class Chunks:
    """Names are encoded keys. `drop` is told of uploads that came to nothing."""

    def __init__(self, jetstream: JetStream, streams: Streams, drop: Callable[[str, Sequence[Run]], None]) -> None:
        self._jetstream = jetstream
        self._streams = streams
        self._drop = drop

    async def take_in(self, name: str, body: Body, inline: int, each: int) -> Content:
        """Read a body: up to `inline` bytes into memory, more into chunks of `each`, a few in memory at a time."""
        held = bytearray()
        arriving = aiter(body)
        async for piece in arriving:
            held += piece
            if len(held) > inline:
                break
        else:
            return Content(len(held), bytes(held))

        async def everything() -> AsyncIterator[bytes]:
            yield bytes(held)
            held.clear()
            async for piece in arriving:
                yield piece

        run = await self.upload(name, everything(), each)
        return Content(run.size, runs=(run,))

    async def upload(self, name: str, data: AsyncIterator[bytes], each: int) -> Run:
        """Store what arrives in chunks of `each` bytes; at least one, maybe empty."""
        upload = secrets.token_hex(10)
        count = last = 0
        running: set[asyncio.Task[None]] = set()
        try:
            async with aclosing(parts(data, lambda _: each)) as cut:
                async for part in cut:
                    if len(running) >= PARALLEL:
                        finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                        for task in finished:
                            task.result()
                    subject = self._streams.chunk(name, upload, count)
                    running.add(asyncio.get_running_loop().create_task(self._send(subject, part)))
                    count, last = part.number, len(part.data)
                    del part
            await asyncio.gather(*running)
        except BaseException:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._drop(name, [Run(upload, 1, each, each)])
            raise
        return Run(upload, count, each, last)

    async def _send(self, subject: str, part: Part) -> None:
        with changing_nothing():
            await self._jetstream.publish(self._streams.chunks, subject, part.data)
        part.release()

    async def stream(
        self, name: str, runs: Sequence[Run], first: int, last: int, gone: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[bytes]:
        """Bytes `first` to `last` of what `runs` hold together. `gone` is called for a chunk that is missing, and
        raises what that means."""
        wanted = pieces(runs, first, last)
        ahead: list[asyncio.Task[bytes]] = []
        try:
            for number in range(len(wanted)):
                while len(ahead) < PARALLEL and number + len(ahead) < len(wanted):
                    piece = wanted[number + len(ahead)]
                    ahead.append(asyncio.get_running_loop().create_task(self._read(name, piece, gone)))
                yield await ahead.pop(0)
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _read(self, name: str, piece: Piece, gone: Callable[[], Awaitable[None]]) -> bytes:
        data = await self._jetstream.data_of(self._streams.chunks, self._streams.chunk(name, piece.upload, piece.index))
        if data is None:
            await gone()
            raise AssertionError("a missing chunk was explained by nothing")
        return data[piece.start : piece.stop]
