"""A real versitygw on a free loopback port, ended by its own process handle."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from support.binaries import built

START_TIMEOUT = 20.0
BUCKET = "asya-state"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class S3Server:
    """versitygw over a directory, with one bucket `BUCKET` and one user.

    `start`, `kill` (SIGKILL) and `start` again on the same port and the same files. The directory must be on a
    file system with user extended attributes (ext4, or tmpfs on Linux 6.6 and later).
    """

    access_key = "asyaasya"
    secret_key = "secretsecret"
    bucket = BUCKET

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        (directory / "data" / BUCKET).mkdir(parents=True, exist_ok=True)
        self._log = directory / "versitygw.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What an S3 client needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> S3Server:
        """Returns once the server accepts connections; RuntimeError with its log otherwise."""
        command = [built("versitygw"), "--access", self.access_key, "--secret", self.secret_key]
        command += [
            "--port",
            f"127.0.0.1:{self.port}",
            "--quiet",
            "--keep-alive",
            "posix",
            str(self.directory / "data"),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        raise RuntimeError(f"versitygw did not start:\n{self._log.read_text()[-2000:]}")

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

    def __enter__(self) -> S3Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
