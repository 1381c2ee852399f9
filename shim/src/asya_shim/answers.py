"""What the proxy's answers say of files: versions, times, listings."""

from __future__ import annotations

from asya_contract.wire import H_MTIME, decode_key, encode_key, unquote_etag
from asya_shim.caches import lru_cache
from asya_shim.connection import Head, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

MAX_KNOWN = 1 << 20
"""Bytes of names and versions that a rename of a directory carries: of some ten thousand files."""
_MTIME = H_MTIME.lower().encode()
_MONTHS = {name: n for n, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}


class Info:
    """What a lookup tells. `version` is "" for directories; `mtime_ns` is 0 where the backend keeps none."""

    __slots__ = ("is_file", "mtime_ns", "size", "version")

    def __init__(self, is_file: bool, size: int, mtime_ns: int, version: str) -> None:
        self.is_file = is_file
        self.size = size
        self.mtime_ns = mtime_ns
        self.version = version


class Content:
    """Bytes of one version; `size` is that of the whole file, whatever range was asked for."""

    __slots__ = ("data", "mtime_ns", "size", "version")

    def __init__(self, data: bytes, version: str, size: int, mtime_ns: int) -> None:
        self.data = data
        self.version = version
        self.size = size
        self.mtime_ns = mtime_ns


class Listed:
    """One name in a listing: `key` is the full path below the mount, without a closing slash."""

    __slots__ = ("is_file", "key", "mtime_ns", "size", "version")

    def __init__(self, key: bytes, is_file: bool, size: int, mtime_ns: int, version: str) -> None:
        self.key = key
        self.is_file = is_file
        self.size = size
        self.mtime_ns = mtime_ns
        self.version = version


@lru_cache(256)
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


def facts(head: Head) -> Tuple[str, int, int]:
    """Version, time and, where a range was asked for, size of the whole file in an answer with content."""
    known = head.facts
    if known is None:
        size = int(head.header(b"content-range").rpartition(b"/")[2] or 0)
        known = head.facts = (_version(head), _mtime(head), size)
    return known


def info(head: Head) -> Info:
    """What an answer to HEAD tells."""
    known = head.info
    if known is None:
        if head.header(b"x-is-file") == b"false":
            known = Info(False, 0, _mtime(head), "")
        else:
            known = Info(True, head.length or 0, _mtime(head), _version(head))
        head.info = known
    return known


def _mtime(head: Head) -> int:
    exact = head.header(_MTIME)
    return int(exact) if exact else _http_date(head.header(b"last-modified"))


def version_of(response: Response, name: bytes = b"etag") -> str:
    """The version in an answer's ETag, or in another header (given in lower case)."""
    if response.etag and name == b"etag":
        return response.etag.decode("latin-1")
    return _version(response.head, name)


def _version(head: Head, name: bytes = b"etag") -> str:
    return unquote_etag(head.header(name).decode("latin-1"))


def page_of(body: bytes) -> Tuple[List[Listed], Optional[bytes]]:
    """A listing's page, files and directories merged in byte order, and where the next one begins."""
    import json

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


def known_body(known: Dict[bytes, Optional[str]]) -> bytes:
    """What is known of files below a directory, as the body of its rename; of so many files that it stays small."""
    if not known:
        return b""
    import json

    left = MAX_KNOWN
    asked: Dict[str, Optional[str]] = {}
    for name, version in known.items():
        encoded = encode_key(name)
        left -= len(encoded) + len(version or "") + 8
        if left < 0:
            break
        asked[encoded] = version
    return json.dumps({"known": asked}).encode()


def moved_of(body: bytes) -> Dict[bytes, str]:
    """The new versions in the answer to a directory's rename; nothing where the proxy is older than that answer."""
    if not body:
        return {}
    import json

    return {decode_key(name): str(version) for name, version in json.loads(body)["moved"].items()}
