"""The bytes of a connection, cut anywhere, are the requests that they say, whichever parser reads them."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from asya_proxy.connection import Answer, Connection, Listener, Request
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import StoreError

HEAD = "Host: t\r\n"
Said = tuple[str, str, bytes]
"""Method, target, body."""


class Wire(asyncio.Transport):
    """Takes what is written, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0


class Told:
    """A handler that remembers what it was asked."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    async def __call__(self, request: Request) -> Answer:
        body = b"".join([piece async for piece in request.pieces()])
        self.said.append((request.head.method, request.head.target, body))
        return Answer(200, "")

    def refuse(self, error: StoreError) -> Answer:
        self.said.append(("refused", str(error), b""))
        return Answer(400, "")


def plain(target: str, body: bytes) -> bytes:
    return f"PUT {target} HTTP/1.1\r\n{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body


def unusual(target: str, body: bytes) -> bytes:
    return f"PUT {target} HTTP/1.1\r\n{HEAD}X-Other: 1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(target: str, body: bytes) -> bytes:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:2], body[2:]) if piece)
    return f"PUT {target} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + pieces + b"0\r\n\r\n"


BODIES = st.sampled_from([b"", b"x", b"abc", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"z" * 3000])
REQUESTS = st.lists(st.tuples(st.sampled_from([plain, unusual, chunked]), BODIES), min_size=1, max_size=6)


async def fed(pieces: list[bytes], told: Told, *, settle: bool) -> Connection:
    listener = Listener(told, told.refuse, Deadlines(), 5.0)
    connection = listener()
    wire = Wire()
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        if settle:
            await rest(connection)
    await rest(connection)
    connection.connection_lost(None)
    await rest(connection)
    return connection


async def rest(connection: Connection) -> None:
    """Until all that can be answered is."""
    for _ in range(10):
        await asyncio.sleep(0)
    while connection._queue:
        await asyncio.sleep(0)


@given(requests=REQUESTS, cuts=st.lists(st.integers(0, 4000), max_size=6), settle=st.booleans())
@settings(deadline=None, max_examples=200)
def test_requests_are_what_they_say_however_their_bytes_are_cut(
    requests: list[tuple[object, bytes]], cuts: list[int], settle: bool
) -> None:
    data, expected = b"", []
    for number, (write, body) in enumerate(requests):
        data += write(f"/keys/{number}", body)  # type: ignore[operator]
        expected.append(("PUT", f"/keys/{number}", body))
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges) if end > start]
    told = Told()
    asyncio.run(fed(pieces, told, settle=settle))
    assert told.said == expected


def test_after_a_body_in_pieces_the_usual_request_is_read_quickly_again() -> None:
    for first in (plain("/a", b"z" * 3000), chunked("/a", b"abc"), unusual("/a", b"x\r\n\r\n")):
        told = Told()
        pieces = [first[:200], first[200:], plain("/b", b"2")]
        connection = asyncio.run(fed([piece for piece in pieces if piece], told, settle=True))
        assert [target for _, target, _ in told.said] == ["/a", "/b"]
        assert connection._parser is None
