"""Proof that the watch is alive: what a list shows, the watch must have shown before the next list.

Pure bookkeeping. An HTTP server that answers proves nothing about a stream that went deaf.
"""

from collections.abc import Mapping

from asya_operator.rollout import Key


class Watchdog:
    """Compares resource versions of lists with those of watch events. Versions are opaque: only equality counts."""

    def __init__(self) -> None:
        self._seen: dict[Key, str] = {}
        # Keys where the last list was ahead, and what the watch had shown then.
        self._behind: dict[Key, str | None] = {}

    def seen(self, key: Key, version: str | None) -> None:
        """The watch showed `version` of an actor; None for its deletion."""
        if version is None:
            self._seen.pop(key, None)
        else:
            self._seen[key] = version

    def listed(self, versions: Mapping[Key, str]) -> tuple[set[Key], bool]:
        """What a fresh list shows. The keys where it is ahead of the watch, and whether the watch is dead: it was
        behind at the last list already and has not moved since."""
        behind = {key for key, version in versions.items() if self._seen.get(key) != version}
        behind |= {key for key in self._seen if key not in versions}
        stuck = {key for key in behind if key in self._behind and self._behind[key] == self._seen.get(key)}
        self._behind = {key: self._seen.get(key) for key in behind}
        return behind, bool(stuck)
