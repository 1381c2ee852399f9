"""State in a JetStream KV bucket, one subject per state file.

The version is the stream sequence, so it never comes back. Every change is a publish that expects the
sequence it was decided on, unconditional ones too: so each message knows the one before, and carries
the write ids that led to it (`nats_record`), through delete markers as well. A change repeated with its
id is found there, or in the stream of ids where a busy file had too many, and is answered with its first
outcome. Messages of other programs are files too, but break this chain.

Reads go to the stream's leader. What does not fit one message lies in chunks in a stream of its own,
written under a fresh upload name, which the file's message names once it commits; chunks never change.
Replaced chunks and old delete markers are purged after a grace, what a dead writer left by a sweep.

Three streams for bucket `b`: `KV_b` (a KV bucket like any other), `ASYA_b_CHUNKS`, `ASYA_b_IDS`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from asya_proxy.errors import (
    BadRequest,
    Busy,
    Conflict,
    Exists,
    KeyNotFound,
    RangeInvalid,
    StoreError,
    TooLarge,
    Unavailable,
)
from asya_proxy.stores.base import (
    Appended,
    BaseStore,
    Body,
    Change,
    Page,
    Precondition,
    Reading,
    Stat,
    StoreConfig,
    Traits,
)
from asya_proxy.stores.nats_chunks import Chunks, Content
from asya_proxy.stores.nats_house import House
from asya_proxy.stores.nats_index import Listing
from asya_proxy.stores.nats_jetstream import JetStream, WrongSequence, changing_nothing
from asya_proxy.stores.nats_link import Address, Link
from asya_proxy.stores.nats_record import (
    ABSENT_HEAD,
    HEADER_ROOM,
    Head,
    Outcome,
    Run,
    carry,
    encode_key,
    id_token,
    read_head,
)
from asya_proxy.stores.nats_spilled import Spilled
from asya_proxy.stores.nats_streams import Streams

log = logging.getLogger(__name__)

INLINE = 256 << 10
"""Bytes of a file that lie in its own message; reading its stat reads them too."""
CHUNK_SIZE = 512 << 10
MAX_RUNS = 512
"""Uploads that one file may consist of before an append writes it anew."""
MAX_ATTRS = 16 << 10
HEADS = 1024
"""Heads remembered, so that a change of a file seen lately costs one round trip."""
GRACE = 600.0
"""Seconds that replaced chunks stay for those who read them."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """The last message of a file's subject."""

    head: Head
    data: bytes


@dataclass(frozen=True, slots=True)
class _Done:
    """A change that happened: now (`landed`), or when its id was first seen. `base` 0: it created."""

    stat: Stat
    base: int
    landed: bool


_NOTHING = _Stored(ABSENT_HEAD, b"")
_Make = Callable[[_Stored], Awaitable[tuple[Head, bytes]]]
"""From what is there to what shall be: its head (without version, ids and times, but `mtime_ns` to keep) and data."""


class NatsStore(BaseStore):
    """`STATE_BUCKET` is the KV bucket; NATS_URL and NATS_CREDS_FILE say where and as whom."""

    traits = Traits(idempotent=True, append=True, attributes=True)

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._prefix = os.fsencode(config.prefix)
        self._window_ns = int(config.write_window * 1e9)
        self._streams = Streams(config.bucket)
        self._house = House(self._streams, self._prefix, config.write_window)
        self._listing = Listing(self._streams, self._prefix, config.write_window)
        self._connected: tuple[JetStream, Chunks] | None = None
        self._heads: OrderedDict[bytes, Head] = OrderedDict()
        self._spilled = Spilled(config.write_window, HEADS)
        self._locks: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()
        self._housekeeping: asyncio.Task[None] | None = None

    # Life

    async def connect(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self._config.bucket):
            raise BadRequest(
                f"STATE_BUCKET={self._config.bucket!r}: a NATS KV bucket is named with A-Z, a-z, 0-9, _ and -"
            )
        address = Address.from_environ(self._config.environ, self._config.bucket)
        link = Link(address, self._config.attempt_timeout)
        await link.start()
        jetstream = JetStream(link, self._config.attempt_timeout)
        self._connected = jetstream, Chunks(jetstream, self._streams, self._house.drop)
        try:
            if self._room < HEADER_ROOM:
                raise BadRequest(
                    f"the NATS server takes messages of {link.max_payload} bytes: "
                    f"set max_payload to at least {2 * HEADER_ROOM}, best to its default of 1MB"
                )
            await self._streams.prepare(jetstream, self._config.write_window)
        except BaseException:
            await self.close()
            raise
        self._housekeeping = asyncio.get_running_loop().create_task(self._house.keep(jetstream))

    async def close(self) -> None:
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
            self._housekeeping = None
        connected, self._connected = self._connected, None
        if connected is not None:
            await connected[0].link.close()

    async def ping(self) -> None:
        await self._jetstream.last_sequence(self._streams.files)

    @property
    def _jetstream(self) -> JetStream:
        if self._connected is None:
            raise Unavailable("the store is not connected", ambiguous=False)
        return self._connected[0]

    @property
    def _chunks(self) -> Chunks:
        if self._connected is None:
            raise Unavailable("the store is not connected", ambiguous=False)
        return self._connected[1]

    @property
    def _room(self) -> int:
        """Bytes of data that a message may have."""
        return self._jetstream.link.max_payload - HEADER_ROOM

    def _name(self, key: bytes) -> str:
        return encode_key(self._prefix + key)

    # Reading

    async def head(self, key: bytes) -> Stat | None:
        stored = await self._read(key)
        return None if stored.head.deleted else _stat(stored.head)

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        stored = await self._read(key)
        head = stored.head
        if head.deleted:
            return None
        if version is not None and version != str(head.version):
            raise Conflict("the file was replaced")
        first, last = _span(head.size, start, end)
        chunked = head.size - head.tail
        if first >= chunked or first >= last:
            return Reading(_stat(head), data=stored.data[max(0, first - chunked) : max(0, last - chunked)])
        return Reading(_stat(head), stream=self._stream(key, stored, first, last))

    async def _stream(self, key: bytes, stored: _Stored, first: int, last: int) -> AsyncIterator[bytes]:
        chunked = stored.head.size - stored.head.tail

        async def gone() -> None:
            if (await self._read(key)).head.version != stored.head.version:
                raise Conflict("the file was replaced while it was read")
            raise Unavailable("a chunk of the file is missing: the NATS bucket is damaged", ambiguous=False)

        chunks = self._chunks.stream(self._name(key), stored.head.runs, first, min(last, chunked), gone)
        async for piece in chunks:
            yield piece
        if last > chunked:
            yield stored.data[: last - chunked]

    async def _read(self, key: bytes) -> _Stored:
        """The last message of a key, from the stream's leader."""
        found = await self._jetstream.last(self._streams.files, self._streams.file(self._name(key)))
        stored = _NOTHING
        if found is not None:
            head = read_head(found.sequence, found.headers, len(found.data), found.time_ns)
            stored = _Stored(head, found.data)
        self._remember(key, stored.head)
        self._spilled.read(key, stored.head, time.time_ns() - self._window_ns)
        return stored

    def _remember(self, key: bytes, head: Head) -> None:
        self._heads[key] = head
        self._heads.move_to_end(key)
        if len(self._heads) > HEADS:
            self._heads.popitem(last=False)

    # Changes

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        _check_attrs(change.attrs)
        token = id_token("p", change.id)
        if body.size is None or body.size > self._room:
            # Before much is sent: it may be a repetition, or already lost.
            head = (await self._read(key)).head
            done = await self._settled(key, head, token)
            if done is not None:
                return done.stat._replace(attrs=change.attrs)
            _check(head, change.when)
        content = await self._take_in(key, body)

        async def make(stored: _Stored) -> tuple[Head, bytes]:
            head = Head(deleted=False, size=content.size, attrs=change.attrs, runs=content.runs)
            return head, content.data

        done = await self._change(key, token, change.when, make, uploaded=content.runs)
        return done.stat._replace(attrs=change.attrs)

    async def delete(self, key: bytes, change: Change) -> None:
        async def make(stored: _Stored) -> tuple[Head, bytes]:
            if stored.head.deleted:
                raise KeyNotFound("there is nothing to delete")
            return Head(), b""

        await self._change(key, id_token("d", change.id), change.when, make)

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        content = await self._take_in(key, body)

        async def make(stored: _Stored) -> tuple[Head, bytes]:
            old = stored.head
            if old.deleted:
                head = Head(deleted=False, size=content.size, attrs=change.attrs, runs=content.runs)
                return head, content.data
            runs, tail = await self._joined(key, stored, content)
            return Head(deleted=False, size=old.size + content.size, attrs=old.attrs, runs=runs), tail

        token = id_token("a", change.id)
        done = await self._change(key, token, Precondition(), make, uploaded=content.runs, with_data=True)
        return Appended(done.stat, str(done.base) if done.base else None)

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        _check_attrs(attrs)

        async def make(stored: _Stored) -> tuple[Head, bytes]:
            old = stored.head
            if old.deleted:
                raise KeyNotFound("there is no such file")
            return replace(old, attrs=attrs), stored.data

        done = await self._change(key, id_token("m", change.id), change.when, make, with_data=True)
        return done.stat._replace(attrs=attrs)

    async def _take_in(self, key: bytes, body: Body) -> Content:
        return await self._chunks.take_in(self._name(key), body, min(INLINE, self._room), min(CHUNK_SIZE, self._room))

    async def _upload(self, key: bytes, data: AsyncIterator[bytes]) -> Run:
        return await self._chunks.upload(self._name(key), data, min(CHUNK_SIZE, self._room))

    async def _joined(self, key: bytes, stored: _Stored, content: Content) -> tuple[tuple[Run, ...], bytes]:
        """Runs and tail of a file with `content` behind it."""
        old, tail = stored.head, stored.data
        if not content.runs and len(tail) + len(content.data) <= min(INLINE, self._room):
            return old.runs, tail + content.data
        if len(old.runs) >= MAX_RUNS - 2:
            whole = await self._upload(key, self._stream(key, stored, 0, old.size))
            return (whole, *content.runs), content.data
        if not content.runs:
            return (*old.runs, await self._upload(key, _once(tail + content.data))), b""
        behind = (await self._upload(key, _once(tail)),) if tail else ()
        return (*old.runs, *behind, *content.runs), b""

    async def _change(
        self,
        key: bytes,
        token: str,
        when: Precondition,
        make: _Make,
        *,
        uploaded: tuple[Run, ...] = (),
        with_data: bool = False,
    ) -> _Done:
        """Decide on what is there and publish on that condition, until nobody came between or time is up.

        `uploaded` are the runs that this change brought along; they go where it does not land.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            try:
                done = await self._decide(key, token, when, make, uploaded, with_data)
            except StoreError as error:
                if not isinstance(error, Unavailable) or not error.ambiguous:
                    self._house.drop(self._name(key), uploaded)
                raise
        if not done.landed:
            self._house.drop(self._name(key), uploaded)
        return done

    async def _decide(
        self, key: bytes, token: str, when: Precondition, make: _Make, uploaded: tuple[Run, ...], with_data: bool
    ) -> _Done:
        deadline = time.monotonic() + self._config.attempt_timeout
        pause = 0.001
        may_guess = not with_data
        while True:
            remembered = self._heads.get(key) if may_guess else None
            stored = _Stored(remembered, b"") if remembered is not None else await self._read(key)
            done = await self._settled(key, stored.head, token)
            if done is not None:
                return done
            try:
                _check(stored.head, when)
                wanted, data = await make(stored)
            except (Conflict, Exists, KeyNotFound):
                if remembered is None:
                    raise
                may_guess = False
                continue
            try:
                head = await self._commit(key, token, stored.head, wanted, data)
            except WrongSequence:
                extra = [run for run in wanted.runs if run not in stored.head.runs and run not in uploaded]
                self._house.drop(self._name(key), extra)
                if time.monotonic() > deadline:
                    raise Busy(f"others changed this file for {self._config.attempt_timeout:g} s on end") from None
                may_guess = False
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311
                pause = min(pause * 2, 0.05)
                continue
            self._house.drop(self._name(key), [run for run in stored.head.runs if run not in head.runs], GRACE)
            return _Done(_stat(head), head.base, landed=True)

    async def _commit(self, key: bytes, token: str, previous: Head, wanted: Head, data: bytes) -> Head:
        """Publish `wanted` if `previous` is still the last of its subject. Raises WrongSequence."""
        now = time.time_ns()
        past, spilled, spilled_ns = carry(previous, now - self._window_ns)
        head = replace(
            wanted,
            id=token,
            base=0 if previous.deleted else previous.version,
            mtime_ns=wanted.mtime_ns or now,
            written_ns=now,
            past=past,
            spilled_ns=spilled_ns,
        )
        headers = head.headers()
        if sum(len(name) + len(value) + 4 for name, value in headers.items()) > HEADER_ROOM - 256:
            raise TooLarge("attributes and history of this file exceed the 64 KiB that NATS stores beside a value")
        name = self._name(key)
        if spilled:
            await asyncio.gather(*(self._spill(name, line) for line in spilled))
        self._heads.pop(key, None)
        file = self._streams.file(name)
        version = await self._jetstream.publish(self._streams.files, file, data, headers, previous.version)
        head = replace(head, version=version)
        self._remember(key, head)
        self._spilled.wrote(key, previous, head, map(Outcome.token_of, spilled))
        if head.deleted:
            self._house.drop_marker(name, version)
        self._listing.note(key, head)
        return head

    async def _spill(self, name: str, line: str) -> None:
        subject = self._streams.id(name, Outcome.token_of(line))
        with changing_nothing():
            await self._jetstream.publish(self._streams.ids, subject, line.encode())

    async def _settled(self, key: bytes, head: Head, token: str) -> _Done | None:
        """How a change ended whose id was seen before."""
        outcome = head.find(token)
        recent = head.spilled_ns and head.spilled_ns >= time.time_ns() - self._window_ns
        if outcome is None and recent and not self._spilled.lacks(key, head, token):
            found = await self._jetstream.last(self._streams.ids, self._streams.id(self._name(key), token))
            outcome = Outcome.parse(found.data.decode()) if found is not None else None
        if outcome is None:
            return None
        if outcome.version == head.version:
            stat = _stat(head)
        else:
            stat = Stat(str(outcome.version), outcome.size, outcome.mtime_ns)
        return _Done(stat, outcome.base, landed=False)

    # Listing

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        return await self._listing.page(self._jetstream, prefix, delimiter=delimiter, after=after, limit=limit)


def _stat(head: Head) -> Stat:
    return Stat(str(head.version), head.size, head.mtime_ns, attrs=head.attrs)


def _check(head: Head, when: Precondition) -> None:
    if when.absent and not head.deleted:
        raise Exists("the name is taken")
    if when.version is not None and (head.deleted or str(head.version) != when.version):
        raise Conflict("the file is no longer at the expected version")


def _check_attrs(attrs: Mapping[str, str]) -> None:
    size = len(json.dumps(dict(attrs)))
    if size > MAX_ATTRS:
        raise TooLarge(f"attributes of {size} bytes; at most {MAX_ATTRS} fit beside a NATS value")


def _span(size: int, start: int, end: int | None) -> tuple[int, int]:
    """The half-open range to send of a file of `size` bytes. Raises RangeInvalid."""
    first = max(size + start, 0) if start < 0 else start
    last = size if end is None else min(end, size)
    if (start or end is not None) and first >= size and (end is None or end > first):
        raise RangeInvalid(f"the file has {size} bytes")
    return first, max(first, last)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
