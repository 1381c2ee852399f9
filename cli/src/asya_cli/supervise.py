"""Keeps the processes of an actor running, as a kubelet would, until it is told to stop.

A replica is an ordered list of processes: each starts when the one before is ready, and they end in the opposite
order, so that the proxy outlives the handler. What dies after it was ready is reported and started again; what dies
before it was ever ready, or too often, ends the run.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence

from asya_cli.child import Child, Process, describe_exit
from asya_cli.console import Console
from asya_cli.errors import CliError

MAX_DEATHS = 5
DEATH_WINDOW = 60.0
"""Seconds: more than MAX_DEATHS deaths of one process within them end the run."""
_BACKOFF = 1.0


async def supervise(replicas: Sequence[Sequence[Process]], console: Console, on_ready: Callable[[], None]) -> None:
    """Run `replicas` until SIGINT, SIGTERM or SIGHUP; call `on_ready` once all of them are ready.

    Nothing of it runs any more when this returns or raises.

    Raises:
        CliError: a process did not become ready, or died too often; the message has its exit and last lines. Or
            the console cannot be written any more.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stop.is_set():
            hurry.set()
        else:
            console.say("stopping (again to kill)")
        stop.set()

    numbers = _signals()
    for number in numbers:
        loop.add_signal_handler(number, told)
    console.when_gone = stop.set
    if console.gone is not None:
        stop.set()
    children = [[Child(process, console) for process in replica] for replica in replicas]
    working = asyncio.create_task(_run(children, console, on_ready))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        working.cancel()
        await asyncio.wait([working, stopping])
        await asyncio.gather(*(_stop(replica, hurry) for replica in children))
        for number in numbers:
            loop.remove_signal_handler(number)
    if not working.cancelled():
        working.result()
    if console.gone is not None:
        raise CliError(f"stopped, because the output cannot be written any more: {console.gone.strerror}")


def _signals() -> list[signal.Signals]:
    """Those that stop the run. A closed terminal sends SIGHUP, but nohup(1) asks to outlive it."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


async def _run(children: Sequence[Sequence[Child]], console: Console, on_ready: Callable[[], None]) -> None:
    await _all(_start(replica) for replica in children)
    on_ready()
    await _all(_keep(child, console) for replica in children for child in replica)


async def _all(jobs: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all of them; the first that fails cancels the others and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _start(replica: Sequence[Child]) -> None:
    """Start one after the other, each once the one before is ready."""
    for child in replica:
        await _launch(child)
        try:
            code = await child.until_ready()
        except TimeoutError:
            why = f"was not ready after {child.process.start_timeout:g} s{_quoted(child)}"
            raise CliError(f"{child.name} {why}") from None
        if code is not None:
            raise CliError(f"{child.name} ended before it was ready ({describe_exit(code)}){_quoted(child)}")


async def _keep(child: Child, console: Console) -> None:
    """Start `child` again whenever it ends, at once the first time, then a second after its end."""
    clock = asyncio.get_running_loop().time
    deaths: deque[float] = deque(maxlen=MAX_DEATHS)
    while True:
        code = await child.exited()
        console.line(child.name, f"ended ({describe_exit(code)}), starting it again{_quoted(child)}", alarm=True)
        recent = [death for death in deaths if clock() - death < DEATH_WINDOW]
        if len(recent) == MAX_DEATHS:
            raise CliError(f"{child.name} ended {MAX_DEATHS + 1} times within {DEATH_WINDOW:g} s")
        if recent:
            await asyncio.sleep(_BACKOFF)
        deaths.append(clock())
        await _launch(child)
        try:
            if await child.until_ready() is None:
                console.line(child.name, "ready again")
        except TimeoutError:
            console.line(child.name, f"not ready after {child.process.start_timeout:g} s", alarm=True)


async def _launch(child: Child) -> None:
    try:
        await child.start()
    except OSError as error:
        raise CliError(f"{child.name}: {child.process.argv[0]} cannot be started: {error.strerror}") from None


async def _stop(replica: Sequence[Child], hurry: asyncio.Event) -> None:
    for child in reversed(replica):
        await child.stop(hurry)


def _quoted(child: Child) -> str:
    """The child's last lines, indented below a message."""
    return "".join(f"\n    {line}" for line in child.last_lines)
