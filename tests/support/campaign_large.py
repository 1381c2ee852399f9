"""Files larger than a proxy's memory: a proxy as its image starts it, in a memory as small as a pod's, and a client
that makes and checks content as it goes."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from asya_contract.wire import H_WRITE_ID
from support.campaign import START_TIMEOUT, STOP_TIMEOUT, Backend

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
CGROUPS = Path("/sys/fs/cgroup")
PATIENCE = 300.0
"""Seconds that the client waits for an answer."""


def image_environ() -> dict[str, str]:
    """What the proxy's image sets for its allocator."""
    return dict(re.findall(r"\b(MALLOC_\w+)=(\w+)", (ROOT / "Dockerfile.proxy").read_text()))


class MemoryGroup:
    """A control group of at most `limit` bytes, version 1 or 2, where this user may make one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.path: Path | None = None

    def __enter__(self) -> Self:
        for parent, file in ((CGROUPS, "memory.max"), (CGROUPS / "memory", "memory.limit_in_bytes")):
            path = parent / f"asya-test-{os.getpid()}-{secrets.token_hex(4)}"
            with contextlib.suppress(OSError):
                path.mkdir()
                if (path / file).exists():
                    (path / file).write_text(str(self._limit))
                    self.path = path
                    return self
                path.rmdir()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.path is not None:
            self.path.rmdir()

    def join(self) -> None:
        """In the child, before it runs the proxy."""
        if self.path is not None:
            (self.path / "cgroup.procs").write_text(str(os.getpid()))


class LargeProxy:
    """`asya-state-proxy serve` in a process of its own, with at most `limit` bytes of memory where that can be had."""

    def __init__(
        self, directory: Path, backend: Backend, consistency: str, limit: int, settings: Mapping[str, str]
    ) -> None:
        self.backend = backend
        self.consistency = consistency
        self.log = directory / "proxy.log"
        self._settings = settings
        self._group = MemoryGroup(limit)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(self._group)
            sockets = tempfile.mkdtemp(prefix="asya")
            self._stack.callback(shutil.rmtree, sockets, ignore_errors=True)
            self._path = f"{sockets}/state.sock"
            self._start()
            self._stack.callback(self._stop)
            self._await_ready()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("STATE_", "ASYA_", "MALLOC_"))},
            **image_environ(),
            **self.backend.environ,
            "STATE_PREFIX": "ns/actor/",
            "STATE_CONSISTENCY": self.consistency,
            "STATE_SOCKET": self._path,
            "STATE_HTTP_ADDR": "off",
            "STATE_SELF_TEST": "false",
            "STATE_LOG_LEVEL": "warning",
            **self._settings,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "asya_proxy", "serve"],
                env=environ,
                stdout=log,
                stderr=log,
                preexec_fn=self._group.join,
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/readyz").status == 200:
                    return
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_TIMEOUT)
        finally:
            self._process.kill()
            self._process.wait()
        assert status == 0, f"the proxy ended with status {status}; its log is {self.log}"

    @property
    def bounded(self) -> bool:
        """Whether the kernel holds it to its limit; else its peak alone tells."""
        return self._group.path is not None

    @property
    def peak(self) -> int:
        """Most resident memory so far, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) // 1024

    def connect(self) -> Link:
        return Link(self._path)

    def ask(self, method: str, target: str) -> http.client.HTTPResponse:
        """An answer whose body is of no interest."""
        link = self.connect()
        try:
            link.request(method, target)
            answer = link.getresponse()
            answer.read()
            return answer
        finally:
            link.close()


class Link(http.client.HTTPConnection):
    """A connection to the proxy's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("asya", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class Made:
    """Content of `size` MiB, no two pieces of it and no two contents alike; made and compared, never held."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._block = os.urandom(MIB)

    def __iter__(self) -> Iterator[bytes]:
        return self.first(self.size)

    def first(self, count: int) -> Iterator[bytes]:
        for number in range(count):
            yield number.to_bytes(8, "big") + self._block[8:]

    def check(self, answer: http.client.HTTPResponse) -> None:
        """Read an answer to its end and compare."""
        got = bytearray(MIB)
        for number, wanted in enumerate(self):
            view = memoryview(got)
            while view and (count := answer.readinto(view)):
                view = view[count:]
            assert not view, f"the answer ended in piece {number} of {self.size}"
            assert got == wanted, f"piece {number} of {self.size} is another one"
        assert not answer.read(1)


def begin_put(proxy: LargeProxy, key: str, version: str | None, length: int | None) -> Link:
    """A PUT without its body: over `version`, or where absent; `length` in bytes, else chunked."""
    link = proxy.connect()
    link.putrequest("PUT", f"/keys/{key}", skip_accept_encoding=True)
    link.putheader(H_WRITE_ID, secrets.token_hex(16))
    link.putheader(*(("If-None-Match", "*") if version is None else ("If-Match", version)))
    link.putheader(*(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))))
    link.endheaders()
    return link


def send(link: Link, pieces: Iterator[bytes], *, chunked: bool) -> None:
    for piece in pieces:
        link.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)


def put(proxy: LargeProxy, key: str, made: Made, version: str | None = None, *, chunked: bool = False) -> str:
    """Upload it; the new version, as a header has it."""
    link = begin_put(proxy, key, version, None if chunked else made.size * MIB)
    try:
        with contextlib.suppress(BrokenPipeError):  # it was refused before its end; the answer says why
            send(link, iter(made), chunked=chunked)
            if chunked:
                link.send(b"0\r\n\r\n")
        answer = link.getresponse()
        said = answer.read()
    finally:
        link.close()
    assert answer.status == 204, said
    etag = answer.headers["ETag"]
    assert etag is not None
    return etag


def cut_put(proxy: LargeProxy, key: str, made: Made, version: str, *, chunked: bool) -> None:
    """Begin to replace it, and go away half way."""
    link = begin_put(proxy, key, version, None if chunked else made.size * MIB)
    try:
        send(link, made.first(made.size // 2), chunked=chunked)
    except BrokenPipeError:
        raise AssertionError(f"refused before it was cut: {link.getresponse().read()!r}") from None
    finally:
        link.close()


@contextlib.contextmanager
def begin_get(proxy: LargeProxy, key: str) -> Iterator[http.client.HTTPResponse]:
    link = proxy.connect()
    try:
        link.request("GET", f"/keys/{key}")
        answer = link.getresponse()
        assert answer.status == 200
        yield answer
    finally:
        link.close()
