"""The object stores' HTTP: what is sent how often, how many at once, and what a failure says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from asya_proxy.errors import Busy, Timeout, Unavailable
from asya_proxy.stores.base import CHUNK
from asya_proxy.stores.http_link import ERRORS, Answer, HttpLink, Route, route, translate
from support.fake_s3 import FakeS3
from support.ports import free_port
from support.servers import self_signed

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def served(script: Script) -> AsyncIterator[str]:
    """The URL of a server that treats each connection by `script`."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await script(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def linked(route: Route | None = None, parallel: int = 4, timeout: float = 5) -> AsyncIterator[HttpLink]:
    link = HttpLink("s3", route or Route(), parallel=parallel, waiting=1, connect_timeout=timeout, read_timeout=timeout)
    try:
        yield link
    finally:
        await link.close()


async def failure(work: Awaitable[Answer]) -> BaseException:
    with pytest.raises(ERRORS) as raised:
        await work
    return raised.value


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_nothing_is_sent_twice(method: str) -> None:
    """Not even where a kept connection ends before the answer, which HTTP clients like to repeat by themselves."""
    requests = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        requests += 1

    async with served(script) as url, linked() as link:
        assert (await link.send(method, url, {})).data == b"ok"
        error = await failure(link.send(method, url, {}))
        assert requests == 2
    lost = translate(error, changing=True, where="here", check="the cable")
    assert isinstance(lost, Unavailable)
    assert lost.ambiguous


async def test_headers_are_the_callers() -> None:
    seen = b""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"\r\n\r\n")
        seen += await reader.readexactly(3)
        writer.write(OK)

    async with served(script) as url, linked() as link:
        await link.send("PUT", url + "%2F~%20", {"Host": "other", "A": "b"}, b"abc")
    assert seen == b"PUT /x%2F~%20 HTTP/1.1\r\nHost: other\r\nA: b\r\nContent-Length: 3\r\n\r\nabc"


async def test_beyond_the_bound_it_is_busy() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(OK)

    async with served(script) as url, linked(parallel=1) as link:
        both = [asyncio.create_task(link.send("GET", url, {})) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await link.send("GET", url, {})
        release.set()
        assert [answer.data for answer in await asyncio.gather(*both)] == [b"ok", b"ok"]
        assert (await link.send("GET", url, {})).data == b"ok"


async def test_a_stream_takes_no_place() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * CHUNK) + bytes(8 * CHUNK))
        await reader.read()

    async with served(script) as url, linked(parallel=1) as link:
        answers = [await link.send("GET", url, {}) for _ in range(4)]
        for answer in answers[1:]:
            answer.close()
        assert answers[0].stream is not None
        pieces = [piece async for piece in answers[0].stream]
        assert sum(map(len, pieces)) == answers[0].length == 8 * CHUNK
        assert max(map(len, pieces)) <= CHUNK


@pytest.mark.parametrize(("pieces", "taken"), [(2, True), (40, False)])
async def test_a_body_of_unknown_length_is_bounded(pieces: int, taken: bool) -> None:
    piece = CHUNK // 32

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(pieces):
            writer.write(b"%x\r\n" % piece + bytes(piece) + b"\r\n")
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with served(script) as url, linked() as link:
        if taken:
            answer = await link.send("GET", url, {})
            assert (answer.status, answer.data) == (503, bytes(pieces * piece))
        else:
            assert "unknown length" in str(await failure(link.send("GET", url, {})))


async def test_content_that_merely_ends_is_not_taken_for_whole() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf a fi")

    async with served(script) as url, linked() as link:
        assert "does not say where it ends" in str(await failure(link.send("GET", url, {})))
        assert (await link.send("PUT", url, {}, b"x")).status == 200


async def test_what_never_left_is_not_ambiguous() -> None:
    async with linked() as link:
        error = await failure(link.send("PUT", f"http://127.0.0.1:{free_port()}/", {}, b"x"))
    lost = translate(error, changing=True, where="here", check="check the cable")
    assert isinstance(lost, Unavailable)
    assert "unreachable" in str(lost)
    assert "check the cable" in str(lost)
    assert not lost.ambiguous


async def test_a_forward_proxy_that_is_none_keeps_its_password() -> None:
    async with linked(route(None, "u:s3cret@127.0.0.1:99999")) as link:
        error = await failure(link.send("GET", "http://127.0.0.1/a@b", {}))
    said = str(translate(error, changing=False, where="here", check="check the cable"))
    assert said == "here: http://127.0.0.1:99999 is no address: check the cable"


async def test_a_certificate_of_nobody(tmp_path: Path) -> None:
    with FakeS3(tls=self_signed(tmp_path)) as fake:
        async with linked(Route(ssl.create_default_context())) as link:
            error = await failure(link.send("PUT", f"{fake.endpoint}/x", {}, b"x"))
    lost = translate(error, changing=True, where="here", check="check AWS_CA_BUNDLE")
    assert isinstance(lost, Unavailable)
    assert "TLS failed" in str(lost)
    assert not lost.ambiguous


async def test_no_answer_in_time() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(script) as url, linked(timeout=0.1) as link:
        error = await failure(link.send("PUT", url, {}, b"x"))
    late = translate(error, changing=True, where="here", check="")
    assert isinstance(late, Timeout)
    assert late.ambiguous
