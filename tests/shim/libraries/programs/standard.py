"""The standard library."""

import array
import bz2
import codecs
import configparser
import csv
import dbm
import dbm.dumb
import fileinput
import gzip
import json
import linecache
import logging
import logging.handlers
import lzma
import mailbox
import marshal
import mmap
import os
import pathlib
import pickle
import plistlib
import runpy
import shelve
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import wave
import zipfile
from xml.dom import minidom
from xml.etree import ElementTree

from rows import tabulate

ROWS = []
row = tabulate(ROWS)
DATA = {"a": [1, 2.5, None], "é": "ü\n"}
BYTES = bytes(range(256)) * 300


def is_path(target):
    return isinstance(target, str)


def put(path, data=BYTES):
    with open(path, "wb") as f:
        f.write(data)


row("json", "dump, load", lambda f: json.dump(DATA, f), json.load, by="object", text=True)
row(
    "csv",
    "writer, reader",
    lambda f: csv.writer(f).writerows([["a", 1], ['q"', "line\nbreak"]]),
    lambda f: list(csv.reader(f)),
    by="object",
    text=True,
)
row("pickle", "dump, load", lambda f: pickle.dump(DATA, f), pickle.load, by="object")
row("marshal", "dump, load", lambda f: marshal.dump(DATA, f), marshal.load, by="object")


def write_shelf(path):
    with shelve.open(path, "n") as shelf:
        shelf["a"] = DATA
        shelf["b"] = BYTES


def make_shelf(path):
    with shelve.Shelf(dbm.dumb.open(path, "n")) as shelf:
        shelf["a"] = DATA


def read_shelf(path):
    with shelve.open(path, "r") as shelf:
        return sorted(shelf.items())


def write_dbm(path):
    with dbm.open(path, "n") as database:
        database[b"k"] = b"v" * 1000


def make_dbm(path):
    with dbm.dumb.open(path, "n") as database:
        database[b"k"] = b"v"


def read_dbm(path):
    with dbm.open(path, "r") as database:
        return [(key, database[key]) for key in list(database.keys())]


row("shelve", "open", write_shelf, read_shelf, make=make_shelf, by="path", tree=True)
row("dbm", "open", write_dbm, read_dbm, make=make_dbm, by="path", tree=True)


def write_database(path):
    connection = sqlite3.connect(path, uri=path.startswith("file:"))
    try:
        with connection:
            connection.execute("create table t (a, b)")
            connection.execute("insert into t values (1, 'x')")
    finally:
        connection.close()


def read_database(path):
    connection = sqlite3.connect(path, uri=path.startswith("file:"))
    try:
        return list(connection.execute("select * from t"))
    finally:
        connection.close()


SERIALIZES = hasattr(sqlite3.Connection, "serialize")


def write_serialized(f):
    connection = sqlite3.connect(":memory:")
    connection.executescript("create table t (a, b); insert into t values (1, 'x');")
    f.write(connection.serialize() if SERIALIZES else "\n".join(connection.iterdump()).encode())
    connection.close()


def read_serialized(f):
    connection = sqlite3.connect(":memory:")
    if SERIALIZES:
        connection.deserialize(f.read())
    else:
        connection.executescript(f.read().decode())
    try:
        return list(connection.execute("select * from t"))
    finally:
        connection.close()


row("sqlite3", "connect", write_database, read_database, by="path", instead="[`serialize`, `deserialize`](#sqlite)")
row(
    "sqlite3",
    "connect(uri=True)",
    lambda path: write_database(f"file:{path}?mode=rwc"),
    lambda path: read_database(f"file:{path}?mode=ro"),
    by="path",
    instead="[`serialize`, `deserialize`](#sqlite)",
)
row(
    "sqlite3",
    "serialize, deserialize; up to Python 3.10 iterdump, executescript",
    write_serialized,
    read_serialized,
    by="object",
)


def write_zip(target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", BYTES)
        archive.writestr("d/b", b"two")


def read_zip(source):
    with zipfile.ZipFile(source) as archive:
        return archive.namelist(), archive.read("a") == BYTES, archive.testzip()


def write_tar(target):
    with tempfile.TemporaryDirectory() as directory:
        put(directory + "/a")
        where = {"name": target} if is_path(target) else {"fileobj": target}
        with tarfile.open(mode="w:gz", **where) as archive:
            archive.add(directory + "/a", "a")


def read_tar(source):
    with tarfile.open(**{"name" if is_path(source) else "fileobj": source}) as archive:
        return archive.getnames(), archive.extractfile("a").read() == BYTES


row("zipfile", "ZipFile", write_zip, read_zip)
row("tarfile", "open", write_tar, read_tar)


def compressor(module):
    def write(target):
        with module.open(target, "wb") as f:
            f.write(BYTES)

    def read(source):
        with module.open(source) as f:
            return f.read() == BYTES, f.tell()

    row(module.__name__, "open", write, read)


for each in (gzip, bz2, lzma):
    compressor(each)


def write_temporary(path):
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as f:
        f.write(BYTES)
    os.replace(f.name, path)


def read_temporary(path):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
        shutil.copy(path, directory)
        with tempfile.TemporaryFile(dir=directory) as f:
            put(os.path.join(directory, "x"), b"x")
            f.write(b"anonymous")
            f.seek(0)
            return f.read(), sorted(os.listdir(directory))


row("tempfile", "NamedTemporaryFile, TemporaryDirectory, TemporaryFile", write_temporary, read_temporary, by="path")


def write_inplace(path):
    put(path, b"one\ntwo\n")
    with fileinput.input(path, inplace=True) as f:
        for line in f:
            print(line.upper(), end="")


def read_lines(path):
    with fileinput.input(path) as f:
        return [(f.lineno(), line) for line in f]


row("fileinput", "input, inplace", write_inplace, read_lines, by="path")


def box(kind):
    def write(path):
        found = kind(path)
        found.add("From: me\nSubject: one\n\nbody\n")
        found.add("Subject: two\n\nbody\n")
        found.flush()
        found.close()

    def read(path):
        found = kind(path, create=False)
        try:
            return sorted(message["subject"] for message in found)
        finally:
            found.close()

    row("mailbox", kind.__name__, write, read, by="path", tree=True)


for each in (mailbox.mbox, mailbox.Maildir, mailbox.MH):
    box(each)


def handler(kind, *args):
    def write(path):
        logger = logging.Logger("test")
        made = kind(path, *args)
        logger.addHandler(made)
        for number in range(20):
            logger.warning("line %d", number)
        made.close()

    row("logging", kind.__name__, write, None, by="path", tree=True)


handler(logging.FileHandler)
handler(logging.handlers.RotatingFileHandler, "a", 40, 2)
handler(logging.handlers.TimedRotatingFileHandler)
handler(logging.handlers.WatchedFileHandler)


def write_config(f):
    config = configparser.ConfigParser()
    config["a"] = {"b": "c"}
    config.write(f)


def read_config(source):
    config = configparser.ConfigParser()
    if is_path(source):
        config.read(source)
    else:
        config.read_file(source)
    return {name: dict(section) for name, section in config.items()}


def write_wave(target):
    with wave.open(target, "wb") as f:
        f.setparams((1, 2, 8000, 0, "NONE", ""))
        f.writeframes(BYTES)


def read_wave(source):
    with wave.open(source, "rb") as f:
        return f.getparams()[:4], f.readframes(-1) == BYTES


def make_config(path):
    with open(path, "w") as f:
        write_config(f)


row("configparser", "write, read_file", write_config, read_config, by="object", text=True)
row("configparser", "read", None, read_config, make=make_config, by="path")
row("plistlib", "dump, load", lambda f: plistlib.dump({"a": 1}, f), plistlib.load, by="object")
row(
    "xml.etree",
    "ElementTree.write, parse",
    lambda target: ElementTree.ElementTree(ElementTree.XML("<a><b c='d'/></a>")).write(target),
    lambda source: ElementTree.tostring(ElementTree.parse(source).getroot()),
)
row(
    "xml.dom.minidom",
    "parse",
    None,
    lambda source: minidom.parse(source).toxml(),
    make=lambda path: put(path, b"<a><b c='d'/></a>"),
)
row("wave", "open", write_wave, read_wave)
row("array", "tofile, fromfile", lambda f: array.array("d", [1, 2]).tofile(f), None, by="object")


def read_array(f):
    found = array.array("i")
    found.fromfile(f, 64)
    return found


row("array", "fromfile", None, read_array, make=put, by="object")


def write_utf_16(path):
    with codecs.EncodedFile(open(path, "wb"), "utf-8", "utf-16") as f:
        f.write("é\n".encode())


def read_mapped(f):
    with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return len(mapped), mapped[100:110], mapped.find(b"\xff\x00")


row("codecs", "EncodedFile", write_utf_16, None, by="path")
row("mmap", "mmap, to read", None, read_mapped, make=put, by="object")
row(
    "pathlib",
    "write_bytes, read_bytes",
    lambda path: pathlib.Path(path).write_bytes(BYTES),
    lambda path: pathlib.Path(path).read_bytes() == BYTES,
    by="path",
)


def copy_in(path):
    with tempfile.TemporaryDirectory() as directory:
        put(directory + "/a")
        shutil.copytree(directory, path)


row("shutil", "copytree", copy_in, lambda path: sorted(os.listdir(path)), by="path", tree=True)
row("linecache", "getline", None, lambda path: linecache.getline(path, 2), make=lambda p: put(p, b"a\nb\n"), by="path")
row("runpy", "run_path", None, lambda path: runpy.run_path(path)["x"], make=lambda p: put(p, b"x = 6 * 7\n"), by="path")
row(
    "subprocess",
    "stdin=, stdout=",
    lambda f: subprocess.run(["echo", "text"], stdout=f, check=True),
    lambda f: subprocess.run(["cat"], stdin=f, stdout=subprocess.PIPE, check=True).stdout,
    by="object",
)
row(
    "subprocess",
    "a path as argument of a program that is no Python",
    lambda path: subprocess.run(["cp", "/etc/hostname", path], stderr=subprocess.DEVNULL, check=True),
    lambda path: subprocess.run(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout,
    make=lambda path: put(path, b"text"),
    by="path",
    instead="`stdin=`, `stdout=`, or a [copy in `/tmp`](programs.md#child-processes)",
)
