"""State in one SQLite database per bucket, `{SQLITE_DIR}/{bucket}.db`: the embedded default.

One thread owns the only writing connection and commits whatever has queued up as one transaction;
another one reads. Several processes share a database (`asya run --replicas 2`) by WAL, BEGIN IMMEDIATE
and a busy time-out, on a local filesystem. A change is durable when it is acknowledged
(`synchronous=FULL`). Its version is its write id.

Content up to `CHUNK` lies in the object's row; more lies in `chunks` under an upload id, written as
it arrives and named by the object in the committing transaction. Bytes of an upload never change (an
append only adds behind them), so a reader that began before an overwrite finishes with what it
began; `garbage` lists the uploads that no object names, and until when they are kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from asya_proxy.errors import (
    BadRequest,
    Conflict,
    Exists,
    IsDirectory,
    KeyNotFound,
    NotDirectory,
    NotEmpty,
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
from asya_proxy.stores.spool import Part, parts
from asya_proxy.stores.sqlite_content import (
    SMALL_TAIL,
    abandoning,
    add_chunk,
    add_tail,
    adopt,
    begin_upload,
    chunk_slice,
    copy_chunks,
    inline,
    inline_slice,
    move_chunks,
    piece,
    retire,
    span,
    staging,
)
from asya_proxy.stores.sqlite_file import READS, Snapshot, Threads, open_all, run_changes, run_reads

AHEAD = 3
"""Chunks of one upload on their way to the disk while the next arrives."""

_T = TypeVar("_T")
_Outcome = dict[str, Any]
"""What a change gave, as it is kept beside its write id."""

_COLUMNS = "id, version, size, mtime_ns, attrs, upload"


@dataclass(frozen=True, slots=True)
class _Row:
    """An object's row without its content."""

    id: int
    version: str
    size: int
    mtime_ns: int
    attrs: str
    upload: str | None

    @property
    def stat(self) -> Stat:
        return Stat(self.version, self.size, self.mtime_ns, attrs=json.loads(self.attrs))


@dataclass(frozen=True, slots=True)
class _Content:
    """Content on its way in: inline `data`, or `upload` staged in `chunks`."""

    size: int
    data: bytes | None
    upload: str | None


class SqliteStore(BaseStore):
    """`SQLITE_DIR` names the directory, which is made where it is missing."""

    traits = Traits(idempotent=True, tree=True, append=True, rename=True, rename_tree=True, copy=True, attributes=True)

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._prefix = os.fsencode(config.prefix)
        self._window_ns = int(config.write_window * 1e9)
        self._writing: Threads | None = None
        self._reading: Threads | None = None

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        directory, bucket = self._config.environ.get("SQLITE_DIR", ""), self._config.bucket
        if not directory:
            raise BadRequest("SQLITE_DIR is not set: set it to the directory where the databases shall lie")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
            raise BadRequest(f"STATE_BUCKET {bucket!r}: a database name has letters, digits, '.', '_' and '-'")
        path = os.path.join(directory, f"{bucket}.db")
        timeout = self._config.attempt_timeout
        connections = await asyncio.to_thread(open_all, path, timeout)
        loop = asyncio.get_running_loop()
        self._writing = Threads(loop, connections[:1], run_changes, "asya-sqlite-write")
        self._reading = Threads(loop, connections[1:], run_reads, "asya-sqlite-read", READS)

    async def close(self) -> None:
        # The writer last: its connection then makes the final checkpoint.
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        for threads in filter(None, (reading, writing)):
            await asyncio.to_thread(threads.stop)

    async def ping(self) -> None:
        await self._read(lambda db: db.execute("SELECT 1 FROM objects LIMIT 1").fetchone())

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._reading is None:
            raise Unavailable("the store is closed", ambiguous=False)
        return await self._reading.submit(work)  # type: ignore[no-any-return]

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._post(work)

    def _post(self, work: Callable[[sqlite3.Connection], _T]) -> asyncio.Future[_T]:
        if self._writing is None:
            raise Unavailable("the store is closed", ambiguous=False)
        return self._writing.post(work)

    # -- reading --------------------------------------------------------------------------------

    async def head(self, key: bytes) -> Stat | None:
        row = await self._read(lambda db: self._row(db, key))
        return row.stat if row else None

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        def look(db: sqlite3.Connection) -> tuple[_Row, int, int, bytes | None] | None:
            with Snapshot(db):
                row = self._row(db, key)
                if row is None:
                    return None
                if version is not None and version != row.version:
                    raise Conflict("the file was replaced")
                first, last = span(row.size, start, end)
                if row.upload is not None and last - first > CHUNK:
                    return row, first, last, None
                if row.upload is not None:
                    return row, first, last, chunk_slice(db, row.upload, first, last)
                return row, first, last, inline_slice(db, row.id, first, last)

        found = await self._read(look)
        if found is None:
            return None
        row, first, last, data = found
        if data is not None:
            return Reading(row.stat, data=data)
        return Reading(row.stat, stream=self._stream(str(row.upload), first, last))

    async def _stream(self, upload: str, first: int, last: int) -> AsyncIterator[bytes]:
        position = first
        while position < last:
            block = await self._read(partial(piece, upload=upload, first=position, last=last))
            position += len(block)
            yield block

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        return await self._read(lambda db: _page(db, self._prefix, prefix, delimiter, after, limit))

    def _row(self, db: sqlite3.Connection, key: bytes) -> _Row | None:
        found = db.execute(f"SELECT {_COLUMNS} FROM objects WHERE key = ?", (self._prefix + key,)).fetchone()  # noqa: S608
        return _Row(*found) if found else None

    # -- changes --------------------------------------------------------------------------------

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        content = await self._stage(body)

        def work(db: sqlite3.Connection) -> _Outcome:
            old = self._row(db, key)
            _check(old, change.when)
            self._make_room(db, key, old)
            stat = Stat(change.id, content.size, time.time_ns(), attrs=dict(change.attrs))
            self._store(db, key, old, stat, content.data, content.upload)
            return stat._asdict()

        return _stat(await self._once("put", key, change, work, content.upload))

    async def delete(self, key: bytes, change: Change) -> None:
        def work(db: sqlite3.Connection) -> _Outcome:
            old = self._row(db, key)
            _check(old, change.when)
            if old is None:
                raise KeyNotFound("there is nothing to delete")
            self._drop(db, old)
            return {}

        await self._once("delete", key, change, work)

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        tail = await self._stage(body)

        def work(db: sqlite3.Connection) -> _Outcome:
            old = self._row(db, key)
            self._make_room(db, key, old)
            attrs = json.loads(old.attrs) if old else dict(change.attrs)
            stat = Stat(change.id, (old.size if old else 0) + tail.size, time.time_ns(), attrs=attrs)
            if old is None:
                self._store(db, key, None, stat, tail.data, tail.upload)
            else:
                self._extend(db, key, old, stat, tail)
            return {"stat": stat._asdict(), "base": old.version if old else None}

        outcome = await self._once("append", key, change, work, tail.upload)
        return Appended(_stat(outcome["stat"]), outcome["base"])

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        def work(db: sqlite3.Connection) -> _Outcome:
            row, old = self._both(db, source, target, change, when_source)
            if old is not None and old.id != row.id:
                self._drop(db, old)
            name = (self._prefix + target, change.id, row.id)
            db.execute("UPDATE objects SET key = ?, version = ? WHERE id = ?", name)
            return row.stat._replace(version=change.id)._asdict()

        return _stat(await self._once("rename", target, change, work))

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        if target.startswith(source) and target != source:
            raise BadRequest("a directory cannot be moved into itself")

        def work(db: sqlite3.Connection) -> _Outcome:
            rows = self._below(db, source)
            if not rows:
                raise KeyNotFound("the directory is not there")
            if source == target:
                return {"moved": len(rows), "changed": [name.hex() for name in known]}
            changed = [name.hex() for name, version in known.items() if not self._is_at(db, source + name, version)]
            if any(key != target for _, key in self._below(db, target, limit=2)):
                raise NotEmpty("the target directory is not empty")
            marker = self._row(db, target)
            self._make_room(db, target, marker)
            if marker is not None:
                self._drop(db, marker)
            names = [(self._prefix + target + key[len(source) :], change.id, row) for row, key in rows]
            db.executemany("UPDATE objects SET key = ?, version = ? WHERE id = ?", names)
            return {"moved": len(rows), "changed": changed}

        outcome = await self._once("rename_tree", target, change, work)
        changed = {bytes.fromhex(name) for name in outcome["changed"]}
        return TreeMoved(int(outcome["moved"]), {name: change.id for name in known if name not in changed})

    def _is_at(self, db: sqlite3.Connection, key: bytes, version: str | None) -> bool:
        row = self._row(db, key)
        return row is not None and version in (None, row.version)

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        """Holds the database for the time it takes to write the content once more."""

        def work(db: sqlite3.Connection) -> _Outcome:
            row, old = self._both(db, source, target, change, when_source)
            stat = row.stat._replace(version=change.id, mtime_ns=time.time_ns())
            if row.upload is None:
                self._store(db, target, old, stat, inline(db, row.id), None)
            else:
                self._store(db, target, old, stat, None, copy_chunks(db, row.upload))
            return stat._asdict()

        return _stat(await self._once("copy", target, change, work))

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        def work(db: sqlite3.Connection) -> _Outcome:
            row = self._row(db, key)
            _check(row, change.when)
            if row is None:
                raise KeyNotFound("there is nothing to give attributes to")
            new = (change.id, json.dumps(dict(attrs)), row.id)
            db.execute("UPDATE objects SET version = ?, attrs = ? WHERE id = ?", new)
            return row.stat._replace(version=change.id, attrs=dict(attrs))._asdict()

        return _stat(await self._once("set_attrs", key, change, work))

    async def _once(
        self,
        op: str,
        key: bytes,
        change: Change,
        work: Callable[[sqlite3.Connection], _Outcome],
        upload: str | None = None,
    ) -> _Outcome:
        """Run `work` in its transaction, unless this very change was made before: then the outcome it had."""
        name = (change.id, op, self._prefix + key)

        def once(db: sqlite3.Connection) -> _Outcome:
            done = db.execute("SELECT outcome FROM writes WHERE write_id = ? AND op = ? AND key = ?", name).fetchone()
            if done is not None:
                return json.loads(done[0])  # type: ignore[no-any-return]
            outcome = work(db)
            db.execute(
                "INSERT INTO writes (write_id, op, key, outcome, expires_ns) VALUES (?, ?, ?, ?, ?)",
                (*name, json.dumps(outcome), time.time_ns() + self._window_ns),
            )
            return outcome

        try:
            return await self._write(once)
        except BaseException:
            self._abandon(upload)
            raise

    # -- steps of a change, inside its transaction -----------------------------------------------

    def _make_room(self, db: sqlite3.Connection, key: bytes, old: _Row | None) -> None:
        """A name is a file or a directory, never both; `key` becomes one or the other."""
        if old is not None:
            return
        parents = [self._prefix + parent for parent in _parents(key)]
        marks = ",".join("?" * len(parents))
        if parents and db.execute(f"SELECT 1 FROM objects WHERE key IN ({marks}) LIMIT 1", parents).fetchone():  # noqa: S608
            raise NotDirectory("a parent of the name is a file")
        if not key.endswith(b"/") and self._below(db, key + b"/", limit=1):
            raise IsDirectory("the name is a directory")

    def _below(self, db: sqlite3.Connection, directory: bytes, limit: int = -1) -> Sequence[tuple[int, bytes]]:
        """Row and key of what lies below, the directory's own marker included."""
        first, last = self._prefix + directory, _successor(self._prefix + directory)
        rows = db.execute("SELECT id, key FROM objects WHERE key >= ? AND key < ? LIMIT ?", (first, last, limit))
        return [(row, key[len(self._prefix) :]) for row, key in rows]

    def _both(
        self, db: sqlite3.Connection, source: bytes, target: bytes, change: Change, when_source: Precondition
    ) -> tuple[_Row, _Row | None]:
        """What is at the source and at the target, all conditions met."""
        row = self._row(db, source)
        if row is None:
            raise KeyNotFound("the source is not there")
        _check(row, when_source)
        old = self._row(db, target)
        _check(old, change.when)
        self._make_room(db, target, old)
        return row, old

    def _store(
        self,
        db: sqlite3.Connection,
        key: bytes,
        old: _Row | None,
        stat: Stat,
        data: bytes | None,
        upload: str | None,
    ) -> None:
        """Make `key` name this content instead of `old`, whose upload becomes garbage."""
        before = old.upload if old else None
        if before != upload:
            if before is not None:
                retire(db, before)
            if upload is not None:
                adopt(db, upload)
        db.execute(
            "INSERT INTO objects (key, version, size, mtime_ns, attrs, upload, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET version = excluded.version, size = excluded.size,"
            " mtime_ns = excluded.mtime_ns, attrs = excluded.attrs, upload = excluded.upload, data = excluded.data",
            (self._prefix + key, stat.version, stat.size, stat.mtime_ns, json.dumps(dict(stat.attrs)), upload, data),
        )

    def _extend(self, db: sqlite3.Connection, key: bytes, old: _Row, stat: Stat, tail: _Content) -> None:
        """Put `tail` behind what `old` names."""
        if old.upload is None and tail.data is not None and stat.size <= SMALL_TAIL:
            self._store(db, key, old, stat, inline(db, old.id) + tail.data, None)
            return
        upload = old.upload
        if upload is None:
            upload = begin_upload(db)
            if old.size:
                add_chunk(db, upload, 0, inline(db, old.id))
        if tail.upload is not None:
            move_chunks(db, tail.upload, upload, old.size)
        else:
            add_tail(db, upload, old.size, tail.data or b"")
        self._store(db, key, old, stat, None, upload)

    def _drop(self, db: sqlite3.Connection, row: _Row) -> None:
        if row.upload is not None:
            retire(db, row.upload)
        db.execute("DELETE FROM objects WHERE id = ?", (row.id,))

    # -- uploads --------------------------------------------------------------------------------

    async def _stage(self, body: Body) -> _Content:
        """Take the body in: in memory one piece and the chunks being written, which share a commit; the rest in
        `chunks`."""
        if body.data is not None and len(body.data) <= CHUNK:
            return _Content(len(body.data), body.data, None)
        upload: str | None = None
        writing: deque[tuple[asyncio.Future[None], Part]] = deque()
        size = 0
        try:
            async with aclosing(parts(body, lambda _: CHUNK)) as cut:
                async for part in cut:
                    if upload is None:
                        if part.last:
                            return _Content(len(part.data), bytes(part.data), None)
                        upload = await self._write(begin_upload)
                    if len(writing) == AHEAD:
                        await _written(writing)
                    writing.append((self._post(staging(upload, part.offset, part.data)), part))
                    size = part.offset + len(part.data)
                    del part
            while writing:
                await _written(writing)
            return _Content(size, None, upload)
        except BaseException:
            self._abandon(upload)
            raise

    def _abandon(self, upload: str | None) -> None:
        """Queued behind whatever this upload was for, and harmless where that committed."""
        if upload is not None and self._writing is not None:
            self._writing.post(abandoning(upload))


async def _written(writing: deque[tuple[asyncio.Future[None], Part]]) -> None:
    """The first of what is being written is."""
    future, part = writing.popleft()
    await future
    part.release()


# -- pure -----------------------------------------------------------------------------------------


def _fold(name: bytes, prefix: bytes) -> bytes:
    return name[: name.index(b"/", len(prefix)) + 1]


def _successor(prefix: bytes) -> bytes:
    """The least name beyond all that start with `prefix`; empty where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""


def _parents(key: bytes) -> Sequence[bytes]:
    """The names that must not be files for `key` to be; for a marker `d/` that is `d` too."""
    return [key[:at] for at in range(len(key)) if key[at : at + 1] == b"/"]


def _check(row: _Row | None, when: Precondition) -> None:
    if when.absent and row is not None:
        raise Exists("the name is taken")
    if when.version is not None and (row is None or row.version != when.version):
        raise Conflict("the file is no longer at the expected version")


def _stat(outcome: _Outcome) -> Stat:
    return Stat(outcome["version"], outcome["size"], outcome["mtime_ns"], attrs=outcome["attrs"])


def _page(db: sqlite3.Connection, base: bytes, prefix: bytes, delimiter: bool, after: bytes, limit: int) -> Page:
    """One page below `base`; folded names are skipped over, not read through."""
    least = base + prefix
    if after >= prefix:
        # With a NUL behind it, `after` itself is excluded; a folded name is left behind as a whole.
        least = base + after + b"\0"
        if delimiter and b"/" in after[len(prefix) :]:
            least = _successor(base + _fold(after, prefix))
    beyond = _successor(base + prefix)
    entries: list[Entry] = []
    prefixes: list[bytes] = []
    with Snapshot(db):
        while True:
            wanted = limit + 1 - len(entries) - len(prefixes)
            rows = db.execute(
                "SELECT key, version, size, mtime_ns FROM objects WHERE key >= ? AND (? = x'' OR key < ?)"
                " ORDER BY key LIMIT ?",
                (least, beyond, beyond, wanted),
            ).fetchall()
            least = b""
            for key, version, size, mtime_ns in rows:
                if len(entries) + len(prefixes) == limit:
                    return Page(entries, prefixes, more=True)
                name = key[len(base) :]
                if delimiter and b"/" in name[len(prefix) :]:
                    prefixes.append(_fold(name, prefix))
                    least = _successor(base + prefixes[-1])
                    break
                entries.append(Entry(name, version, size, mtime_ns))
            if not least:
                return Page(entries, prefixes, more=False)
