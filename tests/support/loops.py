"""The connections of an event loop at its end, so that none is left to the garbage collector."""

from __future__ import annotations

import asyncio
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
