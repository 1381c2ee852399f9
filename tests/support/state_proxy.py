"""A real state proxy in a process of its own, and the CPythons that are installed."""

import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import asya_shim
from asya_contract.env import Mount, ShimEnv
from asya_shim import paths
from asya_shim.remote import Remote

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "shim" / "programs"


def interpreters() -> dict[str, str]:
    """Every CPython from 3.9 up that is here, by version; this one is among them."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    candidates = [
        *Path.home().glob(".pyenv/versions/*/bin/python"),
        *Path("/opt/hostedtoolcache").glob("Python/*/*/bin/python"),
    ]
    candidates += [Path(p) for minor in range(9, 16) if (p := shutil.which(f"python3.{minor}"))]
    for candidate in candidates:
        text = subprocess.run([candidate, "-V"], capture_output=True, text=True, check=False).stdout
        version = re.match(r"Python 3\.(\d+)\.", text)
        if version and int(version[1]) >= 9:
            found.setdefault(f"3.{version[1]}", str(candidate))
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


INTERPRETERS = interpreters()


class Proxy:
    """`asya-state-proxy serve` as a child process, on a socket of its own."""

    def __init__(self, directory: Path, consistency: str, backend: str = "memory", **variables: str) -> None:
        self.directory = directory
        self.consistency = consistency
        self.backend = backend
        self._variables = variables
        self.process: subprocess.Popen[bytes] | None = None
        self.socket = directory / f"{consistency}.sock"
        self.mount = Mount(consistency, f"/state-{consistency}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("STATE_", "ASYA_"))}
        env |= {
            "STATE_BACKEND": self.backend,
            "STATE_BUCKET": "bucket",
            "STATE_CONSISTENCY": self.consistency,
            "STATE_SOCKET": str(self.socket),
            "STATE_HTTP_ADDR": "127.0.0.1:0",
            "SQLITE_DIR": str(self.directory / "sqlite"),
            **self._variables,
        }
        with open(self.directory / "proxy.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asya_proxy", "serve"], env=env, stderr=log, stdout=log
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.socket))
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.directory / "proxy.log").read_text()) from None
                time.sleep(0.02)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it and wait."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def environ(self, timeout: str = "5s", **more: str) -> dict[str, str]:
        """What activates the shim on this proxy, in any process."""
        return {
            "ASYA_STATE_PROXY_MOUNTS": str(self.mount),
            "ASYA_STATE_SOCKET_DIR": str(self.directory),
            "ASYA_STATE_REQUEST_TIMEOUT": timeout,
            **more,
        }

    def pod(self) -> Remote:
        """Another pod: a client of its own, without the shim."""
        return Remote(self.mount, ShimEnv.from_env(self.environ()))

    def run(self, source: str, python: str = sys.executable, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """A program in a process of its own, the shim active in it as `PYTHONPATH=lib` would make it."""
        env = child_environ() | self.environ() | kwargs.pop("env", {})
        source = "import asya_shim; asya_shim.activate_from_environment()\n" + source
        return subprocess.run(
            [python, "-c", source], env=env, capture_output=True, text=True, timeout=60, check=False, **kwargs
        )


def child_environ() -> dict[str, str]:
    """An environment in which any interpreter finds the shim and nothing else of this one's."""
    keep = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in keep if name in os.environ} | {"PYTHONPATH": str(ROOT / "shim" / "src")}


def program_names(name: str, table: str) -> list[str]:
    """The keys of a table in a program of `programs/`."""
    return list(runpy.run_path(str(PROGRAMS / name))[table])


class Shim:
    """The shim in this process, active with the mounts that a test asks for."""

    def __init__(self, proxies: dict[str, Proxy]) -> None:
        self._proxies = proxies
        self._active: tuple[str, ...] = ()
        self._environ = pytest.MonkeyPatch()

    def mount(self, *consistencies: str) -> None:
        """Activate it with a mount of each, and no other."""
        if consistencies == self._active:
            return
        self.deactivate()
        environ = self._proxies[consistencies[0]].environ()
        environ["ASYA_STATE_PROXY_MOUNTS"] = ";".join(str(self._proxies[name].mount) for name in consistencies)
        for name, value in environ.items():
            self._environ.setenv(name, value)
        assert asya_shim.activate_from_environment()
        self._active = consistencies

    def deactivate(self) -> None:
        """Give every function back, and the environment."""
        asya_shim.deactivate()
        self._environ.undo()
        self._active = ()


class State:
    """A mount of the shim that is active in this process, and a directory of the test's own below it."""

    def __init__(self, proxy: Proxy, name: str) -> None:
        self.proxy = proxy
        self.root = f"{proxy.mount.path}/{name}"
        self.pod = proxy.pod()
        self.remote = next(mount.remote for mount in paths.mounts if mount.name == proxy.mount.name)
        self.requests = 0
        self.remote.stat(b"x")  # learns the mode
        client = self.remote.client
        real = type(client).request.__get__(client)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.requests += 1
            return real(*args, **kwargs)

        client.request = counted  # type: ignore[method-assign]

    @property
    def cas(self) -> bool:
        return self.proxy.consistency == "cas"

    def path(self, *names: str) -> str:
        """A path below the mount."""
        return "/".join([self.root, *names])

    def key(self, name: str) -> bytes:
        """What another pod calls it."""
        return f"{self.root.rpartition('/')[2]}/{name}".encode()

    def put(self, name: str, data: bytes) -> str:
        """Another pod writes unconditionally, seen from here."""
        key = self.key(name)
        info = self.pod.stat(key)
        return self.pod.write(key, data, if_version=info.version if info else None, if_absent=info is None)

    def get(self, name: str) -> bytes | None:
        """What is stored, as another pod reads it."""
        found = self.pod.read(self.key(name))
        return None if found is None else found.data

    def trips(self, call: Any) -> int:
        """How many requests a call costs."""
        before = self.requests
        call()
        return self.requests - before


class Reports:
    """What a program of `programs/` reported, once per interpreter and arguments."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}

    def get(self, python: str, name: str, environ: dict[str, str], *args: str) -> dict[str, Any]:
        key = (python, name, *args)
        if key not in self._known:
            done = subprocess.run(
                [INTERPRETERS[python], str(PROGRAMS / name), *args],
                env=child_environ() | environ,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            self._known[key] = json.loads(done.stdout)
        return self._known[key]
