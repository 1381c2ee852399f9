"""HTTP/1.1 as the runtime's server needs it (RFC 9112): one request in, one answer out, keep-alive.

Every wait has a deadline and every part of a request a bound. Nothing here knows what is asked for.
"""

import asyncio
from typing import Dict, List, NamedTuple, Optional, Tuple

MAX_HEAD = 64 * 1024
IDLE = 75.0
"""Seconds a connection may say nothing, and a head may take."""
PROGRESS = 30.0
"""Seconds without a byte of a body or of an answer."""
_PIECE = 256 * 1024
_LINGER = 5.0

REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


class Refused(Exception):
    """A request that is answered with `status` and ends its connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gone(Exception):
    """The client has left, or makes no progress."""


class Head(NamedTuple):
    """A request's head. Header names are in lower case; `length` is None for a chunked body."""

    method: str
    path: str
    headers: Dict[str, str]
    length: Optional[int]
    keep_alive: bool


async def read_head(reader: asyncio.StreamReader) -> Optional[Head]:
    """The next request's head, None where the client has closed between two requests. Raises Refused, Gone."""
    try:
        raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Gone("closed within a request's head") from None
        return None
    except asyncio.LimitOverrunError:
        raise Refused(431, f"the request's head has more than {MAX_HEAD} bytes") from None
    except asyncio.TimeoutError:
        return None
    except OSError as error:
        raise Gone(str(error)) from None
    line, *lines = raw[:-4].decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise Refused(400, f"not an HTTP request: {line[:80]!r}")
    method, target, version = words
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused(505, f"{version}: expected HTTP/1.1")
    headers, length = _headers(lines)
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
    return Head(method, target.split("?", 1)[0], headers, length, keep)


def _headers(lines: List[str]) -> Tuple[Dict[str, str], Optional[int]]:
    """Header fields and the body's length (RFC 9112 section 6.3); what could be read in two ways is refused."""
    headers: Dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refused(400, f"not a header field: {line[:80]!r}")
        name, value = name.lower(), value.strip()
        if name in ("content-length", "transfer-encoding") and name in headers:
            raise Refused(400, f"header {name} is there twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    coding = headers.get("transfer-encoding")
    size = headers.get("content-length")
    if coding is not None:
        if size is not None:
            raise Refused(400, "Transfer-Encoding and Content-Length exclude each other")
        if coding.lower() != "chunked":
            raise Refused(501, f"Transfer-Encoding {coding!r}: expected chunked")
        return headers, None
    if size is not None and not (size.isascii() and size.isdigit() and len(size) < 19):
        raise Refused(400, f"Content-Length {size!r}: expected a number of bytes")
    return headers, int(size or 0)


async def read_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: Head, limit: int) -> bytes:
    """The body, of at most `limit` bytes. Raises Refused (413 above the limit), Gone."""
    if head.length is not None and head.length > limit:
        raise _too_large(limit)
    if head.headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if head.length is not None:
            return b"".join(await _pieces(reader, head.length))
        return await _chunks(reader, limit)
    except asyncio.TimeoutError:
        raise Refused(408, f"no byte of the body within {PROGRESS:g} s") from None
    except asyncio.IncompleteReadError:
        raise Gone("closed within a request's body") from None
    except OSError as error:
        raise Gone(str(error)) from None


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the request's body has more than {limit} bytes; ASYA_MAX_REQUEST_SIZE sets the limit")


async def _pieces(reader: asyncio.StreamReader, size: int) -> List[bytes]:
    pieces: List[bytes] = []
    while size:
        piece = await asyncio.wait_for(reader.read(min(size, _PIECE)), PROGRESS)
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        pieces.append(piece)
        size -= len(piece)
    return pieces


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await asyncio.wait_for(reader.readuntil(b"\r\n"), PROGRESS))[:-2]
    except asyncio.LimitOverrunError:
        raise Refused(400, "a chunk's head or trailer without an end") from None


async def _chunks(reader: asyncio.StreamReader, limit: int) -> bytes:
    pieces: List[bytes] = []
    total = 0
    while True:
        line = await _line(reader)
        try:
            size = int(line.split(b";", 1)[0], 16)
        except ValueError:
            raise Refused(400, f"not a chunk's size: {line[:40]!r}") from None
        if size < 0:
            raise Refused(400, f"not a chunk's size: {line[:40]!r}")
        if size == 0:
            break
        total += size
        if total > limit:
            raise _too_large(limit)
        pieces += await _pieces(reader, size)
        if await _line(reader):
            raise Refused(400, "a chunk longer than it says")
    trailers = 0
    while True:
        line = await _line(reader)
        if not line:
            return b"".join(pieces)
        trailers += len(line)
        if trailers > MAX_HEAD:
            raise Refused(431, f"the request's trailers have more than {MAX_HEAD} bytes")


def head(status: int, fields: List[Tuple[str, str]], keep_alive: bool) -> bytes:
    """An answer's head."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def send(writer: asyncio.StreamWriter, data: bytes, patience: float = PROGRESS) -> None:
    """Write, and wait at most `patience` seconds until the client has taken most of it. Raises Gone."""
    try:
        writer.write(data)
        await asyncio.wait_for(writer.drain(), patience)
    except asyncio.TimeoutError:
        raise Gone("the client does not read its answer") from None
    except OSError as error:
        raise Gone(str(error)) from None


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, linger: bool) -> None:
    """Close so that the client sees the end even where a forked child holds the socket too.

    `linger`: it may still be sending; closing on it would destroy the answer it has not read yet.
    """
    try:
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()
        if linger:
            await asyncio.wait_for(_discard(reader), _LINGER)
    except (OSError, asyncio.TimeoutError, RuntimeError):
        # It goes away in either case.
        pass
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), _LINGER)
    except (OSError, asyncio.TimeoutError):
        writer.transport.abort()


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(_PIECE):
        pass
