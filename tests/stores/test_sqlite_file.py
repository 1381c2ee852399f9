"""The SQLite store where only its file can tell: several processes, deaths, what is left over, whose file it is."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asya_proxy.errors import BadRequest, PermissionDenied, StoreError, Unavailable
from asya_proxy.stores.base import ABSENT, ANY, CHUNK, Body, StoreConfig
from asya_proxy.stores.sqlite import SqliteStore
from asya_proxy.stores.sqlite_file import APPLICATION_ID, Job, Threads
from asya_proxy.testing.samples import change, cut, pattern, read, write

WORKER = """
import asyncio, sys
from asya_proxy.errors import Conflict
from asya_proxy.stores.base import Body, StoreConfig, match
from asya_proxy.stores.sqlite import SqliteStore
from asya_proxy.testing.samples import change, content, pattern, write

async def count(store, times):
    for _ in range(times):
        while True:
            reading = await store.get(b"counter")
            try:
                await write(store, b"counter", b"%d" % (int(await content(reading)) + 1), match(reading.stat.version))
                break
            except Conflict:
                pass

async def replace(store, first):
    '''Values that tell their number and size, acknowledged by number on standard output.'''
    for number in range(first, first + 10_000):
        data = b"%d " % number + pattern([1, 900, 1 << 20, 5_000_000, 70_000][number % 5], seed=number)
        await store.put(b"f", Body(data), change())
        print(number, flush=True)

async def main():
    store = SqliteStore(StoreConfig("bucket", "ns/actor/", {"SQLITE_DIR": sys.argv[1]}, attempt_timeout=30))
    await store.connect()
    await {"count": count, "replace": replace}[sys.argv[2]](store, int(sys.argv[3]))
    await store.close()

asyncio.run(main())
"""


def worker(directory: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(directory), *args], stdout=subprocess.PIPE, text=True)


@asynccontextmanager
async def opened(directory: Path, *, timeout: float = 5.0, window: float = 120.0) -> AsyncIterator[SqliteStore]:
    config = StoreConfig(
        "bucket", "ns/actor/", {"SQLITE_DIR": str(directory)}, attempt_timeout=timeout, write_window=window
    )
    store = SqliteStore(config)
    await store.connect()
    try:
        yield store
    finally:
        await store.close()


def rows(directory: Path, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(directory / "bucket.db")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


STRAYS = (
    "SELECT DISTINCT upload FROM chunks WHERE upload NOT IN (SELECT upload FROM objects WHERE upload IS NOT NULL)"
    " AND upload NOT IN (SELECT upload FROM garbage)"
)


async def test_counting_in_several_processes_is_exact(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await write(store, b"counter", b"0")
        workers = [worker(tmp_path, "count", "40") for _ in range(3)]
        assert [await asyncio.to_thread(process.wait, 60) for process in workers] == [0, 0, 0]
        assert await read(store, b"counter") == b"120"
    for process in workers:
        process.communicate()


async def test_killed_writers_leave_old_or_new(tmp_path: Path) -> None:
    number = 0
    for death in range(3):
        process = worker(tmp_path, "replace", str(number))
        assert process.stdout is not None
        # Let it get somewhere else each time, then end it in the midst of the next write.
        for _ in range(3 + death):
            number = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()  # not communicate(): it passes over what readline() has buffered
        process.stdout.close()
        process.wait(20)
        number = int(rest[-1]) if rest else number
        async with opened(tmp_path) as store:
            data = await read(store, b"f")
        assert data is not None
        found = int(data.partition(b" ")[0])
        assert found in (number, number + 1), "an acknowledged write is lost"
        assert data == b"%d " % found + pattern([1, 900, 1 << 20, 5_000_000, 70_000][found % 5], seed=found)
        assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]
        assert rows(tmp_path, STRAYS) == []
        number += 2


async def test_writes_are_synchronous(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store._write(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (2,)
        assert await store._write(lambda db: db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)


async def test_what_was_staged_for_nothing_is_swept(tmp_path: Path) -> None:
    large = pattern(2 * CHUNK + 5)
    async with opened(tmp_path) as store:
        await write(store, b"f", b"content")
        for attempt in (
            store.put(b"cut", Body(stream=cut([large])), change()),
            store.put(b"f", Body(large), change(ABSENT)),
            store.append(b"f/below", Body(large), change()),
        ):
            with pytest.raises(StoreError):
                await attempt
        for _ in range(6):
            await write(store, b"f", b"content")
        assert rows(tmp_path, "SELECT count(*) FROM chunks") == [(0,)]
        assert rows(tmp_path, "SELECT count(*) FROM garbage") == [(0,)]


async def test_no_chunk_outlives_its_object(tmp_path: Path) -> None:
    large = pattern(2 * CHUNK + 5)
    async with opened(tmp_path) as store:
        for key in (b"kept", b"replaced", b"deleted", b"renamed-over", b"moved", b"copied-over"):
            await write(store, key, large)
        await write(store, b"replaced", b"small")
        await store.delete(b"deleted", change())
        await store.rename(b"moved", b"renamed-over", change(), ANY)
        await store.copy(b"kept", b"copied-over", change(), ANY)
        mine = change()
        for _ in range(2):
            await store.append(b"copied-over", Body(large), mine)
        assert rows(tmp_path, STRAYS) == []
        assert await read(store, b"copied-over") == large * 2
        named = "SELECT count(*) FROM garbage WHERE upload IN (SELECT upload FROM objects)"
        assert rows(tmp_path, named) == [(0,)]


async def test_old_write_ids_are_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path, window=0.0) as store:
        for _ in range(200):
            await write(store, b"f", b"content")
    ((kept,),) = rows(tmp_path, "SELECT count(*) FROM writes")
    assert isinstance(kept, int)
    assert kept < 20


async def test_a_held_database_is_unavailable(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout=0.2) as store:
        await write(store, b"f", b"content")
        other = sqlite3.connect(tmp_path / "bucket.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(*(write(store, b"g", b"x") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, Unavailable) and not outcome.ambiguous for outcome in outcomes)
        assert await read(store, b"f") == b"content"
        other.execute("ROLLBACK")
        other.close()
        await write(store, b"g", b"y")


async def test_one_bad_change_does_not_harm_those_beside_it(tmp_path: Path) -> None:
    """They share a transaction."""
    async with opened(tmp_path) as store:
        await write(store, b"taken", b"")
        outcomes = await asyncio.gather(
            *(write(store, b"f%d" % number, b"") for number in range(10)),
            write(store, b"taken", b"", ABSENT),
            write(store, b"taken/below", b""),
            store._write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)")),
            *(write(store, b"g%d" % number, b"") for number in range(10)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, Exception) for outcome in outcomes] == [False] * 10 + [True] * 3 + [False] * 10
        assert len((await store.list(b"")).entries) == 21


async def test_the_loop_is_free_while_the_disk_works(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout=5) as store:
        other = sqlite3.connect(tmp_path / "bucket.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(write(store, b"f", b"content"))
        for _ in range(20):
            assert await store.head(b"f") is None
        assert not waiting.done()
        other.execute("COMMIT")
        other.close()
        await waiting


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["CREATE TABLE somebody (x)"], "another program"),
        (["PRAGMA application_id = 77", "CREATE TABLE somebody (x)"], "another program"),
        (
            [f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 99", "CREATE TABLE objects (x)"],
            "schema 99",
        ),
    ],
)
async def test_a_file_of_others_is_refused_untouched(tmp_path: Path, statements: list[str], said: str) -> None:
    db = sqlite3.connect(tmp_path / "bucket.db")
    for statement in statements:
        db.execute(statement)
    db.close()
    before = (tmp_path / "bucket.db").read_bytes()
    with pytest.raises(BadRequest, match=said):
        async with opened(tmp_path):
            pass
    assert (tmp_path / "bucket.db").read_bytes() == before


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bucket.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(BadRequest, match="not an SQLite database"):
        async with opened(tmp_path):
            pass


@pytest.mark.parametrize(
    ("environ", "bucket", "said"),
    [({}, "bucket", "SQLITE_DIR is not set"), ({"SQLITE_DIR": "/tmp"}, "../etc", "STATE_BUCKET '../etc'")],
)
async def test_bad_configuration_is_named(environ: dict[str, str], bucket: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        await SqliteStore(StoreConfig(bucket, "", environ)).connect()


async def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionDenied, match="SQLITE_DIR"):
        async with opened(tmp_path / "file" / "below"):
            pass


@pytest.mark.parametrize("prefix", ["", "ns/a/"])
async def test_the_directory_is_made(tmp_path: Path, prefix: str) -> None:
    store = SqliteStore(StoreConfig("bucket", prefix, {"SQLITE_DIR": str(tmp_path / "new" / "dir")}))
    await store.connect()
    await write(store, b"\xff", b"last name of all")
    assert [entry.key for entry in (await store.list(b"")).entries] == [b"\xff"]
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.ping()
    assert os.listdir(tmp_path / "new" / "dir") == ["bucket.db"]


async def test_what_has_queued_up_is_done_together_up_to_a_bound() -> None:
    """What waits while a thread is at work goes to the event loop in few messages, none of which takes for ever."""
    begun, release = threading.Event(), threading.Event()
    together: list[int] = []

    def run(_: sqlite3.Connection, jobs: list[Job]) -> None:
        together.append(len(jobs))
        begun.set()
        release.wait(10)
        for job in jobs:
            job.outcome = len(together)

    db = sqlite3.connect(":memory:", check_same_thread=False)
    threads = Threads(asyncio.get_running_loop(), [db], run, "test", 8)
    first = threads.post(lambda _: None)
    await asyncio.to_thread(begun.wait, 10)
    rest = [threads.post(lambda _: None) for _ in range(20)]
    release.set()
    assert await first == 1
    assert await asyncio.gather(*rest) == [2] * 8 + [3] * 8 + [4] * 4
    await asyncio.to_thread(threads.stop)
    assert together == [1, 8, 8, 4]
