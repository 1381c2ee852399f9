"""HTTP to an object store from the event loop: each request is sent once, in a bounded number, and read whole or
as a stream. What a status means, who signs and what is repeated belong to the stores.

The SDKs do the same in threads for several times the processor time; they stay for everything but the hot calls.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from asya_proxy import errors, tracing
from asya_proxy.errors import Busy, RangeInvalid, StoreError, Unavailable
from asya_proxy.stores.base import CHUNK

ERRORS = (aiohttp.ClientError, OSError)
"""Everything that `HttpLink.send` and an answer's stream raise of themselves; `translate` takes them."""

WHOLE = 200
"""The status of an answer that is all of an object; that of a part of it is 206."""
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that are sent only where the caller gives them."""
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)


@dataclass(frozen=True, slots=True)
class Route:
    """How an endpoint is reached: the certificates to trust, and the forward proxy on the way (None: no)."""

    tls: ssl.SSLContext | None = None
    proxy: str | None = None


def route(tls: ssl.SSLContext | None, proxy: str | None) -> Route:
    """`proxy` as the environment names it: the SDKs take one without a scheme (`proxy.corp:3128`) for `http`."""
    return Route(tls, proxy if not proxy or "://" in proxy else f"http://{proxy.removeprefix('//')}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. The body is `data` where it is at most `CHUNK` bytes, else `stream`, which the reader must
    exhaust or `aclose`; `length` is its size. Header names match in any case."""

    status: int
    headers: Mapping[str, str]
    length: int
    data: bytes = b""
    stream: Stream | None = None

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()


class HttpLink:
    """Connections to one endpoint: `parallel` requests at a time and `waiting` more in a queue, beyond which `Busy`
    is raised. A body that is still read as a stream is not counted: it is as slow as its reader."""

    def __init__(
        self, name: str, route: Route, *, parallel: int, waiting: int, connect_timeout: float, read_timeout: float
    ) -> None:
        """Inside the event loop. Time-outs are in seconds: to connect, and between two bytes."""
        self._name = name
        self._proxy = route.proxy
        self._limit = parallel + waiting
        self._under_way = 0
        self._slots = asyncio.Semaphore(parallel)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=route.tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=read_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTOMATIC,
            auto_decompress=False,
            read_bufsize=CHUNK // 2,  # what a slow reader leaves waiting: twice this
        )
        # A PUT that is sent again behind the caller's back hides a lost answer.
        self._session._retry_connection = False

    async def close(self) -> None:
        await self._session.close()

    async def send(self, method: str, url: str, headers: Mapping[str, str], data: bytes = b"") -> Answer:
        """One request with at most `CHUNK` bytes of content, one answer, whatever its status. `url` is sent as it
        stands. Raises Busy and `ERRORS`."""
        if self._under_way >= self._limit:
            raise Busy(f"{self._name}: {self._limit} requests to the backend are under way or waiting; try again")
        self._under_way += 1
        try:
            async with self._slots:
                return await self._send(method, url, headers, data)
        finally:
            self._under_way -= 1

    async def _send(self, method: str, url: str, headers: Mapping[str, str], data: bytes) -> Answer:
        traced = tracing.headers()
        response = await self._session.request(
            method,
            URL(url, encoded=True),
            headers={**headers, **traced} if traced else headers,
            data=data or None,
            proxy=self._proxy,
            allow_redirects=False,
        )
        try:
            length = response.content_length
            if length is not None and length > CHUNK:
                return Answer(response.status, response.headers, length, stream=Stream(self._name, response, length))
            if length is None and method == "GET" and response.status < 300 and not _is_chunked(response):
                raise aiohttp.ClientPayloadError("the answer does not say where it ends, so it may be cut")
            found = await response.read() if length is not None else await _short(response.content)
        except BaseException:
            response.close()
            raise
        return Answer(response.status, response.headers, len(found), found)


class Stream:
    """A body as it arrives, in pieces of at most `CHUNK` bytes. Raises Unavailable where it breaks off."""

    def __init__(self, name: str, response: aiohttp.ClientResponse, size: int) -> None:
        self._name = name
        self._response = response
        self._left = size
        self.check: Callable[[bytes, bool], None] | None = None
        """Is called with each piece, and whether it is the last, before the piece is given out."""

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        try:
            piece = await self._response.content.read(CHUNK)
            if not piece:
                raise aiohttp.ClientPayloadError(f"{self._left} bytes are missing")
            self._left -= len(piece)
            if self.check is not None:
                self.check(piece, not self._left)
        except ERRORS as error:
            self._response.close()
            raise translate(error, changing=False, where=f"{self._name}: an answer broke off", check="") from error
        except BaseException:
            self._response.close()
            raise
        return piece

    def close(self) -> None:
        """Let go of the connection; it is used again only where all was read."""
        if self._left:
            self._left = 0
            self._response.close()

    async def aclose(self) -> None:
        self.close()


def _is_chunked(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get("Transfer-Encoding", "").lower() == "chunked"


async def _short(content: aiohttp.StreamReader) -> bytes:
    """A body whose size was not announced; content is announced, so this is an error's text, if anything."""
    pieces: list[bytes] = []
    while piece := await content.read(CHUNK):
        pieces.append(piece)
        if sum(map(len, pieces)) > CHUNK:
            raise aiohttp.ClientPayloadError(f"more than {CHUNK} bytes of unknown length")
    return b"".join(pieces)


def cut(answer: Answer, start: int, end: int | None) -> bytes:
    """The range that was asked for, of an `answer` that is the whole content instead, as a server may answer (RFC
    9110, 14.2). Raises RangeInvalid, and Unavailable where it is not in memory."""
    first = max(0, answer.length + start) if start < 0 else start
    if first >= answer.length:
        answer.close()
        raise RangeInvalid(f"the file has {answer.length} bytes")
    if answer.stream is not None:
        answer.close()
        raise Unavailable("the backend gives no parts of its objects", ambiguous=False)
    return answer.data[first:end]


def without_login(error: BaseException) -> str:
    """What it says, but for user and password in URLs: a forward proxy's are in the environment's."""
    return re.sub(r"://[^\s'\"]*@", "://", str(error))


def translate(error: BaseException, *, changing: bool, where: str, check: str) -> StoreError:
    """The store error for what a request raised. `changing`: a lost answer leaves the outcome open. `check`: what to
    look at where nothing can be reached."""
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
        return Unavailable(f"{where}: TLS failed ({error}): {check}", ambiguous=False)
    if isinstance(error, _NOT_SENT):
        return Unavailable(f"{where}: unreachable ({error}): {check}", ambiguous=False)
    if isinstance(error, TimeoutError):
        return errors.Timeout(f"{where}: no answer in time", ambiguous=changing)
    if isinstance(error, aiohttp.InvalidURL):
        return errors.BadRequest(f"{where}: {without_login(error)} is no address: {check}")
    return Unavailable(f"{where}: {type(error).__name__}: {error}", ambiguous=changing)
