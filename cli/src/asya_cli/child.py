"""One process of the actor: started in a session of its own, its output read line by line, ended by its handle.

A child never outlives `asya run`: it is told to end, given time to drain, then killed with everything in its session;
and should `asya run` itself be killed, the kernel passes a SIGTERM on (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asya_cli.console import Console
from asya_cli.loglines import readable
from asya_cli.probe import Endpoint, is_ready

_MAX_LINE = 64 * 2**10
_LAST_LINES = 8
_POLL = 0.05
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Process:
    """What to start: `name` for its lines, the whole environment, and where to ask whether it is ready.

    `start_timeout` and `stop_timeout` are in seconds.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    ready: Endpoint
    start_timeout: float = 60.0
    stop_timeout: float = 30.0


def describe_exit(code: int) -> str:
    """`exit code 3`, or `killed by SIGKILL` for what `subprocess` calls -9."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _end_with(parent: int) -> Callable[[], None]:
    # Loaded here, because the child may do next to nothing between fork and exec.
    libc = ctypes.CDLL(None, use_errno=True)

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return before_exec


class Child:
    """A running `Process`; `start` may be called again once it has exited."""

    def __init__(self, process: Process, console: Console) -> None:
        self.process = process
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._console = console
        self._running: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.process.name

    async def start(self) -> None:
        """Start it. Raises OSError where the program cannot be run."""
        self.last_lines.clear()
        # A pipe of our own: asyncio's would tie the process's end to that of every grandchild that holds it.
        read_end, write_end = os.pipe()
        output = io.FileIO(read_end)
        try:
            self._running = await asyncio.create_subprocess_exec(
                *self.process.argv,
                env=dict(self.process.env),
                cwd=self.process.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,  # Ctrl-C reaches us alone, so that the runtime ends before its proxy
                preexec_fn=_end_with(os.getpid()),
            )
        except BaseException:
            output.close()
            raise
        finally:
            os.close(write_end)
        self._reading = asyncio.create_task(self._read(output))
        self._console.line(self.name, f"started, pid {self._running.pid}")

    async def exited(self) -> int:
        """Wait for its end and for its last line; the exit code, negative for a signal.

        What it left behind in its session is killed, as it is when a container ends.
        """
        assert self._running is not None
        assert self._reading is not None
        code = await self._running.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        # Bounded: a process that left the session may hold the pipe open.
        await asyncio.wait([self._reading], timeout=1.0)
        self._reading.cancel()
        return code

    async def until_ready(self) -> int | None:
        """None once it is ready; its exit code if it ended first. Raises TimeoutError after `start_timeout`."""
        assert self._running is not None
        async with asyncio.timeout(self.process.start_timeout):
            while self._running.returncode is None:
                if await is_ready(self.process.ready):
                    return None
                await asyncio.sleep(_POLL)
        return await self.exited()

    async def stop(self, hurry: asyncio.Event) -> None:
        """End it: SIGTERM, then SIGKILL to its whole session after `stop_timeout`, or at once when `hurry` is set."""
        if self._running is None:
            return
        if self._running.returncode is None:
            self._running.terminate()
            ended = asyncio.ensure_future(self._running.wait())
            hurried = asyncio.ensure_future(hurry.wait())
            await asyncio.wait([ended, hurried], timeout=self.process.stop_timeout, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not ended.done():
                why = "asked twice" if hurry.is_set() else f"still there after {self.process.stop_timeout:g} s"
                self._console.line(self.name, f"{why}: killed", alarm=True)
                self._running.kill()
        await self.exited()

    async def _read(self, output: io.FileIO) -> None:
        stream = asyncio.StreamReader(limit=_MAX_LINE)
        protocol = asyncio.StreamReaderProtocol(stream)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, output)
        pending = b""
        try:
            while piece := await stream.read(_MAX_LINE):
                *lines, pending = (pending + piece).split(b"\n")
                if len(pending) > _MAX_LINE:
                    lines.append(pending)
                    pending = b""
                for line in lines:
                    self._say(line)
            if pending:
                self._say(pending)
        finally:
            transport.close()

    def _say(self, line: bytes) -> None:
        text, alarming = readable(line.decode("utf-8", "replace").rstrip("\r"))
        for piece in text.split("\n"):
            self.last_lines.append(piece)
            self._console.line(self.name, piece, alarm=alarming)
