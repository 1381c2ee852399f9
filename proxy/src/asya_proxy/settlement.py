"""What became of a change whose answer was lost: read from the ids stored beside the value.

Pure: facts in, verdict out. The rule: own id found is success; our base replaced by another id is a conflict;
anything else stays unknown.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from asya_proxy.stores.base import Past, Precondition, Stat

MAX_HISTORY = 1024
"""Bytes of object metadata that a history may take, our own entry included."""

_SUPERSEDED = "superseded."


class Fate(Enum):
    LANDED = "landed"
    OVERTAKEN = "overtaken"
    """Landed, and somebody has written over it since."""
    NOT_LANDED = "not landed"
    LOST = "lost to another writer"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    fate: Fate
    own: Past | None = None
    """The change's own entry, where it was found."""


def find(history: tuple[Past, ...], write_id: str) -> tuple[int, Past] | None:
    """The entry of `write_id` and its age: 0 is the newest."""
    for age, past in enumerate(history):
        if past.write_id == write_id:
            return age, past
    return None


def judge(stat: Stat | None, write_id: str, when: Precondition) -> Verdict:
    """The fate of a put with `write_id` and precondition `when`, seen from what is there now."""
    found = None if stat is None else find(stat.history, write_id)
    if found is not None:
        return Verdict(Fate.LANDED if found[0] == 0 else Fate.OVERTAKEN, found[1])
    if when.any:
        return Verdict(Fate.NOT_LANDED)
    current = None if stat is None else stat.version
    if current == when.version:
        return Verdict(Fate.NOT_LANDED)
    if stat is not None and any(past.base == when.version for past in stat.history):
        return Verdict(Fate.LOST)
    return Verdict(Fate.UNKNOWN)


def judge_delete(stat: Stat | None, when: Precondition) -> Fate:
    """The fate of a delete. It leaves no id behind, so absence proves it only where nothing was demanded."""
    if when.any:
        return Fate.LANDED if stat is None else Fate.NOT_LANDED
    if stat is None:
        return Fate.UNKNOWN
    if stat.version == when.version:
        return Fate.NOT_LANDED
    return Fate.LOST if any(past.base == when.version for past in stat.history) else Fate.UNKNOWN


def superseded(write_id: str) -> str:
    """A token for a write that landed and is gone: it never equals a version of any backend."""
    return _SUPERSEDED + write_id


def is_superseded(version: str | None) -> bool:
    return version is not None and version.startswith(_SUPERSEDED)


def overtaken(stat: Stat, write_id: str) -> Stat:
    """The answer to a change that landed and was written over."""
    return stat._replace(version=superseded(write_id))


def bounded(history: tuple[Past, ...], write_id: str, base: str | None) -> tuple[Past, ...]:
    """As much of `history`, newest first, as fits beside the entry of `write_id`."""
    room = MAX_HISTORY - _weight(write_id, base)
    for count, past in enumerate(history):
        room -= _weight(past.write_id, past.base)
        if room < 0:
            return history[:count]
    return history


def _weight(write_id: str, base: str | None) -> int:
    return len(write_id) + len(base or "") + 2


class Seen:
    """The last versions and histories that passed by, by key. A hint: whoever relies on it compares the version."""

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._stats: OrderedDict[bytes, Stat] = OrderedDict()

    def note(self, key: bytes, stat: Stat | None) -> None:
        if stat is None:
            self._stats.pop(key, None)
            return
        self._stats[key] = stat
        self._stats.move_to_end(key)
        if len(self._stats) > self._size:
            self._stats.popitem(last=False)

    def __contains__(self, key: bytes) -> bool:
        return key in self._stats

    def version(self, key: bytes) -> str | None:
        stat = self._stats.get(key)
        return None if stat is None else stat.version

    def history(self, key: bytes, version: str | None) -> tuple[Past, ...] | None:
        """The history of exactly `version` (None: of the last one seen)."""
        stat = self._stats.get(key)
        if stat is None or (version is not None and stat.version != version):
            return None
        return stat.history
