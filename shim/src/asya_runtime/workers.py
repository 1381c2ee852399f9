"""Where turns run: the main thread, threads, or one event loop for the life of the process.

`concurrency` workers take jobs in order of arrival, each one at a time, so a slot is free only when the
code of its turn has ended. What waits is bounded by whoever submits (`admission`).
"""

import asyncio
import threading
from queue import SimpleQueue
from typing import Any, Callable, Coroutine, List, Optional, Protocol

from asya_runtime.execution import Bridge, Execution
from asya_runtime.jobs import Job, Outcome
from asya_runtime.logs import log
from asya_runtime.messages import describe, raised


class Workers(Protocol):
    """`submit` and `stop` may be called from any thread once `run` has called `ready`."""

    def run(self, execution: Execution, ready: Callable[[], None]) -> None:
        """Run jobs, from the main thread, until `stop`."""

    def submit(self, job: Job) -> None: ...

    def stop(self) -> None: ...


def _broken(job: Job, error: BaseException) -> None:
    """The runtime's own failure, or an exception that a signal handler threw between two steps of it."""
    details = describe(error)
    job.end(Outcome(failure=details))
    log("error", "turn failed outside its handler", **job.told, **raised(details))


class Threads:
    """Sync handlers: one in the main thread, which some libraries demand, or several in threads."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._jobs: SimpleQueue[Optional[Job]] = SimpleQueue()

    def run(self, execution: Execution, ready: Callable[[], None]) -> None:
        ready()
        if self._concurrency == 1:
            self._work(execution)
            return
        threads: List[threading.Thread] = []
        for number in range(self._concurrency):
            thread = threading.Thread(target=self._work, args=(execution,), name=f"asya-turn-{number}")
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        for _ in range(self._concurrency):
            self._jobs.put(None)

    def _work(self, execution: Execution) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            if job.claim():
                try:
                    execution.run(job)
                except BaseException as error:
                    _broken(job, error)


class Loop:
    """Async handlers: every turn a task of one event loop, in the main thread."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._jobs: Optional[asyncio.Queue[Optional[Job]]] = None

    def run(self, execution: Execution, ready: Callable[[], None]) -> None:
        asyncio.run(self._main(execution, ready))

    async def _main(self, execution: Execution, ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs = asyncio.Queue()
        ready()
        await asyncio.gather(*(self._work(execution, self._jobs) for _ in range(self._concurrency)))

    async def _work(self, execution: Execution, jobs: "asyncio.Queue[Optional[Job]]") -> None:
        while True:
            job = await jobs.get()
            if job is None:
                return
            if job.claim():
                try:
                    await execution.arun(job)
                except Exception as error:
                    _broken(job, error)

    def submit(self, job: Job) -> None:
        self._put(job)

    def stop(self) -> None:
        for _ in range(self._concurrency):
            self._put(None)

    def _put(self, job: Optional[Job]) -> None:
        assert self._loop is not None
        assert self._jobs is not None
        self._loop.call_soon_threadsafe(self._jobs.put_nowait, job)


def loop_here() -> Bridge:
    """A bridge for turns in the main thread: one loop of theirs, which stands still between two of them."""
    loops: List[asyncio.AbstractEventLoop] = []

    def run(coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
        if not loops:
            loops.append(asyncio.new_event_loop())
            asyncio.set_event_loop(loops[0])
        return loops[0].run_until_complete(coroutine)

    return run


def loop_aside() -> Bridge:
    """A bridge for turns in several threads: one loop in a thread of its own, started when it is needed."""
    loops: List[asyncio.AbstractEventLoop] = []
    lock = threading.Lock()

    def run(coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
        with lock:
            if not loops:
                loops.append(asyncio.new_event_loop())
                threading.Thread(target=loops[0].run_forever, name="asya-loop", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, loops[0]).result()

    return run
