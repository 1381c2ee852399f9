"""Content of the SQLite store, inside a transaction: inline in an object's row, or in `chunks` under an upload id.

Bytes of an upload never change; an append only adds behind them. `garbage` lists the uploads that no
object names and until when they are kept. Names, versions and conditions are `sqlite`'s business.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence

from asya_proxy.errors import Conflict, RangeInvalid, Unavailable

SMALL_TAIL = 64 << 10
"""Appending rewrites at most this much of what is there, in bytes."""
GRACE = 300.0
"""How long, in seconds, a replaced upload stays readable, and an unfinished one may rest."""


def span(size: int, start: int, end: int | None) -> tuple[int, int]:
    """The half-open range of bytes to send of an object of `size` bytes."""
    first = max(size + start, 0) if start < 0 else start
    last = size if end is None else min(end, size)
    if (start or end is not None) and first >= size and (end is None or end > first):
        raise RangeInvalid(f"the file has {size} bytes")
    return first, max(first, last)


def inline(db: sqlite3.Connection, row: int) -> bytes:
    """The content in object row `row`."""
    return bytes(db.execute("SELECT data FROM objects WHERE id = ?", (row,)).fetchone()[0])


def inline_slice(db: sqlite3.Connection, row: int, first: int, last: int) -> bytes:
    found = db.execute("SELECT substr(data, ?, ?) FROM objects WHERE id = ?", (first + 1, last - first, row))
    # substr of an empty blob is NULL.
    return bytes(found.fetchone()[0] or b"")


def chunk_slice(db: sqlite3.Connection, upload: str, first: int, last: int) -> bytes:
    data = bytearray()
    while first + len(data) < last:
        data += piece(db, upload, first + len(data), last)
    return bytes(data)


def piece(db: sqlite3.Connection, upload: str, first: int, last: int) -> bytes:
    """Bytes from `first` on, as many as lie in one chunk and before `last`; never none.

    Raises Conflict where the upload was swept.
    """
    found = db.execute(
        "SELECT substr(data, ? - start + 1, ?) FROM chunks WHERE upload = ? AND start <= ? ORDER BY start DESC LIMIT 1",
        (first, last - first, upload, first),
    ).fetchone()
    if found is None or not found[0]:
        raise Conflict("the file was replaced while it was read")
    return bytes(found[0])


def begin_upload(db: sqlite3.Connection) -> str:
    """A new upload; garbage until it is adopted."""
    upload = uuid.uuid4().hex
    retire(db, upload)
    return upload


def retire(db: sqlite3.Connection, upload: str) -> None:
    """No object names it (any more)."""
    db.execute(
        "INSERT INTO garbage (upload, expires_ns) VALUES (?, ?)"
        " ON CONFLICT (upload) DO UPDATE SET expires_ns = excluded.expires_ns",
        (upload, time.time_ns() + int(GRACE * 1e9)),
    )


def adopt(db: sqlite3.Connection, upload: str) -> None:
    """An object names it from now on. Raises Unavailable where it rested for too long."""
    if db.execute("DELETE FROM garbage WHERE upload = ?", (upload,)).rowcount != 1:
        raise Unavailable(f"the upload rested for more than {GRACE:.0f} s and was swept", ambiguous=False)


def add_chunk(db: sqlite3.Connection, upload: str, start: int, data: bytes | bytearray) -> None:
    db.execute("INSERT INTO chunks (upload, start, data) VALUES (?, ?, ?)", (upload, start, data))


def add_tail(db: sqlite3.Connection, upload: str, size: int, tail: bytes) -> None:
    """Add `tail` behind the `size` bytes of an upload; these keep their places, so their readers stay right."""
    last = db.execute("SELECT id, data FROM chunks WHERE upload = ? ORDER BY start DESC LIMIT 1", (upload,)).fetchone()
    if last is not None and len(last[1]) + len(tail) <= SMALL_TAIL:
        db.execute("UPDATE chunks SET data = ? WHERE id = ?", (bytes(last[1]) + tail, last[0]))
    elif tail:
        add_chunk(db, upload, size, tail)


def move_chunks(db: sqlite3.Connection, upload: str, target: str, size: int) -> None:
    """Put the chunks of `upload` behind the `size` bytes of `target`."""
    adopt(db, upload)
    db.execute("UPDATE chunks SET upload = ?, start = start + ? WHERE upload = ?", (target, size, upload))


def copy_chunks(db: sqlite3.Connection, upload: str) -> str:
    """A new upload with the same bytes."""
    target = begin_upload(db)
    db.execute(
        "INSERT INTO chunks (upload, start, data) SELECT ?, start, data FROM chunks WHERE upload = ?", (target, upload)
    )
    return target


def staging(upload: str, start: int, data: bytes | bytearray) -> Callable[[sqlite3.Connection], None]:
    """The change that adds a chunk to an unfinished upload."""

    def work(db: sqlite3.Connection) -> None:
        adopt(db, upload)
        retire(db, upload)
        add_chunk(db, upload, start, data)

    return work


def abandoning(upload: str) -> Callable[[sqlite3.Connection], None]:
    """The change that gives an unfinished upload up; one that was adopted stays."""

    def work(db: sqlite3.Connection) -> None:
        db.execute("UPDATE garbage SET expires_ns = 0 WHERE upload = ?", (upload,))

    return work


def sweep(db: sqlite3.Connection, changes: int) -> None:
    """Drop what has aged, in steps bounded by how many `changes` are being committed."""
    now = time.time_ns()
    db.execute(
        "DELETE FROM writes WHERE id IN (SELECT id FROM writes WHERE expires_ns < ? LIMIT ?)", (now, 2 * changes + 8)
    )
    aged: Sequence[str] | None = db.execute(
        "SELECT upload FROM garbage WHERE expires_ns < ? LIMIT 1", (now,)
    ).fetchone()
    if aged is None:
        return
    gone = db.execute("DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE upload = ? LIMIT 16)", aged).rowcount
    if gone < 16:
        db.execute("DELETE FROM garbage WHERE upload = ?", aged)
