"""An object's latest writes, as one line of text that fits into object metadata.

`id:base,id:base,...`, newest first; the base is empty where the write created the object. Ids and
versions are percent-encoded where they hold anything but unreserved characters. The line is kept
to `LIMIT` bytes by forgetting the oldest writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

from asya_proxy.errors import BadRequest
from asya_proxy.stores.base import Change, Past

FIELD = "asyahistory"
"""The name of the metadata field; letters only, because gateways drop or rewrite other names."""

LIMIT = 1024 - len(FIELD)
"""Bytes of the line. S3 allows 2 KB of metadata in all, names included."""


_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*")


def of_change(change: Change, base: str | None = None) -> tuple[Past, ...]:
    """The history of an object once `change` is done: its own id first. `base` where the precondition does not say."""
    return (Past(change.id, change.when.version if base is None else base), *change.history)


def encode(writes: Iterable[Past]) -> str:
    """Raises BadRequest where not even the newest write fits."""
    line = ""
    for write in writes:
        item = f"{_quoted(write.write_id)}:{_quoted(write.base or '')}"
        longer = f"{line},{item}" if line else item
        if len(longer) > LIMIT:
            if not line:
                raise BadRequest(f"write id of {len(write.write_id)} characters: too long to be stored beside the file")
            break
        line = longer
    return line


def _quoted(text: str) -> str:
    """As `quote` does; what it would leave alone, which ids and versions are, is left alone at once."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe="")


def decode(line: str) -> tuple[Past, ...]:
    """The writes of a line; empty where it is absent or not ours (an object that other tools wrote)."""
    writes = []
    for item in filter(None, line.split(",")):
        write_id, colon, base = item.partition(":")
        if not colon or not write_id:
            return ()
        writes.append(Past(unquote(write_id), unquote(base) or None))
    return tuple(writes)
