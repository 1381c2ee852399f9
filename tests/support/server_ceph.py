"""A Ceph RADOS Gateway with the monitor and the object storage daemon that it needs, all in one directory.

The one S3 server of the tests whose atomicity is not a file system's or a mutex's. It runs unprivileged on loopback,
from another suite of Debian, its objects in memory; no manager daemon, which only tools for people need. 20.2.4 keeps
each condition one by one, but a DELETE with a stale If-Match may take what a PUT wrote meanwhile: 27 of 300 such races.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from support.ports import free_port
from support.server_s3 import BucketServer
from support.servers import Server
from support.suites import started_by, suite

SUITE = "sid"
COMMAND_TIMEOUT = 60.0
GATEWAY_TIMEOUT = 120.0
MEMORY = 2 << 30
"""Bytes of objects that it takes, and then no more."""
GATEWAY = "client.gateway"


class _Daemon(Server):
    """One of Ceph's own; it is ready when the next one gets on with it."""

    def __init__(self, directory: Path, command: Sequence[str]) -> None:
        super().__init__(directory)
        self._command = command

    def command(self) -> Sequence[str]:
        return self._command

    def ready(self) -> bool:
        return True

    def stop(self) -> None:
        self.kill()  # nothing is to be kept


class CephServer(BucketServer):
    """Each start is a fresh cluster. `start` makes it, which takes some ten seconds."""

    name = "ceph"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._monitor_port = free_port()
        self._daemons = contextlib.ExitStack()

    def command(self) -> Sequence[str]:
        return self._ceph("radosgw", "-n", GATEWAY, "-f")

    def ready(self) -> bool:
        return True

    def _await_gateway(self) -> None:
        """It answers once it has made its pools, which takes longer than other servers' starts."""
        deadline = time.monotonic() + GATEWAY_TIMEOUT
        while True:
            try:
                with urllib.request.urlopen(self.endpoint, timeout=1):
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the gateway does not answer ({error}):\n{self.log.read_text()[-3000:]}"
                    ) from None
            time.sleep(0.1)

    def start(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._make_monitor()
            stack.enter_context(_Daemon(self.directory / "mon", self._ceph("ceph-mon", "-i", "a", "-f")))
            self._make_storage()
            stack.enter_context(_Daemon(self.directory / "osd", self._ceph("ceph-osd", "-i", "0", "-f")))
            super().start()
            stack.callback(super().kill)
            self._await_gateway()
            user = ["user", "create", "--uid=asya", "--display-name=asya"]
            keys = [f"--access-key={self.access_key}", f"--secret-key={self.secret_key}"]
            self._run("radosgw-admin", "-n", GATEWAY, *user, *keys)
            self.make_bucket()
            self._daemons = stack.pop_all()
        return self

    def kill(self) -> None:
        self.stop()

    def stop(self) -> None:
        self._daemons.close()

    def _make_monitor(self) -> None:
        self._configure()
        for name in ("mon", "osd"):
            (self.directory / name).mkdir(exist_ok=True)
        keyring = str(self.directory / "keyring")
        for number, name in enumerate(("mon.", "client.admin", "osd.0", GATEWAY)):
            caps = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
            made = ("--create-keyring",) if number == 0 else ()
            self._call("ceph-authtool", keyring, *made, "--gen-key", "-n", name, *caps)
        monitors = str(self.directory / "monmap")
        address = f"[v2:127.0.0.1:{self._monitor_port}]"
        self._call("monmaptool", "--create", "--fsid", str(self._id), "--addv", "a", address, monitors)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)

    def _make_storage(self) -> None:
        one = str(uuid.uuid4())
        root = suite(SUITE)
        python = {"PYTHONHOME": f"{root}/usr", "PYTHONPATH": f"{root}/usr/lib/python3/dist-packages"}
        self._call("python3", f"{root}/usr/bin/ceph", "-c", self._config, "osd", "new", one, "0", **python)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", one, "--no-mon-config")

    def _configure(self) -> None:
        self._id = uuid.uuid4()
        here = self.directory
        libraries = next(suite(SUITE).glob("usr/lib/*-linux-gnu"))
        Path(self._config).write_text(
            "\n".join(
                [
                    "[global]",
                    f"fsid = {self._id}",
                    f"mon host = [v2:127.0.0.1:{self._monitor_port}]",
                    "public addr = 127.0.0.1",
                    "cluster addr = 127.0.0.1",
                    "ms bind ipv6 = false",
                    "ms bind msgr1 = false",
                    f"keyring = {here}/keyring",
                    f"run dir = {here}",
                    "admin socket =",
                    "pid file =",
                    f"crash dir = {here}",
                    "log file =",
                    "log to stderr = true",
                    "err to stderr = true",
                    "mon cluster log to file = false",
                    "debug rgw = 0",
                    f"plugin dir = {libraries}/ceph",
                    f"erasure code dir = {libraries}/ceph/erasure-code",
                    f"osd class dir = {libraries}/rados-classes",
                    "osd pool default size = 1",
                    "osd pool default min size = 1",
                    "osd pool default pg num = 1",
                    "osd pool default pg autoscale mode = off",
                    "osd crush chooseleaf type = 0",
                    "mon allow pool size one = true",
                    "mon max pg per osd = 1000",
                    "mon initial members = a",
                    f"mon data = {here}/mon",
                    f"osd data = {here}/osd",
                    "osd objectstore = memstore",
                    f"memstore device bytes = {MEMORY}",
                    # Without `tcp_nodelay` each answer waits 40 ms for an acknowledgement.
                    f"rgw frontends = beast endpoint=127.0.0.1:{self.port} tcp_nodelay=1",
                    f"rgw data = {here}",
                    "rgw thread pool size = 64",
                    "",
                ]
            )
        )

    @property
    def _config(self) -> str:
        return str(self.directory / "ceph.conf")

    def _ceph(self, binary: str, *arguments: str) -> Sequence[str]:
        return [*started_by(f"{SUITE}/{binary}"), "-c", self._config, *arguments]

    def _run(self, binary: str, *arguments: str) -> None:
        self._call(binary, "-c", self._config, *arguments)

    def _call(self, binary: str, *arguments: str, **environ: str) -> None:
        """A command of Ceph, to its end; RuntimeError with what it said otherwise."""
        done = subprocess.run(
            [*started_by(f"{SUITE}/{binary}"), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            env={**os.environ, "LC_ALL": "C", **environ},
        )
        if done.returncode != 0:
            raise RuntimeError(f"{binary} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
