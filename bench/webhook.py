"""How long the webhook takes over one pod, and where the time goes, in one run.

    python bench/webhook.py [--env 2000] [--rounds 300] [--json FILE]

- `wire`:   a POST over TLS on loopback with keep-alive, as the API server sends it, to the real server in a process of
            its own
- `answer`: the same bytes to the same answer, without server and wire; then its steps: parse, inject, patch, dump

A pod with `--env` variables of 100 bytes in its handler. Goal: p99 of `wire` <= 10 ms with 2,000 variables, on a
machine that has nothing else to do (on a busy one, as root: `chrt -f 10 python bench/webhook.py`). The CPU time of the
server's process is told beside it.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asya_operator import admission
from asya_operator.api import parse_actor
from asya_operator.certificates import Held, issue
from asya_operator.desired import desired
from asya_operator.inject import inject
from asya_operator.settings import Settings, parse_settings

GOAL_MS = 10.0
WARM_UP = 20
NAME = "localhost"
SETTINGS = '{"proxyImage": "asya-state-proxy:bench"}'


def review(variables: int) -> bytes:
    """An AdmissionReview as the API server sends it: also what it knows of the user and of the object's kinds."""
    actor = parse_actor(
        {
            "apiVersion": "asya.sh/v1alpha1",
            "kind": "AsyncActor",
            "metadata": {"name": "bench"},
            "spec": {"image": "bench", "handler": "a.b", "stateProxy": {"backend": "redis"}},
        }
    )
    settings = parse_settings(SETTINGS)
    template: Any = desired(actor, settings, settings.proxy_image)[0]["spec"]["template"]
    handler = template["spec"]["containers"][0]
    handler["env"] = [*handler.get("env", []), *({"name": f"V{n}", "value": "x" * 100} for n in range(variables))]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**pod["metadata"], "generateName": "bench-5d8f-"}
    request = {
        "uid": "u",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "bench",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": pod,
        "oldObject": None,
        "dryRun": False,
    }
    body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(body, separators=(",", ":")).encode()


def answer(body: bytes, settings: Settings) -> bytes:
    return json.dumps(admission.answer(admission.parse(body), settings).body).encode()


def steps(body: bytes, settings: Settings) -> dict[str, Callable[[], object]]:
    """What `answer` is made of."""
    pod = admission.parse(body).request["object"]
    injected = inject(pod, "bench", settings)
    operations = admission.patch(pod, injected)
    return {
        "answer": lambda: answer(body, settings),
        "parse": lambda: admission.parse(body),
        "inject": lambda: inject(pod, "bench", settings),
        "patch": lambda: admission.patch(pod, injected),
        "dump": lambda: base64.b64encode(json.dumps(operations).encode()),
    }


def measure(call: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds of each call."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return times


class Server:
    """`asya-operator webhook` as a process, and one connection to it."""

    def __init__(self, place: Path) -> None:
        held = issue(Held(), datetime.datetime.now(datetime.UTC), (NAME,))
        assert held.leaf is not None
        (place / "tls.crt").write_bytes(held.leaf.cert)
        (place / "tls.key").write_bytes(held.leaf.key)
        (place / "config.json").write_text(SETTINGS)
        self._log = place / "log"
        with self._log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asya_operator", "--config", str(place / "config.json"), "webhook",
                 "--tls-cert", str(place / "tls.crt"), "--tls-key", str(place / "tls.key"),
                 "--host", "127.0.0.1", "--port", "0", "--health-port", "0"],
                stderr=sink, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        trust = ssl.create_default_context(cadata=held.bundle().decode())
        self._connection = http.client.HTTPSConnection(NAME, self._port(), context=trust, timeout=30)

    def _port(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for line in self._log.read_text().splitlines():
                if '"listening"' in line:
                    return int(json.loads(line)["port"])
            time.sleep(0.05)
        raise RuntimeError(f"the webhook did not start: {self._log.read_text()}")

    def post(self, body: bytes) -> bytes:
        self._connection.request("POST", "/mutate", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        assert response.status == 200, text
        return text

    def cpu_ms(self) -> float:
        """CPU time of the process so far; proc_pid_stat(5), fields 14 and 15."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._connection.close()
        self.process.terminate()
        self.process.wait(30)


def quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=int, default=2000, help="variables of the handler (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=300, help="requests (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    body, settings = review(arguments.env), parse_settings(SETTINGS)
    with tempfile.TemporaryDirectory() as place:
        server = Server(Path(place))
        try:
            assert json.loads(server.post(body))["response"]["patch"], "not injected"
            before = server.cpu_ms()
            times = {"wire": measure(lambda: server.post(body), arguments.rounds)}
            cpu = (server.cpu_ms() - before) / (arguments.rounds + WARM_UP)
        finally:
            server.stop()
    times |= {name: measure(call, arguments.rounds) for name, call in steps(body, settings).items()}
    print(f"{len(body) / 1024:.0f} KiB of review, {arguments.env} variables, {arguments.rounds} rounds; milliseconds")
    figures = {}
    for name, series in times.items():
        row = {"p50": statistics.median(series), "p90": quantile(series, 0.9), "p99": quantile(series, 0.99)}
        figures[name] = row
        print(f"{name:>8}  " + "  ".join(f"{key} {value:7.3f}" for key, value in row.items()))
    print(f"CPU of the server's process: {cpu:.2f} ms a review; load of this machine: {os.getloadavg()[0]:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    met = figures["wire"]["p99"] <= GOAL_MS
    print(f"goal: p99 of wire <= {GOAL_MS:g} ms: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
