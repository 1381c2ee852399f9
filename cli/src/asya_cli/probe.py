"""Is a server of the actor ready? One `GET /readyz` on a TCP port or a Unix socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

_PROBE_TIMEOUT = 2.0
_REQUEST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask: `socket` if it is given, else `port` on the loopback address."""

    socket: str = ""
    port: int = 0


async def is_ready(endpoint: Endpoint, timeout: float = _PROBE_TIMEOUT) -> bool:
    """Whether the server answers 200 within `timeout` seconds. Nothing there, or any other answer, is no."""
    try:
        async with asyncio.timeout(timeout):
            if endpoint.socket:
                reader, writer = await asyncio.open_unix_connection(endpoint.socket)
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            try:
                writer.write(_REQUEST)
                await writer.drain()
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError):  # TimeoutError is an OSError; ValueError: a line beyond the reader's limit
        return False
    return status.split(b" ")[1:2] == [b"200"]
