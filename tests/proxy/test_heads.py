"""The quick parse of a usual request against aiohttp's parser: what the one accepts, the other reads alike."""

from __future__ import annotations

import asyncio

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from asya_proxy.heads import Head, Heads

NAMES = st.sampled_from(
    ["Host", "host", "Content-Length", "If-Match", "Range", "Idempotency-Key", "X-Other", "Expect", "Bad Name", ""]
)
VALUES = st.one_of(st.sampled_from(["t", "3", "0", " 3", "3 ", "a\tb", "", "ü", "*"]), st.text(max_size=6))
REQUESTS = st.builds(
    lambda method, target, version, headers, end, body: (
        (f"{method} {target} {version}\r\n" + "".join(f"{n}{c}{v}\r\n" for n, c, v in headers) + end).encode(
            "utf-8", "surrogatepass"
        )
        + body
    ),
    st.sampled_from(["GET", "PUT", "get", "OPTIONS", "POST"]),
    st.one_of(
        st.sampled_from(["/keys/f", "/keys/%2F", "*", "/a b", "/keys/ü", "http://x/keys/f"]), st.text(max_size=8)
    ),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2"]),
    st.lists(st.tuples(NAMES, st.sampled_from([": ", ":", " : ", "\n: "]), VALUES), max_size=4),
    st.sampled_from(["\r\n", "\n", "", "\r\n\r\n"]),
    st.sampled_from([b"", b"abc", b"\r\n\r\n"]),
)


@given(data=REQUESTS)
@settings(deadline=None, max_examples=500)
def test_it_accepts_nothing_that_the_parser_reads_otherwise(data: bytes) -> None:
    begun = Heads().parse(data)
    if begun is None or begun[0].length != len(begun[2]):
        return
    ours, write_id, body = begun
    headers = {**ours.headers} if write_id is None else {**ours.headers, "Idempotency-Key": write_id}

    async def parse() -> None:
        loop = asyncio.get_running_loop()
        parser = HttpRequestParser(BaseProtocol(loop), loop, 65536, auto_decompress=False)
        ((head, payload),), upgraded, tail = parser.feed_data(data)
        assert (head.method, head.path, dict(head.headers)) == (ours.method, ours.target, headers)
        assert (upgraded, tail, head.should_close) == (False, b"", False)
        assert payload.is_eof()
        assert payload.read_nowait(-1) == body

    asyncio.run(parse())


def test_it_accepts_the_usual() -> None:
    head = b"PUT /keys/f HTTP/1.1\r\nHost: asya\r\nX-Asya-Protocol: 1\r\nIf-None-Match: *\r\nContent-Length: 3\r\n\r\n"
    heads = Heads()
    begun = heads.parse(head + b"abc")
    assert begun is not None
    parsed, write_id, body = begun
    assert (parsed.method, parsed.target, write_id, body) == ("PUT", "/keys/f", None, b"abc")
    for body in (b"", b"ab", b"abcd"):
        assert heads.parse(head + body) == (parsed, None, body)
    assert parsed.length == 3


def test_what_is_kept_of_one_request_is_not_the_next_ones() -> None:
    head = b"PUT /keys/f HTTP/1.1\r\nHost: asya\r\nIdempotency-Key: %s\r\nContent-Length: 3\r\n\r\n"
    heads = Heads()
    first: Head | None = None
    for write_id, body in ((b"a" * 16, b"abc"), (b"b" * 16, b"def")):
        begun = heads.parse(head % write_id + body)
        assert begun is not None
        assert begun[1:] == (write_id.decode(), body)
        assert first in (None, begun[0])
        first = begun[0]
    without = heads.parse(head.replace(b"Idempotency-Key: %s\r\n", b"") + b"ghi")
    assert without is not None
    assert without[1:] == (None, b"ghi")
    assert heads.parse(head.replace(b"%s", b"a\r\nIdempotency-Key: b") + b"abc") is None
    other = heads.parse(head.replace(b"/f ", b"/g ") % b"c" + b"abc")
    assert other is not None
    assert other[0].target == "/keys/g"


def test_what_will_not_be_said_again_displaces_nothing() -> None:
    heads = Heads()
    head = b"PUT /keys/f HTTP/1.1\r\nHost: asya\r\nContent-Length: 0\r\n%b\r\n"

    def kept(line: bytes) -> bool:
        first, second = heads.parse(head % line), heads.parse(head % line)
        assert first is not None
        assert second is not None
        return first[0] is second[0]

    assert kept(b"")
    assert kept(b"If-None-Match: *\r\n")
    assert not kept(b'If-Match: "1"\r\n')
    assert not kept(b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\r\n")
