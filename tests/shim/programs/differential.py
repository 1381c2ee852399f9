"""Small programs of file operations, each run in a real directory and below a mount; prints JSON of both outcomes.

A program gets its directory as a string and returns whatever it saw. An exception is an outcome like
any other: type and errno. Run by an interpreter of any version with the shim on its path.
"""

# ruff: noqa: SIM115, UP031

import array
import bz2
import codecs
import csv
import ctypes
import errno
import fileinput
import glob
import gzip
import io
import json
import logging
import logging.handlers
import lzma
import mailbox
import mmap
import os
import pathlib
import pickle
import shelve
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import wave
import zipfile

PROGRAMS = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def put(path, data=b"", mode="wb"):
    with open(path, mode) as f:
        f.write(data)
    return path


def get(path):
    with open(path, "rb") as f:
        return f.read()


def tried(call, *args, **kwargs):
    """The value, or the exception's type and errno."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, getattr(error, "errno", None)


def j(*parts):
    return os.path.join(*parts)


# open() and its modes


@program
def write_then_read(d):
    put(j(d, "a"), b"hello")
    return get(j(d, "a"))


@program
def read_missing(d):
    try:
        open(j(d, "nope"))
    except OSError as error:
        return type(error).__name__, error.errno, error.strerror, error.filename == j(d, "nope")


@program
def every_mode_on_every_state(d):
    out = []
    os.mkdir(j(d, "dir"))
    for mode in ("r", "w", "x", "a", "r+", "w+", "x+", "a+", "rb", "wb", "xb", "ab", "rb+", "w+b", "+xb", "ba+"):
        for name in ("missing", "there", "dir"):
            path = j(d, name)
            if name == "there":
                put(path, b"0123456789")
            elif name == "missing" and os.path.exists(path):
                os.remove(path)
            if name == "dir" and mode.replace("b", "").strip("+")[0] in "wa":
                continue  # said at close in LWW
            out.append((mode, name, tried(_exercise, path, mode)))
            out.append(tried(get, path) if name != "dir" else None)
    return out


def _exercise(path, mode):
    seen = []
    with open(path, mode) as f:
        data = b"XY" if "b" in mode else "XY"
        seen.append((f.mode, f.readable(), f.writable(), f.seekable(), f.tell(), f.isatty(), f.closed))
        seen.append(tried(f.read, 3))
        seen.append(f.tell())
        f.seek(0, 2)
        seen.append(f.tell())
        f.seek(2)
        seen.append(tried(f.write, data))
        seen.append(f.tell())
        seen.append(tried(f.truncate))
        f.seek(0)
        seen.append(tried(f.read))
    seen.append(f.closed)
    seen.append(tried(f.read))
    return seen


@program
def wrong_modes(d):
    path = put(j(d, "a"), b"x")
    out = []
    for mode in ("", "rw", "q", "rr", "bt", "rbt", "+", "b", "wa", "rwb", "U+", 5, None):
        try:
            open(path, mode)
        except Exception as error:
            out.append((type(error).__name__, str(error)))
    return out


@program
def wrong_arguments(d):
    path = put(j(d, "a"), b"x")
    out = []
    for kwargs in (
        {"mode": "rb", "encoding": "utf-8"},
        {"mode": "rb", "errors": "strict"},
        {"mode": "rb", "newline": ""},
        {"mode": "r", "newline": "x"},
        {"mode": "r", "buffering": 0},
        {"mode": "r", "closefd": False},
        {"mode": "r", "encoding": "no-such-encoding"},
        {"buffering": "x"},
    ):
        try:
            open(path, **kwargs)
        except Exception as error:
            out.append((type(error).__name__, str(error)))
    return out


@program
def wrong_paths(d):
    return [
        tried(open, j(d, "a\0b")),
        tried(os.stat, j(d, "a\0b")),
        tried(open, ""),
        tried(os.stat, ""),
        tried(open, j(d, "n" * 256), "w") if False else None,
        tried(os.listdir, j(d, "nope")),
    ]


@program
def text_layers(d):
    path = j(d, "t")
    out = []
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"):
        for newline in (None, "", "\n", "\r\n"):
            with open(path, "w", encoding=encoding, newline=newline) as f:
                f.write("één\ntwo\r\nthree\r")
                f.writelines(["a\n", "b"])
            out.append(get(path))
            with open(path, "a", encoding=encoding, newline=newline) as f:
                f.write("more\n")
            out.append(get(path))
            with open(path, encoding=encoding, newline=newline) as f:
                out.append(f.readlines())
                out.append(repr(f.newlines))
    with open(path, "w", encoding="ascii", errors="replace") as f:
        f.write("é")
    out.append(get(path))
    return out


@program
def seek_and_overwrite(d):
    path = put(j(d, "a"), b"0123456789")
    with open(path, "r+b") as f:
        f.seek(3)
        f.write(b"abc")
        f.seek(-2, 1)
        f.write(b"ZZ")
        f.seek(-1, 2)
        f.write(b"!!!")
        out = [f.tell()]
        f.seek(0)
        out.append(f.read())
        out.append(tried(f.seek, -1))
        out.append(tried(f.seek, 0, 9))
    return out, get(path)


@program
def sparse(d):
    path = j(d, "a")
    with open(path, "wb") as f:
        f.seek(100)
        f.write(b"x")
    with open(path, "r+b") as f:
        f.truncate(50)
        f.seek(0, 2)
        size = f.tell()
        f.truncate(60)
    return size, get(path), os.stat(path).st_size


@program
def text_seek_tell(d):
    path = put(j(d, "a"), "één\ntwee\ndrie\n".encode())
    with open(path, encoding="utf-8") as f:
        first = f.readline()
        at = f.tell()
        rest = f.read()
        f.seek(at)
        return first, at, rest, f.read(), f.seek(0, 2)


@program
def iterate_lines(d):
    path = put(j(d, "a"), b"a\nb\nc")
    with open(path) as f:
        text = list(f)
    with open(path, "rb") as f:
        return text, list(f)


@program
def buffering(d):
    path = j(d, "a")
    out = []
    for size in (0, 2, 16, 8192):
        with open(path, "wb", buffering=size) as f:
            f.write(b"abcdef")
            with open(path, "rb") as g:
                out.append(g.read())
        with open(path, "rb", buffering=size) as f:
            out.append((f.read(1), f.read(3), f.read()))
    with open(path, "w", buffering=1) as f:
        f.write("line\nrest")
        with open(path) as g:
            out.append(g.read())
    return out


@program
def peek_readinto(d):
    path = put(j(d, "a"), bytes(range(200)))
    with open(path, "rb") as f:
        buffer = bytearray(10)
        return f.peek(3)[:3], f.readinto(buffer), bytes(buffer), f.read1(5), f.tell()


@program
def read_write_mix(d):
    path = put(j(d, "a"), b"line1\nline2\n")
    with open(path, "r+") as f:
        first = f.readline()
        f.seek(f.tell())
        f.write("LINE2")
        f.flush()
        f.seek(0)
        return first, f.read()


@program
def attributes_of_files(d):
    path = put(j(d, "a"), b"x")
    with open(path) as f:
        text = (f.name == path, f.mode, f.encoding is not None, type(f.buffer).__mro__[-4:][0].__name__)
    with open(path, "rb") as f:
        binary = (f.name == path, f.mode, isinstance(f, io.BufferedReader), isinstance(f.raw, io.RawIOBase))
    with open(path, "rb", 0) as f:
        raw = (f.name == path, f.mode, isinstance(f, io.FileIO), isinstance(f, io.IOBase))
    with open(pathlib.Path(path)) as f:
        return text, binary, raw, f.name == path


@program
def exclusive(d):
    path = j(d, "lock")
    with open(path, "x") as f:
        second = tried(open, path, "x")
        f.write("me")
    return second, get(path), tried(open, path, "x")


@program
def append_many(d):
    path = j(d, "log")
    for n in range(5):
        with open(path, "a") as f:
            f.write("line %d\n" % n)
    with open(path, "a+") as f:
        at = f.tell()
        f.seek(0)
        text = f.read()
        f.seek(0)
        f.write("end\n")
    return at, text, get(path)


@program
def empty_files(d):
    open(j(d, "a"), "w").close()
    open(j(d, "b"), "a").close()
    open(j(d, "c"), "x").close()
    put(j(d, "d"), b"full")
    open(j(d, "d"), "w").close()
    return [get(j(d, n)) for n in "abcd"], sorted(os.listdir(d))


@program
def closed_file(d):
    f = open(j(d, "a"), "w")
    f.close()
    f.close()
    return [
        tried(getattr(f, name), *args)
        for name, args in (("write", ("x",)), ("read", ()), ("flush", ()), ("fileno", ()), ("seek", (0,)))
    ]


@program
def wrong_direction(d):
    path = put(j(d, "a"), b"x")
    with open(path) as r, open(j(d, "b"), "w") as w, open(path, "rb", 0) as raw:
        return [tried(r.write, "x"), tried(w.read), tried(raw.write, b"x"), tried(r.truncate), tried(raw.truncate)]


# Coherence of handles and names


@program
def second_handle_sees_flush(d):
    path = j(d, "a")
    with open(path, "w") as w:
        w.write("one")
        before = get(path), os.path.getsize(path)
        w.flush()
        with open(path) as r:
            after = r.read(), os.path.getsize(path)
            w.write("two")
            w.flush()
            return before, after, r.read(), os.listdir(d)


@program
def reader_sees_truncation(d):
    path = put(j(d, "a"), b"0123456789")
    with open(path, "rb", 0) as r, open(path, "w") as w:
        first = r.read()
        w.write("new")
        w.flush()
        return first, r.read(), r.seek(0), r.read()


@program
def two_appenders(d):
    path = j(d, "log")
    with open(path, "a") as a, open(path, "a") as b:
        a.write("a1\n")
        a.flush()
        b.write("b1\n")
        b.flush()
        a.write("a2\n")
    return get(path)


@program
def append_while_written(d):
    path = j(d, "a")
    with open(path, "w") as w:
        w.write("head\n")
        w.flush()
        with open(path, "a") as a:
            a.write("tail\n")
        with open(path) as r:
            seen = r.read()
    return seen, get(path)


@program
def unlink_open_file(d):
    path = put(j(d, "a"), b"old")
    with open(path, "r+b") as f:
        os.unlink(path)
        f.write(b"new")
        f.seek(0)
        inside = f.read(), os.path.exists(path), os.listdir(d)
    return inside, os.path.exists(path)


@program
def unlink_new_file(d):
    path = j(d, "a")
    with open(path, "w") as f:
        f.write("x")
        os.unlink(path)
        inside = os.path.exists(path)
    return inside, os.path.exists(path), tried(os.unlink, path)


@program
def rename_open_file(d):
    a, b = j(d, "a"), j(d, "b")
    with open(a, "w") as f:
        f.write("one")
        f.flush()
        os.rename(a, b)
        f.write("two")
    return os.listdir(d), get(b), os.path.exists(a)


@program
def replace_open_target(d):
    a, b = put(j(d, "a"), b"new"), put(j(d, "b"), b"old")
    with open(b, "r+b") as f:
        os.replace(a, b)
        f.write(b"lost")
    return get(b), os.listdir(d)


@program
def atomic_write(d):
    target = put(j(d, "t"), b"old")
    fd, name = tempfile.mkstemp(dir=d)
    with os.fdopen(fd, "w") as f:
        f.write("new")
        f.flush()
        os.fsync(f.fileno())
    os.replace(name, target)
    return get(target), os.listdir(d)


@program
def fsync_keeps_handle(d):
    path = j(d, "a")
    with open(path, "w") as f:
        for n in range(3):
            f.write("%d" % n)
            f.flush()
            os.fsync(f.fileno())
        f.write("end")
    return get(path)


# Names


@program
def errors_of_names(d):
    put(j(d, "f"), b"x")
    os.mkdir(j(d, "d"))
    os.mkdir(j(d, "full"))
    put(j(d, "full", "x"), b"x")
    f, e, full, no = j(d, "f"), j(d, "d"), j(d, "full"), j(d, "no")
    return [
        tried(os.mkdir, f),
        tried(os.mkdir, e),
        tried(os.rmdir, f),
        tried(os.rmdir, full),
        tried(os.rmdir, no),
        tried(os.unlink, e),
        tried(os.unlink, no),
        tried(os.remove, no),
        tried(os.listdir, f),
        tried(os.scandir, no),
        tried(os.stat, j(f, "x")),
        tried(open, j(f, "x")),
        tried(open, e),
        tried(os.rename, no, f),
        tried(os.rename, f, e),
        tried(os.rename, e, f),
        tried(os.rename, e, full),
        tried(os.rename, full, j(full, "y")),
        tried(os.truncate, no, 0),
        tried(os.truncate, f, -1),
        tried(os.readlink, f),
        tried(os.readlink, no),
        tried(os.chmod, no, 0o600),
        tried(os.utime, no),
        tried(os.access, no, os.F_OK),
        tried(os.access, f, os.R_OK),
        tried(os.chdir, f),
        tried(os.chdir, no),
        tried(os.stat, f + "/"),
        tried(open, f + "/"),
        tried(os.statvfs, no),
        tried(os.makedirs, e),
        tried(os.makedirs, e, exist_ok=True),
        tried(os.makedirs, f, exist_ok=True),
        tried(os.removedirs, full),
    ]


@program
def directories_live(d):
    os.makedirs(j(d, "a", "b", "c"))
    put(j(d, "a", "f"), b"x")
    os.unlink(j(d, "a", "f"))
    os.rmdir(j(d, "a", "b", "c"))
    kept = os.path.isdir(j(d, "a", "b")), os.listdir(j(d, "a"))
    os.rmdir(j(d, "a", "b"))
    return kept, os.listdir(j(d, "a")), os.path.isdir(j(d, "a"))


@program
def walk_and_glob(d):
    for name in ("a/1.txt", "a/b/2.txt", "c/3.md", "4.txt", "a/.hidden", "é ü/5.txt"):
        os.makedirs(os.path.dirname(j(d, name)), exist_ok=True)
        put(j(d, name), name.encode())
    walked = sorted((top, sorted(dirs), sorted(files)) for top, dirs, files in os.walk(d))
    bottom = sorted(top for top, _, _ in os.walk(d, topdown=False))
    flat = sorted(top for top, _, _, _ in os.fwalk(d))
    return (
        walked,
        bottom,
        flat,
        sorted(glob.glob(j(d, "*"))),
        sorted(glob.glob(j(d, "**", "*.txt"), recursive=True)),
        glob.glob(j(d, "a", "1.txt")),
        glob.glob(j(d, "a", "no.txt")),
        sorted(map(str, pathlib.Path(d).glob("*.txt"))),
        sorted(map(str, pathlib.Path(d).rglob("*.txt"))),
        sorted(map(str, pathlib.Path(d).glob("a/*"))),
        sorted(map(str, pathlib.Path(d).iterdir())),
    )


@program
def closed_at_the_bottom(d):
    path = put(j(d, "a"), b"0123")
    out = []
    for mode in ("rb", "r+b", "ab"):
        raw = open(path, mode, buffering=0)
        with open(path, mode) as f:
            below = f.raw
            out.append((tried(f.flush), tried(below.flush), tried(setattr, below, "closed", True), below.closed))
        out.append((tried(raw.flush), tried(setattr, raw, "closed", True), tried(delattr, raw, "closed"), raw.closed))
        raw.close()
        raw.close()
        for file in (raw, below):
            out.append((file.closed, tried(setattr, file, "closed", False), file.closed))
            for name in (
                "flush",
                "readline",
                "readlines",
                "isatty",
                "seekable",
                "readable",
                "writable",
                "fileno",
                "tell",
            ):
                out.append((name, tried(getattr(file, name))))
            for name in ("__enter__", "__iter__", "__next__", "read", "readall", "truncate"):
                out.append((name, tried(getattr(file, name))))
            out.append((tried(file.write, b"x"), tried(file.seek, 0), tried(file.readinto, bytearray(1)), file.close()))
    return out, get(path)


@program
def unbuffered_views(d):
    """Views of more dimensions than one, of none, with gaps, and of nothing."""
    views = {
        "flat": memoryview(b"abcdef"),
        "rows": memoryview(b"abcdef").cast("B", (2, 3)),
        "numbers": memoryview(bytes(range(24))).cast("i", (2, 3)),
        "scalar": memoryview(b"a").cast("B", ()),
        "strided": memoryview(b"abcdef")[::2],
        "reversed": memoryview(b"abcdef")[::-1],
        "empty": memoryview(b""),
        "no numbers": array.array("i"),
        "structured": (ctypes.c_int * 2)(1, 2),
    }
    out = []
    for mode in ("wb", "ab", "r+b", "w+b"):
        for name, view in views.items():
            path = put(j(d, "a"), b"0123456789")
            with open(path, mode, buffering=0) as f:
                out.append((mode, name, tried(f.write, view), tried(f.write, b"XY"), f.tell()))
            out.append(get(path))
    return out


@program
def scandir_entries(d):
    put(j(d, "f"), b"123")
    os.mkdir(j(d, "s"))
    out = []
    for base in (d, os.fsencode(d)):
        with os.scandir(base) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                out.append(
                    (entry.name, entry.path, entry.is_dir(), entry.is_file(), entry.is_symlink(), os.fspath(entry))
                )
                if entry.is_file():
                    out.append(entry.stat().st_size)
                    out.append(entry.inode() == os.stat(entry.path).st_ino)
    return out, sorted(os.listdir(os.fsencode(d)))


@program
def rename_directory(d):
    os.makedirs(j(d, "a", "b"))
    put(j(d, "a", "b", "f"), b"1")
    put(j(d, "a", "g"), b"2")
    os.rename(j(d, "a"), j(d, "z"))
    return sorted(os.listdir(d)), get(j(d, "z", "b", "f")), os.path.exists(j(d, "a")), tried(os.listdir, j(d, "a"))


@program
def rename_over(d):
    put(j(d, "a"), b"a")
    put(j(d, "b"), b"b")
    os.rename(j(d, "a"), j(d, "b"))
    os.rename(j(d, "b"), j(d, "b"))
    return os.listdir(d), get(j(d, "b"))


@program
def strange_names(d):
    names = ["a b", "a%2Fb", "ü", "a?b=c&d", "#x", "'q'", '"q"', "a\\b", "a\nb", "~", ".dot", "..dots", "a;b", "é" * 60]
    for name in names:
        put(j(d, name), name.encode())
    raw = j(os.fsencode(d), b"\xff\xfe")
    put(raw, b"raw")
    return sorted(os.listdir(os.fsencode(d))), [get(j(d, name)) for name in names], get(raw), get(os.fsdecode(raw))


@program
def odd_spellings(d):
    put(j(d, "a"), b"x")
    os.mkdir(j(d, "s"))
    return [
        get(d + "//a"),
        get(d + "/./a"),
        get(d + "/s/../a"),
        get("/" + d + "/a") if not d.startswith("//") else None,
        os.path.isdir(d + "/s/"),
        os.path.isdir(d + "/s/."),
        os.path.exists(d + "/a/"),
        sorted(os.listdir(d + "/s/..")),
    ]


@program
def working_directory(d):
    before = os.getcwd()
    os.makedirs(j(d, "s", "t"))
    put(j(d, "s", "f"), b"here")
    os.chdir(j(d, "s"))
    try:
        out = [
            os.getcwd() == j(d, "s"),
            get("f"),
            get("./f"),
            sorted(os.listdir()),
            sorted(os.listdir(".")),
            os.path.abspath("f") == j(d, "s", "f"),
            os.path.exists("nope"),
            sorted(str(p) for p in pathlib.Path().iterdir()),
            sorted(e.path for e in os.scandir()),
            sorted(glob.glob("*")),
            pathlib.Path.cwd() == pathlib.Path(j(d, "s")),
        ]
        os.chdir("t")
        out.append(os.getcwd() == j(d, "s", "t"))
        put("g", b"1")
        os.chdir("..")
        out.append(get("t/g"))
    finally:
        os.chdir(before)
    return out, os.getcwd() == before


@program
def dir_fds(d):
    os.mkdir(j(d, "s"))
    fd = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
    try:
        f = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        os.write(f, b"x")
        os.close(f)
        out = [
            stat.S_ISDIR(os.fstat(fd).st_mode),
            os.stat("f", dir_fd=fd).st_size,
            sorted(os.listdir(fd)),
            sorted(e.name for e in os.scandir(fd)),
            os.access("f", os.R_OK, dir_fd=fd),
        ]
        os.mkdir("n", dir_fd=fd)
        os.rename("f", "n/g", src_dir_fd=fd, dst_dir_fd=fd)
        out.append(tried(os.unlink, "f", dir_fd=fd))
        os.unlink("n/g", dir_fd=fd)
        os.rmdir("n", dir_fd=fd)
    finally:
        os.close(fd)
    return out, tried(os.fstat, fd), sorted(os.listdir(d))


@program
def a_file_keeps_its_name(d):
    """Whatever else it was called by: a number, bytes, a `Path`."""
    out = []
    path = put(j(d, "f"), b"x")
    fd = os.open(path, os.O_RDONLY)
    for call in (os.scandir, os.listdir, os.chdir):
        try:
            call(fd)
        except OSError as error:
            out.append((type(error).__name__, error.errno, error.filename == fd))
    os.close(fd)
    for other in (os.fsencode(path), pathlib.Path(path)):
        with open(other, "rb") as f:
            out.append(f.name == other)
        out.append(tried(os.scandir, other))
    with open(path) as f:
        out.append(f.name == path)
    os.remove(path)
    for call in (open, os.stat, os.remove, os.scandir):
        try:
            call(path)
        except OSError as error:
            out.append((type(error).__name__, error.filename == path))
    return out


# Metadata


@program
def stat_fields(d):
    a, b = put(j(d, "a"), b"123"), put(j(d, "b"), b"123")
    os.mkdir(j(d, "s"))
    sa, sb, ss = os.stat(a), os.stat(b), os.stat(j(d, "s"))
    return [
        sa.st_size,
        stat.S_ISREG(sa.st_mode),
        stat.S_ISDIR(ss.st_mode),
        sa.st_ino != sb.st_ino,
        sa.st_dev == sb.st_dev == ss.st_dev,
        os.path.samefile(a, a),
        os.path.samefile(a, b),
        os.path.ismount(j(d, "s")),
        sa.st_mtime_ns > 10**18,
        abs(sa.st_mtime - sa.st_mtime_ns / 1e9) < 1e-3,
        sa.st_nlink,
        os.stat(a).st_ino == sa.st_ino,
        os.lstat(a) == os.stat(a),
        os.path.getsize(a),
        len(sa),
        stat.filemode(sa.st_mode),
    ]


@program
def fstat_agrees(d):
    path = put(j(d, "a"), b"123")
    with open(path, "r+b") as f:
        one = os.fstat(f.fileno())
        two = os.stat(path)
        out = (one.st_ino == two.st_ino, one.st_dev == two.st_dev, one.st_size == two.st_size)
        f.write(b"longer")
        f.flush()
        return (
            out,
            os.fstat(f.fileno()).st_size,
            os.stat(f.fileno()).st_size,
            os.path.samestat(os.fstat(f.fileno()), os.stat(path)),
        )


@program
def permissions(d):
    path = put(j(d, "a"), b"")
    os.chmod(path, 0o600)
    one = stat.S_IMODE(os.stat(path).st_mode)
    os.rename(path, j(d, "b"))
    pathlib.Path(d, "b").chmod(0o640)
    return oct(one), oct(stat.S_IMODE(os.stat(j(d, "b")).st_mode))


@program
def times_after_write(d):
    path = put(j(d, "a"), b"x")
    os.utime(path, (1000, 2000))
    one = os.stat(path)
    os.utime(path, ns=(3 * 10**9, 4 * 10**9 + 5))
    two = os.stat(path)
    return one.st_atime, one.st_mtime, two.st_mtime_ns, os.path.getmtime(path)


@program
def truncate_path(d):
    path = put(j(d, "a"), b"0123456789")
    os.truncate(path, 4)
    one = get(path)
    os.truncate(path, 6)
    return one, get(path)


# Descriptors


@program
def os_open_flags(d):
    path = j(d, "a")
    out = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    out.append(tried(os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    out.append(os.write(fd, b"hello world"))
    out.append(os.lseek(fd, 0, os.SEEK_SET))
    out.append(os.read(fd, 5))
    out.append(os.pread(fd, 5, 6))
    out.append(os.pwrite(fd, b"W", 6))
    os.close(fd)
    out.append(get(path))
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"!")
    os.close(fd)
    out.append(get(path))
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.close(fd)
    out.append(get(path))
    fd = os.open(path, os.O_RDONLY)
    out.append(tried(os.write, fd, b"x"))
    out.append(os.read(fd, 10))
    os.close(fd)
    fd = os.open(j(d, "new"), os.O_WRONLY | os.O_CREAT)
    out.append(tried(os.read, fd, 1))
    os.close(fd)
    out.append(tried(os.open, j(d, "no"), os.O_RDONLY))
    out.append(tried(os.open, j(d, "no"), os.O_WRONLY | os.O_TRUNC))
    out.append(tried(os.open, j(d, "no"), os.O_WRONLY | os.O_APPEND))
    out.append(tried(os.open, d, os.O_WRONLY))
    out.append(tried(os.open, path, os.O_RDONLY | os.O_DIRECTORY))
    out.append(tried(os.close, fd))
    return out, sorted(os.listdir(d))


@program
def dup_and_close(d):
    fd = os.open(j(d, "a"), os.O_RDWR | os.O_CREAT)
    other = os.dup(fd)
    os.write(fd, b"one")
    os.close(fd)
    os.write(other, b"two")
    os.fsync(other)
    middle = get(j(d, "a"))
    os.close(other)
    return middle, get(j(d, "a"))


@program
def ftruncate_fd(d):
    fd = os.open(j(d, "a"), os.O_RDWR | os.O_CREAT)
    os.write(fd, b"0123456789")
    os.ftruncate(fd, 3)
    out = [os.fstat(fd).st_size]
    os.truncate(fd, 5)
    out.append(os.fstat(fd).st_size)
    os.close(fd)
    return out, get(j(d, "a"))


@program
def fdopen_modes(d):
    fd = os.open(j(d, "a"), os.O_RDWR | os.O_CREAT)
    with os.fdopen(fd, "w+") as f:
        f.write("text\n")
        f.seek(0)
        out = [f.read(), isinstance(f.name, int)]
    return out, get(j(d, "a")), tried(os.fstat, fd)


@program
def fdopen_closefd(d):
    fd = os.open(j(d, "a"), os.O_WRONLY | os.O_CREAT)
    with open(fd, "wb", closefd=False) as f:
        f.write(b"one")
    os.write(fd, b"two")
    os.close(fd)
    return get(j(d, "a"))


@program
def subprocess_streams(d):
    with open(j(d, "out"), "wb") as f:
        subprocess.run(["echo", "hi"], stdout=f, check=True)
    with open(j(d, "out"), "ab") as f:
        subprocess.run(["echo", "again"], stdout=f, check=True)
    with open(j(d, "out"), "rb") as f:
        return subprocess.run(["cat"], stdin=f, stdout=subprocess.PIPE, check=True).stdout


@program
def mmap_read(d):
    path = put(j(d, "a"), b"0123456789")
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
        return m[2:5], m.find(b"7")


@program
def mmap_write(d):
    path = put(j(d, "a"), b"0123456789")
    with open(path, "r+b") as f:
        with mmap.mmap(f.fileno(), 0) as m:
            m[0:3] = b"abc"
            m.flush()
    return get(path)


@program
def positions_are_shared_with_the_descriptor(d):
    path = put(j(d, "a"), b"0123456789")
    with open(path, "rb", 0) as f:
        f.read(3)
        return os.read(f.fileno(), 3), f.read(2), f.tell()


# The standard library


@program
def json_pickle_csv(d):
    with open(j(d, "j"), "w") as f:
        json.dump({"a": [1, 2]}, f)
    with open(j(d, "p"), "wb") as f:
        pickle.dump({1, 2}, f)
    with open(j(d, "c"), "w", newline="") as f:
        csv.writer(f).writerows([[1, "x"], [2, 'y"z']])
    with open(j(d, "j")) as a, open(j(d, "p"), "rb") as b, open(j(d, "c"), newline="") as c:
        return json.load(a), pickle.load(b), list(csv.reader(c))


@program
def compressors(d):
    out = []
    for module, name in ((gzip, "gz"), (bz2, "bz2"), (lzma, "xz")):
        path = j(d, name)
        with module.open(path, "wb") as f:
            f.write(b"hello " * 100)
        with module.open(path, "ab") as f:
            f.write(b"more")
        with module.open(path, "rt") as f:
            out.append(len(f.read()))
        with module.open(path, "wt", encoding="utf-8") as f:
            f.write("één")
        with module.open(path, "rt", encoding="utf-8") as f:
            out.append(f.read())
    os.remove(j(d, "gz"))  # holds the time
    return out


@program
def archives(d):
    put(j(d, "in"), b"content")
    with zipfile.ZipFile(j(d, "z"), "w") as z:
        z.write(j(d, "in"), "in")
        z.writestr("two", b"2")
    with zipfile.ZipFile(j(d, "z"), "a") as z:
        z.writestr("three", b"3")
    with zipfile.ZipFile(j(d, "z")) as z:
        names = z.namelist(), z.read("in"), z.testzip()
        z.extractall(j(d, "ex"))
    with tarfile.open(j(d, "t.tgz"), "w:gz") as t:
        t.add(j(d, "in"), "in")
        t.add(j(d, "ex"), "ex")
    with tarfile.open(j(d, "t.tgz")) as t:
        members = t.getnames()
        kwargs = {"filter": "data"} if sys.version_info >= (3, 12) else {}
        t.extractall(j(d, "tex"), **kwargs)
    made = shutil.make_archive(j(d, "made"), "zip", j(d, "ex"))
    shutil.unpack_archive(made, j(d, "unpacked"))
    os.remove(made)
    os.remove(j(d, "z"))
    os.remove(j(d, "t.tgz"))
    return (
        names,
        members,
        sorted(os.listdir(j(d, "unpacked"))),
        zipfile.is_zipfile(j(d, "in")),
        tarfile.is_tarfile(j(d, "in")),
    )


@program
def aborted_blocks_raise_on(d):
    try:
        with open(j(d, "a"), "w") as f:
            f.write("x")
            raise KeyError("mine")
    except KeyError as error:
        out = error.args
    if os.path.exists(j(d, "a")):
        os.remove(j(d, "a"))
    return out


@program
def shelves(d):
    import dbm.dumb

    with shelve.Shelf(dbm.dumb.open(j(d, "s"), "c")) as s:
        s["a"] = [1]
        s["b"] = {"x": 2}
        del s["a"]
    with shelve.Shelf(dbm.dumb.open(j(d, "s"), "w")) as s:
        return dict(s), len(s)


@program
def temporary(d):
    with tempfile.NamedTemporaryFile("w+", dir=d, suffix=".t") as f:
        f.write("x")
        f.flush()
        inside = os.path.exists(f.name), get(f.name)
    gone = not os.path.exists(f.name)
    with tempfile.TemporaryFile(dir=d) as f:
        f.write(b"y")
        f.seek(0)
        anonymous = f.read()
    with tempfile.TemporaryDirectory(dir=d) as t:
        put(j(t, "x"), b"1")
        os.mkdir(j(t, "s"))
        names = sorted(os.listdir(t))
    with tempfile.SpooledTemporaryFile(max_size=2, dir=d) as f:
        f.write(b"spooled over")
        f.seek(0)
        spooled = f.read()
    fd, path = tempfile.mkstemp(dir=d)
    mode = oct(stat.S_IMODE(os.stat(path).st_mode))
    os.close(fd)
    os.unlink(path)
    made = tempfile.mkdtemp(dir=d)
    os.rmdir(made)
    return inside, gone, anonymous, names, spooled, mode, os.listdir(d)


@program
def shutil_family(d):
    a = put(j(d, "a"), b"x" * 100000)
    shutil.copy(a, j(d, "b"))
    shutil.copyfile(a, j(d, "c"))
    shutil.copy2(a, j(d, "e"))
    same = tried(shutil.copyfile, a, a)
    os.mkdir(j(d, "s"))
    shutil.move(j(d, "b"), j(d, "s"))
    shutil.copytree(j(d, "s"), j(d, "t"))
    shutil.move(j(d, "t"), j(d, "u"))
    listing = sorted(os.listdir(j(d, "u")))
    shutil.rmtree(j(d, "u"))
    missing = tried(shutil.rmtree, j(d, "u"))
    shutil.rmtree(j(d, "u"), ignore_errors=True)
    not_a_directory = tried(shutil.rmtree, a)
    return (
        same,
        listing,
        missing,
        not_a_directory,
        sorted(os.listdir(d)),
        get(j(d, "e")) == get(a),
        shutil.disk_usage(d).total > 0,
    )


@program
def pathlib_family(d):
    p = pathlib.Path(d)
    (p / "a").write_text("text")
    (p / "b").write_bytes(b"bytes")
    (p / "s" / "t").mkdir(parents=True, exist_ok=True)
    (p / "s").mkdir(exist_ok=True)
    (p / "touched").touch()
    (p / "touched").touch()
    again = tried((p / "touched").touch, exist_ok=False)
    (p / "a").rename(p / "a2")
    (p / "a2").replace(p / "b")
    (p / "b").unlink()
    (p / "b").unlink(missing_ok=True)
    with (p / "c").open("w") as f:
        f.write("x")
    return [
        again,
        tried((p / "b").unlink),
        (p / "c").stat().st_size,
        (p / "c").exists(),
        (p / "c").is_file(),
        (p / "s").is_dir(),
        (p / "no").exists(),
        (p / "no").is_dir(),
        (p / "c").is_symlink(),
        (p / "c").samefile(p / "c"),
        (p / "c").resolve() == p / "c",
        tried((p / "no").resolve, strict=True),
        (p / "no").resolve() == p / "no",
        sorted(x.name for x in p.iterdir()),
        tried((p / "s").rmdir),
    ]


@program
def logging_handlers(d):
    path = j(d, "log")
    logger = logging.Logger("x")
    handler = logging.FileHandler(path)
    logger.addHandler(handler)
    logger.warning("one")
    one = get(path)
    handler.close()
    logger.removeHandler(handler)
    rotating = logging.handlers.RotatingFileHandler(path, maxBytes=20, backupCount=2)
    logger.addHandler(rotating)
    for n in range(6):
        logger.warning("record %d", n)
    rotating.close()
    logger.removeHandler(rotating)
    watched = logging.handlers.WatchedFileHandler(j(d, "w"))
    logger.addHandler(watched)
    logger.warning("a")
    os.rename(j(d, "w"), j(d, "w.1"))
    logger.warning("b")
    watched.close()
    return one, sorted(os.listdir(d)), get(j(d, "w")), get(j(d, "w.1"))


@program
def fileinput_inplace(d):
    path = put(j(d, "a"), b"one\ntwo\n")
    with fileinput.input(path, inplace=True) as lines:
        for line in lines:
            print(line.upper(), end="")
    return get(path), os.listdir(d)


@program
def mailboxes(d):
    box = mailbox.Maildir(j(d, "md"))
    key = box.add("From: me\n\nbody\n")
    out = [box.get_string(key), len(box)]
    box.remove(key)
    return out, len(box)


@program
def wave_file(d):
    with wave.open(j(d, "w.wav"), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(8000)
        w.writeframes(b"\0\1" * 100)
    with wave.open(j(d, "w.wav"), "rb") as w:
        return w.getnframes(), w.readframes(2)


@program
def codecs_open(d):
    with codecs.EncodedFile(open(j(d, "a"), "wb"), "utf-8", "latin-1") as f:
        f.write("é".encode())
    with open(j(d, "b"), "w", encoding="utf-8") as f:
        f.write("x")
    return get(j(d, "a")), get(j(d, "b"))


@program
def file_io_class(d):
    with io.FileIO(j(d, "a"), "w") as f:
        out = [
            f.write(b"x"),
            f.name == j(d, "a"),
            f.mode,
            f.readable(),
            isinstance(f, io.FileIO),
            issubclass(io.FileIO, io.RawIOBase),
        ]
    with io.FileIO(j(d, "a")) as f:
        out += [f.readall(), f.mode]
    return out, tried(io.FileIO, j(d, "no")), tried(io.FileIO, j(d, "a"), "q")


@program
def import_from_directory(d):
    put(j(d, "made_up_module.py"), b"VALUE = 42\n")
    sys.path.insert(0, d)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        import importlib

        importlib.invalidate_caches()
        return importlib.import_module("made_up_module").VALUE
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(d)
        sys.modules.pop("made_up_module", None)


@program
def opener_argument(d):
    made = []

    def opener(path, flags):
        made.append(flags & os.O_ACCMODE)
        return os.open(path, flags, 0o600)

    with open(j(d, "a"), "w", opener=opener) as f:
        f.write("x")
    with open(j(d, "a"), opener=opener) as f:
        return f.read(), made, f.name == j(d, "a")


@program
def links_are_refused_or_errno(d):
    put(j(d, "a"), b"x")
    return (
        tried(os.readlink, j(d, "a")),
        os.path.islink(j(d, "a")),
        os.path.realpath(j(d, "a")) == os.path.realpath(d) + "/a",
    )


@program
def exit_with_zero_stores(d):
    try:
        with open(j(d, "a"), "w") as f:
            f.write("kept")
            raise SystemExit(0)
    except SystemExit:
        pass
    return get(j(d, "a"))


@program
def collected_without_close(d):
    open(j(d, "a"), "w").write("text")
    return get(j(d, "a"))


@program
def detach_and_rewrap(d):
    f = open(j(d, "a"), "wb")
    t = io.TextIOWrapper(f, encoding="utf-8")
    t.write("é")
    t.flush()
    b = t.detach()
    b.write(b"!")
    b.close()
    return get(j(d, "a"))


def outcome(function, directory):
    try:
        result = function(directory)
        text = repr(result)
    except Exception as error:
        import traceback

        text = "raised %s errno=%s at %s" % (
            type(error).__name__,
            getattr(error, "errno", None),
            traceback.extract_tb(error.__traceback__)[1].lineno,
        )
        if os.environ.get("DEBUG_DIFFERENTIAL"):
            text += traceback.format_exc()
    return text.replace(directory, "ROOT")


def tree(directory):
    found = {}
    for top, dirs, files in os.walk(directory):
        for name in dirs:
            found[os.path.relpath(j(top, name), directory)] = "directory"
        for name in files:
            found[os.path.relpath(j(top, name), directory)] = repr(get(j(top, name)))
    return found


if __name__ == "__main__":
    import asya_shim

    real, state = sys.argv[1:3]
    only = sys.argv[3:]
    assert asya_shim.activate_from_environment()
    assert errno.ENOENT == 2
    report = {}
    for name, function in PROGRAMS.items():
        if only and name not in only:
            continue
        here, there = j(real, name), j(state, name)
        os.makedirs(here)
        os.makedirs(there)
        report[name] = {
            "real": [outcome(function, here), tree(here)],
            "state": [outcome(function, there), tree(there)],
        }
    print(json.dumps(report))
