"""How fast a new proxy image spreads: at most so many actors at a time, and none more while one that has it is
Degraded. Bookkeeping in memory; after a restart each actor's first pass enters it again."""

from dataclasses import dataclass, field

Key = tuple[str, str]


@dataclass
class Rollout:
    """`limit` is the number of actors whose pods may be replaced at a time."""

    limit: int
    rolling: set[Key] = field(default_factory=set)
    degraded: set[Key] = field(default_factory=set)
    waiting: set[Key] = field(default_factory=set)

    def image(self, key: Key, current: str | None, wanted: str, allowed: list[str]) -> str:
        """The proxy image for an actor's template: `wanted`, or `current` while it is not its turn.

        An actor without a Deployment, and one whose image is not on the list any more (the webhook would not
        inject it), does not wait.
        """
        waits = current is not None and current != wanted and current in allowed and key not in self.rolling
        if waits and current is not None and (len(self.rolling) >= self.limit or self.degraded - {key}):
            self.waiting.add(key)
            return current
        self.waiting.discard(key)
        if waits:
            self.rolling.add(key)
        return wanted

    def seen(self, key: Key, has_wanted: bool, stable: bool, degraded: bool) -> set[Key]:
        """What an actor's last pass saw: whether its template has the wanted image, and how its pods are. Actors whose
        turn it may be now."""
        if not has_wanted:
            return set()
        if degraded:
            self.degraded.add(key)
        else:
            self.degraded.discard(key)
        if stable:
            self.rolling.discard(key)
        else:
            self.rolling.add(key)
        return set(self.waiting) if len(self.rolling) < self.limit and not self.degraded else set()

    def forget(self, key: Key) -> None:
        """An actor that is gone."""
        for keys in (self.rolling, self.degraded, self.waiting):
            keys.discard(key)
