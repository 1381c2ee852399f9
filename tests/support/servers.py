"""Real servers for tests: started on loopback or a Unix socket, in a directory of their own, ended by their own
process handle. A kind of server is a subclass of `Server` that says how to start it and when it is ready."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from support.ports import free_port

START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
PR_SET_PDEATHSIG = 1


class ServerMissing(RuntimeError):
    """A binary that the tests need is not installed; the message names the package."""


def require(binary: str, package: str) -> str:
    """Where `binary` is. Raises ServerMissing: a missing server is an install step, not a skip."""
    found = shutil.which(binary) or shutil.which(binary, path="/usr/sbin:/usr/local/bin:/usr/local/sbin")
    if found is None:
        raise ServerMissing(f"{binary} is missing: apt-get install {package} (or tests/servers/install.sh)")
    return found


def self_signed(directory: Path) -> ssl.SSLContext:
    """TLS for a server on 127.0.0.1, by a certificate that nobody trusts: `cert.pem` in `directory`."""
    key, certificate = directory / "key.pem", directory / "cert.pem"
    how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=loopback"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([require("openssl", "openssl"), *how.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """`start`, `kill` (SIGKILL, as a node that dies) or `stop`, and `start` again on the same files and address."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers; may raise OSError while it does not."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C"}

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> Self:
        """Returns once it is ready; RuntimeError with the end of its log otherwise."""
        assert self._process is None, "the server is running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.ready():
                    return self
            except OSError:
                pass
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, answers do not come."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=STOP_TIMEOUT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class RedisServer(Server):
    """A redis-server with its append-only file on; `settings` are further lines of its configuration."""

    def __init__(self, directory: Path, settings: Sequence[str] = ()) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.socket = directory / "redis.sock"
        self._settings = ["appendonly yes", "save ''", "databases 4", *settings]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def command(self) -> Sequence[str]:
        config = self.directory / "redis.conf"
        config.write_text(
            "\n".join(
                [
                    f"port {self.port}",
                    "bind 127.0.0.1",
                    f"unixsocket {self.socket}",
                    f"dir {self.directory}",
                    "daemonize no",
                    *self._settings,
                    "",
                ]
            )
        )
        return [require("redis-server", "redis-server"), str(config)]

    def ready(self) -> bool:
        return self.ask("PING").startswith((b"+PONG", b"-NOAUTH"))

    def ask(self, *words: str) -> bytes:
        """One command over a connection of its own, as the start of its raw answer: ground truth beside the store."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
            )
            return link.recv(65536)


class RedisSentinel(RedisServer):
    """A sentinel that watches one RedisServer under the name `asya`."""

    def __init__(self, directory: Path, watched: RedisServer) -> None:
        super().__init__(directory)
        self._settings = [f"sentinel monitor asya 127.0.0.1 {watched.port} 1"]

    def command(self) -> Sequence[str]:
        return [*super().command(), "--sentinel"]
