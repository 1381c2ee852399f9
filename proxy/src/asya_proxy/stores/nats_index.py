"""What a listing knows of the names below one prefix, and how a page is cut from names in order.

The index is brought up to date by what the stream holds beyond the last sequence seen, and learns of this
process's own writes at once, so that a listing shows them whatever replica answered. Pure: no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from asya_proxy.stores.base import Entry, Page

MAX_ENTRIES = 200_000
"""More names than this are not kept between listings."""


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
