"""A TCP proxy that behaves as bad networks and busy servers do, in front of any test server.

It runs in a thread of its own. What goes wrong is decided by a seeded dice for each request, as far as it can
tell requests apart (`Dialect`): an answer is lost (the connection falls silent, or is cut, once the server has
answered), a request is refused in the server's own words before the server sees it, a connection is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from support.loops import Listener, hang_up

START_TIMEOUT = 10.0
PIECE = 1 << 16


@dataclass
class Faults:
    """Shares of requests, 0 to 1. They may be changed while the proxy runs. `silent` is a one-way partition: nothing
    passes from server to client."""

    lose_answer: float = 0.0
    refuse: float = 0.0
    reset: float = 0.0
    silent: bool = False


class Dialect:
    """What a proxy must know of a protocol. This one knows nothing: each piece is a request, none can be refused."""

    closes = False
    """Whether a connection ends with a refusal."""

    def is_request(self, piece: bytes) -> bool:
        """Whether faults may befall it; what sets a connection up is spared."""
        return True

    def is_answer(self, piece: bytes) -> bool:
        """Whether it can be what the next request's sender waits for, and not a word in between."""
        return True

    def refusal(self, piece: bytes) -> bytes | None:
        """What a server that is too busy would answer to exactly this one request; None: cannot tell."""
        return None


_REDIS_SET_UP = (b"HELLO", b"AUTH", b"CLIENT", b"SELECT", b"PING", b"CONFIG", b"INFO", b"SCRIPT")


class RedisDialect(Dialect):
    def is_request(self, piece: bytes) -> bool:
        words = piece[:64].split(b"\r\n")
        return piece.startswith(b"*") and len(words) > 2 and words[2].upper() not in _REDIS_SET_UP

    def refusal(self, piece: bytes) -> bytes | None:
        """Only where the piece is one whole command: what follows it would lack an answer."""
        return b"-LOADING Redis is loading the dataset in memory\r\n" if _one_command(piece) else None


def _one_command(piece: bytes) -> bool:
    head, _, rest = piece.partition(b"\r\n")
    for _ in range(int(head[1:])):
        size, _, rest = rest.partition(b"\r\n")
        if not size.startswith(b"$") or len(rest) < int(size[1:]) + 2:
            return False
        rest = rest[int(size[1:]) + 2 :]
    return not rest


class NatsDialect(Dialect):
    """One per connection: it must know which subscription receives answers."""

    def __init__(self) -> None:
        self._inbox = b""

    def is_request(self, piece: bytes) -> bool:
        for line in piece.split(b"\r\n"):
            if line.startswith(b"SUB _INBOX."):
                self._inbox = line.rpartition(b" ")[2]
        return piece.startswith((b"PUB ", b"HPUB "))

    def refusal(self, piece: bytes) -> bytes | None:
        line, _, rest = piece.partition(b"\r\n")
        words = line.split(b" ")
        if not self._inbox or len(words) != (4 if words[0] == b"PUB" else 5) or len(rest) != int(words[-1]) + 2:
            return None
        answer = b"NATS/1.0 503\r\n\r\n"
        return b"HMSG %b %b %d %d\r\n%b\r\n" % (words[2], self._inbox, len(answer), len(answer), answer)


class HttpDialect(Dialect):
    closes = True

    def is_request(self, piece: bytes) -> bool:
        return piece.split(b" ", 1)[0] in (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"PATCH")

    def is_answer(self, piece: bytes) -> bool:
        return not piece.startswith(b"HTTP/1.1 100 ")

    def refusal(self, piece: bytes) -> bytes | None:
        return b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n"


DIALECTS: dict[str, type[Dialect]] = {
    "redis": RedisDialect,
    "nats": NatsDialect,
    "s3": HttpDialect,
    "gcs": HttpDialect,
    "": Dialect,
}


@dataclass
class FaultProxy:
    """Listens on `port` of loopback and forwards to `target`; `seen` counts requests and what befell them."""

    target: int
    dialect: str = ""
    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    port: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def start(self) -> Self:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._dice = random.Random(self.seed)
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fault-proxy", daemon=True)
        self._thread.start()
        assert ready.wait(START_TIMEOUT), "the fault proxy did not start"
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(START_TIMEOUT)
        assert not self._thread.is_alive(), "the fault proxy does not end"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))
        self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._stopped = asyncio.Event()
        listener = Listener(lambda reader, writer: _Connection(self, reader, writer).run())
        self.port = await listener.start(self.port)
        ready.set()
        await self._stopped.wait()
        await listener.stop()
        await hang_up()

    def roll(self) -> str:
        """What befalls the next request: `lose`, `refuse`, `reset` or nothing."""
        throw = self._dice.random()
        for name, share in (
            ("lose", self.faults.lose_answer),
            ("refuse", self.faults.refuse),
            ("reset", self.faults.reset),
        ):
            if throw < share:
                return name
            throw -= share
        return ""


class _Connection:
    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._dialect = DIALECTS[proxy.dialect]()
        self._losing = ""
        """Set: the next answer is lost, by `silence` or by a `cut`."""

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        try:
            ways = [asyncio.create_task(self._forth(writer)), asyncio.create_task(self._back(reader))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            writer.close()

    async def _forth(self, server: asyncio.StreamWriter) -> None:
        while piece := await self._reader.read(PIECE):
            if self._dialect.is_request(piece) and not self._losing:
                self._proxy.seen["requests"] += 1
                what = self._proxy.roll()
                if what == "refuse":
                    answer = self._dialect.refusal(piece)
                    if answer is not None:
                        self._proxy.seen["refused"] += 1
                        self._writer.write(answer)
                        await self._writer.drain()
                        if self._dialect.closes:
                            return
                        continue
                elif what == "reset":
                    self._proxy.seen["reset"] += 1
                    _reset(self._writer)
                    return
                elif what == "lose":
                    self._proxy.seen["lost"] += 1
                    self._losing = "silence" if self._proxy.seen["lost"] % 2 else "cut"
            server.write(piece)
            await server.drain()

    async def _back(self, server: asyncio.StreamReader) -> None:
        while piece := await server.read(PIECE):
            losing = self._losing if self._dialect.is_answer(piece) else ""
            if losing == "cut":
                return
            if losing == "silence" or self._proxy.faults.silent:
                continue
            self._writer.write(piece)
            await self._writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
