"""A proxy inside the test's own event loop, and clients of its socket."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from asya_proxy import settings
from asya_proxy.server import Server
from asya_proxy.stores.base import Store
from support.wire_client import WireClient

Start = Callable[..., Awaitable["RunningProxy"]]


class RunningProxy:
    """A server at work. `stop` drains it and returns the exit status."""

    def __init__(self, server: Server, socket: str, stop: asyncio.Event, task: asyncio.Task[int]) -> None:
        self.server = server
        self.socket = socket
        self._stop = stop
        self.task = task
        self._clients: list[WireClient] = []

    async def client(self) -> WireClient:
        client = await WireClient.connect(self.socket)
        self._clients.append(client)
        return client

    async def ready(self) -> None:
        client = await self.client()
        async with asyncio.timeout(10):
            while (await client.ask("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.005)

    async def stop(self) -> int:
        self._stop.set()
        return await self.task

    async def end(self) -> None:
        for client in self._clients:
            await client.close()
        await self.stop()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, because a Unix socket's path is."""
    with tempfile.TemporaryDirectory(prefix="asya-") as path:
        yield Path(path)


@pytest.fixture
async def start(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts proxies: `await start(store, STATE_...=...)`; a memory store without one."""
    running: list[RunningProxy] = []

    async def start_one(store: Store | None = None, *, ready: bool = True, **variables: str) -> RunningProxy:
        if store is not None:
            monkeypatch.setattr("asya_proxy.mount.make_store", lambda _backend, _config: store)
        environ = {
            "STATE_BACKEND": "memory",
            "STATE_BUCKET": "bucket",
            "STATE_SOCKET": str(directory / "state.sock"),
            "STATE_HTTP_ADDR": "off",
            "STATE_ACTOR": "ns/actor",
            **variables,
        }
        server = Server(settings.load(environ))
        stop = asyncio.Event()
        task = asyncio.create_task(server.run(stop))
        proxy = RunningProxy(server, environ["STATE_SOCKET"], stop, task)
        running.append(proxy)
        async with asyncio.timeout(10):
            while not Path(proxy.socket).exists() and not task.done():
                await asyncio.sleep(0.005)
        if ready and not task.done():
            await proxy.ready()
        return proxy

    yield start_one
    for proxy in running:
        await proxy.end()


@pytest.fixture
async def lww(start: Start) -> WireClient:
    return await (await start()).client()


@pytest.fixture
async def cas(start: Start) -> WireClient:
    return await (await start(STATE_CONSISTENCY="cas")).client()
