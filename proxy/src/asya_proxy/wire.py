"""The wire's text in both directions: request targets, ranges, preconditions, errors as JSON.

Pure functions. A target is taken raw, because a router's decoding loses names.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.utils import formatdate
from enum import IntEnum
from functools import lru_cache

from asya_contract.wire import KEYS, META, BadKey, KeyTooLong, check_key, decode_key, unquote_etag
from asya_proxy.errors import BadRequest, NameTooLong, RangeInvalid, StoreError
from asya_proxy.stores.base import ABSENT, ANY, Precondition, match

_WRITE_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def parse_key(encoded: str) -> bytes:
    """The key in a target's path or a query value; ends with `/` for a directory.

    Raises BadRequest, NameTooLong.
    """
    key = _decode(encoded)
    try:
        check_key(key[:-1] if key.endswith(b"/") and len(key) > 1 else key)
    except KeyTooLong as error:
        raise NameTooLong(str(error)) from None
    except BadKey as error:
        raise BadRequest(str(error)) from None
    return key


class Place(IntEnum):
    """What a request's path points at."""

    TOP = 0
    """The mount itself."""
    FILE = 1
    DIRECTORY = 2
    """A name that ends with a slash."""
    ATTRIBUTES = 3
    """A file's attributes."""
    ELSEWHERE = 4
    """None of our keys."""


@dataclass(frozen=True, slots=True)
class Target:
    """A request target taken apart; `query` is raw, `path` for what is elsewhere."""

    place: Place
    key: bytes
    query: str
    path: str


def parse_target(raw: str) -> Target:
    """Raises BadRequest, NameTooLong."""
    path, _, query = raw.partition("?")
    if path.startswith(META):
        return Target(Place.ATTRIBUTES, parse_key(path[len(META) :]), query, path)
    if not path.startswith(KEYS):
        return Target(Place.ELSEWHERE, b"", query, path)
    if path == KEYS:
        return Target(Place.TOP, b"", query, path)
    key = parse_key(path[len(KEYS) :])
    return Target(Place.DIRECTORY if key.endswith(b"/") else Place.FILE, key, query, path)


def _decode(encoded: str) -> bytes:
    if not encoded.isascii():
        raise BadRequest("the request target holds bytes that are not percent-encoded")
    return decode_key(encoded)


def parse_query(text: str) -> dict[str, bytes]:
    """Parameters of a query, percent-decoded (a plus is a plus). Raises BadRequest for a doubled one."""
    values: dict[str, bytes] = {}
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        if name in values:
            raise BadRequest(f"parameter {name!r} is there twice")
        values[name] = _decode(value)
    return values


@lru_cache(maxsize=64)
def parse_range(header: str) -> tuple[int, int | None] | None:
    """First byte (negative: from the end) and end, exclusive. None where it is not one range of bytes, which
    is then ignored (RFC 9110 section 14.2). Raises RangeInvalid for a suffix of no bytes."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        if not int(last):
            raise RangeInvalid("the last 0 bytes are no range")
        return -int(last), None
    if last and int(last) < int(first):
        return None
    return int(first), int(last) + 1 if last else None


def parse_precondition(if_match: str | None, if_none_match: str | None) -> Precondition:
    """What a change demands of its target. Raises BadRequest for what cannot be meant."""
    if if_none_match is not None:
        if if_none_match.strip() != "*" or if_match is not None:
            raise BadRequest("a change takes If-None-Match: * or If-Match: version, not both")
        return ABSENT
    if if_match is None:
        return ANY
    return match(parse_version(if_match))


def parse_version(header: str) -> str:
    """The one version an If-Match names. Raises BadRequest for `*`, lists and empty values."""
    version = unquote_etag(header)
    if not version or header.strip() == "*" or '"' in version:
        raise BadRequest("If-Match takes exactly one version")
    return version


def none_match(header: str, version: str) -> bool:
    """Whether a read's If-None-Match holds of `version`."""
    return header.strip() != "*" and version not in {unquote_etag(part) for part in header.split(",")}


def check_write_id(text: str) -> str:
    """Raises BadRequest for what is too short to be nobody else's."""
    if 16 <= len(text) <= 64 and text.isascii() and text.isalnum():
        return text
    if _WRITE_ID.fullmatch(text) is None:
        raise BadRequest(
            f"Idempotency-Key {text!r}: expected 16 to 64 letters, digits, - or _, at least 96 random bits"
        )
    return text


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def error_body(error: StoreError, place: str) -> bytes:
    """`{"error", "message", "retryable"}`; `place` says where: actor, backend, key."""
    message = f"{place}: {error}" if str(error) else f"{place}: {error.wire.meaning}"
    return json.dumps({"error": error.code, "message": message, "retryable": error.retryable}).encode()
