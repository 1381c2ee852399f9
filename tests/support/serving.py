"""A whole proxy inside the test's event loop, in front of a real server, with its port for health."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from asya_proxy import settings
from asya_proxy.server import Server
from asya_proxy.sockets import listen_on
from support.wire_client import WireClient


def loaded(backend: str, environ: Mapping[str, str], **more: str) -> settings.Settings:
    """Settings of one mount: `environ` says where the backend is."""
    # Short, because a Unix socket's path is; `proxy` makes it.
    directory = Path(tempfile.gettempdir(), f"asya-{secrets.token_hex(4)}")
    return settings.load(
        {
            "STATE_BACKEND": backend,
            "STATE_BUCKET": "asya-state",
            "STATE_PREFIX": "ns/actor/",
            "STATE_CONSISTENCY": "cas",
            "STATE_SOCKET": f"{directory}/state.sock",
            "STATE_HTTP_ADDR": "127.0.0.1:0",
            **environ,
            **more,
        }
    )


@asynccontextmanager
async def proxy(found: settings.Settings) -> AsyncIterator[tuple[asyncio.Task[int], WireClient]]:
    """A proxy at work, ready or not: its end with the exit status, and a client of its port for health."""
    sockets = Path(found.mounts[0].socket).parent
    sockets.mkdir(mode=0o700)
    server, stop = Server(found, listen_on(("127.0.0.1", 0))), asyncio.Event()
    task = asyncio.create_task(server.run(stop))
    async with asyncio.timeout(10):
        while server.address is None:
            await asyncio.sleep(0.005)
    client = WireClient(*await asyncio.open_connection(*server.address))
    try:
        yield task, client
    finally:
        stop.set()
        await task
        await client.close()
        shutil.rmtree(sockets)


@asynccontextmanager
async def serving(found: settings.Settings) -> AsyncIterator[WireClient]:
    """A client of the socket of a proxy that is ready."""
    async with proxy(found) as (_, health):
        reply = await health.ask("GET", "/readyz")
        assert reply.status == 200, reply.body
        client = await WireClient.connect(found.mounts[0].socket)
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def refused(found: settings.Settings) -> AsyncIterator[str]:
    """What `/readyz` says of a proxy that will not serve, before it ends with status 1."""
    async with proxy(found) as (task, health):
        reply = await health.ask("GET", "/readyz")
        assert reply.status == 503
        yield reply.json["not_ready"]["state"]
        assert await task == 1
