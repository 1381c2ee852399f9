"""Stores, locks and asynchronous files."""

import asyncio
import warnings

import aiofiles
import aiofiles.os
import aiofiles.tempfile
import anyio
import diskcache
import fasteners
import filelock
import fsspec
import portalocker
import tinydb
from rows import tabulate
from tinydb.middlewares import CachingMiddleware
from tinydb.storages import JSONStorage

NAMES = "TinyDB aiofiles anyio diskcache fasteners filelock fsspec portalocker"
PACKAGES = {name: name.lower() for name in NAMES.split()}
ROWS = []
row = tabulate(ROWS)
BYTES = bytes(range(256)) * 50
LOCK_FILE = '`filelock.SoftFileLock`, or [`open(path, "x")`](locks.md)'


def put(path):
    with open(path, "wb") as f:
        f.write(BYTES)


def wait(function):
    """A coroutine function as a plain one."""
    return lambda path: asyncio.run(function(path))


def write_fsspec(path):
    files = fsspec.filesystem("file")
    with files.open(path + ".new", "wb") as f:
        f.write(BYTES)
    files.mv(path + ".new", path)
    with fsspec.open(f"file://{path}.gz", "wt", compression="gzip") as f:
        f.write("text")


def read_fsspec(path):
    files = fsspec.filesystem("file")
    with fsspec.open(path + ".gz", "rt", compression="gzip") as f:
        return (
            files.cat(path) == BYTES,
            files.size(path),
            files.isdir(path),
            f.read(),
            len(files.ls(files._parent(path))),
        )


def write_transaction(path):
    files = fsspec.filesystem("file", auto_mkdir=True)
    with files.transaction:
        with files.open(path, "wb") as f:
            f.write(BYTES)


row("fsspec", "filesystem('file'), open", write_fsspec, read_fsspec, by="path", tree=True)
row("fsspec", "transaction", write_transaction, lambda path: fsspec.filesystem("file").cat(path) == BYTES, by="path")


async def write_aiofiles(path):
    async with aiofiles.open(path, "wb") as f:
        await f.write(BYTES)
    async with aiofiles.tempfile.NamedTemporaryFile("wb", dir=path.rpartition("/")[0], delete=False) as f:
        await f.write(b"temporary")
    await aiofiles.os.replace(str(f.name), path + "2")


async def read_aiofiles(path):
    found = await aiofiles.os.stat(path)
    async with aiofiles.open(path, "rb") as f, aiofiles.open(path + "2") as g:
        return found.st_size, await f.read() == BYTES, [line async for line in g], await aiofiles.os.path.exists(path)


async def write_anyio(path):
    async with await anyio.open_file(path, "wb") as f:
        await f.write(BYTES)
    await anyio.Path(path + "2").write_text("text")


async def read_anyio(path):
    names = sorted([child.name async for child in anyio.Path(path).parent.iterdir()])
    async with await anyio.open_file(path, "rb") as f:
        return await f.read() == BYTES, await anyio.Path(path + "2").read_text(), names


row("aiofiles", "open, os, tempfile", wait(write_aiofiles), wait(read_aiofiles), by="path", tree=True)
row("anyio", "open_file, Path", wait(write_anyio), wait(read_anyio), by="path", tree=True)


def locking(make):
    """A lock is taken, refused to a second one, given back, and taken anew."""

    def use(path):
        with make(path):
            try:
                make(path).acquire(timeout=0.05)
            except (filelock.Timeout, portalocker.LockException):
                refused = True
            else:
                refused = False
        with make(path):
            return refused

    return use


def write_under(use):
    def write(path):
        assert use(path + ".lock")
        put(path)

    return write


def content(path):
    with open(path, "rb") as f:
        return f.read() == BYTES


row(
    "filelock", "SoftFileLock", write_under(locking(filelock.SoftFileLock)), content, by="path", tree=True, only="write"
)
row("filelock", "FileLock", write_under(locking(filelock.FileLock)), content, by="path", tree=True, only="write")


def fastened(path):
    with fasteners.InterProcessLock(path):
        return True


def ported(path):
    with portalocker.Lock(path, timeout=0.1):
        return True


row(
    "fasteners",
    "InterProcessLock",
    write_under(fastened),
    content,
    by="path",
    tree=True,
    only="write",
    instead=LOCK_FILE,
)
row("portalocker", "Lock", write_under(ported), content, by="path", tree=True, only="write", instead=LOCK_FILE)


def write_tinydb(path):
    with tinydb.TinyDB(path) as database:
        database.insert({"a": 1})
        database.insert({"a": 2, "text": "é"})
        database.update({"b": 3}, tinydb.where("a") == 1)
    with tinydb.TinyDB(path + "-cached", storage=CachingMiddleware(JSONStorage)) as database:
        database.insert_multiple({"n": n} for n in range(10))


def read_tinydb(path):
    with tinydb.TinyDB(path) as one, tinydb.TinyDB(path + "-cached") as two:
        return one.search(tinydb.where("b") == 3), len(one), len(two)


row("TinyDB", "TinyDB, CachingMiddleware", write_tinydb, read_tinydb, by="path", tree=True)


def write_diskcache(path):
    with diskcache.Cache(path) as cache:
        cache["a"] = BYTES


def read_diskcache(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with diskcache.Cache(path) as cache:
            return cache["a"] == BYTES


row(
    "diskcache",
    "Cache",
    write_diskcache,
    read_diskcache,
    by="path",
    tree=True,
    instead="`shelve`, or a cache in `/tmp`",
)
