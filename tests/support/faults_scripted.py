"""A TCP proxy in front of a test server that does, exchange by exchange, what its script says.

An exchange is what a client sends until the server answers. For faults by chance see `faults`; here each one is
placed, so that a test can say which answer was lost. Lives in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from support.loops import Listener

PIECE = 1 << 16


@dataclass(frozen=True)
class Pass:
    """Nothing goes wrong."""


@dataclass(frozen=True)
class LoseAnswer:
    """The server gets the request and answers; the client's connection is closed instead."""


@dataclass(frozen=True)
class LoseRequest:
    """The connection is closed before the server gets anything."""


@dataclass(frozen=True)
class CutAnswer:
    """The client gets this many bytes of the answer, then the connection is closed."""

    after: int


@dataclass(frozen=True)
class CutRequest:
    """The server gets this many bytes of the request, then both connections are closed."""

    after: int


@dataclass(frozen=True)
class Hold:
    """The answer stays here until `release` is set."""

    release: asyncio.Event


@dataclass(frozen=True)
class Reset:
    """The client gets a TCP reset instead of an answer; the server gets nothing."""


Fault = Pass | LoseAnswer | LoseRequest | CutAnswer | CutRequest | Hold | Reset


class ScriptedProxy:
    """Forwards a loopback port of its own to `target`, a port of a server.

    `script` is used up one fault per exchange, over all connections; when it is empty all passes. `mute_answers` and
    `mute_requests` are one-way partitions: bytes in that direction vanish while they are set.
    """

    def __init__(self, target: int, script: Iterable[Fault] = ()) -> None:
        self.target = target
        self.script: deque[Fault] = deque(script)
        self.mute_answers = False
        self.mute_requests = False
        self.exchanges = 0
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._listener = Listener(self._forward)
        self.port = await self._listener.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._listener.stop()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await _Connection(self, reader, writer).run()

    def next(self) -> Fault:
        self.exchanges += 1
        return self.script.popleft() if self.script else Pass()


class _Connection:
    def __init__(self, proxy: ScriptedProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._fault: Fault = Pass()
        self._answered = True
        self._sent = self._got = 0

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        ways = [asyncio.create_task(self._forth(writer)), asyncio.create_task(self._back(reader))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forth(self, server: asyncio.StreamWriter) -> None:
        while piece := await self._reader.read(PIECE):
            if self._answered:
                self._answered = False
                self._fault = self._proxy.next()
                self._sent = self._got = 0
            match self._fault:
                case LoseRequest():
                    return
                case Reset():
                    linger = struct.pack("ii", 1, 0)
                    self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self._writer.transport.abort()
                    return
                case CutRequest(after):
                    server.write(piece[: after - self._sent])
                    self._sent += len(piece)
                    await server.drain()
                    if self._sent >= after:
                        return
                    continue
            if not self._proxy.mute_requests:
                server.write(piece)
                await server.drain()

    async def _back(self, server: asyncio.StreamReader) -> None:
        while piece := await server.read(PIECE):
            self._answered = True
            match self._fault:
                case LoseAnswer():
                    return
                case Hold(release):
                    await release.wait()
                case CutAnswer(after):
                    self._writer.write(piece[: after - self._got])
                    self._got += len(piece)
                    await self._writer.drain()
                    if self._got >= after:
                        return
                    continue
            if not self._proxy.mute_answers:
                self._writer.write(piece)
                await self._writer.drain()
