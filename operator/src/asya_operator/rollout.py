"""How fast a new proxy image spreads: at most so many actors at a time, and none more while one on trial is Degraded.

An actor is on trial with an image from the change of its template until its pods have been well for a while, or until
its owner changes it: from then on what befalls it says nothing about the image. Only actors that the rollout has
changed are, for any tenant may make new ones that never work. The trial stands on the Deployment, so that a process
that starts anew goes on where the last one ended; the rest is bookkeeping in memory.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asya_contract.names import GROUP

Key = tuple[str, str]

TRIAL_ANNOTATION = f"{GROUP}/image-trial"
TRIAL_SECONDS = 600.0


@dataclass(frozen=True)
class Trial:
    """Since when an actor has the image that it is on trial with, and the actor's generation then."""

    since: datetime.datetime
    generation: int

    @classmethod
    def of(cls, deployment: Mapping[str, Any] | None) -> "Trial | None":
        """What stands on a Deployment; None where nothing does, or nothing that can be read."""
        if deployment is None:
            return None
        text = (deployment["metadata"].get("annotations") or {}).get(TRIAL_ANNOTATION, "")
        since, _, generation = text.partition(" generation ")
        try:
            return cls(datetime.datetime.strptime(since, "%Y-%m-%dT%H:%M:%S%z"), int(generation))
        except ValueError:
            return None

    def annotations(self) -> dict[str, str]:
        """For the Deployment."""
        since = self.since.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {TRIAL_ANNOTATION: f"{since} generation {self.generation}"}

    def rest(self, now: datetime.datetime) -> float:
        """Seconds that it takes still where all goes well; 0 once it is over."""
        return max(0.0, TRIAL_SECONDS - (now - self.since).total_seconds())


@dataclass
class Rollout:
    """`limit` is the number of actors whose pods may be replaced at a time. `rolling` and `degraded` are of those on
    trial. While it is `held`, no actor is given a new image."""

    limit: int
    rolling: set[Key] = field(default_factory=set)
    degraded: set[Key] = field(default_factory=set)
    waiting: set[Key] = field(default_factory=set)
    held: bool = False

    def recall(self, deployments: Iterable[Mapping[str, Any]]) -> None:
        """Where the last process was: who is on trial counts as rolling until its own pass."""
        for found in deployments:
            if Trial.of(found) is not None:
                self.rolling.add((found["metadata"]["namespace"], found["metadata"]["name"]))

    def image(self, key: Key, current: str | None, wanted: str, allowed: list[str], was_degraded: bool = False) -> str:
        """The proxy image for an actor's template: `wanted`, or `current` while it is not its turn.

        An actor without a Deployment does not wait. One whose image is not on the list any more (the webhook would not
        inject it) waits only while all are held. One that `was_degraded` before proves nothing and takes no slot.
        """
        if current is not None and current != wanted:
            if key not in self.rolling and (self.held or (current in allowed and not self._free(key))):
                self.waiting.add(key)
                return current
            if not was_degraded:
                self.rolling.add(key)
        self.waiting.discard(key)
        return wanted

    def seen(self, key: Key, on_trial: bool, stable: bool, degraded: bool) -> set[Key]:
        """What an actor's last pass saw: whether it is on trial with the wanted image, and how its pods are. Actors
        whose turn it may be now. One that was given a slot and is not on trial gives it back: its change was refused.
        """
        _put(self.degraded, key, on_trial and degraded)
        _put(self.rolling, key, on_trial and not stable)
        return set(self.waiting) if self._free() else set()

    def first(self, key: Key) -> bool:
        """True for one of those that wait: it looks for all of them."""
        return key == min(self.waiting, default=None)

    def _free(self, key: Key | None = None) -> bool:
        return not self.held and len(self.rolling) < self.limit and not self.degraded - {key}

    def forget(self, key: Key) -> set[Key]:
        """An actor that is gone. Actors whose turn it may be now."""
        held = key in self.rolling or key in self.degraded
        for keys in (self.rolling, self.degraded, self.waiting):
            keys.discard(key)
        return set(self.waiting) if held and self._free() else set()


def _put(keys: set[Key], key: Key, belongs: bool) -> None:
    if belongs:
        keys.add(key)
    else:
        keys.discard(key)
