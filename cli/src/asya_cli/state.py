"""`asya state`: what an actor remembers, read from its store. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import click

from asya_cli.errors import Absent, CliError, Refused
from asya_cli.places import DEADLINE, Question, StatePlace, as_cli_error, connected, find_place
from asya_contract.names import RESERVED_SEGMENT
from asya_contract.wire import BadKey, check_key, encode_key
from asya_proxy.errors import StoreError
from asya_proxy.stores.base import Entry, Store

_RESERVED = RESERVED_SEGMENT.encode() + b"/"


async def show_list(question: Question, path: str, *, as_json: bool) -> None:
    """Print each state file at or below `path`: size in bytes, time of the last write (UTC), name.

    Raises:
        Absent: there is none at `path`, or nothing of this actor at all.
    """
    place = await find_place(question, os.environ)
    key = _key(path, place)
    store = await connected(place)
    try:
        entries = [entry async for entry in _walk(store, key)]
        known = bool(entries or key or (await asyncio.wait_for(store.list(b""), DEADLINE)).entries)
    except (StoreError, TimeoutError) as error:
        raise as_cli_error(place, error) from None
    finally:
        await store.close()
    if not known:
        where = f"below {place.config.prefix} in {place.kind} bucket {place.config.bucket}"
        raise Absent(f"nothing was ever stored {where}: is it another --actor, --namespace or --mount?")
    if not entries and key:
        raise Absent(f"{_shown(key)}: there is no such state file or directory")
    if as_json:
        _print(json.dumps([_as_json(entry, place) for entry in entries], indent=2) + "\n")
        return
    width = max([4, *(len(str(entry.size)) for entry in entries)])
    for entry in entries:
        _print(f"{entry.size:>{width}}  {_time(entry.mtime_ns):%Y-%m-%d %H:%M:%S}  {_shown(entry.key)}\n")


async def show_content(question: Question, path: str, *, as_json: bool) -> None:
    """Print the bytes of one state file as they are, or one JSON object with its content and version.

    Raises:
        Absent: there is no such file.
    """
    place = await find_place(question, os.environ)
    key = _key(path, place)
    if not key:
        raise Refused("which file? `asya state ls` shows them")
    store = await connected(place)
    try:
        async with asyncio.timeout(DEADLINE):
            reading = await store.get(key)
        if reading is None:
            raise Absent(f"{_shown(key)}: there is no such state file; `asya state ls` shows those there are")
        stat = reading.stat
        pieces = _pieces(reading.data, reading.stream)
        if as_json:
            content = b"".join([piece async for piece in pieces])
            entry = Entry(key, stat.version, stat.size, stat.mtime_ns)
            _print(json.dumps(_as_json(entry, place) | _content(content), indent=2) + "\n")
        else:
            async for piece in pieces:
                _print(piece)
    except (StoreError, TimeoutError) as error:
        raise as_cli_error(place, error) from None
    finally:
        await store.close()


def _print(output: str | bytes) -> None:
    try:
        click.echo(output, nl=False)
    except OSError as error:
        if error.errno == errno.EPIPE:  # click ends quietly where `head` has seen enough
            raise
        raise CliError(f"the output cannot be written: {error.strerror}") from None


def _key(path: str, place: StatePlace) -> bytes:
    """`path` below the mount, as the handler writes it or without the mount's own path; empty for the mount."""
    text = path
    if path.startswith("/"):
        if path.rstrip("/") != place.mount_path and not path.startswith(place.mount_path + "/"):
            raise Refused(f"{path!r} is not below {place.mount_path}")
        text = path[len(place.mount_path) + 1 :]
    key = os.fsencode(text.rstrip("/"))
    if not key:
        return b""
    try:
        return check_key(key)
    except BadKey as error:
        raise Refused(f"{path!r}: {error}") from None


async def _walk(store: Store, key: bytes) -> AsyncIterator[Entry]:
    """The file `key`, if it is one, and all below it, in byte order; our own records left out."""
    if key:
        stat = await asyncio.wait_for(store.head(key), DEADLINE)
        if stat is not None:
            yield Entry(key, stat.version, stat.size, stat.mtime_ns)
    prefix = key + b"/" if key else b""
    after = b""
    while True:
        page = await asyncio.wait_for(store.list(prefix, after=after), DEADLINE)
        for entry in page.entries:
            if not entry.key.startswith(_RESERVED):
                yield entry
        if not page.more or not page.entries:
            return
        after = page.entries[-1].key


async def _pieces(data: bytes | None, stream: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    if data is not None:
        yield data
    elif stream is not None:
        async for piece in stream:
            yield piece


def _as_json(entry: Entry, place: StatePlace) -> dict[str, Any]:
    """`path` as the handler sees it, `key` percent-encoded as on the wire, `mtime` in ISO 8601, `etag` the version."""
    return {
        "path": f"{place.mount_path}/{os.fsdecode(entry.key)}",
        "key": encode_key(entry.key),
        "size": entry.size,
        "mtime": _time(entry.mtime_ns).isoformat(),
        "etag": entry.version,
    }


def _content(content: bytes) -> dict[str, str]:
    try:
        return {"content": content.decode()}
    except UnicodeDecodeError:
        return {"content_base64": base64.b64encode(content).decode()}


def _time(mtime_ns: int) -> datetime:
    return datetime.fromtimestamp(mtime_ns / 1e9, UTC)


def _shown(key: bytes) -> str:
    """The name as a person reads it; percent-encoded where a terminal could not show it."""
    text = os.fsdecode(key)
    return text if text.isprintable() else encode_key(key)
