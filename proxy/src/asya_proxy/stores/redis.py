"""State in Redis or Valkey (6.2 or newer), one primary, by `REDIS_URL`.

Each operation is one Lua script (`redis_scripts`) with the write id as the version; every key of a prefix
carries the hash tag `{bucket:prefix}` and so lies in one slot of a cluster. Content up to `CHUNK` lies in
the object's hash; more goes, as it arrives, into chunk keys with a time to live, which the committing
script keeps. Replaced chunks stay for `GRACE` seconds, so that readers that began before finish.

URLs: `redis://`, `rediss://` (TLS), `unix://`; `redis+sentinel://[user:password@]host:port,host:port/master[/db]`
(`?sentinel_password=` where the sentinels ask for one); `redis+cluster://[user:password@]host:port,host:port`;
`rediss+...` for TLS. redis-py's own URL options may follow as `?ssl_ca_certs=...`.

The least ACL of a proxy whose bucket is `B` and whose prefixes begin with `N/`:

    ACL SETUSER asya on >PASSWORD resetchannels ~{B:N/*
        +ping +info +evalsha +eval +get +set +del +unlink +exists +rename +copy +append +getrange
        +pexpire +persist +hget +hset +hmget +hdel +zadd +zrem +zrangebylex

(besides `+cluster|slots +cluster|shards +command +readonly` for a cluster; `+sentinel` on the sentinels.)

What is acknowledged survives the server's death with `appendonly yes` and `appendfsync always`. With
`everysec` up to two seconds may be lost, and not only when the power fails: Redis holds writes to the file back
while an fsync is at work. A failover may lose the last writes, whatever the proxy does. Renaming a directory, and
copying or deleting a file of many gigabytes, holds the server for that one script.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import struct
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from asya_proxy.errors import (
    BadRequest,
    Conflict,
    Exists,
    IsDirectory,
    KeyNotFound,
    NotDirectory,
    NotEmpty,
    PermissionDenied,
    RangeInvalid,
    StoreError,
    Unavailable,
)
from asya_proxy.stores.base import (
    CHUNK,
    NOTHING_KNOWN,
    Appended,
    BaseStore,
    Body,
    Change,
    Entry,
    Known,
    Page,
    Precondition,
    Reading,
    Stat,
    StoreConfig,
    Traits,
    TreeMoved,
)
from asya_proxy.stores.redis_link import Link, translate
from asya_proxy.stores.redis_scripts import (
    APPEND,
    COPY,
    DELETE,
    LIST,
    PUT,
    RENAME,
    RENAME_TREE,
    SET_ATTRS,
    Script,
)
from asya_proxy.stores.spool import Part, parts

_log = logging.getLogger("asya_proxy.stores.redis")

SMALL = 64 << 10
"""Appending rewrites at most this much of what is there, in bytes."""
GRACE = 300.0
"""How long, in seconds, replaced chunks stay readable."""
RESTING = 900.0
"""How long, in seconds, chunks of an unfinished upload live unless they are refreshed."""
REFRESH = 300.0

_REFUSALS: Mapping[bytes, tuple[type[StoreError], str]] = {
    b"exists": (Exists, "the name is taken"),
    b"conflict": (Conflict, "the file is no longer at the expected version"),
    b"absent": (KeyNotFound, "the file is not there"),
    b"is_directory": (IsDirectory, "the name is a directory"),
    b"not_directory": (NotDirectory, "a parent of the name is a file"),
    b"not_empty": (NotEmpty, "the target directory is not empty"),
}


@dataclass(frozen=True, slots=True)
class _Content:
    """Content on its way in: inline `data`, or chunks of `lengths` bytes under `upload`."""

    size: int
    data: bytes = b""
    upload: str = ""
    lengths: tuple[int, ...] = ()

    @property
    def packed(self) -> bytes:
        return struct.pack(f">{len(self.lengths)}I", *self.lengths)


class RedisStore(BaseStore):
    """See the module's docstring."""

    traits = Traits(idempotent=True, tree=True, append=True, rename=True, rename_tree=True, copy=True, attributes=True)

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._base = b"{" + _tag(f"{config.bucket}:{config.prefix}") + b"}"
        self._window = int(config.write_window * 1000)
        self._link: Link | None = None
        self._cleaning: set[asyncio.Task[None]] = set()

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        url = self._config.environ.get("REDIS_URL", "")
        if not url:
            raise BadRequest(
                "REDIS_URL is not set: put it into the actor's Secret, as in redis://user:password@host:6379/0"
            )
        link = Link(url, self._config.attempt_timeout)
        await link.open()
        self._link = link

    async def close(self) -> None:
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=self._config.attempt_timeout)
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def ping(self) -> None:
        await self._call("PING")

    @property
    def _open(self) -> Link:
        if self._link is None:
            raise Unavailable("the store is closed", ambiguous=False)
        return self._link

    async def _call(self, *args: bytes | memoryview | str | int) -> Any:
        try:
            return await self._open.call(*args)
        except PermissionDenied as error:
            raise self._keys_named(error) from error.__cause__

    async def _run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        try:
            return await self._open.run(script, keys, args)
        except PermissionDenied as error:
            raise self._keys_named(error) from error.__cause__

    def _keys_named(self, error: PermissionDenied) -> PermissionDenied:
        """Which keys an ACL must allow, where it denies some."""
        if " key" not in str(error):
            return error
        return PermissionDenied(f"{error}; the keys of this state are ~{os.fsdecode(self._base)}*")

    def _object(self, key: bytes) -> bytes:
        return self._base + b"o:" + key

    def _chunk(self, upload: str, index: int) -> bytes:
        return self._base + f"c:{upload}:{index}".encode()

    # -- reading --------------------------------------------------------------------------------

    async def head(self, key: bytes) -> Stat | None:
        return _stat(await self._call("HMGET", self._object(key), "v", "s", "m", "a"))

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        *fields, upload, packed, data = await self._call("HMGET", self._object(key), "v", "s", "m", "a", "u", "k", "d")
        stat = _stat(fields)
        if stat is None:
            return None
        if version is not None and version != stat.version:
            raise Conflict("the file was replaced")
        first, last = _span(stat.size, start, end)
        if upload is None:
            return Reading(stat, data=data if last - first == len(data) else data[first:last])
        plan = list(_plan(packed, first, last))
        if last - first > CHUNK:
            return Reading(stat, stream=self._stream(upload.decode(), plan))
        parts = await asyncio.gather(*(self._piece(upload.decode(), *part) for part in plan))
        return Reading(stat, data=b"".join(parts))

    async def _piece(self, upload: str, index: int, first: int, last: int) -> bytes:
        """Bytes of one chunk. An append may have made it longer, an overwrite may have let it expire."""
        data: bytes = await self._call("GETRANGE", self._chunk(upload, index), first, last - 1)
        if len(data) != last - first:
            raise Conflict("the file was replaced while it was read")
        return data

    async def _stream(self, upload: str, plan: Sequence[tuple[int, int, int]]) -> AsyncIterator[bytes]:
        """One piece ahead of the reader."""
        ahead = asyncio.ensure_future(self._piece(upload, *plan[0]))
        try:
            for part in plan[1:]:
                piece = await ahead
                ahead = asyncio.ensure_future(self._piece(upload, *part))
                yield piece
            yield await ahead
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        least = b"[" + prefix
        if after >= prefix:
            least = b"(" + after
            if delimiter and b"/" in after[len(prefix) :]:
                # `after` is, or lies in, a folded name: that one is behind us.
                least = b"[" + after[: after.index(b"/", len(prefix))] + b"0"
        beyond = _successor(prefix)
        args = (self._base, prefix, b"/" if delimiter else b"", least, b"(" + beyond if beyond else b"+", limit)
        more, rows = await self._run(LIST, [self._base + b"n"], args)
        # A name without an object is what a script left that was denied a command in its middle.
        found = [row for row in rows if len(row) > 1 and row[1] is not None]
        entries = [Entry(row[0], row[1].decode(), int(row[2]), int(row[3])) for row in found]
        return Page(entries, [row[0] for row in rows if len(row) == 1], more=bool(more))

    # -- changes --------------------------------------------------------------------------------

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        content = await self._stage(body)
        args = (key, _condition(change.when), _attrs(change.attrs), content.size, content.data)
        return _done(await self._change(PUT, key, change, (*args, content.upload, content.packed), content))

    async def delete(self, key: bytes, change: Change) -> None:
        await self._change(DELETE, key, change, (key, _condition(change.when)))

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        tail = await self._stage(body)
        args = (
            key,
            _attrs(change.attrs),
            tail.size,
            tail.data,
            tail.upload,
            tail.packed,
            uuid.uuid4().hex,
            SMALL,
            CHUNK,
        )
        outcome = await self._change(APPEND, key, change, args, tail)
        return Appended(_done(outcome), outcome[5].decode() if len(outcome) > 5 else None)

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        args = (source, target, _condition(when_source), _condition(change.when))
        return _done(await self._change(RENAME, target, change, args, source=source))

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        if target.startswith(source) and target != source:
            raise BadRequest("a directory cannot be moved into itself")
        asked = [argument for name, version in known.items() for argument in (name, version or "")]
        outcome = await self._change(RENAME_TREE, target, change, (source, target, *asked), source=source)
        changed = set(outcome[2:])
        return TreeMoved(int(outcome[1]), {name: change.id for name in known if name not in changed})

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        args = (source, target, _condition(when_source), _condition(change.when), uuid.uuid4().hex)
        return _done(await self._change(COPY, target, change, args, source=source))

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        return _done(await self._change(SET_ATTRS, key, change, (key, _condition(change.when), _attrs(attrs))))

    async def _change(
        self,
        script: Script,
        key: bytes,
        change: Change,
        args: tuple[bytes | str | int, ...],
        staged: _Content | None = None,
        source: bytes | None = None,
    ) -> Sequence[bytes]:
        """Run a script that changes `key`; its outcome. What was staged for nothing is given back."""
        log = self._base + f"w:{script.name}:{change.id}:".encode() + key
        keys = [self._base + b"n", log, self._object(key)] + ([self._object(source)] if source is not None else [])
        common = (self._base, change.id, time.time_ns(), self._window, int(GRACE * 1000))
        try:
            outcome: Sequence[bytes] = await self._run(script, keys, (*common, *args))
        except Unavailable as error:
            if not error.ambiguous:
                self._abandon(staged)
            raise
        except StoreError:
            self._abandon(staged)
            raise
        if outcome[0] != b"ok":
            self._abandon(staged)
        if outcome[0] == b"swept":
            raise Unavailable("parts of the upload have expired", ambiguous=False)
        if outcome[0] == b"again" and len(outcome) == 1 and script is not DELETE:
            raise Unavailable("an earlier attempt of this very change was halted in its middle; read the file again")
        if outcome[0] == b"failed":
            raise self._denied(outcome[1].decode(), outcome[2].decode(errors="replace"))
        if outcome[0] in _REFUSALS:
            kind, text = _REFUSALS[outcome[0]]
            raise kind(text)
        return outcome

    def _denied(self, command: str, said: str) -> StoreError:
        """What a script's failure at a command means."""
        error = translate(ResponseError(said))
        if not isinstance(error, PermissionDenied):
            return error
        return PermissionDenied(
            f"Redis does not let the user of REDIS_URL run {command}, so nothing was changed: "
            f"add +{command.lower()} to its ACL, whose least is in the setup guide ({said})"
        )

    # -- uploads --------------------------------------------------------------------------------

    async def _stage(self, body: Body) -> _Content:
        """Take the body in: in memory one chunk, one piece and the one being sent; the rest in chunk keys."""
        if body.data is not None and len(body.data) <= CHUNK:
            return _Content(len(body.data), body.data)
        upload = uuid.uuid4().hex
        lengths: list[int] = []
        fresh = time.monotonic()
        sending: asyncio.Future[None] | None = None
        try:
            async with aclosing(parts(body, lambda _: CHUNK)) as cut:
                async for part in cut:
                    if part.last and not lengths:
                        return _Content(len(part.data), bytes(part.data))
                    if sending is not None:
                        await sending
                    sending = asyncio.ensure_future(self._send(upload, part))
                    lengths.append(len(part.data))
                    del part
                    if time.monotonic() - fresh > REFRESH:
                        await self._refresh(upload, len(lengths) - 1)
                        fresh = time.monotonic()
            if sending is not None:
                await sending
            return _Content(sum(lengths), b"", upload, tuple(lengths))
        except BaseException:
            if sending is not None:
                sending.cancel()
                self._clean(self._forget(upload, len(lengths) + 1, sending))
            raise

    async def _send(self, upload: str, part: Part) -> None:
        chunk = self._chunk(upload, part.number - 1)
        try:
            await self._call("SET", chunk, memoryview(part.data), "PX", int(RESTING * 1000))
        except Unavailable as error:
            error.ambiguous = False  # nobody sees it before it is committed
            raise
        part.release()

    async def _refresh(self, upload: str, count: int) -> None:
        """A slow upload keeps what it has sent."""
        for index in range(count):
            if not await self._call("PEXPIRE", self._chunk(upload, index), int(RESTING * 1000)):
                raise Unavailable("parts of the upload have expired", ambiguous=False)

    def _abandon(self, staged: _Content | None) -> None:
        if staged is not None and staged.upload:
            self._clean(self._forget(staged.upload, len(staged.lengths)))

    async def _forget(self, upload: str, count: int, sending: asyncio.Future[None] | None = None) -> None:
        """Best effort: what stays expires by itself."""
        try:
            if sending is not None:
                await asyncio.wait([sending])
            for first in range(0, count, 100):
                chunks = [self._chunk(upload, index) for index in range(first, min(first + 100, count))]
                await self._call("UNLINK", *chunks)
        except StoreError as error:
            _log.info("chunks of an upload are left to expire", extra={"upload": upload, "cause": str(error)})

    def _clean(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)


# -- pure -----------------------------------------------------------------------------------------


def _tag(name: str) -> bytes:
    """A hash tag ends at the first brace."""
    for char in "%{}":
        name = name.replace(char, f"%{ord(char):02X}")
    return os.fsencode(name)


def _successor(prefix: bytes) -> bytes:
    """The least name beyond all that start with `prefix`; empty where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""


def _span(size: int, start: int, end: int | None) -> tuple[int, int]:
    """The half-open range of bytes to send of an object of `size` bytes."""
    first = max(size + start, 0) if start < 0 else start
    last = size if end is None else min(end, size)
    if (start or end is not None) and first >= size and (end is None or end > first):
        raise RangeInvalid(f"the file has {size} bytes")
    return first, max(first, last)


def _plan(packed: bytes, first: int, last: int) -> Sequence[tuple[int, int, int]]:
    """Which bytes of which chunks make up `first` to `last`: (index, from, to)."""
    lengths = struct.unpack(f">{len(packed) // 4}I", packed)
    ends = list(itertools.accumulate(lengths))
    return [
        (index, max(first - (end - length), 0), min(last - (end - length), length))
        for index, (end, length) in enumerate(zip(ends, lengths, strict=True))
        if end > first and end - length < last
    ]


def _condition(when: Precondition) -> str:
    if when.absent:
        return "a"
    return "" if when.version is None else f"m{when.version}"


def _attrs(attrs: Mapping[str, str]) -> str:
    return json.dumps(dict(attrs)) if attrs else ""


def _stat(fields: Sequence[bytes | None]) -> Stat | None:
    version, size, mtime_ns, attrs = fields
    if version is None or size is None or mtime_ns is None:
        return None
    return Stat(version.decode(), int(size), int(mtime_ns), attrs=json.loads(attrs) if attrs else {})


def _done(outcome: Sequence[bytes]) -> Stat:
    """The stat in a script's outcome."""
    stat = _stat(outcome[1:5])
    assert stat is not None
    return stat
