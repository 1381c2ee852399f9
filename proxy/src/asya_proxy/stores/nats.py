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
import base64
import calendar
import contextlib
import heapq
import itertools
import json
import logging
import os
import random
import re
import secrets
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asya_proxy.errors import (
    BadRequest,
    Busy,
    Conflict,
    Exists,
    KeyNotFound,
    PermissionDenied,
    Quota,
    RangeInvalid,
    ReadOnly,
    StoreError,
    Timeout,
    TooLarge,
    Unavailable,
)
from asya_proxy.stores.base import (
    Appended,
    BaseStore,
    Body,
    Change,
    Entry,
    Page,
    Precondition,
    Reading,
    Stat,
    StoreConfig,
    Traits,
)
from asya_proxy.stores.nats_index import MAX_ENTRIES, Index
from asya_proxy.stores.nats_link import Address, Link
from asya_proxy.stores.nats_record import (
    ABSENT_HEAD,
    EXPECTED,
    EXPECTED_STREAM,
    HEADER_ROOM,
    Head,
    Outcome,
    Piece,
    Run,
    carry,
    decode_key,
    encode_key,
    id_token,
    parse_headers,
    pieces,
    read_head,
    subject_filter,
)

log = logging.getLogger(__name__)

API = "$JS.API"
INLINE = 256 << 10
"""Bytes of a file that lie in its own message; reading its stat reads them too."""
CHUNK_SIZE = 512 << 10
PARALLEL = 4
"""Chunks of one transfer in flight."""
MAX_RUNS = 512
"""Uploads that one file may consist of before an append writes it anew."""
MAX_ATTRS = 16 << 10
HEADS = 1024
"""Heads remembered, so that a change of a file seen lately costs one round trip."""
GRACE = 600.0
"""Seconds that replaced chunks stay for those who read them."""
ORPHAN_AGE = 3600.0
"""Seconds without progress after which chunks that no file names belong to a dead writer."""
SWEEP_EVERY = 3600.0
MAX_GARBAGE = 10_000
BATCH = 500
"""Messages of a listing in flight."""

# Error codes of JetStream's API (nats-server, server/errors.json).
_NO_STREAM = 10059
_NO_MESSAGE = 10037
_WRONG_SEQUENCE = (10071, 10164)
_FULL = (10023, 10028, 10047)
_STORE_FAILED = 10077
_TOO_LARGE = (10054, 10097)
_SEALED = 10109
_NO_JETSTREAM = (10039, 10076)
_NO_PEERS = (10005, 10074)


class _WrongSequence(Exception):
    """Another write came first."""


@dataclass(frozen=True, slots=True)
class _Content:
    """A body taken in: at most `INLINE` bytes, or the runs it was uploaded as."""

    size: int
    data: bytes = b""
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class _Stored:
    """The last message of a subject."""

    head: Head
    data: bytes


_NOTHING = _Stored(ABSENT_HEAD, b"")


@dataclass(frozen=True, slots=True)
class _Done:
    """A change that happened: now (`landed`), or when its id was first seen. `base` 0: it created."""

    stat: Stat
    base: int
    landed: bool


_Make = Callable[[_Stored], Awaitable[tuple[Head, bytes]]]
"""From what is there to what shall be: its head (file, size, attributes, runs) and its data."""


class NatsStore(BaseStore):
    """`STATE_BUCKET` is the KV bucket; NATS_URL and NATS_CREDS_FILE say where and as whom."""

    traits = Traits(idempotent=True, append=True, attributes=True)

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._prefix = os.fsencode(config.prefix)
        self._bucket = config.bucket
        self._kv = f"KV_{config.bucket}"
        self._chunks = f"ASYA_{config.bucket}_CHUNKS"
        self._ids = f"ASYA_{config.bucket}_IDS"
        self._window_ns = int(config.write_window * 1e9)
        self._link: Link | None = None
        self._heads: OrderedDict[bytes, Head] = OrderedDict()
        self._index: Index | None = None
        self._index_time = 0.0
        self._listing = asyncio.Lock()
        self._locks: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()
        self._garbage: list[tuple[float, int, str, str, int]] = []
        self._ordinal = itertools.count()
        self._housekeeping: asyncio.Task[None] | None = None

    # Life

    async def connect(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self._bucket):
            raise BadRequest(f"STATE_BUCKET={self._bucket!r}: a NATS KV bucket is named with A-Z, a-z, 0-9, _ and -")
        link = Link(Address.from_environ(self._config.environ), self._config.attempt_timeout)
        await link.start()
        self._link = link
        try:
            if self._inline_limit < HEADER_ROOM:
                raise BadRequest(
                    f"the NATS server takes messages of {link.max_payload} bytes: "
                    f"set max_payload to at least {2 * HEADER_ROOM}, best to its default of 1MB"
                )
            await self._prepare()
        except BaseException:
            await self.close()
            raise
        self._housekeeping = asyncio.get_running_loop().create_task(self._keep_house())

    async def close(self) -> None:
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
            self._housekeeping = None
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def ping(self) -> None:
        _check_answer(await self._nats.call(f"{API}.STREAM.INFO.{self._kv}"), "reading the bucket's state")

    @property
    def _nats(self) -> Link:
        if self._link is None:
            raise Unavailable("the store is not connected", ambiguous=False)
        return self._link

    @property
    def _inline_limit(self) -> int:
        return min(INLINE, self._nats.max_payload - HEADER_ROOM)

    @property
    def _chunk_limit(self) -> int:
        return min(CHUNK_SIZE, self._nats.max_payload - HEADER_ROOM)

    async def _prepare(self) -> None:
        """Find the three streams or make them. Raises KeyNotFound, PermissionDenied, BadRequest."""
        common = {"retention": "limits", "storage": "file", "discard": "new", "max_msgs_per_subject": 1}
        kv = await self._stream(
            {**common, "name": self._kv, "subjects": [f"$KV.{self._bucket}.>"], "allow_rollup_hdrs": True}
            | {"deny_delete": True},
            f"nats kv add {self._bucket} --history=1 --storage=file --replicas=3",
        )
        if kv.get("discard") == "old" and (kv.get("max_bytes", -1) > 0 or kv.get("max_msgs", -1) > 0):
            raise BadRequest(
                f"NATS stream {self._kv} is limited and discards old messages: state would vanish when it is full; "
                f"change it by: nats stream edit {self._kv} --discard=new"
            )
        if kv.get("max_age"):
            log.warning("nats bucket=%s forgets values after %.0f s (its TTL)", self._bucket, kv["max_age"] / 1e9)
        if kv.get("storage") == "memory":
            log.warning("nats bucket=%s lies in memory: a restart of the server loses it", self._bucket)
        await self._stream(
            {**common, "name": self._chunks, "subjects": [f"asya.{self._bucket}.chunk.>"], "allow_direct": True},
            f"nats stream add {self._chunks} --subjects='asya.{self._bucket}.chunk.>' --max-msgs-per-subject=1 "
            "--discard=new --storage=file --allow-direct --replicas=3 --defaults",
        )
        ids = await self._stream(
            {**common, "name": self._ids, "subjects": [f"asya.{self._bucket}.id.>"], "max_age": self._window_ns},
            f"nats stream add {self._ids} --subjects='asya.{self._bucket}.id.>' --max-msgs-per-subject=1 "
            f"--discard=new --storage=file --max-age={self._config.write_window:.0f}s --replicas=3 --defaults",
        )
        if 0 < ids.get("max_age", 0) < self._window_ns:
            answer = await self._nats.call(f"{API}.STREAM.UPDATE.{self._ids}", {**ids, "max_age": self._window_ns})
            if "error" in answer:
                raise BadRequest(
                    f"NATS stream {self._ids} keeps write ids {ids['max_age'] / 1e9:.0f} s and this proxy needs "
                    f"{self._config.write_window:.0f}: nats stream edit {self._ids} "
                    f"--max-age={self._config.write_window:.0f}s"
                )

    async def _stream(self, config: dict[str, Any], command: str) -> dict[str, Any]:
        """The configuration of a stream, made if it is missing."""
        name = config["name"]
        try:
            answer = await self._nats.call(f"{API}.STREAM.INFO.{name}")
        except Unavailable as error:
            if not error.ambiguous:
                raise BadRequest(
                    f"JetStream is not enabled on this NATS server: start it with `nats-server -js -sd DIR` ({error})"
                ) from error
            raise
        code = answer.get("error", {}).get("err_code", 0)
        if code in _NO_JETSTREAM:
            raise BadRequest("JetStream is not enabled for this NATS account: give the account a jetstream block")
        if code == _NO_STREAM:
            answer = await self._create(config, command)
        _check_answer(answer, f"reading stream {name}")
        found: dict[str, Any] = answer["config"]
        return found

    async def _create(self, config: dict[str, Any], command: str) -> dict[str, Any]:
        name = config["name"]
        answer: dict[str, Any] = {}
        for replicas in (3, 1) if self._nats.clustered else (1,):
            try:
                answer = await self._nats.call(f"{API}.STREAM.CREATE.{name}", {**config, "num_replicas": replicas})
            except PermissionDenied as error:
                raise KeyNotFound(
                    f"NATS bucket {self._bucket!r}: stream {name} is missing and this user may not make it ({error}); "
                    f"have it made: {command}"
                ) from error
            if answer.get("error", {}).get("err_code", 0) not in _NO_PEERS:
                break
        if "error" in answer:
            raise KeyNotFound(
                f"NATS bucket {self._bucket!r}: stream {name} is missing and cannot be made "
                f"({answer['error'].get('description')}); have it made: {command}"
            )
        log.info("nats made stream=%s replicas=%s", name, answer["config"].get("num_replicas"))
        return answer

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
        return Reading(_stat(head), stream=self._stream_out(key, stored, first, last))

    async def _stream_out(self, key: bytes, stored: _Stored, first: int, last: int) -> AsyncIterator[bytes]:
        head = stored.head
        wanted = pieces(head.runs, first, last)
        ahead: list[asyncio.Task[bytes]] = []
        try:
            for number in range(len(wanted)):
                while len(ahead) < PARALLEL and number + len(ahead) < len(wanted):
                    piece = wanted[number + len(ahead)]
                    ahead.append(asyncio.get_running_loop().create_task(self._chunk(key, head, piece)))
                yield await ahead.pop(0)
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)
        chunked = head.size - head.tail
        if last > chunked:
            yield stored.data[: last - chunked]

    async def _chunk(self, key: bytes, head: Head, piece: Piece) -> bytes:
        subject = self._chunk_subject(key, piece.upload, piece.index)
        message = await self._nats.request(f"{API}.DIRECT.GET.{self._chunks}.{subject}")
        data: bytes | None = message.data if "Status" not in (message.headers or {}) else None
        if data is None:  # a replica that lags, or gone
            found = await self._last(self._chunks, subject)
            data = found[3] if found is not None else None
        if data is None:
            if (await self._read(key)).head.version != head.version:
                raise Conflict("the file was replaced while it was read")
            raise Unavailable(f"chunk {piece.index} of {piece.upload} is missing: the bucket is damaged")
        return data[piece.start : piece.stop]

    async def _read(self, key: bytes) -> _Stored:
        """The last message of a key from the stream's leader."""
        found = await self._last(self._kv, self._subject(key))
        if found is None:
            self._remember(key, ABSENT_HEAD)
            return _NOTHING
        sequence, headers, time_ns, data = found
        stored = _Stored(read_head(sequence, headers, len(data), time_ns), data)
        self._remember(key, stored.head)
        return stored

    async def _last(self, stream: str, subject: str) -> tuple[int, dict[str, str], int, bytes] | None:
        """The last message of a subject: (sequence, headers, time in ns, data)."""
        answer = await self._nats.call(f"{API}.STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        if answer.get("error", {}).get("err_code") == _NO_MESSAGE:
            return None
        _check_answer(answer, "reading")
        message = answer["message"]
        headers = parse_headers(base64.b64decode(message["hdrs"])) if message.get("hdrs") else {}
        return message["seq"], headers, _time_ns(message["time"]), base64.b64decode(message.get("data") or "")

    def _subject(self, key: bytes) -> str:
        return f"$KV.{self._bucket}.{encode_key(self._prefix + key)}"

    def _chunk_subject(self, key: bytes, upload: str, index: int | str) -> str:
        return f"asya.{self._bucket}.chunk.{encode_key(self._prefix + key)}.{upload}.{index}"

    def _remember(self, key: bytes, head: Head) -> None:
        self._heads[key] = head
        self._heads.move_to_end(key)
        if len(self._heads) > HEADS:
            self._heads.popitem(last=False)

    # Changes

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        _check_attrs(change.attrs)
        token = id_token("p", change.id)
        if body.size is None or body.size > self._inline_limit:
            # Before much is sent: it may be a repetition, or already lost.
            head = (await self._read(key)).head
            done = await self._settled(key, head, token)
            if done is not None:
                return done.stat
            _check(head, change.when)
        content = await self._take_in(key, body)

        async def make(stored: _Stored) -> tuple[Head, bytes]:
            head = Head(deleted=False, size=content.size, mtime_ns=time.time_ns(), attrs=change.attrs)
            return replace(head, runs=content.runs), content.data

        return (await self._change(key, token, change.when, make, uploaded=content.runs)).stat

    async def delete(self, key: bytes, change: Change) -> None:
        async def make(stored: _Stored) -> tuple[Head, bytes]:
            if stored.head.deleted:
                raise KeyNotFound("there is nothing to delete")
            return Head(mtime_ns=time.time_ns()), b""

        await self._change(key, id_token("d", change.id), change.when, make)

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        content = await self._take_in(key, body)

        async def make(stored: _Stored) -> tuple[Head, bytes]:
            old, now = stored.head, time.time_ns()
            if old.deleted:
                head = Head(deleted=False, size=content.size, mtime_ns=now, attrs=change.attrs, runs=content.runs)
                return head, content.data
            runs, tail = await self._joined(key, stored, content)
            return Head(deleted=False, size=old.size + content.size, mtime_ns=now, attrs=old.attrs, runs=runs), tail

        token = id_token("a", change.id)
        done = await self._change(key, token, Precondition(), make, uploaded=content.runs, with_data=True)
        return Appended(done.stat, str(done.base) if done.base else None)

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        _check_attrs(attrs)

        async def make(stored: _Stored) -> tuple[Head, bytes]:
            old = stored.head
            if old.deleted:
                raise KeyNotFound("there is no such file")
            head = Head(deleted=False, size=old.size, mtime_ns=old.mtime_ns, attrs=attrs, runs=old.runs)
            return head, stored.data

        return (await self._change(key, id_token("m", change.id), change.when, make, with_data=True)).stat

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
                    self._drop(key, uploaded)
                raise
            if not done.landed:
                self._drop(key, uploaded)
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
                head, data = await make(stored)
            except (Conflict, Exists, KeyNotFound):
                if remembered is None:
                    raise
                may_guess = False
                continue
            extra = tuple(run for run in head.runs if run not in stored.head.runs and run not in uploaded)
            try:
                head = await self._commit(key, token, stored.head, head, data)
            except _WrongSequence:
                self._drop(key, extra)
                if time.monotonic() > deadline:
                    raise Busy(
                        f"others changed this file for {self._config.attempt_timeout:g} s without a gap"
                    ) from None
                may_guess = False
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311
                pause = min(pause * 2, 0.05)
                continue
            self._drop(key, tuple(run for run in stored.head.runs if run not in head.runs), GRACE)
            return _Done(_stat(head), head.base, landed=True)

    async def _commit(self, key: bytes, token: str, previous: Head, head: Head, data: bytes) -> Head:
        """Publish `head` if `previous` is still the last of its subject. Raises _WrongSequence."""
        now = time.time_ns()
        past, spilled, spilled_ns = carry(previous, now - self._window_ns)
        head = replace(
            head,
            id=token,
            base=0 if previous.deleted else previous.version,
            written_ns=now,
            past=past,
            spilled_ns=spilled_ns,
        )
        headers = head.headers() | {EXPECTED: str(previous.version), EXPECTED_STREAM: self._kv}
        if sum(len(name) + len(value) + 4 for name, value in headers.items()) > HEADER_ROOM - 64:
            raise TooLarge(
                "the attributes and the history of this file exceed what NATS stores beside a value (64 KiB)"
            )
        await asyncio.gather(*(self._spill(key, outcome) for outcome in spilled))
        self._heads.pop(key, None)
        message = await self._nats.request(self._subject(key), data, headers)
        answer = json.loads(message.data)
        _check_answer(answer, "writing", change=True)
        head = replace(head, version=answer["seq"])
        self._remember(key, head)
        if head.deleted:
            self._purge_later(self._config.write_window, self._kv, self._subject(key), head.version + 1)
        if self._index is not None:
            self._index.note(key, head.version, None if head.deleted else _entry(key, head))
        return head

    async def _spill(self, key: bytes, outcome: Outcome) -> None:
        message = await self._nats.request(
            self._id_subject(key, outcome.id), str(outcome).encode(), {EXPECTED_STREAM: self._ids}
        )
        _check_answer(json.loads(message.data), "keeping a write id")

    async def _settled(self, key: bytes, head: Head, token: str) -> _Done | None:
        """How a change ended whose id was seen before."""
        outcome = head.find(token)
        if outcome is None and head.spilled_ns and head.spilled_ns >= time.time_ns() - self._window_ns:
            found = await self._last(self._ids, self._id_subject(key, token))
            outcome = Outcome.parse(found[3].decode()) if found is not None else None
        if outcome is None:
            return None
        if outcome.version == head.version:
            stat = _stat(head)
        else:
            stat = Stat(str(outcome.version), outcome.size, outcome.mtime_ns)
        return _Done(stat, outcome.base, landed=False)

    def _id_subject(self, key: bytes, token: str) -> str:
        return f"asya.{self._bucket}.id.{encode_key(self._prefix + key)}.{token}"

    # Chunks

    async def _take_in(self, key: bytes, body: Body) -> _Content:
        """Read a body: small ones into memory, others into chunks, with `PARALLEL` + 1 chunks in memory at most."""
        held = bytearray()
        pieces_of_body = aiter(body)
        async for piece in pieces_of_body:
            held += piece
            if len(held) > self._inline_limit:
                break
        else:
            return _Content(len(held), bytes(held))

        async def everything() -> AsyncIterator[bytes]:
            yield bytes(held)
            held.clear()
            async for piece in pieces_of_body:
                yield piece

        run = await self._upload(key, everything())
        return _Content(run.size, runs=(run,))

    async def _joined(self, key: bytes, stored: _Stored, content: _Content) -> tuple[tuple[Run, ...], bytes]:
        """Runs and tail of a file with `content` behind it."""
        old, tail = stored.head, stored.data
        if not content.runs and len(tail) + len(content.data) <= self._inline_limit:
            return old.runs, tail + content.data
        if len(old.runs) >= MAX_RUNS - 2:
            whole = await self._upload(key, self._stream_out(key, stored, 0, old.size))
            return (whole, *content.runs), content.data
        if not content.runs:
            return (*old.runs, await self._upload(key, _once(tail + content.data))), b""
        behind = (await self._upload(key, _once(tail)),) if tail else ()
        return (*old.runs, *behind, *content.runs), b""

    async def _upload(self, key: bytes, data: AsyncIterator[bytes]) -> Run:
        upload, each = secrets.token_hex(10), self._chunk_limit
        held = bytearray()
        count = last = 0
        running: set[asyncio.Task[None]] = set()

        async def send(size: int) -> None:
            nonlocal count, last, running
            if len(running) >= PARALLEL:
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    task.result()
            with memoryview(held) as view:
                block = bytes(view[:size])
            del held[:size]
            running.add(asyncio.get_running_loop().create_task(self._put_chunk(key, upload, count, block)))
            count, last = count + 1, size

        try:
            async for piece in data:
                held += piece
                while len(held) >= each:
                    await send(each)
            if held or not count:
                await send(len(held))
            await asyncio.gather(*running)
        except BaseException:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._drop(key, (Run(upload, 1, each, each),))
            raise
        return Run(upload, count, each, last)

    async def _put_chunk(self, key: bytes, upload: str, index: int, data: bytes) -> None:
        subject = self._chunk_subject(key, upload, index)
        message = await self._nats.request(subject, data, {EXPECTED_STREAM: self._chunks})
        _check_answer(json.loads(message.data), "writing")

    # Listing

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        async with self._listing:
            index = await self._refresh()
            return index.page(prefix, delimiter=delimiter, after=after, limit=limit)

    async def _refresh(self) -> Index:
        """The index as of now. Older ones than half the window may have missed a marker that is purged by now."""
        answer = await self._nats.call(f"{API}.STREAM.INFO.{self._kv}")
        _check_answer(answer, "reading the bucket's state")
        last: int = answer["state"]["last_seq"]
        index = self._index
        if (
            index is None
            or last < index.sequence
            or time.monotonic() - self._index_time > self._config.write_window / 2
        ):
            index = Index()
        if last > index.sequence:
            seen = 0
            async for key, head in self._scan_heads(index.sequence):
                index.note(key, head.version, None if head.deleted else _entry(key, head))
                seen = max(seen, head.version)
            # Only a leader's word counts for what was not delivered.
            index.caught_up(seen if self._nats.clustered else last)
        self._index_time = time.monotonic()
        if len(index) > MAX_ENTRIES:
            log.warning(
                "nats listing names=%d prefix=%s: too many to keep between calls", len(index), self._config.prefix
            )
            self._index = None
        else:
            self._index = index
        return index

    async def _scan_heads(self, since: int) -> AsyncIterator[tuple[bytes, Head]]:
        """The last message of every key of ours beyond stream sequence `since`, without data."""
        root = f"$KV.{self._bucket}."
        async for subject, sequence, time_ns, headers in self._scan(
            self._kv, root + subject_filter(self._prefix), since
        ):
            key = decode_key(subject.removeprefix(root))
            if key is not None and key.startswith(self._prefix):
                length = int(headers.get("Nats-Msg-Size", "0"))
                yield key[len(self._prefix) :], read_head(sequence, headers, length, time_ns)

    async def _scan(
        self, stream: str, pattern: str, since: int
    ) -> AsyncIterator[tuple[str, int, int, Mapping[str, str]]]:
        """The last message of every subject: (subject, sequence, time in ns, headers)."""
        consumer = secrets.token_hex(8)
        config: dict[str, Any] = {"name": consumer, "ack_policy": "none", "filter_subject": pattern}
        config |= {"headers_only": True, "mem_storage": True, "inactive_threshold": 30 * 10**9}
        config |= {"deliver_policy": "last_per_subject", "replay_policy": "instant"}
        if since:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": since + 1}
        answer = await self._nats.call(
            f"{API}.CONSUMER.CREATE.{stream}.{consumer}.{pattern}", {"stream_name": stream, "config": config}
        )
        _check_answer(answer, "listing")
        left = answer["num_pending"]
        ask = json.dumps({"batch": BATCH, "expires": int(self._config.attempt_timeout * 1e9)}).encode()
        async with self._nats.mailbox() as (reply, arriving):
            while left:
                await self._nats.send(f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}", ask, reply)
                for _ in range(min(BATCH, left)):
                    async with _within(self._config.attempt_timeout, "listing"):
                        message = await arriving.get()
                    if message is None:
                        raise Unavailable("the NATS connection was lost while listing", ambiguous=False)
                    headers = message.headers or {}
                    if "Status" in headers:
                        raise Unavailable(f"listing: NATS says {headers['Status']} {headers.get('Description', '')}")
                    about = message.metadata
                    left = about.num_pending
                    yield message.subject, about.sequence.stream, int(about.timestamp.timestamp() * 1e9), headers
                    if not left:
                        break
            await self._nats.send(f"{API}.CONSUMER.DELETE.{stream}.{consumer}", b"", "")

    # House-keeping

    def _drop(self, key: bytes, runs: tuple[Run, ...], after: float = 0.0) -> None:
        for run in runs:
            self._purge_later(after, self._chunks, self._chunk_subject(key, run.upload, "*"), 0)

    def _purge_later(self, seconds: float, stream: str, subject: str, before: int) -> None:
        """Purge a subject (up to sequence `before`, if given); what does not fit the list is left to the sweep."""
        if len(self._garbage) < MAX_GARBAGE:
            heapq.heappush(self._garbage, (time.monotonic() + seconds, next(self._ordinal), stream, subject, before))

    async def _keep_house(self) -> None:
        sweep_at = time.monotonic() + SWEEP_EVERY * random.uniform(0.1, 1)  # noqa: S311
        while True:
            await asyncio.sleep(random.uniform(5, 15))  # noqa: S311
            try:
                await self.purge_due()
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_EVERY * random.uniform(0.5, 1.5)  # noqa: S311
                    await self.sweep()
            except StoreError as error:
                log.warning("nats house-keeping failed bucket=%s error=%s", self._bucket, error)

    async def purge_due(self, now: float | None = None) -> int:
        """Purge what this process replaced or deleted and whose grace is over; how many subjects."""
        done = 0
        while self._garbage and self._garbage[0][0] <= (time.monotonic() if now is None else now):
            _, _, stream, subject, before = heapq.heappop(self._garbage)
            await self._purge(stream, subject, before)
            done += 1
        return done

    async def _purge(self, stream: str, subject: str, before: int = 0) -> None:
        body = {"filter": subject} | ({"seq": before} if before else {})
        _check_answer(await self._nats.call(f"{API}.STREAM.PURGE.{stream}", body), "purging")

    async def sweep(self, now_ns: int | None = None) -> tuple[int, int]:
        """Purge chunks that no file names and old delete markers, whoever left them; how many of each."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        newest: dict[str, int] = {}
        pattern = f"asya.{self._bucket}.chunk.{subject_filter(self._prefix)}"
        async for subject, _, time_ns, _ in self._scan(self._chunks, pattern, 0):
            upload = subject.rpartition(".")[0]
            newest[upload] = max(newest.get(upload, 0), time_ns)
        orphans = {upload for upload, time_ns in newest.items() if time_ns < now_ns - int(ORPHAN_AGE * 1e9)}
        markers = []
        async for key, head in self._scan_heads(0):
            if head.deleted and head.written_ns < now_ns - 2 * self._window_ns:
                markers.append((key, head.version))
            orphans.difference_update(self._chunk_subject(key, run.upload, "*")[:-2] for run in head.runs)
        for upload in orphans:
            await self._purge(self._chunks, f"{upload}.*")
        for key, version in markers:
            await self._purge(self._kv, self._subject(key), version + 1)
        if orphans or markers:
            log.info("nats swept bucket=%s uploads=%d markers=%d", self._bucket, len(orphans), len(markers))
        return len(orphans), len(markers)


# Pure


def _stat(head: Head) -> Stat:
    return Stat(str(head.version), head.size, head.mtime_ns, attrs=head.attrs)


def _entry(key: bytes, head: Head) -> Entry:
    return Entry(key, str(head.version), head.size, head.mtime_ns)


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


def _time_ns(text: str) -> int:
    """RFC 3339 in UTC as JetStream writes it, `2026-01-02T03:04:05.123456789Z`, in ns of the Unix epoch."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@contextlib.asynccontextmanager
async def _within(seconds: float, doing: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Timeout(f"{doing}: NATS did not answer within {seconds:g} s", ambiguous=False) from None


def _check_answer(answer: Mapping[str, Any], doing: str, *, change: bool = False) -> None:
    """Raise what an answer of JetStream says. An error that is an answer is a refusal: nothing was done."""
    error = answer.get("error")
    if error is None:
        return
    code, text = error.get("err_code", 0), error.get("description", "")
    if change and code in _WRONG_SEQUENCE:
        raise _WrongSequence
    if code in _FULL or (code == _STORE_FAILED and "maximum" in text):
        raise Quota(f"{doing}: the NATS bucket, its account or the server's disk is full ({text})")
    if code in _TOO_LARGE:
        raise TooLarge(f"{doing}: larger than the NATS stream allows ({text}); raise its max_msg_size")
    if code == _SEALED:
        raise ReadOnly(f"{doing}: the NATS stream is sealed")
    raise Unavailable(f"{doing}: NATS answers {text} ({code})", ambiguous=False)
