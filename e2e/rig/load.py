"""Live writers: messages to an actor from several threads, and what may be said of its ledger afterwards."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from rig.actors import Actor, Unanswered

LAST_SECONDS = 60.0


class Writers:
    """Messages to an actor whose handler is `handlers.ledger`. `answered` were entered; those of `open_ended` went to
    a pod that was leaving, and may have been."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.answered: list[str] = []
        self.open_ended: list[str] = []
        self._lock = threading.Lock()
        self._numbers = iter(range(100_000))
        self._enough = threading.Event()

    def _write(self, pause: float) -> None:
        while not self._enough.wait(pause):
            with self._lock:
                message = f"m{next(self._numbers)}"
            try:
                self.actor.send({"id": message})
            except Unanswered as error:
                # Not asked (refused, 502, 503), or asked and not heard.
                if error.status not in (0, 502, 503):
                    raise
                with self._lock:
                    self.open_ended.append(message)
            else:
                with self._lock:
                    self.answered.append(message)

    @contextlib.contextmanager
    def running(self, threads: int = 4, pause: float = 0.0) -> Iterator["Writers"]:
        """Write until the block ends; what a writer met is raised there. `pause`: seconds between two messages."""
        with ThreadPoolExecutor(threads) as pool:
            writers = [pool.submit(self._write, pause) for _ in range(threads)]
            try:
                yield self
            finally:
                self._enough.set()
            for writer in writers:
                writer.result(timeout=LAST_SECONDS)

    def lost_nothing(self) -> set[str]:
        """Each acknowledged message is in the ledger once, and none that nobody sent; the pods that wrote."""
        ledger = self.actor.send({"id": "last"})
        self.answered.append("last")
        ids = ledger["ids"]
        assert ledger["count"] == len(ids) == len(set(ids))
        assert set(self.answered) <= set(ids) <= set(self.answered) | set(self.open_ended)
        return set(ledger["pods"])
