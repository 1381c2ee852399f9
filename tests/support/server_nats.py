"""A real nats-server with JetStream on a free loopback port, ended by its own process handle."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

START_TIMEOUT = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def binary() -> str:
    """Where nats-server is; RuntimeError says how to get it."""
    found = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
    if found is None:
        raise RuntimeError("nats-server is missing: apt-get install nats-server")
    return found


class NatsServer:
    """`start`, `kill` (SIGKILL) and `start` again on the same port and the same files.

    `config` is further configuration in nats-server's own language; `jetstream` False leaves it out.
    """

    def __init__(
        self, directory: Path, *, config: str = "", jetstream: bool = True, max_payload: int = 1 << 20
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.credentials = ""
        store = f"jetstream {{ store_dir: {json.dumps(str(directory / 'jetstream'))} }}\n" if jetstream else ""
        self._config = directory / "nats.conf"
        directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            f"listen: 127.0.0.1:{self.port}\nmax_payload: {max_payload}\nserver_name: test\n{store}{config}\n"
        )
        self._log = directory / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.credentials}127.0.0.1:{self.port}"

    def start(self) -> NatsServer:
        """Returns once the server answers; RuntimeError with its log otherwise."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([binary(), "-c", str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"INFO":
                        return self
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"nats-server did not start:\n{self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL, as a node that dies."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
        self._process = None

    def __enter__(self) -> NatsServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
