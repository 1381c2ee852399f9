"""What the NATS store writes down, as pure functions: subjects, and the headers beside a value.

No I/O and no clock here. A state file is the last message of one subject: its data is the file (or, behind
`runs` of chunks, the file's tail), its headers are a `Head`. A deleted file leaves a marker message, so
that the write ids it carries outlive it.

The sizes follow from nats-server: headers of a stored message are limited to 64 KiB, a protocol line to
4 KiB, headers and data together to `max_payload`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from asya_proxy.errors import NameTooLong

HEADER_ROOM = 64 << 10
"""Bytes of `max_payload` that headers may take; nats-server refuses more."""

MAX_SUBJECT = 3500
"""Bytes of a subject; with the rest of its protocol line it stays below the server's 4096."""

MAX_PAST = 32
"""Write ids carried in one message; older ones within the window go to the stream of ids."""

KEEP_PAST = 16
"""How many stay in the message when the others go."""

_OPERATION = "KV-Operation"
_ID = "Asya-Id"
_BASE = "Asya-Base"
_SIZE = "Asya-Size"
_MTIME = "Asya-Mtime"
_ATTRS = "Asya-Attrs"
_RUNS = "Asya-Runs"
_PAST = "Asya-Past"
_SPILLED = "Asya-Spilled"

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPED = [chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in range(256)]
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")


@lru_cache(maxsize=1024)
def encode_key(key: bytes) -> str:
    """A key as subject tokens: `/` separates, an empty segment is `=`, other bytes are kept or `=XX`.

    Raises NameTooLong where the protocol could not carry it.
    """
    text = ".".join("".join([_ESCAPED[byte] for byte in segment]) or "=" for segment in key.split(b"/"))
    if len(text) > MAX_SUBJECT:
        raise NameTooLong(f"a name of {len(text)} bytes as a NATS subject; at most {MAX_SUBJECT} fit")
    return text


def decode_key(text: str) -> bytes | None:
    """The inverse of `encode_key`; None for what no key encodes to (foreign names)."""
    segments = []
    for token in text.split("."):
        if token == "=":  # noqa: S105
            segments.append(b"")
        elif _TOKEN.fullmatch(token):
            segments.append(re.sub(rb"=(..)", lambda hit: bytes([int(hit[1], 16)]), token.encode()))
        else:
            return None
    key = b"/".join(segments)
    return key if encode_key(key) == text else None


def subject_filter(prefix: bytes) -> str:
    """The narrowest subject pattern that holds every key starting with `prefix`."""
    whole = prefix.rpartition(b"/")[0]
    return f"{encode_key(whole)}.>" if whole else ">"


def id_token(operation: str, write_id: str) -> str:
    """One operation (a letter) of one write id as one subject token, whatever the id is made of."""
    if len(write_id) <= 64 and re.fullmatch(r"[A-Za-z0-9_-]+", write_id):
        return f"{operation}-{write_id}"
    return f"{operation}={hashlib.sha256(write_id.encode()).hexdigest()[:40]}"


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks 0 to `count - 1` of upload `upload`: each `each` bytes long, the last one `last`."""

    upload: str
    count: int
    each: int
    last: int

    @property
    def size(self) -> int:
        return (self.count - 1) * self.each + self.last

    def __str__(self) -> str:
        return f"{self.upload}:{self.count}:{self.each}:{self.last}"

    @classmethod
    def parse(cls, text: str) -> Run:
        upload, count, each, last = text.split(":")
        return cls(upload, int(count), int(each), int(last))


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `stop` of chunk `index` of `upload`."""

    upload: str
    index: int
    start: int
    stop: int


def pieces(runs: Sequence[Run], start: int, stop: int) -> list[Piece]:
    """The chunks that hold bytes `start` to `stop` of what the runs hold together, in order."""
    found = []
    offset = 0
    for run in runs:
        if offset < stop and offset + run.size > start:
            first = max(0, start - offset) // run.each
            for index in range(first, run.count):
                low = offset + index * run.each
                if low >= stop:
                    break
                length = run.last if index == run.count - 1 else run.each
                found.append(Piece(run.upload, index, max(0, start - low), min(length, stop - low)))
        offset += run.size
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one write of the past ended: its version (stream sequence) and what it left.

    `base` is the version it replaced, 0 where there was none. Times are in nanoseconds of the Unix epoch:
    the file's `mtime_ns`, and when it was written.
    """

    id: str
    version: int
    base: int
    size: int
    mtime_ns: int
    written_ns: int

    @staticmethod
    def token_of(line: str) -> str:
        """The id in what `__str__` wrote."""
        return line.partition(":")[0]

    def __str__(self) -> str:
        earlier = self.written_ns - self.mtime_ns
        return f"{self.id}:{self.version}:{self.base}:{self.size}:{self.mtime_ns}:{earlier or ''}"

    @classmethod
    def parse(cls, text: str) -> Outcome:
        write_id, version, base, size, mtime_ns, earlier = text.split(":")
        return cls(write_id, int(version), int(base), int(size), int(mtime_ns), int(mtime_ns) + int(earlier or "0"))


@dataclass(frozen=True, slots=True)
class Head:
    """The last message of one subject, without its data.

    `version` 0: there is none. `deleted`: it is a marker, and there is no file. `id` is empty where
    somebody else wrote it. `written_ns` is when, by the writer's clock; `mtime_ns` is the file's.
    `spilled_ns` is the age of the newest write id that went to the stream of ids, 0 if none.
    """

    version: int = 0
    deleted: bool = True
    id: str = ""
    base: int = 0
    size: int = 0
    mtime_ns: int = 0
    written_ns: int = 0
    attrs: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    past: tuple[str, ...] = ()
    """The writes before this one, newest first, each as `Outcome` writes it: most are never looked at."""
    spilled_ns: int = 0

    @property
    def tail(self) -> int:
        """Bytes of the file that are the message's own data."""
        return self.size - sum(run.size for run in self.runs)

    @property
    def own(self) -> Outcome:
        return Outcome(self.id, self.version, self.base, self.size, self.mtime_ns, self.written_ns)

    @property
    def lines(self) -> tuple[str, ...]:
        """The writes that led here, newest first, this one included."""
        return (str(self.own), *self.past) if self.id else self.past

    def find(self, write_id: str) -> Outcome | None:
        """What became of a write, by its token."""
        if write_id == self.id:
            return self.own
        begin = f"{write_id}:"
        return next((Outcome.parse(line) for line in self.past if line.startswith(begin)), None)

    def headers(self) -> dict[str, str]:
        """The inverse of `read_head`, for the message that this head describes."""
        out = {_ID: self.id, _BASE: str(self.base), _SIZE: str(self.size)}
        out[_MTIME] = f"{self.mtime_ns} {self.written_ns}"
        if self.deleted:
            out[_OPERATION] = "DEL"
        if self.attrs:
            out[_ATTRS] = json.dumps(dict(self.attrs), separators=(",", ":"))
        if self.runs:
            out[_RUNS] = ",".join(map(str, self.runs))
        if self.past:
            out[_PAST] = ",".join(self.past)
        if self.spilled_ns:
            out[_SPILLED] = str(self.spilled_ns)
        return out


ABSENT_HEAD = Head()


def parse_headers(raw: bytes) -> dict[str, str]:
    """A header block as it is stored (`NATS/1.0`, then `Name: value` lines)."""
    out = {}
    for line in raw.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            out[name.decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return out


def read_head(version: int, headers: Mapping[str, str], length: int, time_ns: int) -> Head:
    """The head of a stored message. `length` is its data's, `time_ns` the server's time of it."""
    deleted = headers.get(_OPERATION) in ("DEL", "PURGE") or "Nats-Marker-Reason" in headers
    if _ID not in headers:
        return Head(version, deleted, size=0 if deleted else length, mtime_ns=time_ns, written_ns=time_ns)
    mtime_ns, written_ns = headers[_MTIME].split(" ")
    return Head(
        version=version,
        deleted=deleted,
        id=headers[_ID],
        base=int(headers[_BASE]),
        size=int(headers[_SIZE]),
        mtime_ns=int(mtime_ns),
        written_ns=int(written_ns),
        attrs=json.loads(headers.get(_ATTRS, "{}")),
        runs=tuple(map(Run.parse, filter(None, headers.get(_RUNS, "").split(",")))),
        past=tuple(filter(None, headers.get(_PAST, "").split(","))),
        spilled_ns=int(headers.get(_SPILLED, "0")),
    )


def carry(previous: Head, since_ns: int) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """What the message after `previous` must remember: (in its own headers, in the stream of ids, `spilled_ns`).

    The oldest writes are forgotten where they are from before `since_ns`.
    """
    recent = previous.lines
    while recent and Outcome.parse(recent[-1]).written_ns < since_ns:
        recent = recent[:-1]
    spilled_ns = previous.spilled_ns if previous.spilled_ns >= since_ns else 0
    if len(recent) <= MAX_PAST:
        return recent, (), spilled_ns
    kept, spilled = recent[:KEEP_PAST], recent[KEEP_PAST:]
    return kept, spilled, max(spilled_ns, *(Outcome.parse(line).written_ns for line in spilled))
