"""HTTP/1.1 with keep-alive on one connection: requests out of bytes, answers into bytes.

aiohttp's low-level parser does the reading. Its request and response objects are left out: they cost twice
what the rest of a request costs. One task serves a connection, so that an answer needs one wake-up. Nothing
here knows keys, stores or errors of the wire; the handler is given a `Request` and returns an `Answer`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from asya_proxy.deadlines import Deadlines, Guard
from asya_proxy.errors import BadRequest, NameTooLong, StoreError

log = logging.getLogger("asya_proxy.connection")

BUFFER = 1 << 18
"""Bytes of a body that wait in memory before the socket is no longer read."""
PIPELINE = 16
"""Requests of one connection that wait for their turn before the socket is no longer read."""
PIECE = 1 << 20
MAX_HEAD_LINE = 8190
LEFT_OVER = 8 << 20
"""Bytes of a refused body that are read and dropped to save the connection."""

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in HTTPStatus}


class BodyCut(BadRequest):
    """The client's body ended before its announced end; nothing of it may be stored."""


class Request:
    """One request. `target` is the raw request target, ASCII or refused by the handler."""

    __slots__ = ("_connection", "_expects", "headers", "method", "payload", "target")

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], payload: StreamReader, connection: Connection
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.payload = payload
        self._connection = connection
        self._expects = "Expect" in headers

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived, so that `take` returns all that is left of it."""
        return self.payload.is_eof()

    def take(self) -> bytes:
        """What has arrived of the body, at once."""
        return self.payload.read_nowait(-1)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises BodyCut where it ends early or stalls."""
        if self._expects and not self.payload.is_eof():
            self._expects = False
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        payload = self.payload
        while not payload.at_eof():
            try:
                with self._connection.within():
                    piece = await payload.readany()
            except TimeoutError:
                raise BodyCut("the body stalled; nothing of it was stored") from None
            if piece:
                yield piece


class Answer:
    """What goes back: `head` is header lines (each with its CRLF) but for Content-Length."""

    __slots__ = ("close", "data", "head", "length", "status", "stream")

    def __init__(
        self,
        status: int,
        head: str,
        data: bytes = b"",
        *,
        stream: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.head = head
        self.data = data
        self.stream = stream
        self.length = length
        """Content-Length where it differs from the size of `data` (streams, HEAD); -1: none at all."""
        self.close = close


Handler = Callable[[Request], Awaitable[Answer]]
Refuse = Callable[[StoreError], Answer]


class Listener:
    """The connections of one listening socket."""

    def __init__(self, handler: Handler, refuse: Refuse, deadlines: Deadlines, client_timeout: float) -> None:
        self.handler = handler
        self.refuse = refuse
        self.deadlines = deadlines
        self.client_timeout = client_timeout
        """Seconds a client may take over the next byte of a body or of an answer."""
        self.connections: set[Connection] = set()
        self.draining = False
        self.loop = asyncio.get_running_loop()
        self._emptied: asyncio.Future[None] = self.loop.create_future()

    def __call__(self) -> Connection:
        return Connection(self)

    def close_idle(self, seconds: float) -> None:
        """Close what has neither asked nor been answered for `seconds`."""
        before = self.deadlines.now() - seconds
        for connection in [c for c in self.connections if not c.busy and c.last < before]:
            connection.shut()

    async def drain(self, seconds: float) -> bool:
        """Answer what is in work, close the rest; True where all was answered within `seconds`."""
        self.draining = True
        for connection in list(self.connections):
            if not connection.busy:
                connection.shut()
        if self.connections:
            await asyncio.wait([self._emptied], timeout=seconds)
        clean = not self.connections
        for connection in list(self.connections):
            connection.abort()
        return clean

    def lost(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.draining and not self.connections and not self._emptied.done():
            self._emptied.set_result(None)


class Connection(BaseProtocol):
    """One client."""

    __slots__ = ("_current", "_ended", "_listener", "_queue", "_refusal", "_task", "_waiter", "busy", "last")

    def __init__(self, listener: Listener) -> None:
        loop = listener.loop
        parser = HttpRequestParser(
            self,
            loop,
            BUFFER,
            max_line_size=MAX_HEAD_LINE,
            max_field_size=MAX_HEAD_LINE,
            auto_decompress=False,
            max_msg_queue_size=PIPELINE,
        )
        super().__init__(loop, parser)
        self._listener = listener
        self._queue: deque[tuple[object, StreamReader]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._current: StreamReader | None = None
        self._refusal: StoreError | None = None
        self._ended = False
        self.busy = False
        self.last = listener.deadlines.now()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.connections.add(self)
        self._task = self._loop.create_task(self._serve())
        if self._listener.draining:
            self.shut()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._listener.lost(self)
        self._cut_bodies()
        self._ended = True
        self._queue.clear()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._cut_bodies()
        self._wake()
        # A client that closed only its sending side still gets its answers.
        return self.busy or bool(self._queue)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self._ended:
            return
        parser = self._parser
        assert parser is not None
        try:
            messages, upgraded, _tail = parser.feed_data(data)
        except HttpProcessingError as error:
            self._refusal = (
                NameTooLong("the request line is too long")
                if isinstance(error, LineTooLong) and self._current is None
                else BadRequest(f"the request cannot be parsed: {str(error.message).splitlines()[0]}")
            )
            self._cut_bodies()
            self._wake()
            return
        if upgraded:
            self._refusal = BadRequest("this server does not change protocols")
        if messages:
            self._queue.extend(messages)
            if len(self._queue) >= PIPELINE and not self._buffer_paused:
                self._pause_reading_for_buffer()
        if messages or upgraded:
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _cut_bodies(self) -> None:
        for payload in [self._current, *(payload for _message, payload in self._queue)]:
            if payload is not None and not payload.is_eof():
                payload.set_exception(BodyCut("the body ended early; nothing of it was stored"))

    # What the handler's side does.

    def within(self) -> Guard:
        return self._listener.deadlines.within(self._listener.client_timeout)

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def shut(self) -> None:
        """Close after what is written has left; requests that wait are not begun."""
        self._ended = True
        self._wake()
        if not self.busy and self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self.transport is not None:
            self.transport.abort()

    async def _serve(self) -> None:
        try:
            while await self._serve_next():
                pass
        except (ConnectionError, TimeoutError):
            self.abort_transport()
        finally:
            self.busy = False
            self._task = None
            if self.transport is not None:
                self.transport.close()

    def abort_transport(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def _serve_next(self) -> bool:
        """Serve one request; False where the connection is at its end."""
        queue = self._queue
        while not queue:
            if self._refusal is not None:
                await self._write(self._listener.refuse(self._refusal), "GET", False)
                return False
            if self._ended:
                return False
            self._waiter = self._loop.create_future()
            await self._waiter
            self._waiter = None
        self.busy = True
        message, payload = queue.popleft()
        self._parser.message_consumed()  # type: ignore[union-attr]
        if self._buffer_paused and len(queue) <= PIPELINE // 2:
            self.data_received(b"")
            if len(queue) < PIPELINE:
                self._resume_reading_for_buffer()
        self._current = payload
        request = Request(message.method, message.path, message.headers, payload, self)  # type: ignore[attr-defined]
        answer = await self._listener.handler(request)
        left_over = not payload.is_eof()
        keep = not (message.should_close or answer.close or self._listener.draining)  # type: ignore[attr-defined]
        await self._write(answer, request.method, keep)
        if left_over and keep:
            keep = await self._drop(payload)
        self._current = None
        self.busy = False
        self.last = self._loop.time()
        return keep and self.transport is not None

    async def _drop(self, payload: StreamReader) -> bool:
        """Read the rest of a body that the handler did not want; False where it is too much."""
        dropped = 0
        try:
            while not payload.at_eof() and dropped < LEFT_OVER:
                with self._listener.deadlines.within(self._listener.client_timeout):
                    dropped += len(await payload.readany())
        except BadRequest:
            return False
        return payload.at_eof()

    async def _write(self, answer: Answer, method: str, keep: bool) -> None:
        transport = self.transport
        if transport is None:
            if answer.stream is not None:
                await _close_stream(answer.stream)
            return
        data = answer.data
        length = len(data) if answer.length is None else answer.length
        head = _STATUS_LINES[answer.status] + answer.head
        if length >= 0 and answer.status != 204:
            head += f"Content-Length: {length}\r\n"
        if not keep:
            head += "Connection: close\r\n"
        lead = (head + "\r\n").encode("latin-1")
        if method == "HEAD" or answer.status in (204, 304):
            transport.write(lead)
        elif answer.stream is not None:
            transport.write(lead)
            await self._write_stream(answer.stream, length)
        elif length <= PIECE:
            transport.write(lead + data if length <= 65536 else lead)
            if length > 65536:
                transport.write(data)
        else:
            transport.write(lead)
            view = memoryview(data)
            for start in range(0, length, PIECE):
                await self._flush()
                self.send(view[start : start + PIECE])  # type: ignore[arg-type]
        if self._paused:
            await self._flush()

    async def _write_stream(self, stream: AsyncIterator[bytes], length: int) -> None:
        sent = 0
        try:
            async for piece in stream:
                if self.transport is None:
                    raise ConnectionResetError("the client left")
                sent += len(piece)
                self.transport.write(piece)
                if self._paused:
                    await self._flush()
        except StoreError as error:
            log.warning("answer cut short", extra={"cause": str(error)})
            raise ConnectionAbortedError("the store failed in the middle of an answer") from error
        finally:
            await _close_stream(stream)
        if sent != length:
            log.warning("answer cut short", extra={"cause": f"{sent} bytes of {length}"})
            raise ConnectionAbortedError("the store gave fewer bytes than announced")

    async def _flush(self) -> None:
        if self._paused:
            with self._listener.deadlines.within(self._listener.client_timeout):
                await self._drain_helper()


async def _close_stream(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
