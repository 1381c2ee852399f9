"""HTTP/1.1 with keep-alive on one connection: requests out of bytes, answers into bytes.

aiohttp's low-level parser does the reading, but for the usual request (`heads`, `arriving`). Its request and response
objects are left out: they cost twice what the rest of a request costs. One task serves a connection, so that an
answer needs one wake-up. Nothing here knows keys, stores or errors of the wire; the handler is given a `Request`
and returns an `Answer`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from asya_contract.wire import H_WRITE_ID
from asya_proxy.arriving import Arriving
from asya_proxy.deadlines import Deadlines, Guard
from asya_proxy.errors import BadRequest, NameTooLong, StoreError
from asya_proxy.heads import MAX_HEAD, Head, Heads

log = logging.getLogger("asya_proxy.connection")

BUFFER = 1 << 18
"""Bytes of a body that wait in memory before the socket is no longer read."""
PIPELINE = 16
"""Requests of one connection that wait for their turn before the socket is no longer read."""
JOINED = 1 << 16
"""Bytes of content that are copied behind their head, to leave in one write."""
IN_KERNEL = 1 << 20
"""Bytes of an answer that may be on their way: the fewer times client and proxy take turns over a large one."""
LEFT_OVER = 8 << 20
"""Bytes of a refused body that are read and dropped to save the connection."""

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in HTTPStatus}


Payload = StreamReader | Arriving
"""A body that is still to come."""


class BodyCut(BadRequest):
    """The client's body ended before its announced end; nothing of it may be stored."""


class Request:
    """One request: its head, its write id where it has one, and its body, either here or still to come."""

    __slots__ = ("_connection", "_data", "head", "headers", "keep", "payload", "write_id")

    def __init__(
        self,
        head: Head,
        write_id: str | None,
        connection: Connection,
        data: bytes = b"",
        payload: Payload | None = None,
        keep: bool = True,
    ) -> None:
        self.head = head
        self.headers = head.headers
        self.write_id = write_id
        self.payload = payload
        self.keep = keep
        """Whether the connection lives on after the answer."""
        self._data = data
        self._connection = connection

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived, so that `take` returns all that is left of it."""
        return self.payload is None or self.payload.is_eof()

    def take(self) -> bytes:
        """What has arrived of the body, at once."""
        return self._data if self.payload is None else self.payload.read_nowait(-1)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives, asked for once. Raises BodyCut where it ends early or stalls."""
        payload = self.payload
        if payload is None:
            yield self._data
            return
        if "Expect" in self.headers and not payload.is_eof():
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
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
        self.heads = Heads()
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

    __slots__ = (
        "_arriving",
        "_current",
        "_ended",
        "_listener",
        "_queue",
        "_refusal",
        "_rests",
        "_task",
        "_waiter",
        "busy",
        "last",
    )

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.loop)
        self._listener = listener
        self._queue: deque[Request] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._current: Request | None = None
        self._refusal: StoreError | None = None
        self._arriving: Arriving | None = None
        """The body that the next bytes belong to, where the general parser does not know."""
        self._rests = False
        """The general parser holds no part of a request that is not in the queue: it was given an empty line, which
        would have ended a head."""
        self._ended = False
        self.busy = False
        self.last = listener.deadlines.now()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        wire = transport.get_extra_info("socket")
        if wire is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_KERNEL)
        self._listener.connections.add(self)
        self._task = self._loop.create_task(self._serve())
        if self._listener.draining:
            self.shut()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._cut_bodies()
        self._ended = True
        self._queue.clear()
        self._wake()
        if self._task is None:
            self._listener.lost(self)

    def eof_received(self) -> bool:
        self._ended = True
        self._cut_bodies()
        self._wake()
        # A client that closed only its sending side still gets its answers.
        return self.busy or bool(self._queue)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self._ended:
            return
        if self._arriving is not None:
            data = self._arriving.feed(data)
            if not self._arriving.is_eof():
                return
            self._arriving = None
            if not data:
                return
        if self._parser is None or (self._rests and data and not (self.busy or self._queue)):
            begun = self._listener.heads.parse(data)
            if begun is not None and len(begun[2]) <= begun[0].length and len(self._queue) < PIPELINE:
                self._parser = None
                self._queue.append(self._usual(*begun))
                waiter = self._waiter
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
                return
            self._parser = self._general_parser()
        if data:
            self._rests = data.endswith(b"\r\n\r\n")
        self._parse(data)

    def _usual(self, head: Head, write_id: str | None, body: bytes) -> Request:
        """A request with all or the first of its body."""
        if head.length == len(body):
            return Request(head, write_id, self, body)
        arriving = self._arriving = Arriving(head.length, self, BUFFER, self._loop)
        arriving.feed(body)
        return Request(head, write_id, self, payload=arriving)

    def hold_reading(self) -> None:
        self._pause_transport_reading()

    def go_on_reading(self) -> None:
        self._resume_transport_reading()

    def _general_parser(self) -> HttpRequestParser:
        """For what is no usual request. It alone knows where the next one begins, until it rests."""
        return HttpRequestParser(
            self,
            self._loop,
            BUFFER,
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
            auto_decompress=False,
            max_msg_queue_size=PIPELINE,
        )

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        try:
            messages, upgraded, _tail = parser.feed_data(data)
        except HttpProcessingError as error:
            self._refusal = (
                NameTooLong("the request line is too long")
                if isinstance(error, LineTooLong) and data.find(b"\n", 0, MAX_HEAD) < 0
                else BadRequest(f"the request cannot be parsed: {str(error.message).splitlines()[0]}")
            )
            self._cut_bodies()
            self._wake()
            return
        if upgraded:
            self._refusal = BadRequest("this server does not change protocols")
        for message, payload in messages:
            head = Head(message.method, message.path, message.headers)
            write_id = message.headers.get(H_WRITE_ID)
            self._queue.append(Request(head, write_id, self, payload=payload, keep=not message.should_close))
        if len(self._queue) >= PIPELINE and not self._buffer_paused:
            self._pause_reading_for_buffer()
        if messages or upgraded:
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _cut_bodies(self) -> None:
        for request in (self._current, *self._queue):
            payload = None if request is None else request.payload
            if payload is not None and not payload.is_eof():
                payload.set_exception(BodyCut("the body ended early; nothing of it was stored"))

    # What the handler's side does.

    def within(self) -> Guard:
        return self._listener.deadlines.within(self._listener.client_timeout)

    def send(self, data: bytes | memoryview) -> None:
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
        self._abort_transport()

    async def _serve(self) -> None:
        listener = self._listener
        queue = self._queue
        try:
            while True:
                if not queue:
                    if self._ended or self._refusal is not None:
                        break
                    self._waiter = self._loop.create_future()
                    await self._waiter
                    self._waiter = None
                    continue
                self.busy = True
                request = self._current = queue.popleft()
                if self._parser is not None:
                    self._consumed(request)
                answer = await listener.handler(request)
                payload = request.payload
                keep = request.keep and not (answer.close or listener.draining)
                self._write(answer, request.head.method, keep)
                if self._paused or answer.stream is not None:
                    await self._write_rest(answer, request.head.method)
                if payload is not None and not payload.is_eof():
                    keep = await self._drop(payload) and keep
                self._current = None
                self.busy = False
                self.last = self._loop.time()
                if not keep or self.transport is None:
                    return
            if self._refusal is not None:
                self._write(listener.refuse(self._refusal), "GET", False)
        except (ConnectionError, TimeoutError):
            # The client left, or took nothing for too long.
            self._abort_transport()
        except Exception:
            log.exception("connection broke")
            self._abort_transport()
        finally:
            self.busy = False
            self._task = None
            if self.transport is not None:
                self.transport.close()
            else:
                # A change whose client left is finished all the same, and a drain waits for it.
                self._listener.lost(self)

    def _abort_transport(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _consumed(self, request: Request) -> None:
        """Tell the parser that a request of its own has left the queue, so that it may go on."""
        if self._parser is None or request.payload is None:
            return
        self._parser.message_consumed()
        if self._buffer_paused and len(self._queue) <= PIPELINE // 2:
            self._parse(b"")
            if len(self._queue) < PIPELINE:
                self._resume_reading_for_buffer()

    async def _drop(self, payload: Payload) -> bool:
        """Read the rest of a body that the handler did not want; False where it is too much."""
        dropped = 0
        try:
            while not payload.at_eof() and dropped < LEFT_OVER:
                with self.within():
                    dropped += len(await payload.readany())
        except BadRequest:
            return False
        return payload.at_eof()

    def _write(self, answer: Answer, method: str, keep: bool) -> None:
        """Write what can be written at once: everything, but for streams and long content."""
        transport = self.transport
        if transport is None:
            return
        data = answer.data
        status = answer.status
        length = len(data) if answer.length is None else answer.length
        close = "" if keep else "Connection: close\r\n"
        if status == 204 or length < 0:
            transport.write(f"{_STATUS_LINES[status]}{answer.head}{close}\r\n".encode("latin-1"))
            return
        head = f"{_STATUS_LINES[status]}{answer.head}Content-Length: {length}\r\n{close}\r\n".encode("latin-1")
        if method == "HEAD" or not data:
            transport.write(head)
        elif length <= JOINED:
            transport.write(head + data)
        else:
            transport.write(head)
            transport.write(data)

    async def _write_rest(self, answer: Answer, method: str) -> None:
        stream = answer.stream
        if stream is not None:
            if method == "HEAD" or self.transport is None:
                await close_stream(stream)
            else:
                await self._write_stream(stream, answer.length or 0)
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
            # Whoever made the stream has said so.
            raise ConnectionAbortedError("the store failed in the middle of an answer") from error
        finally:
            await close_stream(stream)
        if sent != length:
            log.warning("answer cut short", extra={"cause": f"{sent} bytes of {length}"})
            raise ConnectionAbortedError("the store gave fewer bytes than announced")

    async def _flush(self) -> None:
        """Wait until the client has taken most of what was written, as long as it takes something."""
        while self._paused and (transport := self.transport) is not None:
            before = transport.get_write_buffer_size()
            try:
                with self.within():
                    await self._drain_helper()
            except TimeoutError:
                self._drain_waiter = None
                if transport.get_write_buffer_size() >= before:
                    raise


async def close_stream(stream: AsyncIterator[bytes]) -> None:
    """Tell a stream that nobody will read its rest."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
