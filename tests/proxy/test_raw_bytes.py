"""What a well-behaved client never sends, and bodies in every shape: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from asya_contract.wire import H_WRITE_ID, encode_key
from asya_proxy.stores.base import ANY, Body, Change, StoreConfig
from asya_proxy.stores.memory import MemoryStore
from support.wire_client import WireClient

ID = f"{H_WRITE_ID}: {secrets.token_urlsafe(16)}\r\n"


def put_head(key: str, *headers: str) -> bytes:
    return f"PUT /keys/{key} HTTP/1.1\r\nHost: t\r\n{''.join(h + chr(13) + chr(10) for h in headers)}\r\n".encode()


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("a/../b", "bad_request"),
        ("%2e%2e/b", "bad_request"),
        ("a/./b", "bad_request"),
        ("a//b", "bad_request"),
        ("/a", "bad_request"),
        ("a%2F%2Fb", "bad_request"),
        ("a%00b", "bad_request"),
        ("..", "bad_request"),
        (".asya/x", "bad_request"),
        ("a//", "bad_request"),
        ("x" * 901, "name_too_long"),
        ("%20" * 301, "name_too_long"),
    ],
)
async def test_names_that_no_file_may_have(lww: WireClient, target: str, error: str) -> None:
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        reply = await lww.ask(method, f"/keys/{target}")
        assert reply.headers["x-asya-error"] == error, method


async def test_an_encoded_slash_is_a_slash_and_an_encoded_percent_a_percent(lww: WireClient) -> None:
    await lww.put("a%2Fb", b"1")
    assert (await lww.get("a/b")).body == b"1"
    await lww.put("a%252Fb", b"2")
    assert (await lww.get("a%252Fb")).body == b"2"
    assert (await lww.list())["keys"] == ["a%252Fb", "a/b"]


async def test_a_plus_a_question_mark_and_any_byte_are_parts_of_names(lww: WireClient) -> None:
    for key in (b"a+b", b"a?b", b"a#b", b"\xff\xfe", b"\n", b" ", b"'\"", b"%41"):
        assert (await lww.put(encode_key(key), key)).status == 204
    for key in (b"a+b", b"a?b", b"a#b", b"\xff\xfe", b"\n", b" ", b"'\"", b"%41"):
        assert (await lww.get(encode_key(key))).body == key


async def test_bytes_beyond_ascii_must_be_encoded(lww: WireClient) -> None:
    await lww.send("GET /keys/ä HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    assert (await lww.reply()).error == "bad_request"


async def test_pipelined_requests_are_answered_in_order(lww: WireClient) -> None:
    writes = b"".join(put_head(f"f{n}", "Content-Length: 2") + b"%02d" % n for n in range(40))
    reads = b"".join(f"GET /keys/f{n} HTTP/1.1\r\nHost: t\r\n\r\n".encode() for n in range(40))
    await lww.send(writes + reads)
    assert [(await lww.reply()).status for _ in range(40)] == [204] * 40
    assert [(await lww.reply()).body for _ in range(40)] == [b"%02d" % n for n in range(40)]


async def test_a_request_may_come_byte_by_byte(lww: WireClient) -> None:
    for byte in put_head("f", ID.strip(), "Content-Length: 3") + b"abc":
        await lww.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await lww.reply()).status == 204
    assert (await lww.get("f")).body == b"abc"


@pytest.mark.parametrize("sizes", [[], [1], [1, 70_000, 3], [1 << 20, 1], [3 << 20, 2 << 20]])
async def test_chunked_bodies(lww: WireClient, sizes: list[int]) -> None:
    content = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
    await lww.send(put_head("f", "Transfer-Encoding: chunked"))
    for piece in content:
        await lww.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
    await lww.send(b"0\r\n\r\n")
    assert (await lww.reply()).status == 204
    assert (await lww.get("f")).body == b"".join(content)


@pytest.mark.parametrize("size", [0, 1, 65_536, 1 << 20, (8 << 20) + 1])
async def test_bodies_of_known_length(lww: WireClient, size: int) -> None:
    content = secrets.token_bytes(size)
    assert (await lww.put("f", content)).status == 204
    assert (await lww.get("f")).body == content
    middle = await lww.get("f", range=f"bytes={size // 3}-{size // 2}")
    assert middle.body == content[size // 3 : size // 2 + 1] or size == 0


@pytest.mark.parametrize(
    "announced", ["Content-Length: 1000", f"Content-Length: {9 << 20}", "Transfer-Encoding: chunked"]
)
async def test_a_body_that_ends_early_is_never_stored(start, announced: str) -> None:  # type: ignore[no-untyped-def]
    proxy = await start()
    client = await proxy.client()
    await client.put("f", b"old")
    cut = await proxy.client()
    await cut.send(put_head("f", announced) + b"100\r\n" + b"x" * 400)
    cut.end()
    assert (await cut.reply()).error == "bad_request"
    gone = await proxy.client()
    await gone.send(put_head("f", announced) + b"100\r\n" + b"x" * 400)
    await gone.close()
    assert (await client.get("f")).body == b"old"


async def test_a_client_that_closed_its_sending_side_is_answered(start) -> None:  # type: ignore[no-untyped-def]
    client = await (await start()).client()
    await client.send(put_head("f", "Content-Length: 1") + b"x" + b"GET /keys/f HTTP/1.1\r\nHost: t\r\n\r\n")
    client.end()
    assert (await client.reply()).status == 204
    assert (await client.reply()).body == b"x"
    assert await client.rest() == b""


async def test_expect_continue(lww: WireClient) -> None:
    await lww.send(put_head("f", "Content-Length: 3", "Expect: 100-continue"))
    await lww.send(b"abc")
    assert (await lww.reply()).status == 204


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /keys/f HTTP/1.1\r\nHost: t\r\nbad header\r\n\r\n",
        b"GET /keys/f HTTP/1.1\r\nHost: t\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"PUT /keys/f HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        put_head("f", "Content-Length: 1", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n",
        b"PUT /keys/f HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
        b"PUT /keys/f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
    ids=["nonsense", "header", "oversize", "two-lengths", "length-and-chunked", "negative", "bad-chunk"],
)
async def test_what_cannot_be_parsed_is_refused_and_the_connection_closed(lww: WireClient, data: bytes) -> None:
    await lww.send(data)
    reply = await lww.reply()
    assert (reply.status, reply.error) == (400, "bad_request")
    assert "\n" not in reply.json["message"]
    assert await lww.rest() == b""


async def test_a_target_beyond_the_line_limit_is_too_long(lww: WireClient) -> None:
    await lww.send(b"GET /keys/" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n")
    reply = await lww.reply()
    assert (reply.status, reply.error) == (414, "name_too_long")


async def test_an_unwanted_body_does_not_break_the_connection(lww: WireClient) -> None:
    assert (await lww.put("a/../b", b"x" * 300_000)).error == "bad_request"
    assert (await lww.put("f", b"fine")).status == 204


async def test_a_file_beyond_the_limit_is_refused(start) -> None:  # type: ignore[no-untyped-def]
    client = await (await start(STATE_MAX_OBJECT_SIZE="1000")).client()
    assert (await client.put("f", b"x" * 1000)).status == 204
    assert (await client.put("f", b"x" * 1001)).error == "too_large"
    await client.send(put_head("f", "Transfer-Encoding: chunked") + b"%x\r\n" % 2000 + b"x" * 2000 + b"\r\n0\r\n\r\n")
    assert (await client.reply()).error == "too_large"
    assert len((await client.get("f")).body) == 1000


async def test_more_bytes_than_the_budget_are_answered_busy(start) -> None:  # type: ignore[no-untyped-def]
    proxy = await start(STATE_MAX_BUFFERED="1Mi")
    slow, quick = await proxy.client(), await proxy.client()
    await slow.send(put_head("slow", f"Content-Length: {400_000}") + b"x")
    async with asyncio.timeout(10):
        while b'asya_proxy_buffered_bytes{mount="state"} 400000' not in (await quick.ask("GET", "/metrics")).body:
            await asyncio.sleep(0.005)
    refused = await quick.put("quick", b"y" * 700_000)
    assert (refused.status, refused.error, refused.json["retryable"]) == (429, "busy", True)
    assert (await quick.put("quick", b"y" * 100)).status == 204
    await slow.send(b"x" * 399_999)
    assert (await slow.reply()).status == 204
    assert (await quick.put("quick", b"y" * 700_000)).status == 204


class HeldStore(MemoryStore):
    """Reads wait until they are let go."""

    def __init__(self) -> None:
        super().__init__(StoreConfig("", "", {}))
        self.let_go = asyncio.Event()

    async def head(self, key: bytes):  # type: ignore[no-untyped-def]
        await self.let_go.wait()
        return await super().head(key)


async def test_more_requests_than_allowed_are_answered_busy(start) -> None:  # type: ignore[no-untyped-def]
    store = HeldStore()
    proxy = await start(store, STATE_MAX_IN_FLIGHT="2")
    first, second, third = [await proxy.client() for _ in range(3)]
    waiting = [asyncio.create_task(client.head("f")) for client in (first, second)]
    async with asyncio.timeout(10):
        while (await third.get("f")).error != "busy":
            await asyncio.sleep(0.005)
    store.let_go.set()
    assert [(await task).status for task in waiting] == [404, 404]
    assert (await third.get("f")).error == "key_not_found"


async def test_a_client_that_takes_nothing_is_cut(start, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("asya_proxy.mount.CLIENT_TIMEOUT", 0.2)
    store = MemoryStore(StoreConfig("", "", {}))
    # Past the proxy, whose limit is meant for the other client alone.
    await store.put(b"f", Body(b"x" * (32 << 20)), Change("w", ANY))
    proxy = await start(store)
    lazy = await proxy.client()
    lazy._reader._transport.pause_reading()  # type: ignore[attr-defined]
    await lazy.send(b"GET /keys/f HTTP/1.1\r\nHost: t\r\n\r\n")
    listener = proxy.server._mounts[0].listener
    for busy in (True, False):
        async with asyncio.timeout(10):
            while any(connection.busy for connection in listener.connections) is not busy:
                await asyncio.sleep(0.01)
    lazy._reader._transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await lazy.rest()) < 32 << 20


async def test_a_body_that_stalls_is_given_up(start, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("asya_proxy.mount.CLIENT_TIMEOUT", 0.1)
    client = await (await start()).client()
    await client.send(put_head("f", "Content-Length: 10") + b"x")
    reply = await client.reply()
    assert (reply.error, "stalled" in reply.json["message"]) == ("bad_request", True)
