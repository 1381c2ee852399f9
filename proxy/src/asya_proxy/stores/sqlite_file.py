"""The database file of the SQLite store: opening it, the threads that use it, one transaction for many changes.

Knows nothing of keys and versions. Blocking calls stay in these threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asya_proxy.errors import BadRequest, PermissionDenied, Quota, StoreError, TooLarge, Unavailable
from asya_proxy.stores.sqlite_content import sweep

_log = logging.getLogger("asya_proxy.stores.sqlite")

APPLICATION_ID = 0x41737961
SCHEMA_VERSION = 1
READERS = 1
"""A second one costs more than it reads: the two and the event loop then hand the interpreter's lock to each other."""
BATCH = 64
"""Changes committed by one transaction, at most."""
READS = 8
"""Reads whose outcomes go to the event loop together, at most."""

_SCHEMA = (
    "CREATE TABLE objects (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, version TEXT NOT NULL,"
    " size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, attrs TEXT NOT NULL, upload TEXT, data BLOB)",
    "CREATE TABLE chunks (id INTEGER PRIMARY KEY, upload TEXT NOT NULL, start INTEGER NOT NULL,"
    " data BLOB NOT NULL, UNIQUE (upload, start))",
    "CREATE TABLE garbage (upload TEXT PRIMARY KEY, expires_ns INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE writes (id INTEGER PRIMARY KEY, write_id TEXT NOT NULL, op TEXT NOT NULL, key BLOB NOT NULL,"
    " outcome TEXT NOT NULL, expires_ns INTEGER NOT NULL, UNIQUE (write_id, op, key))",
    "CREATE INDEX writes_by_age ON writes (expires_ns)",
    "CREATE INDEX garbage_by_age ON garbage (expires_ns)",
)


@dataclass(slots=True)
class Job:
    """Work for a connection, who waits for it, and what came of it (a result or an exception)."""

    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    outcome: Any = None


class Snapshot:
    """Several reads of one moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, *exc: object) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")


class Threads:
    """Threads with one connection each, fed from one queue; what they find is handed back to the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: Sequence[sqlite3.Connection],
        run: Callable[[sqlite3.Connection, list[Job]], None],
        name: str,
        batch: int = BATCH,
    ) -> None:
        self._loop = loop
        self._run = run
        # Bounded by the requests in flight: each waits for one job at a time, or leaves one that undoes its upload.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, args=(db,), name=name, daemon=True) for db in connections]
        self._batch = batch if len(connections) == 1 else 1
        for thread in self._threads:
            thread.start()

    def post(self, work: Callable[[sqlite3.Connection], Any]) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        future.add_done_callback(_observe)
        self._jobs.put(Job(work, future))
        return future

    async def submit(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self.post(work)

    def stop(self) -> None:
        """Finish what is queued, then close the connections. Blocks."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, db: sqlite3.Connection) -> None:
        running = True
        while running and (job := self._jobs.get()) is not None:
            jobs = [job]
            # Where there are batches there is one thread, so what is there stays there.
            while len(jobs) < self._batch and not self._jobs.empty():
                if (job := self._jobs.get()) is None:
                    running = False
                    break
                jobs.append(job)
            self._run_live([job for job in jobs if not job.future.cancelled()], db)
        db.close()

    def _run_live(self, jobs: list[Job], db: sqlite3.Connection) -> None:
        if not jobs:
            return
        self._run(db, jobs)
        try:
            self._loop.call_soon_threadsafe(_deliver, jobs)
        except RuntimeError:  # the loop is gone, and with it whoever waited
            _log.warning("sqlite: %d outcomes came after the event loop had closed", len(jobs))


def _observe(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is not None:
        _log.debug("sqlite: %s", future.exception())


def _deliver(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if isinstance(job.outcome, BaseException):
            job.future.set_exception(job.outcome)
        else:
            job.future.set_result(job.outcome)


def run_reads(db: sqlite3.Connection, jobs: list[Job]) -> None:
    for job in jobs:
        try:
            job.outcome = job.work(db)
        except sqlite3.Error as error:
            job.outcome = _translate(error, ambiguous=False)
        except Exception as error:
            job.outcome = error


def run_changes(db: sqlite3.Connection, jobs: list[Job]) -> None:
    """One transaction for all; where the database refuses it, one for each, so that each gets its own answer."""
    began = committing = False
    try:
        db.execute("BEGIN IMMEDIATE")
        began = True
        for job in jobs:
            db.execute("SAVEPOINT change")
            try:
                job.outcome = job.work(db)
            except sqlite3.Error:
                raise
            except Exception as error:
                job.outcome = error
                db.execute("ROLLBACK TO change")
            db.execute("RELEASE change")
        sweep(db, len(jobs))
        committing = True
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if len(jobs) == 1 or committing or not began:
            for job in jobs:
                job.outcome = _translate(error, ambiguous=committing)
        else:
            for job in jobs:
                run_changes(db, [job])


def _translate(error: sqlite3.Error, *, ambiguous: bool) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return Quota(f"the disk of the database is full: {error}")
    if code == sqlite3.SQLITE_TOOBIG:
        return TooLarge(str(error))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_CANTOPEN):
        return PermissionDenied(f"the database cannot be used: {error}; check owner and mode of SQLITE_DIR")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"another process holds the database: {error}", ambiguous=False)
    return Unavailable(f"SQLite: {error}", ambiguous=ambiguous)


def open_all(path: str, timeout: float) -> list[sqlite3.Connection]:
    """The writing connection first, then the reading ones. Blocks."""
    connections: list[sqlite3.Connection] = []
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        connections.append(_open(path, timeout))
        _prepare(connections[0], path, timeout)
        connections.extend(_open(path, timeout) for _ in range(READERS))
    except BaseException as error:
        for db in connections:
            db.close()
        if isinstance(error, sqlite3.Error):
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
                raise BadRequest(f"{path} is not an SQLite database: move it away or choose another") from error
            raise _translate(error, ambiguous=False) from error
        if isinstance(error, OSError):
            raise PermissionDenied(f"SQLITE_DIR: {error}; choose a directory that can be written") from error
        raise
    return connections


def _open(path: str, timeout: float) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA journal_size_limit = 67108864")
    return db


def _prepare(db: sqlite3.Connection, path: str, timeout: float) -> None:
    """Make the schema, or see that it is ours before anything is changed."""
    with Snapshot(db):  # one moment: another process may be making the schema
        _recognise(db, path)
    _share(db, path, time.monotonic() + timeout)
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _recognise(db, path):
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    finally:
        db.execute("COMMIT")


def _recognise(db: sqlite3.Connection, path: str) -> bool:
    """Whether our schema is there already. Raises BadRequest where another one is."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application not in (0, APPLICATION_ID) or (tables and application != APPLICATION_ID):
        raise BadRequest(f"{path} is a database of another program: choose another STATE_BUCKET or SQLITE_DIR")
    if tables and version != SCHEMA_VERSION:
        raise BadRequest(
            f"{path} has schema {version}, and this proxy knows {SCHEMA_VERSION}:"
            " use the version of the proxy that wrote it, or a newer one"
        )
    return bool(tables)


def _share(db: sqlite3.Connection, path: str, deadline: float) -> None:
    """Switch to WAL. Two processes that start together: SQLite does not wait by itself here."""
    while True:
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise BadRequest(f"{path}: this filesystem cannot hold a shared database (no WAL); choose a local disk")
