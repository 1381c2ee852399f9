"""The connections of an event loop at its end, so that none is left to the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any


def _connections() -> list[Any]:
    # No public call lists them; each loop of asyncio's own has this mapping.
    return list(asyncio.get_running_loop()._transports.values())  # type: ignore[attr-defined]


async def farewell(deadline: float = 10.0) -> None:
    """Until the connections of this loop are closed: TLS waits for the other side's last words, and the loop of a
    test ends sooner than they come."""
    async with asyncio.timeout(deadline):
        while any(connection.get_extra_info("socket").fileno() >= 0 for connection in _connections()):
            await asyncio.sleep(0.005)


async def hang_up() -> None:
    """End the connections of this loop at once, accepted meanwhile or not."""
    for connection in _connections():
        connection.abort()
    await farewell()


async def deafen(listening: socket.socket) -> None:
    """Accept nothing more, before the server is closed: asyncio loses what it accepts in the turn of the closing."""
    asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(3):  # until what was accepted last has a transport, and its protocol knows
        await asyncio.sleep(0)


class Listener:
    """A TCP server on loopback that runs `serve(reader, writer)` for each connection, and leaves none at its end."""

    def __init__(self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._serve = serve
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self, port: int = 0) -> int:
        """Its port."""
        self._socket = socket.create_server(("127.0.0.1", port))
        self._server = await asyncio.start_server(self._accept, sock=self._socket)
        bound: int = self._socket.getsockname()[1]
        return bound

    async def stop(self) -> None:
        await deafen(self._socket)
        self._server.close()
        writers = list(self._open.values())
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine, which asyncio would start by itself: one that has not begun is unknown, and ends in no way.
        task = asyncio.create_task(self._run(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._ended)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task).close()
        if not task.cancelled():
            task.result()  # an error of the test server's own is not to be overlooked
