"""What many actors at once cost the operator: time, processor and memory, on a real API server without nodes.

    python bench/actors.py [--actors 1000] [--json FILE]

The operator is a process as in its image. All actors are created at once, by 16 threads; then all are deleted, and
their children with them, as the garbage collector does (there is none here). Goals: RSS idle <= 90 MiB, <= 160 MiB with
1,000 actors; nothing left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.actors import actor  # noqa: E402
from support.kube import ApiServer, api_server, install  # noqa: E402
from support.ports import free_port  # noqa: E402

GOALS = {"idle_mib": 90.0, "peak_mib": 160.0}
NAMESPACE = "bench"
ACTORS = f"/apis/asya.sh/v1alpha1/namespaces/{NAMESPACE}/asyncactors"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
DEADLINE = 900.0


class Operator:
    """The process, and what it has used so far."""

    def __init__(self, server: ApiServer, place: Path) -> None:
        config = place / "config.json"
        self.port = free_port()
        config.write_text(json.dumps({"proxyImage": "asya-state-proxy:bench", "healthPort": self.port}))
        env = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "ASYA_OPERATOR_CONFIG": str(config)}
        with (place / "operator.log").open("wb") as sink:
            self.process = subprocess.Popen([sys.executable, "-m", "asya_operator", "run"], env=env, stderr=sink)

    def cpu_seconds(self) -> float:
        """proc_pid_stat(5), fields 14 and 15."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self, name: str) -> float:
        """VmRSS or VmHWM of proc_pid_status(5)."""
        line = next(x for x in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if x.startswith(name))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def count(server: ApiServer, path: str) -> int:
    """How many objects there are, without reading them all."""
    body: Any = server.request("GET", path, params={"limit": 1}).json()
    return len(body["items"]) + int(body["metadata"].get("remainingItemCount", 0))


def until(holds: Callable[[], bool]) -> float:
    """Seconds until `holds()`, looked at four times a second."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > DEADLINE:
            raise RuntimeError(f"it did not come true in {DEADLINE:g} s")
        time.sleep(0.25)
    return time.monotonic() - started


def ready(server: ApiServer, operator: Operator) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{operator.port}/readyz", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def everywhere(call: Callable[[str], object], names: list[str]) -> None:
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(call, names):
            pass


def measure(server: ApiServer, place: Path, actors: int) -> dict[str, float]:
    names = [f"a{number}" for number in range(actors)]
    operator = Operator(server, place)
    try:
        until(lambda: ready(server, operator))
        time.sleep(3)
        figures = {"idle_mib": operator.mib("VmRSS")}
        cpu = operator.cpu_seconds()
        started = time.monotonic()
        everywhere(lambda name: server.request("POST", ACTORS, json=actor(metadata__name=name)), names)
        figures["created_s"] = time.monotonic() - started
        until(lambda: count(server, SERVICES) == count(server, DEPLOYMENTS) == actors)
        figures["done_s"] = time.monotonic() - started
        figures["cpu_ms_each"] = (operator.cpu_seconds() - cpu) * 1000 / actors
        time.sleep(3)
        figures["with_all_mib"] = operator.mib("VmRSS")
        started = time.monotonic()
        for path in (ACTORS, DEPLOYMENTS, SERVICES):
            everywhere(lambda name, path=path: server.request("DELETE", f"{path}/{name}"), names)  # type: ignore[misc]
        until(lambda: not any(count(server, path) for path in (ACTORS, DEPLOYMENTS, SERVICES)))
        figures["deleted_s"] = time.monotonic() - started
        figures["peak_mib"] = operator.mib("VmHWM")
        return figures
    finally:
        operator.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, api_server(Path(place)) as server:
        install(server)
        server.request("POST", "/api/v1/namespaces", json={"metadata": {"name": NAMESPACE}})
        figures = measure(server, Path(place), arguments.actors)
    print(f"{arguments.actors} actors; load of this machine: {os.getloadavg()[0]:.1f}")
    for name, value in figures.items():
        goal = f"  goal <= {GOALS[name]:g}: {'met' if value <= GOALS[name] else 'MISSED'}" if name in GOALS else ""
        print(f"{name:>13} {value:9.2f}{goal}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figures[name] <= goal for name, goal in GOALS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
