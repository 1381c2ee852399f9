"""Running the handler in a turn: call, stream, commit or discard, and once more after a conflict.

The same for threads (`run`) and for the event loop (`arun`). A result leaves only after the commit; a
turn that fails in any way, be it in its commit, answers an error and stores nothing that was open.
"""

import asyncio
import contextvars
import inspect
import random
import time
from typing import Any, Callable, Coroutine, Tuple, TypeVar

from asya_contract.tracing import incoming
from asya_runtime.handlers import Handler
from asya_runtime.jobs import Event, Job, Outcome
from asya_runtime.logs import log
from asya_runtime.messages import UPSTREAM, describe, encode, raised
from asya_runtime.turns import Turn, Turns

_PAUSE = 0.01
_MAX_PAUSE = 0.5

_T = TypeVar("_T")
Bridge = Callable[[Coroutine[Any, Any, Outcome]], Outcome]
"""Runs a coroutine on the process's event loop and waits for it."""


class Execution:
    """How this process runs its handler: `retries` is `conflictRetries`."""

    def __init__(self, handler: Handler, turns: Turns, retries: int, bridge: Bridge) -> None:
        self._handler = handler
        self._turns = turns
        self._retries = retries
        self._bridge = bridge

    def run(self, job: Job) -> None:
        """Run one claimed job to its end in this thread, in a context of its own."""
        job.tell(Event("started"))
        attempt = 0
        while True:
            outcome, again = contextvars.copy_context().run(self._attempt, job, attempt)
            if not again:
                break
            time.sleep(_pause(attempt))
            attempt += 1
        job.end(outcome)

    async def arun(self, job: Job) -> None:
        """Run one claimed job to its end on the event loop, each attempt as a task of its own."""
        job.tell(Event("started"))
        attempt = 0
        while True:
            task = asyncio.get_running_loop().create_task(self._aattempt(job, attempt))
            # Waited for from outside: its cancellation is the turn's, and not that of whoever runs the turns.
            await asyncio.wait([task])
            if task.cancelled():
                raise _Cancelled("the handler cancelled its own task and then returned")
            outcome, again = task.result()
            if not again:
                break
            await asyncio.sleep(_pause(attempt))
            attempt += 1
        job.end(outcome)

    def _attempt(self, job: Job, attempt: int) -> Tuple[Outcome, bool]:
        incoming.set(job.traceparent)
        with self._turns.new() as turn:
            job.begin(turn)
            try:
                result = self._handler(job.payload())
                outcome = self._bridge(self._arest(job, result)) if _is_async(result) else self._rest(job, result)
                _in_time(job)
                turn.commit()
            except BaseException as error:
                return self._failed(job, turn, error, attempt)
            return outcome, False

    async def _aattempt(self, job: Job, attempt: int) -> Tuple[Outcome, bool]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        incoming.set(job.traceparent)
        with self._turns.new() as turn:
            job.begin(turn, lambda: _cancel(loop, task))
            try:
                outcome = await self._arest(job, self._handler(job.payload()))
                job.committing()
                _in_time(job)
                await self._off_loop(turn.commit)
            except BaseException as error:
                job.committing()
                return await self._off_loop(self._failed, job, turn, error, attempt)
            return outcome, False

    async def _off_loop(self, call: Callable[..., _T], *args: Any) -> _T:
        """Call what may wait for the state, which the other turns of the loop must not wait for."""
        if not self._turns.stateful:
            return call(*args)
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(call, *args))
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                # The turn's time is over, and the server has said so; a commit under way is not left half done.
                continue
        return future.result()

    def _rest(self, job: Job, result: Any) -> Outcome:
        """What comes after the call of a sync handler: the frames of a generator, or one result."""
        if not inspect.isgenerator(result):
            return _single(job, result)
        try:
            for item in result:
                if not job.send(*_frame(job, item)).result():
                    _leave(result)
                    break
        finally:
            result.close()
        return Outcome(streamed=True)

    async def _arest(self, job: Job, result: Any) -> Outcome:
        if inspect.isawaitable(result):
            result = await result
        if not inspect.isasyncgen(result):
            return self._rest(job, result)
        try:
            async for item in result:
                if not await asyncio.wrap_future(job.send(*_frame(job, item))):
                    await _aleave(result)
                    break
        finally:
            await result.aclose()
        return Outcome(streamed=True)

    def _failed(self, job: Job, turn: Turn, error: BaseException, attempt: int) -> Tuple[Outcome, bool]:
        """Discard the turn; `(how it ended, whether to run it anew)`."""
        conflict = self._turns.is_conflict(error)
        job.conflicts += conflict
        stored = turn.stored
        try:
            turn.discard(error)
        except Exception as second:
            log("error", "a failed turn could not store its appends", **job.told, **raised(describe(second)))
        begun = bool(stored or turn.stored or job.sent)
        if conflict and attempt < self._retries and not (begun or job.expired):
            log(
                "info",
                "turn met a conflict, running it anew",
                **job.told,
                attempts=attempt + 1,
                cause=str(error),
            )
            job.reruns += 1
            return Outcome(), True
        if job.expired:
            log("info", "the code of a timed-out turn has ended", **job.told, type=type(error).__name__)
            return Outcome(failure={}), False
        if isinstance(error, GeneratorExit) and job.sent:
            log("info", "client left, generator ended", **job.told)
            return Outcome(streamed=True), False
        details = describe(error)
        log(
            "error",
            "turn failed",
            **job.told,
            attempts=attempt + 1,
            conflict=conflict or None,
            advice=_advice(begun, self._retries) if conflict else None,
            **raised(details),
        )
        return Outcome(failure=details), False


def _advice(begun: bool, retries: int) -> str:
    """What to do about a turn that a conflict has ended."""
    if begun:
        return "it had stored or sent something, so it was not run anew: write the file that others fight for first"
    if retries:
        return "raise conflictRetries, or let fewer turns write this file"
    return "conflictRetries runs such a turn anew, or catch FileExistsError and read the file again"


class _Cancelled(Exception):
    """A turn's task was cancelled when nothing in it could take notice any more."""


class _TooLate(Exception):
    """The turn's code ended after its time; nothing of it is stored."""


def _in_time(job: Job) -> None:
    if job.expired:
        raise _TooLate


def _is_async(result: Any) -> bool:
    return inspect.isawaitable(result) or inspect.isasyncgen(result)


def _single(job: Job, result: Any) -> Outcome:
    return Outcome(None if result is None else job.message.answer(job.message.frame(result)))


def _frame(job: Job, item: Any) -> Tuple[str, bytes]:
    """The event of one yielded item: `(name, data)`."""
    if isinstance(item, tuple) and len(item) == 2 and item[0] == UPSTREAM:
        return "upstream", encode(item[1])
    return "downstream", job.message.frame(item)


def _leave(generator: Any) -> None:
    """End a generator whose client has left; returns where it took GeneratorExit and finished its work."""
    try:
        generator.throw(GeneratorExit())
    except StopIteration:
        return
    raise RuntimeError("the generator yielded again after GeneratorExit")


async def _aleave(generator: Any) -> None:
    try:
        await generator.athrow(GeneratorExit())
    except StopAsyncIteration:
        return
    raise RuntimeError("the generator yielded again after GeneratorExit")


def _cancel(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        # The loop has ended, and the task with it.
        return


def _pause(attempt: int) -> float:
    """Seconds before the next attempt; random, because whoever we met comes again too."""
    longest: float = min(_PAUSE * 2.0**attempt, _MAX_PAUSE)
    return random.uniform(0.5, 1.0) * longest  # noqa: S311
