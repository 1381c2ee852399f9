"""Which requests become turns, and which are answered 503: bounds, readiness and drain.

Lives on the server's event loop alone.
"""

import asyncio
from typing import Optional, Set

from asya_runtime.jobs import Event, Job
from asya_runtime.metrics import Figures
from asya_runtime.turns import unstored
from asya_runtime.workers import Workers

QUEUE = 16
"""Requests that wait for each one that may run."""


class Unavailable(Exception):
    """No turn for this request now; `code` is starting, busy or draining."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Admission:
    """Counts what runs and what waits."""

    def __init__(self, concurrency: int) -> None:
        self.figures = Figures()
        self._concurrency = concurrency
        self._limit = concurrency * (QUEUE + 1)
        self._workers: Optional[Workers] = None
        self._jobs: Set[Job] = set()
        self._draining = False
        self.idle = asyncio.Event()
        """Set while no turn runs or waits."""
        self.idle.set()
        self._started = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self._workers is not None and not self._draining

    @property
    def open_for_more(self) -> bool:
        """Whether connections are kept after their answer."""
        return not self._draining

    @property
    def state(self) -> str:
        """ready, starting or draining."""
        return "draining" if self._draining else ("starting" if self._workers is None else "ready")

    def open(self, workers: Workers) -> None:
        """From now on requests become turns."""
        self._workers = workers
        self._started.set()

    async def started(self, patience: float) -> None:
        """Wait until it is no longer starting, for at most `patience` seconds."""
        try:
            await asyncio.wait_for(self._started.wait(), patience)
        except asyncio.TimeoutError:
            return

    def check(self) -> Workers:
        """Raises Unavailable where a request that came now would not become a turn."""
        if self._draining:
            raise Unavailable(self.state, "the runtime is shutting down")
        if self._workers is None:
            raise Unavailable("starting", "the runtime is not ready yet")
        if len(self._jobs) >= self._limit:
            raise Unavailable("busy", f"{len(self._jobs)} requests run or wait already")
        return self._workers

    def admit(self, job: Job) -> None:
        """Let the job run when its turn comes. Raises Unavailable."""
        workers = self.check()
        self._jobs.add(job)
        self.idle.clear()
        job.on_end = lambda: self._ended(job)
        workers.submit(job)

    def refuse(self, job: Job, code: str) -> bool:
        """Take a waiting job out again; False where it has begun."""
        if not job.claim():
            return False
        job.events.put_nowait(Event("refused", code.encode()))
        self._ended(job)
        return True

    def drain(self) -> None:
        """Admit nothing more and refuse what waits; what runs goes on."""
        self._draining = True
        self._started.set()
        for job in list(self._jobs):
            self.refuse(job, "draining")

    @property
    def unfinished(self) -> int:
        return len(self._jobs)

    def metrics(self) -> bytes:
        """Everything that there is to count."""
        running = sum(job.claimed for job in self._jobs)
        plain = {
            "running": running,
            "waiting": len(self._jobs) - running,
            "concurrency": self._concurrency,
            "ready": int(self.ready),
            "draining": int(self._draining),
        }
        return self.figures.text(plain, unstored())

    def _ended(self, job: Job) -> None:
        self._jobs.discard(job)
        self.figures.conflicts += job.conflicts
        self.figures.reruns += job.reruns
        if not self._jobs:
            self.idle.set()
