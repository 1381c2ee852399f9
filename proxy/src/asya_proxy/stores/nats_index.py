"""What a listing knows of the names below one prefix, and how a page is cut from names in order.

The index is brought up to date by what the stream holds beyond the last sequence seen, and learns of this
process's own writes at once, so that a listing shows them whatever replica answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator

from asya_proxy.stores.base import Entry, Page
from asya_proxy.stores.nats_jetstream import JetStream
from asya_proxy.stores.nats_record import Head, decode_key, read_head, subject_filter
from asya_proxy.stores.nats_streams import Streams

log = logging.getLogger(__name__)

MAX_ENTRIES = 200_000
"""More names than this are not kept between listings."""
FEW = 2
"""A listing of so many names asks whether there are any."""


class Index:
    """Entries by key, with the stream sequence of the last message of each."""

    def __init__(self) -> None:
        self.sequence = 0
        """Everything up to this stream sequence has been seen."""
        self._entries: dict[bytes, Entry] = {}
        self._keys: list[bytes] = []
        self._latest: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def note(self, key: bytes, sequence: int, entry: Entry | None) -> None:
        """One message: the entry it leaves, or None where it is a delete marker. Older ones change nothing."""
        if sequence <= max(self._latest.get(key, 0), self._known(key)):
            return
        if sequence == self.sequence + 1:
            self.sequence = sequence  # nobody came between
        if entry is None:
            self._latest[key] = sequence
            if self._entries.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
            return
        self._latest.pop(key, None)
        if key not in self._entries:
            if not self._keys or key > self._keys[-1]:
                self._keys.append(key)
            else:
                insort(self._keys, key)
        self._entries[key] = entry

    def caught_up(self, sequence: int) -> None:
        """Everything up to `sequence` was noted: deletions before it can no longer come back."""
        self.sequence = max(self.sequence, sequence)
        self._latest = {key: seen for key, seen in self._latest.items() if seen > self.sequence}

    def _known(self, key: bytes) -> int:
        entry = self._entries.get(key)
        return int(entry.version) if entry is not None else 0

    def page(self, prefix: bytes, *, delimiter: bool, after: bytes, limit: int) -> Page:
        """As `Store.list`."""
        entries: list[Entry] = []
        prefixes: list[bytes] = []
        at = bisect_left(self._keys, prefix)
        if after >= prefix and after:
            fold = _fold(after, prefix) if delimiter and after.startswith(prefix) else None
            start = bisect_left(self._keys, _successor(fold)) if fold else bisect_left(self._keys, after + b"\0")
            at = max(at, start)
        while at < len(self._keys) and self._keys[at].startswith(prefix):
            if len(entries) + len(prefixes) == limit:
                return Page(entries, prefixes, more=True)
            key = self._keys[at]
            folded = _fold(key, prefix) if delimiter else None
            if folded is not None:
                prefixes.append(folded)
                at = bisect_left(self._keys, _successor(folded), lo=at)
            else:
                entries.append(self._entries[key])
                at += 1
        return Page(entries, prefixes, more=False)


def _fold(key: bytes, prefix: bytes) -> bytes | None:
    """The directory one level below `prefix` that holds `key`, with its slash; None for a name of that level."""
    slash = key.find(b"/", len(prefix))
    return key[: slash + 1] if slash >= 0 else None


def _successor(folded: bytes) -> bytes:
    """The least name beyond all that start with `folded`, which ends with a slash."""
    return folded[:-1] + b"0"


class Listing:
    """The names below `prefix` as of now. `window` is how long delete markers certainly stay, in seconds."""

    def __init__(self, streams: Streams, prefix: bytes, window: float) -> None:
        self._streams = streams
        self._prefix = prefix
        self._window = window
        self._lock = asyncio.Lock()
        self._index: Index | None = None
        self._refreshed = 0.0

    def note(self, key: bytes, head: Head) -> None:
        """What this process wrote."""
        if self._index is not None:
            self._index.note(key, head.version, None if head.deleted else _entry(key, head))

    async def page(self, jetstream: JetStream, prefix: bytes, *, delimiter: bool, after: bytes, limit: int) -> Page:
        """As `Store.list`."""
        async with self._lock:
            # Of now: what this process writes meanwhile may well lie beyond the answer.
            known = 0 if self._index is None else self._index.sequence
            last = await jetstream.last_sequence(self._streams.files)
            index = self._usable(remade=last < known)
            if index is None or last > index.sequence:
                if limit <= FEW and await self._is_empty(jetstream, prefix):
                    return Page([], [], more=False)
                index = await self._catch_up(jetstream, index or Index(), last)
            return index.page(prefix, delimiter=delimiter, after=after, limit=limit)

    async def _is_empty(self, jetstream: JetStream, prefix: bytes) -> bool:
        """Whether certainly nothing is there: the answer for most new names, and cheaper than a consumer."""
        pattern = self._streams.file(subject_filter(self._prefix + prefix))
        return await jetstream.last(self._streams.files, pattern) is None

    def _usable(self, *, remade: bool) -> Index | None:
        """What is known, unless the stream was made anew, or a marker may be purged by now that was never seen."""
        return None if remade or time.monotonic() - self._refreshed > self._window / 2 else self._index

    async def _catch_up(self, jetstream: JetStream, index: Index, last: int) -> Index:
        """`index` with all up to the stream sequence `last`."""
        if last > index.sequence:
            seen = 0
            async for key, head in scan_heads(jetstream, self._streams, self._prefix, index.sequence):
                index.note(key, head.version, None if head.deleted else _entry(key, head))
                seen = max(seen, head.version)
            # Only a leader's word counts for what was not delivered.
            index.caught_up(seen if jetstream.link.clustered else last)
        self._refreshed = time.monotonic()
        self._index = index
        if len(index) > MAX_ENTRIES:
            log.warning("nats listing names=%d prefix=%r: too many to keep", len(index), self._prefix)
            self._index = None
        return index


async def scan_heads(
    jetstream: JetStream, streams: Streams, prefix: bytes, since: int = 0
) -> AsyncIterator[tuple[bytes, Head]]:
    """The last message of every key below `prefix`, beyond stream sequence `since`; keys without the prefix."""
    root = streams.file("")
    async for found in jetstream.scan(streams.files, root + subject_filter(prefix), since):
        key = decode_key(found.subject.removeprefix(root))
        if key is not None and key.startswith(prefix):
            length = int(found.headers.get("Nats-Msg-Size", "0"))
            yield key[len(prefix) :], read_head(found.sequence, found.headers, length, found.time_ns)


def _entry(key: bytes, head: Head) -> Entry:
    return Entry(key, str(head.version), head.size, head.mtime_ns)
