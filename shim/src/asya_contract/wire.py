"""The wire between shim and proxy: HTTP/1.1 with keep-alive on a Unix socket.

Only names, limits and the key encoding (by hand: `urllib.parse` and what it imports would cost every Python
process in the pod five milliseconds). `{key}` is the percent-encoded path below the mount, as
bytes (`os.fsencode`); both sides work on the raw request target, because a router's decoding loses
names such as `%2F`.
"""

from __future__ import annotations

from asya_contract.names import RESERVED_SEGMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List

# Raised when an older peer could misunderstand a newer one.
PROTOCOL = "1"

KEYS = "/keys/"
META = "/meta/"
HEALTHZ = "/healthz"
READYZ = "/readyz"
METRICS = "/metrics"

H_PROTOCOL = "X-Asya-Protocol"
H_CONSISTENCY = "X-Asya-Consistency"
H_WRITE_ID = "Idempotency-Key"
H_IS_FILE = "X-Is-File"
H_BASE_ETAG = "X-Base-ETag"
H_SOURCE_IF_MATCH = "X-Copy-Source-If-Match"
# Last-Modified has seconds only: nanoseconds since the epoch, decimal.
H_MTIME = "X-Asya-Mtime"
H_BACKEND = "X-Asya-Backend"
# The error's code where an answer can have no body (to HEAD).
H_ERROR = "X-Asya-Error"

MAX_ENCODED_KEY = 900
MIN_WRITE_ID_BITS = 96

# RFC 3986 unreserved plus "/" stay as they are.
_SAFE = b"/-_.~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ENCODED = [chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256)]
_HEX = "0123456789ABCDEFabcdef"
_DECODED: Dict[bytes, bytes] = {}


class BadKey(ValueError):
    """A path that no state file may have; the message says why."""


class KeyTooLong(BadKey):
    """More than MAX_ENCODED_KEY bytes when percent-encoded."""


def encode_key(key: bytes) -> str:
    """Percent-encode a path below the mount for a request target or a JSON listing."""
    if not key.translate(None, _SAFE):
        return key.decode("ascii")
    return "".join([_ENCODED[byte] for byte in key])


def decode_key(encoded: str) -> bytes:
    """The inverse of `encode_key`; no validation."""
    first, *rest = encoded.encode().split(b"%")
    if not rest:
        return first
    if not _DECODED:
        _DECODED.update({(a + b).encode(): bytes([int(a + b, 16)]) for a in _HEX for b in _HEX})
    pieces = [first]
    for piece in rest:
        byte = _DECODED.get(piece[:2])
        # What is no escape stands for itself, as `urllib.parse.unquote_to_bytes` has it.
        pieces += (b"%", piece) if byte is None else (byte, piece[2:])
    return b"".join(pieces)


def check_key(key: bytes) -> bytes:
    """Return `key` if it can name a state file.

    Raises:
        KeyTooLong: more than MAX_ENCODED_KEY bytes once encoded.
        BadKey: empty, a NUL byte, an empty, `.` or `..` segment, or the reserved `.asya`.
    """
    if not key:
        raise BadKey("the path is empty")
    if b"\0" in key:
        raise BadKey("the path holds a NUL byte")
    segments: List[bytes] = key.split(b"/")
    for segment in segments:
        if segment == b"":
            raise BadKey("the path has an empty segment")
        if segment in (b".", b".."):
            raise BadKey(f"the path has a {segment.decode()!r} segment")
    if segments[0] == RESERVED_SEGMENT.encode():
        raise BadKey(f"{RESERVED_SEGMENT!r} is reserved for the proxy's own records")
    if len(encode_key(key)) > MAX_ENCODED_KEY:
        raise KeyTooLong(f"the path has more than {MAX_ENCODED_KEY} bytes when percent-encoded")
    return key


def quote_etag(version: str) -> str:
    """A version token as an ETag header value (quoted, RFC 9110 section 8.8.3)."""
    return f'"{version}"'


def unquote_etag(value: str) -> str:
    """The version token in an ETag, If-Match or X-Base-ETag header value."""
    value = value.strip()
    if len(value) >= 2 and value[0] == '"' and value[-1] == '"':
        return value[1:-1]
    return value
