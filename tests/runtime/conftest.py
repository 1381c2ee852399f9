"""The runtime as a process of its own, and the same parts in this process where a test needs fake turns."""

import http.client
import json
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from asya_contract.env import RuntimeEnv
from asya_contract.logs import ALWAYS, KEYS
from asya_runtime.execution import Execution
from asya_runtime.handlers import Handler, is_async
from asya_runtime.server import Server
from asya_runtime.turns import Stateless, Turns
from asya_runtime.workers import Loop, Threads, loop_aside, loop_here

SOURCE = Path(__file__).resolve().parents[2] / "shim" / "src"
RUN = SOURCE / "asya_runtime" / "run.py"
PATIENCE = 20.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The events of a stream."""
        found = []
        for block in self.body.decode().split("\n\n"):
            if block:
                name, data = block.split("\n")
                found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return found


class Caller:
    """HTTP to whatever listens on `port`."""

    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, payload: Any) -> Answer:
        return self.call("POST", "/", json.dumps(payload).encode())

    def invoke(self, payload: Any, **more: Any) -> Answer:
        envelope = {"route": {"prev": [], "curr": "here", "next": ["there"]}, "payload": payload, **more}
        return self.call("POST", "/invoke", json.dumps(envelope).encode())

    def later(self, payload: Any) -> "Later":
        return Later(lambda: self.post(payload))


class Later:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._result: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], Answer]) -> None:
        try:
            self._result.put(call())
        except Exception as error:
            self._result.put(error)

    def get(self) -> Answer:
        result = self._result.get(timeout=PATIENCE)
        self._thread.join(PATIENCE)
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, Answer)
        return result


def eventually(what: Callable[[], Any]) -> Any:
    """The first true value of `what`, within the deadline."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("never became true")


class Process(Caller):
    """`python run.py` with what it writes: lines of a handler and of the log, which reach two pipes in pieces."""

    def __init__(self, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        outputs = (self.process.stdout, self.process.stderr)
        self._open = len(outputs)
        self._readers = [threading.Thread(target=self._read, args=(output,)) for output in outputs]
        for reader in self._readers:
            reader.start()

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                with self._grown:
                    self.lines.append(line.rstrip("\n"))
                    self._grown.notify_all()
        with self._grown:
            self._open -= 1
            self._grown.notify_all()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(PATIENCE)

    def wait_for(self, what: Callable[[str], Any]) -> str:
        """The first line that `what` holds for."""

        def found() -> str | None:
            return next((line for line in self.lines if what(line)), None)

        with self._grown:
            self._grown.wait_for(lambda: found() is not None or not self._open, timeout=PATIENCE)
            line = found()
        if line is None:
            raise AssertionError("no such line in:\n" + "\n".join(self.lines))
        return line

    def log(self, message: str) -> dict[str, Any]:
        """The first log line with this message."""
        found = json.loads(self.wait_for(lambda line: line.startswith("{") and json.loads(line)["message"] == message))
        assert isinstance(found, dict)
        assert set(ALWAYS) <= set(found) <= set(KEYS)
        return found

    def ready(self) -> "Process":
        self.port = int(self.log("ready")["port"])
        return self

    def end(self) -> int:
        """The exit status, once all of its output has been read."""
        status = self.process.wait(PATIENCE)
        self._join()
        return status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._join()


@dataclass
class Launcher:
    directory: Path
    started: list[Process] = field(default_factory=list)

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def start(
        self,
        source: str = "",
        handler: str = "agent.process",
        arguments: tuple[str, ...] = (),
        python: str = sys.executable,
        run: Path = RUN,
        **variables: str,
    ) -> Process:
        """Start the runtime in the test's directory, with `source` as `agent.py`."""
        if source:
            self.write("agent.py", source)
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "PYTHONFAULTHANDLER": "1"}
        env |= {"ASYA_HANDLER": handler, "ASYA_HTTP_HOST": "127.0.0.1", "ASYA_HTTP_PORT": "0"}
        env |= variables
        process = Process([python, "-u", str(run), *arguments], self.directory, env)
        self.started.append(process)
        return process

    def serve(self, source: str, handler: str = "agent.process", **variables: str) -> Process:
        """The same, ready."""
        return self.start(source, handler, **variables).ready()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    for process in launcher.started:
        process.stop()


class FakeConflict(FileExistsError):
    pass


class FakeTurn(Stateless):
    """Writes down what is asked of it. `fail` raises from the commit, once for each error in it."""

    made: list["FakeTurn"]
    fail: list[BaseException]

    def __init__(self) -> None:
        self.stored = False
        self.calls: list[str] = []
        self.made.append(self)

    def commit(self) -> None:
        self.calls.append("commit")
        if self.fail:
            raise self.fail.pop(0)

    def discard(self, because: BaseException | None = None) -> None:
        self.calls.append("discard")
        self.because = because

    def cancel(self) -> None:
        self.calls.append("cancel")


class Local(Caller):
    """Server and workers in this process, the workers beside the main thread."""

    conflict = FakeConflict

    def __init__(self, handler: Handler, **settings: Any) -> None:
        self.turn = type("Turn", (FakeTurn,), {"made": [], "fail": []})
        env = RuntimeEnv(handler="a.b", http_host="127.0.0.1", http_port=0, **settings)
        self._server = Server(env)
        self.port = self._server.port
        self._server.start()
        one = env.concurrency == 1
        workers = Loop(env.concurrency) if is_async(handler) else Threads(env.concurrency)
        turns = Turns(self.turn, FakeConflict)
        execution = Execution(handler, turns, env.conflict_retries, loop_here() if one else loop_aside())
        opened = threading.Event()

        def ready() -> None:
            self._server.open(workers)
            opened.set()

        self._thread = threading.Thread(target=workers.run, args=(execution, ready))
        self._thread.start()
        assert opened.wait(PATIENCE)
        eventually(lambda: self.call("GET", "/readyz").status == 200)

    @property
    def turns(self) -> list[FakeTurn]:
        made: list[FakeTurn] = self.turn.made  # type: ignore[attr-defined]
        return made

    @property
    def unfinished(self) -> int:
        """Requests that run or wait."""
        assert self._server._admission is not None
        return self._server._admission.unfinished

    def close(self) -> None:
        self._server.drain()
        self._thread.join(PATIENCE)
        self._server.join()


@pytest.fixture
def local() -> Iterator[Callable[..., Local]]:
    made: list[Local] = []

    def make(handler: Handler, **settings: Any) -> Local:
        made.append(Local(handler, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
