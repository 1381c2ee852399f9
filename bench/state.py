"""What one file operation below a mount costs, beside its peers, in one run.

    make bench            or      python bench/state.py [--rounds 20] [--ops 200] [--json FILE]

Contenders take turns round by round, so that a machine whose speed drifts slows all of them alike:

- `shim`:  the file hooks and a proxy on the memory store, open+read+close / open+write+close / stat of 1 KiB
- `http`:  the same requests to the same proxy by `http.client`, a new connection each (the usual pattern)
- `redis`: redis-py over a Unix socket to a real redis-server, GET / SET / STRLEN of 1 KiB
- `disk`:  the same calls on a plain file, in a process without the shim
- `pass`:  `os.stat` of a plain file, with and without the shim installed

Goals: read and stat <= 1.2 x redis, write <= 1.5 x redis, `pass` <= 0.35 us more with the shim.
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
from collections.abc import Callable, Iterator
from pathlib import Path

SIZE = 1024
GOALS = {"read": 1.2, "stat": 1.2, "write": 1.5}


def shim_cases(_: Path) -> dict[str, Callable[[], object]]:
    import asya_shim

    asya_shim.activate_from_environment()
    payload = b"x" * SIZE

    def write() -> None:
        with open("/state/bench", "wb") as f:
            f.write(payload)

    def read() -> bytes:
        with open("/state/bench", "rb") as f:
            return f.read()

    plain = os.__file__
    write()
    return {"read": read, "write": write, "stat": lambda: os.stat("/state/bench"), "pass": lambda: os.stat(plain)}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def http_cases(directory: Path) -> dict[str, Callable[[], object]]:
    path = str(directory / "state.sock")
    payload = b"x" * SIZE

    def call(method: str, body: bytes | None = None) -> bytes:
        connection = _UnixConnection(path)
        connection.request(method, "/keys/bench-http", body=body)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    call("PUT", payload)
    return {"read": lambda: call("GET"), "write": lambda: call("PUT", payload), "stat": lambda: call("HEAD")}


def redis_cases(directory: Path) -> dict[str, Callable[[], object]]:
    import redis

    client = redis.Redis(unix_socket_path=str(directory / "redis.sock"))
    payload = b"x" * SIZE
    client.set("bench", payload)
    return {
        "read": lambda: client.get("bench"),
        "write": lambda: client.set("bench", payload),
        "stat": lambda: client.strlen("bench"),
    }


def disk_cases(directory: Path) -> dict[str, Callable[[], object]]:
    name = str(directory / "bench")
    payload = b"x" * SIZE

    def write() -> None:
        with open(name, "wb") as f:
            f.write(payload)

    def read() -> bytes:
        with open(name, "rb") as f:
            return f.read()

    plain = os.__file__
    write()
    return {"read": read, "write": write, "stat": lambda: os.stat(name), "pass": lambda: os.stat(plain)}


CONTENDERS = {"shim": shim_cases, "http": http_cases, "redis": redis_cases, "disk": disk_cases}


def worker(contender: str, directory: Path) -> None:
    """Answer `case ops` lines with a JSON list of nanoseconds each."""
    cases = CONTENDERS[contender](directory)
    print(json.dumps(sorted(cases)), flush=True)
    clock = time.perf_counter_ns
    for line in sys.stdin:
        case, count = line.split()
        call = cases[case]
        took = []
        for _ in range(int(count)):
            start = clock()
            call()
            took.append(clock() - start)
        print(json.dumps(took), flush=True)


@contextlib.contextmanager
def process(arguments: list[str], ready: Path, **kwargs: object) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(arguments, **kwargs)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 20
        while not ready.exists():
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{arguments[0]} did not start: exit {child.poll()}")
            time.sleep(0.02)
        yield child
    finally:
        child.terminate()
        child.wait(20)


def run(rounds: int, ops: int) -> dict[str, dict[str, list[int]]]:
    """Nanoseconds by case and contender."""
    directory = Path(tempfile.mkdtemp(prefix="asya-"))
    socket_path = directory / "state.sock"
    proxy_env = {
        **os.environ,
        "STATE_BACKEND": "memory",
        "STATE_BUCKET": "bench",
        "STATE_PREFIX": "default/bench/",
        "STATE_SOCKET": str(socket_path),
        "STATE_HTTP_ADDR": "127.0.0.1:0",
        "STATE_LOG_LEVEL": "warning",
    }
    shim_env = {
        **os.environ,
        "ASYA_STATE_PROXY_MOUNTS": "state:/state:write=buffered",
        "ASYA_STATE_SOCKET_DIR": str(directory),
    }
    redis_server = shutil.which("redis-server") or "/usr/bin/redis-server"
    redis_arguments = [redis_server, "--port", "0", "--unixsocket", str(directory / "redis.sock"), "--save", ""]
    took: dict[str, dict[str, list[int]]] = {}
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(process([sys.executable, "-m", "asya_proxy", "serve"], socket_path, env=proxy_env))
            stack.enter_context(
                process(redis_arguments, directory / "redis.sock", stdout=subprocess.DEVNULL, cwd=directory)
            )
            workers = {}
            for contender in CONTENDERS:
                child = stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, __file__, "--worker", contender, str(directory)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        env=shim_env if contender == "shim" else os.environ,
                    )
                )
                stack.callback(child.stdin.close)  # type: ignore[union-attr]
                workers[contender] = (child, json.loads(child.stdout.readline()))  # type: ignore[union-attr]
            for turn in range(rounds + 1):  # the first is the warm-up
                for case in ("read", "write", "stat", "pass"):
                    for contender, (child, cases) in workers.items():
                        if case not in cases:
                            continue
                        child.stdin.write(f"{case} {ops}\n")  # type: ignore[union-attr]
                        child.stdin.flush()  # type: ignore[union-attr]
                        answer = json.loads(child.stdout.readline())  # type: ignore[union-attr]
                        if turn:
                            took.setdefault(case, {}).setdefault(contender, []).extend(answer)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return took


def report(took: dict[str, dict[str, list[int]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Print the table; return microseconds (p50, p99) by case and contender."""
    figures = {
        case: {
            who: {"p50": statistics.median(ns) / 1000, "p99": statistics.quantiles(ns, n=100)[98] / 1000}
            for who, ns in by.items()
        }
        for case, by in took.items()
    }
    print(f"{'1 KiB, microseconds':22}{'p50':>9}{'p99':>9}{'p50 / redis':>13}{'goal':>7}")
    for case in ("read", "stat", "write"):
        for who, f in figures[case].items():
            ratio = f["p50"] / figures[case]["redis"]["p50"]
            goal = f"{GOALS[case]:.1f}" if who == "shim" else ""
            print(f"{case + ' ' + who:22}{f['p50']:9.1f}{f['p99']:9.1f}{ratio:13.2f}{goal:>7}")
    extra = figures["pass"]["shim"]["p50"] - figures["pass"]["disk"]["p50"]
    print(f"{'os.stat off a mount':22}{figures['pass']['disk']['p50']:9.2f} -> {figures['pass']['shim']['p50']:.2f}")
    print(f"{'  more with the shim':22}{extra:9.2f}{'':22}{'0.35':>7}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--ops", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker[0], Path(arguments.worker[1]))
        return
    figures = report(run(arguments.rounds, arguments.ops))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
