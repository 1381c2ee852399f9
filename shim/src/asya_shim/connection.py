"""One connection to the state proxy: framing of HTTP/1.1 answers, and waits that end.

Deadlines are socket options (SO_RCVTIMEO, SO_SNDTIMEO), not Python time-outs, because those cost a
`poll` per `send` and `recv`. The sockets are `_socket.socket`, so that code which replaces
`socket.socket` does not replace ours.
"""

from __future__ import annotations

import _socket
import io
import sys

from asya_shim.caches import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple, Union

    from asya_shim.answers import Info

    Buffer = Union[bytes, bytearray, memoryview]


NOSIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
_WAITALL = getattr(_socket, "MSG_WAITALL", 0)
_MAX_HEAD = 64 * 1024
_RECEIVE = 64 * 1024
_SEND = 256 * 1024
_IN_PLACE = 1 << 20
_IN_KERNEL = 1 << 20
"""Bytes that may be on their way: the fewer times client and proxy take turns over a large body."""
_CUT = "cut the connection within the body of the answer"
_ETAG = b'\r\nETag: "'
_NO_CONTENT = b"HTTP/1.1 204"
_LONG = 8 if sys.maxsize > 2**32 else 4
"""Bytes of a C `long`."""


class Head:
    """Status and headers of an answer. `keep`: the connection lives on; `length`: of the body, None where it is
    not said. `facts` and `info` are what `answers` made of it."""

    __slots__ = ("_lower", "facts", "info", "keep", "length", "status", "text")

    def __init__(self, text: bytes) -> None:
        self.facts: Optional[Tuple[str, int, int]] = None
        self.info: Optional[Info] = None
        self.text = text
        self.status = int(text[9:12])
        self._lower = text.lower()
        self.keep = text[7:8] == b"1" and self._lower.find(b"\r\nconnection: close") < 0
        length = self.header(b"content-length")
        self.length = int(length) if length else None

    def header(self, name: bytes) -> bytes:
        """The value of header `name` (given in lower case), b"" where it is not there."""
        start = self._lower.find(b"\r\n" + name + b":")
        if start < 0:
            return b""
        start += len(name) + 3
        return self.text[start : self.text.find(b"\r\n", start)].strip()


# What is read again and has not changed is answered in the same words; also after a long sleep of this process,
# when code is cold and every line costs more than in a loop.
_head = lru_cache(256)(Head)


class Response:
    """An answer: status, head and whole body. Header names are looked up in lower case.

    `repeated`: it answers a change that an earlier attempt, whose answer was lost, may have done already.
    """

    __slots__ = ("body", "etag", "head", "repeated", "status")

    def __init__(self, head: Head, body: bytes = b"", etag: bytes = b"") -> None:
        self.head = head
        self.status = head.status
        self.body = body
        self.repeated = False
        self.etag = etag
        """The version, where it was taken out of `head`."""

    def header(self, name: bytes) -> bytes:
        """The value of header `name` (given in lower case), b"" where it is not there."""
        if self.etag and name == b"etag":
            return b'"' + self.etag + b'"'
        return self.head.header(name)

    def error(self) -> Tuple[str, str, bool]:
        """`(code, message, retryable)` of an error body; code "" where the body is not one of ours."""
        import json

        try:
            parsed = json.loads(self.body)
            return str(parsed["error"]), str(parsed["message"]), bool(parsed.get("retryable"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return "", "", False


def _seconds(value: float) -> bytes:
    """A `struct timeval` of two longs."""
    whole = int(value)
    micro = int((value - whole) * 1_000_000) or (0 if whole else 1)
    return whole.to_bytes(_LONG, sys.byteorder) + micro.to_bytes(_LONG, sys.byteorder)


class Connection:
    """One socket to the proxy; used by one call at a time, and closed unless its last answer was read whole."""

    __slots__ = ("_clock", "moved", "moved_at", "patience", "proven", "sock")

    def __init__(self, path: str, patience: float, clock: Any) -> None:
        self._clock = clock
        self.patience = patience
        self.proven = False
        self.moved = 0
        self.moved_at = 0.0
        self.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            # A program's socket.setdefaulttimeout() is not meant for us.
            self.sock.setblocking(True)
            self.wait_at_most(patience)
            # The kernel gives less where it is told to, and never an error.
            self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _IN_KERNEL)
            self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise

    def wait_at_most(self, patience: float) -> None:
        """From now on no single wait for a byte, in either direction, lasts longer than `patience` seconds."""
        self.patience = patience
        limit = _seconds(patience)
        self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, limit)
        self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)

    def close(self) -> None:
        self.sock.close()

    def is_stale(self) -> bool:
        """Whether the peer has closed it while it lay idle (or said something unasked)."""
        try:
            self.sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def send_all(self, data: Buffer) -> None:
        """Send a body of any size; each piece taken by the peer is progress."""
        view = memoryview(data).cast("B")
        start = 0
        while start < len(view):
            start += self.sock.send(view[start : start + _SEND], NOSIGNAL)
            self.moved += _SEND
            self.moved_at = self._clock()

    def receive(self, bodyless: bool) -> Response:
        """Read one answer; its head's `keep` tells whether the connection can serve another.

        Raises ValueError where it is not HTTP, EOFError where it ends early, OSError of the socket.
        """
        data = self.sock.recv(_RECEIVE)
        start = data.find(b"\r\n\r\n") + 4
        # The usual answer is a success and came in one piece.
        if start > 4 and data.startswith(b"HTTP/1.1 2"):
            if data.startswith(_NO_CONTENT):
                if len(data) == start:
                    # Answers to writes differ by their versions alone: without that, the head is known.
                    before, _, after = data[:-2].partition(_ETAG)
                    version, _, after = after.partition(b'"')
                    return Response(_head(before + after), b"", version)
            else:
                head = _head(data[: start - 2])
                if len(data) - start == (0 if bodyless else head.length):
                    return Response(head, data[start:])
        return self._receive(data, bodyless)

    def _receive(self, data: bytes, bodyless: bool) -> Response:
        """Any answer that begins with `data`."""
        while True:
            if not data:
                raise EOFError("closed the connection instead of answering")
            end = data.find(b"\r\n\r\n")
            while end < 0:
                if len(data) > _MAX_HEAD:
                    raise ValueError("a response head without an end")
                more = self.sock.recv(_RECEIVE)
                if not more:
                    raise EOFError("cut the connection within the head of the answer")
                data += more
                end = data.find(b"\r\n\r\n")
            if not data.startswith(b"HTTP/1."):
                raise ValueError(f"not an HTTP answer: {data[:40]!r}")
            head = _head(data[: end + 2])
            status = head.status
            if status >= 200:
                break
            if len(data) != end + 4:
                raise ValueError("bytes after an interim answer")
            data = self.sock.recv(_RECEIVE)
        response = Response(head)
        start = end + 4
        if bodyless or status == 204 or status == 304:
            rest = len(data) - start
        else:
            size = head.length
            if size is not None:
                have = len(data) - start
                rest = have - size
                response.body = data[start : start + size]
                if rest < 0:
                    response.body = self._fill(response.body, size)
                    rest = 0
            elif b"chunked" in response.header(b"transfer-encoding").lower():
                response.body, rest = self._chunks(data[start:])
            else:
                response.body, rest = self._until_end(data[start:]), 0
                response.head = Head(head.text)
                response.head.keep = False
        if rest:
            raise ValueError(f"{rest} bytes more than the answer announced")
        return response

    def _more(self, size: int, flags: int = 0) -> bytes:
        data = self.sock.recv(size, flags)
        if not data:
            raise EOFError(_CUT)
        self.moved += len(data)
        self.moved_at = self._clock()
        return data

    def _fill(self, first: bytes, size: int) -> bytes:
        if size >= _IN_PLACE:
            return self._fill_in_place(first, size)
        pieces = [first]
        missing = size - len(first)
        while missing:
            piece = self._more(min(missing, 8 << 20), _WAITALL)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _fill_in_place(self, first: bytes, size: int) -> bytes:
        """`_fill` without a second copy: new memory costs more than the bytes' way through the socket."""
        whole = io.BytesIO()
        whole.seek(size - 1)
        whole.write(b"\0")
        with whole.getbuffer() as view:
            at = len(first)
            view[:at] = first
            while at < size:
                count = self.sock.recv_into(view[at:], 0, _WAITALL)
                if not count:
                    raise EOFError(_CUT)
                at += count
                self.moved += count
                self.moved_at = self._clock()
        return whole.getvalue()

    def _chunks(self, data: bytes) -> Tuple[bytes, int]:
        pieces: List[bytes] = []
        while True:
            line = data.find(b"\r\n")
            while line < 0:
                if len(data) > _MAX_HEAD:
                    raise ValueError("a chunk size without an end")
                data += self._more(_RECEIVE)
                line = data.find(b"\r\n")
            size = int(data[:line].split(b";", 1)[0], 16)
            data = data[line + 2 :]
            if size == 0:
                break
            if len(data) < size + 2:
                data = self._fill(data, size + 2)
            if data[size : size + 2] != b"\r\n":
                raise ValueError("a chunk longer than it says")
            pieces.append(data[:size])
            data = data[size + 2 :]
        # Trailers, none of which we use, end with an empty line.
        while not (data.startswith(b"\r\n") or b"\r\n\r\n" in data):
            if len(data) > _MAX_HEAD:
                raise ValueError("trailers without an end")
            data += self._more(_RECEIVE)
        end = 2 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 4
        return b"".join(pieces), len(data) - end

    def _until_end(self, first: bytes) -> bytes:
        pieces = [first]
        while True:
            data = self.sock.recv(_RECEIVE)
            if not data:
                return b"".join(pieces)
            pieces.append(data)


def flat(data: Buffer) -> Buffer:
    """`data` as something whose length is its number of bytes."""
    if isinstance(data, (bytes, bytearray)):
        return data
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous else view.tobytes()
