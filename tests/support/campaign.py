"""What campaigns are made of: a backend, proxies that can be killed, and clients in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from asya_contract.env import Mount, ShimEnv
from asya_shim.remote import Remote
from support.faults import FaultProxy
from support.servers import Server

NAMES = ("sqlite", "redis", "nats", "s3", "gcs")
NETWORKED = ("redis", "nats", "s3", "gcs")
"""Behind a TCP connection that faults can befall."""
DURABLE = ("redis", "nats", "s3")
"""Whose test servers keep what they acknowledged over a kill -9."""
IDS_OVER_DELETES = ("sqlite", "redis", "nats")
"""Where write ids outlive a delete, so that a lost answer to one is settled by any proxy."""
HERE = Path(__file__).parent
START_TIMEOUT = 30.0
STOP_TIMEOUT = 35.0
WORK_TIMEOUT = 900.0


def on(*cases: str) -> pytest.MarkDecorator:
    """Run a test for each case, such as `redis cas` or `nats+faults lww`: a backend (fixture) and a mode."""
    values = [tuple(case.split(" ")) for case in cases]
    return pytest.mark.parametrize(
        ("backend", "mode"), values, indirect=True, ids=[case.replace(" ", "-") for case in cases]
    )


def everywhere(suffix: str = "", names: Sequence[str] = NAMES) -> list[str]:
    """All backends in both modes."""
    return [f"{name}{suffix} {mode}" for name in names for mode in ("cas", "lww")]


@dataclass
class Backend:
    """Where the state lies. `environ` is what the proxy needs to know; `server` is None where there is none.

    `fault_proxy` stands in front of the server where one was asked for.
    """

    name: str
    environ: dict[str, str]
    server: Server | None = None
    fault_proxy: FaultProxy | None = None


class Nursery:
    """One process that proxies are forked from, so that each starts, and starts again, at once."""

    def __init__(self, backends: Sequence[str] = NAMES) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "campaign_proxy.py"), *backends], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the proxies' imports failed"

    def fork(self, environ: Mapping[str, str], pidfile: Path, log: Path) -> None:
        told = {"environ": dict(environ), "pidfile": str(pidfile), "log": str(log)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


@dataclass
class Proxy:
    """A state proxy on a socket of its own, its log in `directory`. Where it is killed by SIGKILL the next one takes
    its place at once."""

    nursery: Nursery
    directory: Path
    backend: Backend
    consistency: str = "cas"
    prefix: str = "ns/actor/"
    losses: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> Self:
        self.spawn()
        return self.await_ready()

    def spawn(self) -> None:
        # Socket paths must be short, whatever pytest calls its directories.
        self._sockets = Path(tempfile.mkdtemp(prefix="asya"))
        self._pidfile = self._sockets / "pid"
        self._arm = self._sockets / "arm"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "proxy.log"
        environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("STATE_", "ASYA_"))},
            **self.backend.environ,
            "STATE_PREFIX": self.prefix,
            "STATE_CONSISTENCY": self.consistency,
            "STATE_SOCKET": str(self._sockets / "state.sock"),
            "STATE_HTTP_ADDR": "off",
            "STATE_SELF_TEST": "false",
            "STATE_LOG_LEVEL": "warning",
            **self.settings,
            "CAMPAIGN_ARM": str(self._arm),
            "CAMPAIGN_LOSSES": json.dumps(dict(self.losses)) if self.losses else "",
        }
        self.nursery.fork(environ, self._pidfile, self.log)

    def await_ready(self) -> Self:
        try:
            self.remote(timeout=START_TIMEOUT).stat(b"ready")
        except OSError as error:
            said = self.log.read_text()[-3000:] if self.log.exists() else "nothing"
            self.stop()
            raise RuntimeError(f"the proxy did not start; it said:\n{said}") from error
        return self

    def stop(self) -> None:
        """SIGTERM, as at the end of a pod, and SIGKILL for what does not heed it."""
        if self._pidfile.exists():
            pid = self.pid
            _signal(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT
            while _signal(pid, 0):
                assert time.monotonic() < deadline, f"the proxy did not stop; its log is {self.log}"
                time.sleep(0.002)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return int(self._pidfile.read_text())

    def kill(self) -> None:
        """SIGKILL now; returns once another process is the proxy."""
        before = self.pid
        os.kill(before, signal.SIGKILL)
        self.await_next(before)

    def await_next(self, before: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while self.pid == before:
            assert time.monotonic() < deadline, "the proxy did not come back"
            time.sleep(0.002)

    def arm(self, kind: str = "") -> None:
        """The next change of the store (`put`, `delete`, ...; "": any) is committed and never answered."""
        fresh = self._arm.with_suffix(".new")
        fresh.write_text(kind)
        fresh.rename(self._arm)

    @property
    def armed(self) -> bool:
        return self._arm.exists()

    @property
    def shim(self) -> dict[str, str]:
        """The shim's environment."""
        return {"ASYA_STATE_SOCKET_DIR": str(self._sockets)}

    def remote(self, timeout: float = 30.0) -> Remote:
        """The real client of the shim."""
        return Remote(Mount(), ShimEnv(socket_dir=str(self._sockets), request_timeout=timeout))


def _signal(pid: int, number: int) -> bool:
    """Whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def proxies(count: int, nursery: Nursery, directory: Path, backend: Backend, **settings: Any) -> Iterator[list[Proxy]]:
    """Several proxies of the same state, as pods have them."""
    found = [Proxy(nursery, directory / f"p{number}", backend, **settings) for number in range(count)]
    with contextlib.ExitStack() as stack:
        for proxy in found:
            proxy.spawn()
            stack.callback(proxy.stop)
        for proxy in found:
            proxy.await_ready()
        yield found


@dataclass(frozen=True)
class Work:
    """One client's process: what `support.campaign_worker` is told, through which proxy."""

    proxy: Proxy
    task: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Workers:
    """Clients at work, each a process; `results` waits for all and returns what each recorded, in order.

    `patience` is the shim's deadline of a call, in seconds.
    """

    def __init__(self, works: Sequence[Work], patience: float = 30.0) -> None:
        self._works = works
        self._patience = patience
        self._processes = [self._start(work) for work in works]

    def _start(self, work: Work) -> subprocess.Popen[bytes]:
        told = {"task": work.task, "name": work.name, **work.parameters}
        path = os.pathsep.join(str(Path(module.__file__ or "").parents[1]) for module in _shim_modules())
        environ = {**os.environ, **work.proxy.shim, "PYTHONPATH": path}
        environ["ASYA_STATE_REQUEST_TIMEOUT"] = f"{self._patience:g}s"
        environ.pop("ASYA_STATE_PROXY_MOUNTS", None)
        return subprocess.Popen(
            [sys.executable, str(HERE / "campaign_worker.py"), json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
        )

    def go(self) -> Self:
        """Let all begin at once."""
        try:
            for process, work in zip(self._processes, self._works, strict=True):
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n", f"{work.name} did not start"
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                process.stdin.flush()
        except BaseException:
            self._end()
            raise
        return self

    @property
    def busy(self) -> bool:
        return any(process.poll() is None for process in self._processes)

    def results(self, timeout: float = WORK_TIMEOUT) -> list[list[dict[str, Any]]]:
        deadline = time.monotonic() + timeout
        found = []
        try:
            for process, work in zip(self._processes, self._works, strict=True):
                out, _ = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
                assert process.returncode == 0, f"{work.name} ended with status {process.returncode}"
                found.append([json.loads(line) for line in out.splitlines()])
        finally:
            self._end()
        return found

    def _end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)


def _shim_modules() -> list[Any]:
    import asya_contract
    import asya_shim

    return [asya_contract, asya_shim]


def say(figure: str) -> None:
    """A figure of a campaign, shown by `pytest -s` and in the log of `make soak`."""
    print(f"\n    {figure}", file=sys.stderr)
