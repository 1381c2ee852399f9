"""What the proxy's answers say of files: versions, times, listings."""

import functools
import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from asya_contract.wire import H_MTIME, decode_key, unquote_etag
from asya_shim.connection import Response

_MTIME = H_MTIME.lower().encode()
_SPELT_ETAG = b'\r\nETag: "'
_SPELT_MTIME = f"\r\n{H_MTIME}: ".encode()
_MONTHS = {name: n for n, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}


class Info(NamedTuple):
    """What a lookup tells. `version` is "" for directories; `mtime_ns` is 0 where the backend keeps none."""

    is_file: bool
    size: int
    mtime_ns: int
    version: str


class Content(NamedTuple):
    """Bytes of one version; `size` is that of the whole file, whatever range was asked for."""

    data: bytes
    version: str
    size: int
    mtime_ns: int


class Listed(NamedTuple):
    """One name in a listing: `key` is the full path below the mount, without a closing slash."""

    key: bytes
    is_file: bool
    size: int
    mtime_ns: int
    version: str


@functools.lru_cache(maxsize=256)
def _http_date(value: bytes) -> int:
    """Nanoseconds since the epoch of an IMF-fixdate (RFC 9110 section 5.6.7), 0 where it is none."""
    try:
        _, day, month, year, clock, _ = value.split()
        hour, minute, second = clock.split(b":")
        # Seldom needed, and slow to import.
        import calendar

        when = (int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second))

        return calendar.timegm(when) * 10**9
    except (ValueError, KeyError):
        return 0


def made(response: Response) -> str:
    """The version that a change made."""
    head = response.head
    start = head.find(_SPELT_ETAG) + len(_SPELT_ETAG)
    end = head.find(b'"\r\n', start)
    return head[start:end].decode("latin-1") if start >= len(_SPELT_ETAG) and end > 0 else version_of(response)


def facts(response: Response) -> Tuple[str, int]:
    """Version and time in an answer about a file."""
    # As our own proxy spells and orders them, and any other way.
    head = response.head
    start = head.find(_SPELT_ETAG) + len(_SPELT_ETAG)
    end = head.find(b'"\r\n', start)
    at = head.find(_SPELT_MTIME, end)
    if start < len(_SPELT_ETAG) or end < 0 or at < 0:
        return version_of(response), mtime(response)
    at += len(_SPELT_MTIME)
    return head[start:end].decode("latin-1"), int(head[at : head.find(b"\r\n", at)])


def mtime(response: Response) -> int:
    exact = response.header(_MTIME)
    return int(exact) if exact else _http_date(response.header(b"last-modified"))


def version_of(response: Response, name: bytes = b"etag") -> str:
    """The version in an answer's ETag, or in another header (given in lower case)."""
    return unquote_etag(response.header(name).decode("latin-1"))


def page_of(body: bytes) -> Tuple[List[Listed], Optional[bytes]]:
    """A listing's page, files and directories merged in byte order, and where the next one begins."""
    page: Dict[str, Any] = json.loads(body)
    out: List[Listed] = []
    for entry in page["keys"]:
        size, mtime, version = int(entry["size"]), int(entry["mtime_ns"]), str(entry["etag"])
        out.append(Listed(decode_key(entry["key"]), True, size, mtime, version))
    for name in page["prefixes"]:
        out.append(Listed(decode_key(name).rstrip(b"/"), False, 0, 0, ""))
    out.sort(key=lambda listed: listed.key if listed.is_file else listed.key + b"/")
    following = page.get("next")
    return out, None if following is None else decode_key(following)
