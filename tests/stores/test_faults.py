"""The scripted fault proxy itself, against a real server and by raw bytes."""

import asyncio

import pytest

from support.faults_scripted import (
    CutAnswer,
    CutRequest,
    Fault,
    Hold,
    LoseAnswer,
    LoseRequest,
    Reset,
    ScriptedProxy,
)
from support.servers import RedisServer

INCR = b"INCR counter\r\n"


class Link:
    """One raw connection through the proxy."""

    def __init__(self, proxy: ScriptedProxy) -> None:
        self._proxy = proxy

    async def __aenter__(self) -> "Link":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._proxy.port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()

    async def ask(self, request: bytes) -> bytes:
        """What comes back before the end of a line or of the connection."""
        self.writer.write(request)
        await self.writer.drain()
        answer = b""
        while not answer.endswith(b"\r\n") and (piece := await self.reader.read(100)):
            answer += piece
        return answer


def count(server: RedisServer) -> bytes:
    return server.ask("GET", "counter")


@pytest.fixture(autouse=True)
def counter(redis_server: RedisServer) -> None:
    redis_server.ask("SET", "counter", "0")


async def test_without_a_script_all_passes(redis_server: RedisServer) -> None:
    async with ScriptedProxy(redis_server.port) as proxy, Link(proxy) as link:
        assert await link.ask(INCR) == b":1\r\n"
        assert await link.ask(INCR) == b":2\r\n"
        assert (proxy.connections, proxy.exchanges) == (1, 2)


@pytest.mark.parametrize(
    ("fault", "answer", "landed"),
    [
        (LoseAnswer(), b"", True),
        (LoseRequest(), b"", False),
        (CutAnswer(2), b":2", True),
        (CutRequest(5), b"", False),
    ],
)
async def test_one_fault_in_its_place(redis_server: RedisServer, fault: Fault, answer: bytes, landed: bool) -> None:
    async with ScriptedProxy(redis_server.port) as proxy:
        async with Link(proxy) as link:
            assert await link.ask(INCR) == b":1\r\n"
            proxy.script.append(fault)
            assert await link.ask(INCR) == answer
        async with Link(proxy) as link:
            assert await link.ask(INCR) == (b":3\r\n" if landed else b":2\r\n")


async def test_a_reset(redis_server: RedisServer) -> None:
    async with ScriptedProxy(redis_server.port, [Reset()]) as proxy, Link(proxy) as link:
        with pytest.raises(ConnectionResetError):
            await link.ask(INCR)
    assert count(redis_server) == b"$1\r\n0\r\n"


async def test_an_answer_is_held(redis_server: RedisServer) -> None:
    release = asyncio.Event()
    async with ScriptedProxy(redis_server.port, [Hold(release)]) as proxy, Link(proxy) as link:
        asking = asyncio.create_task(link.ask(INCR))
        async with Link(proxy) as other:
            assert await other.ask(b"PING\r\n") == b"+PONG\r\n"
        assert not asking.done()
        release.set()
        assert await asking == b":1\r\n"


async def test_one_way_partitions(redis_server: RedisServer) -> None:
    async with ScriptedProxy(redis_server.port) as proxy, Link(proxy) as link:
        proxy.mute_answers = True
        link.writer.write(INCR)
        while count(redis_server) != b"$1\r\n1\r\n":
            await asyncio.sleep(0.005)
        proxy.mute_answers, proxy.mute_requests = False, True
        link.writer.write(INCR)
        await link.writer.drain()
        while proxy.exchanges < 2:
            await asyncio.sleep(0.005)
        proxy.mute_requests = False
        assert await link.ask(INCR) == b":2\r\n"
