"""A cluster to test on: the one that KUBECONFIG names, else a local one of our own, started and ended here.

Everything speaks through `kubectl proxy`, so that any way of logging in works.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "e2e" / "cluster"
PLACE = Path(
    os.environ.get("ASYA_CLUSTER_DIR")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asya" / "cluster"
)
START_SECONDS = 240
DOWN_SECONDS = 180

Object = dict[str, Any]


class NoCluster(RuntimeError):
    """There is no cluster and none can be made; says what to run."""


@dataclass(frozen=True)
class Cluster:
    """One cluster, as an administrator reaches it. `url` is that of `kubectl proxy`; a `fresh` one runs nothing yet."""

    kubeconfig: Path
    programs: Mapping[str, str]
    local: bool
    fresh: bool
    url: str

    def run(self, program: str, *args: str, stdin: str | None = None, deadline: float = 60) -> str:
        """What kubectl or helm prints.

        Raises:
            subprocess.CalledProcessError: with what it said in `stderr`.
        """
        done = subprocess.run(
            [self.programs[program], *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=deadline,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            check=False,
        )
        if done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, [program, *args], done.stdout, done.stderr)
            error.add_note(done.stdout[-2000:] + done.stderr[-2000:])
            raise error
        return done.stdout

    def kubectl(self, *args: str, stdin: str | None = None, deadline: float = 60) -> str:
        """What kubectl prints."""
        return self.run("kubectl", *args, stdin=stdin, deadline=deadline)

    def apply(self, *manifests: Object, namespace: str | None = None) -> None:
        """kubectl apply; into `namespace`, or where each manifest says."""
        place = ["-n", namespace] if namespace else []
        self.kubectl(*place, "apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def request(self, method: str, path: str, deadline: float = 30, **kwargs: Any) -> requests.Response:
        """One request to the API server."""
        return requests.request(method, self.url + path, timeout=deadline, **kwargs)

    def get(self, path: str, **params: str) -> Object:
        """One object or list; {} where there is none."""
        answer = self.request("GET", path, params=params)
        if answer.status_code == 404:
            return {}
        answer.raise_for_status()
        found: Object = answer.json()
        return found

    def kill(self, container_id: str) -> None:
        """SIGKILL to a container's first process, as the kernel's out-of-memory killer sends it."""
        node = [] if self.local else ["docker", "exec", self._node()]
        socket = ["-a", str(PLACE / "run" / "containerd.sock")] if self.local else []
        name = container_id.removeprefix("containerd://")
        command = [*node, "ctr", *socket, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", name]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def _node(self) -> str:
        return str(self.get("/api/v1/nodes")["items"][0]["metadata"]["name"])


@contextlib.contextmanager
def cluster(keep: bool = False) -> Iterator[Cluster]:
    """A cluster for the session. A local one that was not there before ends with it, unless `keep`."""
    ours = PLACE / "kubeconfig"
    named = os.environ.get("KUBECONFIG")
    if named and Path(named).resolve() != ours.resolve():
        programs = {name: shutil.which(name) or "" for name in ("kubectl", "helm")}
        missing = [name for name, path in programs.items() if not path]
        if missing:
            raise NoCluster(f"KUBECONFIG={named}: tests on your cluster need {' and '.join(missing)} on the PATH")
        with _proxied(Path(named), programs, local=False, fresh=False) as found:
            yield found
        return
    with _in_use():
        yield from _local(ours, local_programs(), keep)


def _local(ours: Path, programs: Mapping[str, str], keep: bool) -> Iterator[Cluster]:
    was_up = _alive()
    try:
        subprocess.run([RECIPE / "up.sh"], check=True, timeout=START_SECONDS)
        with _proxied(ours, programs, local=True, fresh=not was_up) as found:
            yield found
    finally:
        if not was_up and not keep:
            subprocess.run([RECIPE / "down.sh", "--force"], check=True, timeout=DOWN_SECONDS)


@contextlib.contextmanager
def _in_use() -> Iterator[None]:
    """One test run at a time; down.sh does not end a cluster that is in use.

    Raises:
        NoCluster: another run uses it.
    """
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "in-use").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise NoCluster(
                f"another test run ({file.read().strip()}) uses the cluster in {PLACE}; wait for its end, or make one "
                "of your own: ASYA_CLUSTER_DIR, _NET, _PORT and _NAME, see e2e/cluster/README.md"
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()}")
        file.flush()
        yield


def local_programs() -> dict[str, str]:
    """kubectl and helm of the local cluster.

    Raises:
        NoCluster: they are not built.
    """
    programs = {name: str(PLACE / "bin" / name) for name in ("kubectl", "helm")}
    if not all(Path(path).exists() for path in programs.values()):
        raise NoCluster(
            f"no kubectl and helm in {PLACE / 'bin'}: build them once with e2e/cluster/build.sh (make e2e does), "
            "or set KUBECONFIG to test on a cluster that you have"
        )
    return programs


def _alive() -> bool:
    try:
        os.kill(int((PLACE / "node.pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _proxied(kubeconfig: Path, programs: Mapping[str, str], local: bool, fresh: bool) -> Iterator[Cluster]:
    command: Sequence[str] = [programs["kubectl"], "--kubeconfig", str(kubeconfig), "proxy", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:\d+", line)
        if match is None:
            raise NoCluster(f"kubectl proxy did not start with {kubeconfig}: {line!r}")
        yield Cluster(kubeconfig, programs, local, fresh, f"http://{match.group(0)}")
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def as_json(text: str) -> Any:
    """Parsed, with the text in the error where it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        error.add_note(text[:2000])
        raise
