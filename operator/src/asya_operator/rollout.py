"""How fast a new proxy image spreads: at most so many actors at a time, and none more while one that it has reached is
Degraded. Only actors whose template the rollout has changed count: any tenant may make new ones that never work.
Bookkeeping in memory: a process that starts anew counts from nothing, and waits for its own changes alone."""

from dataclasses import dataclass, field

Key = tuple[str, str]


@dataclass
class Rollout:
    """`limit` is the number of actors whose pods may be replaced at a time. `rolling` and `degraded` are of `changed`,
    the actors that were well with another image and have been given the wanted one."""

    limit: int
    changed: set[Key] = field(default_factory=set)
    rolling: set[Key] = field(default_factory=set)
    degraded: set[Key] = field(default_factory=set)
    waiting: set[Key] = field(default_factory=set)

    def image(self, key: Key, current: str | None, wanted: str, allowed: list[str], was_degraded: bool = False) -> str:
        """The proxy image for an actor's template: `wanted`, or `current` while it is not its turn.

        An actor without a Deployment, and one whose image is not on the list any more (the webhook would not
        inject it), does not wait. One that `was_degraded` before proves nothing about the image and takes no slot.
        """
        if current is not None and current != wanted:
            if current in allowed and key not in self.rolling and not self._free(key):
                self.waiting.add(key)
                return current
            if not was_degraded:
                self.changed.add(key)
                self.rolling.add(key)
        self.waiting.discard(key)
        return wanted

    def seen(self, key: Key, has_wanted: bool, stable: bool, degraded: bool) -> set[Key]:
        """What an actor's last pass saw: whether its template has the wanted image, and how its pods are. Actors whose
        turn it may be now."""
        if not has_wanted:
            # Where it was given the image, the API server refused the change.
            self.changed.discard(key)
        counts = key in self.changed
        _put(self.degraded, key, counts and degraded)
        _put(self.rolling, key, counts and not stable)
        return set(self.waiting) if self._free() else set()

    def _free(self, key: Key | None = None) -> bool:
        return len(self.rolling) < self.limit and not self.degraded - {key}

    def forget(self, key: Key) -> None:
        """An actor that is gone."""
        for keys in (self.changed, self.rolling, self.degraded, self.waiting):
            keys.discard(key)


def _put(keys: set[Key], key: Key, belongs: bool) -> None:
    if belongs:
        keys.add(key)
    else:
        keys.discard(key)
