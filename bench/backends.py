"""What the proxy costs over each backend's bare SDK, on real servers, in one run.

    make bench       or      python bench/backends.py [--backend redis]... [--rounds 5] [--paced] [--json FILE]

Contenders take turns round by round, so that a machine whose speed drifts slows both alike:

- `sdk`:    the backend's SDK as its manual shows it: GET and SET, put_object, kv.put, INSERT OR REPLACE; 4 KiB, 64 keys
- `proxy`:  the same through a state proxy (lww) with the settings of its image, by the shim's client

- `calm`:   one client, 100 times a second, for the median latency
- `pace`:   four, 500 times a second together, for the slowest calls
- `rush`:   32 connections that ask as fast as they are answered, for processor time: of the proxy alone, and of the
            whole process that the SDK is called from
- `stream`: one large file there and back, MB/s, and MB per second of processor time

Besides: memory when idle, the time from exec to a good /readyz with a self-test, and how many swaps of one hot key by
8 clients end as unknown outcomes while the network loses 1 % of the answers. Redis runs with `appendfsync everysec`.

`--paced` leaves it at `calm` and `pace`, which ask for little: on a machine that is busy, their times tell more under
`chrt -r 5`.

Goals: added p50 <= 0.3 ms and p99 <= 2 ms; op/s a core >= 5000 (900 on s3 and gcs); >= 400 MB/s.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.campaign_large import image_environ  # noqa: E402
from support.faults import FaultProxy, Faults  # noqa: E402
from support.server_gcs import GcsServer  # noqa: E402
from support.server_nats import NatsServer  # noqa: E402
from support.server_s3 import S3Server  # noqa: E402
from support.servers import RedisServer  # noqa: E402

BACKENDS = ("sqlite", "redis", "nats", "s3", "gcs")
CASES = ("read", "write")
PACES = {"calm": (1, 100.0), "pace": (4, 500.0)}
"""Clients, and op/s of all together."""
GOALS = {"p50": 0.3, "p99": 2.0, "stream": 400.0}
PER_CORE = {"s3": 900, "gcs": 900}
LARGE = 128
"""MiB of the streamed file."""
HOT_CLIENTS = 8
LOST = 0.01
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """What was seen of one backend: lists with an entry for each call or round."""

    latency: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    """Milliseconds of a call by pace, case and contender."""
    rush: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """(op/s, microseconds of processor time per operation)."""
    stream: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """(MB/s, MB per second of processor time) by `up` or `down` and contender."""
    start: list[float] = field(default_factory=list)
    """Milliseconds to ready."""
    idle: list[float] = field(default_factory=list)
    """MiB resident."""
    hot: dict[str, int] = field(default_factory=dict)


class Process:
    """A proxy and what is known of it from outside."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.socket = directory / "state.sock"
        self._environ = {
            **os.environ,
            **image_environ(),
            **environ,
            "STATE_SOCKET": str(self.socket),
            "STATE_HTTP_ADDR": "off",
            "STATE_LOG_LEVEL": "error",
        }

    def __enter__(self) -> Process:
        began = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-m", "asya_proxy", "serve"], env=self._environ)
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > began + 30:
                raise SystemExit("the proxy did not become ready")
            time.sleep(0.005)
        self.start = time.monotonic() - began
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(40)

    def _ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                answer = http.client.HTTPResponse(probe)
                answer.begin()
                return answer.status == 200
            except (OSError, http.client.HTTPException):
                return False

    @property
    def resident(self) -> float:
        """MiB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS


class Worker:
    """A contender's process."""

    def __init__(self, kind: str, backend: str, path: Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "contenders.py"), kind, backend, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environ},
            text=True,
        )

    def __enter__(self) -> Worker:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit("a contender did not start")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def ask(self, do: str, **how: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **how}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a contender failed in {do} {how}")
        found: dict[str, Any] = json.loads(answer)
        return found


@contextlib.contextmanager
def server(backend: str, directory: Path) -> Iterator[tuple[dict[str, str], int]]:
    """The environment of its clients, and its port (0: none)."""
    if backend == "sqlite":
        yield {"SQLITE_DIR": str(directory / "sqlite")}, 0
        return
    kinds = {"redis": RedisServer, "nats": NatsServer, "s3": S3Server, "gcs": GcsServer}
    with kinds[backend](directory / backend) as running:
        if isinstance(running, S3Server | GcsServer):
            yield running.environ, running.port
        else:
            yield {f"{backend.upper()}_URL": f"{backend}://127.0.0.1:{running.port}"}, running.port


def of_proxy(backend: str, environ: Mapping[str, str], prefix: str, **more: str) -> dict[str, str]:
    return {
        **environ,
        "STATE_BACKEND": backend,
        "STATE_BUCKET": "asya-state",
        "STATE_PREFIX": f"bench/{prefix}/",
        **more,
    }


def measure(backend: str, rounds: int, *, paced: bool) -> Figures:
    directory = Path(tempfile.mkdtemp(prefix="asya-"))
    figures = Figures()
    try:
        with server(backend, directory) as (environ, port):
            if paced:
                _side_by_side(backend, directory, environ, rounds, figures, paced=True)
                return figures
            for number in range(rounds):
                with Process(directory, of_proxy(backend, environ, f"start{number}")) as proxy:
                    figures.start.append(proxy.start * 1000)
                    figures.idle.append(proxy.resident)
            _side_by_side(backend, directory, environ, rounds, figures)
            _hot_key(backend, directory, environ, port, rounds, figures)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return figures


def _side_by_side(
    backend: str, directory: Path, environ: Mapping[str, str], rounds: int, figures: Figures, *, paced: bool = False
) -> None:
    with (
        Process(directory, of_proxy(backend, environ, "files")) as proxy,
        Worker("sdk", backend, proxy.socket, environ) as sdk,
        Worker("proxy", backend, proxy.socket, environ) as client,
    ):
        for turn in range(rounds + 1):  # the first is the warm-up
            seen = figures if turn else Figures()
            for case in CASES:
                for pace, (clients, rate) in PACES.items():
                    for name, worker in (("sdk", sdk), ("proxy", client)):
                        took = worker.ask("pace", case=case, clients=clients, rate=rate, seconds=1)["ns"]
                        table = seen.latency.setdefault(pace, {})
                        _add(table, case, name).extend(ns / 1e6 for ns in took)
                if paced:
                    continue
                for name, worker in (("sdk", sdk), ("proxy", client)):
                    before = proxy.cpu
                    found = worker.ask("rush", case=case, seconds=1)
                    cpu = proxy.cpu - before if name == "proxy" else found["cpu"]
                    figure = (found["ops"] / found["seconds"], cpu / found["ops"] * 1e6)
                    _add(seen.rush, case, name).append(figure)
            for case in () if paced else ("up", "down"):
                for name, worker in (("sdk", sdk), ("proxy", client)):
                    before = proxy.cpu
                    found = worker.ask("stream", case=case, mib=LARGE)
                    cpu = proxy.cpu - before if name == "proxy" else found["cpu"]
                    size = LARGE * 2**20 / 1e6
                    _add(seen.stream, case, name).append((size / found["seconds"], size / max(cpu, 1 / TICKS)))


def _hot_key(
    backend: str, directory: Path, environ: Mapping[str, str], port: int, rounds: int, figures: Figures
) -> None:
    with contextlib.ExitStack() as stack:
        if port:
            front = stack.enter_context(FaultProxy(port, dialect=backend))
            environ = {name: value.replace(f":{port}", f":{front.port}") for name, value in environ.items()}
        settings = of_proxy(
            backend, environ, "hot", STATE_CONSISTENCY="cas", STATE_SELF_TEST="false", STATE_ATTEMPT_TIMEOUT="300ms"
        )
        proxy = stack.enter_context(Process(directory, settings))
        client = stack.enter_context(Worker("swaps", backend, proxy.socket, environ))
        if port:
            front.faults = Faults(lose_answer=LOST)
        figures.hot = client.ask("hot", clients=HOT_CLIENTS, seconds=2 * rounds)
        if port:
            front.faults = Faults()


def _add(table: dict[str, dict[str, list[Any]]], case: str, contender: str) -> list[Any]:
    return table.setdefault(case, {}).setdefault(contender, [])


def summary(backend: str, figures: Figures) -> dict[str, Any]:
    """Medians over rounds, quantiles over calls."""
    latency = {
        pace: {case: {who: _quantiles(ms) for who, ms in by.items()} for case, by in cases.items()}
        for pace, cases in figures.latency.items()
    }
    if not figures.rush:
        return {"latency_ms": latency}
    rush = {
        case: {
            who: {"ops": statistics.median(o for o, _ in seen), "cpu_us": statistics.median(c for _, c in seen)}
            for who, seen in by.items()
        }
        for case, by in figures.rush.items()
    }
    stream = {
        case: {
            who: {"mb_s": statistics.median(r for r, _ in seen), "per_core": statistics.median(c for _, c in seen)}
            for who, seen in by.items()
        }
        for case, by in figures.stream.items()
    }
    swaps = sum(figures.hot.values())
    return {
        "latency_ms": latency,
        "rush": rush,
        "stream": stream,
        "start_ms": statistics.median(figures.start),
        "idle_mib": statistics.median(figures.idle),
        "hot": {"swaps": swaps, **figures.hot, "unknown_share": figures.hot.get("unknown", 0) / max(swaps, 1)},
        "goal_per_core": PER_CORE.get(backend, 5000),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(values), "p99": statistics.quantiles(values, n=100)[98]}


def report(found: Mapping[str, dict[str, Any]]) -> None:
    print(f"\n{'4 KiB, ms':24}{'calm: p50 sdk':>14}{'proxy':>8}{'added':>8}{'goal':>6}", end="")
    print(f"{'pace: p99 sdk':>16}{'proxy':>8}{'added':>8}{'goal':>6}")
    for backend, of in found.items():
        for case in CASES:
            line = f"{backend + ' ' + case:24}"
            for pace, quantile, width in (("calm", "p50", 14), ("pace", "p99", 16)):
                sdk, proxy = (of["latency_ms"][pace][case][who][quantile] for who in ("sdk", "proxy"))
                line += f"{sdk:{width}.2f}{proxy:8.2f}{proxy - sdk:8.2f}{GOALS[quantile]:6.1f}"
            print(line)
    if not all("rush" in of for of in found.values()):
        return
    print(
        f"\n{'32 connections':24}{'sdk op/s':>9}{'proxy':>8}{'sdk us/op':>11}{'proxy':>8}{'op/s core':>11}{'goal':>6}"
    )
    for backend, of in found.items():
        for case in CASES:
            sdk, proxy = of["rush"][case]["sdk"], of["rush"][case]["proxy"]
            print(
                f"{backend + ' ' + case:24}{sdk['ops']:9.0f}{proxy['ops']:8.0f}{sdk['cpu_us']:11.0f}"
                f"{proxy['cpu_us']:8.0f}{1e6 / proxy['cpu_us']:11.0f}{of['goal_per_core']:6.0f}"
            )
    print(f"\n{f'one file of {LARGE} MiB':24}{'sdk MB/s':>9}{'proxy':>8}{'goal':>6}{'sdk MB/s core':>15}{'proxy':>8}")
    for backend, of in found.items():
        for case in ("up", "down"):
            sdk, proxy = of["stream"][case]["sdk"], of["stream"][case]["proxy"]
            print(
                f"{backend + ' ' + case:24}{sdk['mb_s']:9.0f}{proxy['mb_s']:8.0f}{GOALS['stream']:6.0f}"
                f"{sdk['per_core']:15.0f}{proxy['per_core']:8.0f}"
            )
    print(f"\n{'':24}{'idle MiB':>9}{'start ms':>10}{'hot swaps':>11}{'done':>7}{'conflict':>10}{'unknown':>9}")
    for backend, of in found.items():
        hot = of["hot"]
        print(
            f"{backend:24}{of['idle_mib']:9.0f}{of['start_ms']:10.0f}{hot['swaps']:11}{hot.get('done', 0):7}"
            f"{hot.get('conflict', 0):10}{hot['unknown_share']:9.2%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="again for another; all without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paced", action="store_true", help="no more than the calls at a given pace")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {}
    for backend in arguments.backend or BACKENDS:
        print(f"{backend} ...", file=sys.stderr, flush=True)
        found[backend] = summary(backend, measure(backend, arguments.rounds, paced=arguments.paced))
    report(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
