"""State file names as object names of S3 and GCS, reversibly.

A natural UTF-8 name stays as it is, so that people find their files with the cloud's own tools. What
an object store or a gateway in front of it cannot hold is written `!XX`, two upper-case hexadecimal
digits a byte: control characters, bytes that are not UTF-8, the dots of a `.` or `..` segment, a
slash that begins a name or follows another slash, and a `!` that would otherwise read as an escape.

Listings come in the order of object names. That is the byte order of the keys too, but where an
escaped name meets neighbours that its escape sorts past; `order` cuts a page so that continuing
after its last name neither skips nor repeats anything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from asya_proxy.errors import NameTooLong

log = logging.getLogger(__name__)

NAME_LIMIT = 1024
"""Bytes of UTF-8 in an object name, prefix included (S3 user guide "object keys"; GCS "object names")."""

_ESCAPED = re.compile(
    r"[\x00-\x1f\x7f\udc80-\udcff]"
    r"|!(?=[0-9A-F]{2})"
    r"|(?:\A|(?<=/))\.\.?(?=/|\Z)"
    r"|(?:\A|(?<=/))/"
)
_ESCAPE = re.compile(rb"!([0-9A-F]{2})")
# What at the end of a prefix may be written differently, depending on what follows it.
_UNSETTLED = re.compile(rb"(?:(?:\A|(?<=/))\.\.?|![0-9A-F]?|[\xc2-\xf4][\x80-\xbf]{0,2})\Z")


def _escape(found: re.Match[str]) -> str:
    return "".join(f"!{ord(char) & 0xFF:02X}" for char in found.group())


def encode(key: bytes) -> str:
    """The object name of a key, without the store's prefix."""
    return _ESCAPED.sub(_escape, key.decode("utf-8", "surrogateescape"))


def decode(name: str) -> bytes | None:
    """The key of an object name; None for a name that `encode` never makes (written by other hands)."""
    raw = name.encode()
    if b"!" not in raw:
        return raw
    key = _ESCAPE.sub(lambda found: bytes.fromhex(found.group(1).decode()), raw)
    if encode(key) != name:
        log.warning("an object is not of our making and is left out", extra={"object": name})
        return None
    return key


def object_name(prefix: str, key: bytes) -> str:
    """The full object name. Raises NameTooLong beyond `NAME_LIMIT`."""
    name = prefix + encode(key)
    size = len(name.encode())
    if size > NAME_LIMIT:
        raise NameTooLong(f"{name[:60]!r}...: {size} bytes with the prefix, object names have at most {NAME_LIMIT}")
    return name


def settled(prefix: bytes) -> str:
    """The longest object name that every key beginning with `prefix` begins with, once encoded."""
    while found := _UNSETTLED.search(prefix):
        prefix = prefix[: found.start()]
    return encode(prefix)


def folded(prefix: bytes, after: bytes) -> bytes:
    """Where a one-level listing goes on after `after`: deeper names count as their directory."""
    if not after.startswith(prefix):
        return after
    head, slash, _ = after[len(prefix) :].partition(b"/")
    return prefix + head + slash


class _Named(Protocol):
    @property
    def name(self) -> bytes: ...


_N = TypeVar("_N", bound=_Named)


def order(found: Sequence[_N], *, more: bool) -> list[_N]:
    """A page in byte order, from one in the order of object names; shorter where `more` follows and the
    last object name is not the greatest key, so that the greatest key is the place to go on from."""
    if more:
        greatest, cut = b"", 0
        for index, item in enumerate(found):
            if item.name >= greatest:
                greatest, cut = item.name, index + 1
        found = found[:cut]
    return sorted(found, key=lambda item: item.name)
