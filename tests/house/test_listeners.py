"""The tests' own servers end with nothing left open, however close a connection comes to their end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import warnings
from collections.abc import Iterator

import pytest

from support.fake_s3 import FakeS3
from support.faults import FaultProxy
from support.faults_scripted import ScriptedProxy


@pytest.fixture
def target() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def left_open() -> Iterator[list[str]]:
    """What the garbage collector has found open, after the test's body has run `gc.collect`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        found: list[str] = []
        yield found
        gc.collect()
        found += [str(warning.message) for warning in caught]
    assert not found


class Callers(contextlib.ExitStack):
    """Connections that are on their way when `call` returns; closed at the end of its body."""

    def call(self, port: int) -> None:
        for _ in range(3):
            one = self.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))


@pytest.mark.usefixtures("left_open")
@pytest.mark.parametrize("turns", range(8))
class TestEnd:
    async def test_scripted_proxy(self, target: int, turns: int) -> None:
        with Callers() as callers:
            async with ScriptedProxy(target) as proxy:
                callers.call(proxy.port)
                for _ in range(turns):
                    await asyncio.sleep(0)

    def test_fault_proxy(self, target: int, turns: int) -> None:
        with Callers() as callers, FaultProxy(target) as proxy:
            callers.call(proxy.port)
            time.sleep(turns / 10_000)

    def test_fake_s3(self, turns: int) -> None:
        with Callers() as callers, FakeS3() as fake:
            callers.call(int(fake.endpoint.rpartition(":")[2]))
            time.sleep(turns / 10_000)
