"""What a store is: the seam between the consistency layer and a bucket.

A key is the raw path of a state file below the store's prefix, as bytes; the store encodes it
reversibly into whatever its backend can hold. A key that ends with `/` is the marker of an empty
directory and has no content. A version is an opaque string, compared and never ordered.

A store does one attempt at one operation and tells the truth about it: `None` from `head` and `get`
means that the backend said "absent"; whatever it could not ask raises `Unavailable`. It does not
retry changes, does not settle lost answers and knows nothing of LWW and CAS: those are
`asya_proxy.consistency`. Deadlines are the caller's.

Third parties add stores by the entry point group `asya_proxy.stores` (a class that takes
`StoreConfig`) and prove them with `asya_proxy.testing`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from asya_proxy.errors import Unsupported

CHUNK = 1 << 20
"""Streams are cut into pieces of at most this many bytes."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What every store is built from; anything else comes from the SDK's own variables in `environ`."""

    bucket: str
    prefix: str
    environ: Mapping[str, str]
    attempt_timeout: float = 5.0
    write_window: float = 120.0
    """How long, in seconds, write ids are remembered: at least twice the longest a write may take."""


# What each request makes anew is a tuple: a frozen dataclass takes three times as long to make.

_NO_ATTRS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Past:
    """One write in an object's history: its write id, and the version it replaced (None: absent)."""

    write_id: str
    base: str | None


class Stat(NamedTuple):
    """An object as the store knows it. `history` is newest first and empty where the store is idempotent
    by itself (`Traits.idempotent`)."""

    version: str
    size: int
    mtime_ns: int
    history: tuple[Past, ...] = ()
    attrs: Mapping[str, str] = _NO_ATTRS


@dataclass(frozen=True, slots=True)
class Entry:
    """One object in a listing, `key` relative to the store's prefix."""

    key: bytes
    version: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing in byte order. `prefixes` end with `/`. `more` tells that `after=last name` continues."""

    entries: Sequence[Entry]
    prefixes: Sequence[bytes]
    more: bool


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold of the key for a change to happen: nothing, absence, or one version."""

    version: str | None = None
    absent: bool = False

    @property
    def any(self) -> bool:
        return self.version is None and not self.absent


ANY = Precondition()
ABSENT = Precondition(absent=True)


def match(version: str) -> Precondition:
    return Precondition(version=version)


class Change(NamedTuple):
    """What every change carries: its write id and its precondition, and for stores without
    `Traits.idempotent` the history to store beside the value (newest first, own id not included)."""

    id: str
    when: Precondition = ANY
    history: tuple[Past, ...] = ()
    attrs: Mapping[str, str] = _NO_ATTRS


class Body:
    """Content on its way to a store: all of it in memory, or a stream read once.

    Iterating yields pieces of at most `CHUNK` bytes. A stream whose source ends early raises
    `BadRequest` from the iterator; the store then leaves nothing behind.
    """

    __slots__ = ("_stream", "data", "size")

    def __init__(
        self,
        data: bytes | None = None,
        *,
        stream: AsyncIterator[bytes] | None = None,
        size: int | None = None,
    ) -> None:
        self.data = data
        self._stream = stream
        self.size = len(data) if data is not None else size
        """Bytes, or None where the source does not say (chunked)."""

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent again by another attempt."""
        return self.data is not None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.data is not None:
            view = memoryview(self.data)
            for start in range(0, len(view), CHUNK):
                yield bytes(view[start : start + CHUNK])
        elif self._stream is not None:
            async for piece in self._stream:
                for start in range(0, len(piece), CHUNK):
                    yield piece[start : start + CHUNK]

    async def read(self) -> bytes:
        """All of it; the caller knows that it fits."""
        if self.data is not None:
            return self.data
        return b"".join([piece async for piece in self])


class Reading(NamedTuple):
    """An answer to `get`: the whole object's `stat`, and the bytes asked for, all of one version.

    `data` where they came with the answer, else `stream` (which the reader must exhaust or `aclose`).
    """

    stat: Stat
    data: bytes | None = None
    stream: AsyncIterator[bytes] | None = None


async def dispose(reading: Reading) -> None:
    """Let go of what of it was not read."""
    close = getattr(reading.stream, "aclose", None)
    if close is not None:
        await close()


@dataclass(frozen=True, slots=True)
class Appended:
    """An answer to `append`: what is there now, and the version appended to (None: it was created)."""

    stat: Stat
    base: str | None


Known = Mapping[bytes, str | None]
"""Files below a directory, by their names from there: the version they are thought to be at, or None for any."""

NOTHING_KNOWN: Known = {}


class TreeMoved(NamedTuple):
    """An answer to `rename_tree`: how many keys were moved, and the new versions of those files asked about that
    were moved as they were thought to be."""

    moved: int
    versions: Mapping[bytes, str]


@dataclass(frozen=True, slots=True)
class Traits:
    """What a store can do atomically. The conformance suite proves each, and that what is not claimed is refused."""

    idempotent: bool = False
    """A change repeated with its id within `StoreConfig.write_window` returns the first outcome and acts once,
    whatever happened to the key since; the id itself is never mistaken for a conflict."""
    tree: bool = False
    """Refuses a file where a directory is (`IsDirectory`) and below a file (`NotDirectory`), atomically."""
    conditional_put: bool = True
    conditional_delete: bool = True
    append: bool = False
    rename: bool = False
    rename_tree: bool = False
    copy: bool = False
    attributes: bool = False
    unique_versions: bool = True
    """Equal content, delete-and-recreate: never an old version again."""
    max_size: int = 0
    """Largest object in bytes; 0: no limit of its own."""


@runtime_checkable
class Store(Protocol):
    """The operations; see the module's docstring for what they may and may not do.

    Changes raise `Conflict` where `Change.when` names a version that is not there (another version or
    absence), `Exists` where it demands absence, and apply nothing then.
    """

    traits: Traits

    async def connect(self) -> None:
        """Make the clients. Raises PermissionDenied, KeyNotFound (no such bucket), BadRequest (configuration),
        Unavailable; each message says what to do next."""

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Raise unless the backend answers now."""

    async def head(self, key: bytes) -> Stat | None: ...

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        """Bytes `start` to `end` (exclusive, clipped; negative `start` counts from the end).

        Raises RangeInvalid where `start` lies at or beyond the end of a non-empty range request, Conflict where
        `version` is not the current one.
        """

    async def put(self, key: bytes, body: Body, change: Change) -> Stat: ...

    async def delete(self, key: bytes, change: Change) -> None:
        """Raises KeyNotFound where it is absent and `change.when` is ANY."""

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        """Names that start with `prefix`, in byte order, beyond `after`; with `delimiter` those of one level only,
        deeper ones folded into `prefixes`. Markers (`d/`) are entries like any other, also of themselves."""

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        """`Traits.append`: add at the end, create if absent; `change.when` is ANY."""

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        """`Traits.rename`: move in one step; `change.when` is the target's. Raises KeyNotFound without a source."""

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        """`Traits.rename_tree`: move every key that starts with `source` (ends with `/`) in one step, and tell which
        of the files `known` were at the version given there.

        Raises KeyNotFound where there is none, NotEmpty where something but `target`'s own marker lies below it."""

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        """`Traits.copy`: a copy inside the backend, `change.when` is the target's."""

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        """`Traits.attributes`: replace all attributes (names and values are base64 of what the user gave);
        moves the version and keeps content and mtime."""


class BaseStore:
    """The optional operations, refused. Stores and wrappers derive from it for brevity only."""

    traits = Traits()

    async def close(self) -> None:
        return None

    async def append(self, key: bytes, body: Body, change: Change) -> Appended:
        raise Unsupported("append")

    async def rename(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        raise Unsupported("rename")

    async def rename_tree(
        self, source: bytes, target: bytes, change: Change, known: Known = NOTHING_KNOWN
    ) -> TreeMoved:
        raise Unsupported("rename of directories")

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        raise Unsupported("copy")

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        raise Unsupported("attributes")
