"""What one file operation below a mount costs, beside its peers, in one run.

    make bench            or      python bench/state.py [--rounds 20] [--ops 200] [--json FILE]

Contenders take turns round by round, so that a machine whose speed drifts slows all of them alike:

- `shim`:  the file hooks and a proxy on the memory store, open+read+close / open+write+close / stat of 1 KiB
- `http`:  the same requests to the same proxy by `http.client`, a new connection each (the usual pattern)
- `redis`: redis-py over a Unix socket to a real redis-server, GET / SET / STRLEN of 1 KiB
- `disk`:  the same calls on a plain file, in a process without the shim

Of one file, and (`many`) of 1,000 files in turn, so that nothing that either side keeps of a file helps; `json` is
load and dump of a history of 20 messages in text mode, `8 MiB` one large file, `walk` an `os.walk` over 10,000 files
in 100 directories. `pass` is `os.stat` of a plain file with and without the shim installed, `near` that of one whose
path has the mount's last name in it.

Where a process runs matters as much as what it does: a wake-up on another processor costs more than all the code of a
small call, and one on the same processor next to nothing. So every process is tied to a processor, and each round is
measured in both layouts, for all contenders alike:

- `apart`: clients on one processor, the proxy and redis-server on another, as with containers of a pod that has two
- `one`:   all on the same, as in a pod with a limit of one

And so does the interpreter: one built without profile-guided optimization (pyenv's default) takes a fifth to a half
more time for the shim and the proxy than that of the images, and redis-server notices nothing.

Goals: read and stat <= 1.2 x redis, write <= 1.5 x redis, `pass` and `near` <= 0.35 us more with the shim, 8 MiB read
<= 2 ms, one round trip for each directory of a walk, import and activation of the shim <= 10 ms (`bench/start.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import start

Cases = dict[str, Callable[[], object]]
Took = dict[str, dict[str, list[int]]]
"""Nanoseconds of each call by case and contender."""
Figures = dict[str, dict[str, dict[str, float]]]
"""Microseconds (p50, p99) by case and contender."""

SIZE = 1024
LARGE = 8 << 20
MANY = 1000
DIRECTORIES = 100
IN_EACH = 100
HISTORY = [{"role": "user" if n % 2 else "assistant", "content": f"message {n}: " + "words " * 8} for n in range(20)]
GOALS = {"read": 1.2, "stat": 1.2, "write": 1.5, "read many": 1.2, "stat many": 1.2, "write many": 1.5}
LARGE_READ = 2.0
"""Milliseconds."""
SMALL = ("read", "stat", "write", "read many", "stat many", "write many", "json load", "json dump", "pass", "near")
SLOW = {"read 8 MiB": 4, "write 8 MiB": 4, "walk": 1}
"""How often in each round."""
_CPUS = sorted(os.sched_getaffinity(0))
LAYOUTS = {"apart": (_CPUS[0], _CPUS[-1]), "one": (_CPUS[0], _CPUS[0])}
"""The processor of the clients, and that of the servers. With one processor there is one layout."""


def file_cases(root: str, directory: Path) -> Cases:
    """The calls on files below `root`."""
    payload = b"x" * SIZE
    names = itertools.cycle([f"{root}/many{n}" for n in range(MANY)])

    def write(name: str = f"{root}/bench", data: bytes = payload) -> None:
        with open(name, "wb") as f:
            f.write(data)

    def read(name: str = f"{root}/bench") -> bytes:
        with open(name, "rb") as f:
            return f.read()

    def dump() -> None:
        with open(f"{root}/history.json", "w") as f:
            json.dump(HISTORY, f)

    def load() -> object:
        with open(f"{root}/history.json") as f:
            return json.load(f)

    def walk() -> int:
        return sum(len(files) for _, _, files in os.walk(f"{root}/tree"))

    plain, near = os.__file__, str(directory / "state" / "near")
    large = bytes(LARGE)
    write()
    dump()
    write(f"{root}/large", large)
    for _ in range(MANY):
        write(next(names))
    for n in range(DIRECTORIES):
        os.makedirs(f"{root}/tree/{n}")
        for m in range(IN_EACH):
            write(f"{root}/tree/{n}/{m}", b"")
    if walk() != DIRECTORIES * IN_EACH:
        raise SystemExit("the walk did not find what was written")
    return {
        "read": read,
        "write": write,
        "stat": lambda: os.stat(f"{root}/bench"),
        "read many": lambda: read(next(names)),
        "write many": lambda: write(next(names)),
        "stat many": lambda: os.stat(next(names)),
        "json load": load,
        "json dump": dump,
        "read 8 MiB": lambda: read(f"{root}/large"),
        "write 8 MiB": lambda: write(f"{root}/large", large),
        "walk": walk,
        "pass": lambda: os.stat(plain),
        "near": lambda: os.stat(near),
    }


def shim_cases(directory: Path) -> Cases:
    import asya_shim

    asya_shim.activate_from_environment()
    return file_cases("/state", directory)


def disk_cases(directory: Path) -> Cases:
    return file_cases(str(directory / "disk"), directory)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def http_cases(directory: Path) -> Cases:
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


def redis_cases(directory: Path) -> Cases:
    import redis

    client = redis.Redis(unix_socket_path=str(directory / "redis.sock"))
    payload, large = b"x" * SIZE, bytes(LARGE)
    names = itertools.cycle([f"many{n}" for n in range(MANY)])
    for _ in range(MANY):
        client.set(next(names), payload)
    client.set("bench", payload)
    client.set("large", large)
    client.set("history", json.dumps(HISTORY))
    return {
        "read": lambda: client.get("bench"),
        "write": lambda: client.set("bench", payload),
        "stat": lambda: client.strlen("bench"),
        "read many": lambda: client.get(next(names)),
        "write many": lambda: client.set(next(names), payload),
        "stat many": lambda: client.strlen(next(names)),
        "json load": lambda: json.loads(client.get("history")),  # type: ignore[arg-type]
        "json dump": lambda: client.set("history", json.dumps(HISTORY)),
        "read 8 MiB": lambda: client.get("large"),
        "write 8 MiB": lambda: client.set("large", large),
    }


CONTENDERS = {"shim": shim_cases, "http": http_cases, "redis": redis_cases, "disk": disk_cases}


def worker(contender: str, directory: Path) -> None:
    """Answer `case ops` lines with a JSON list of nanoseconds each."""
    cases = CONTENDERS[contender](directory)
    print(json.dumps(sorted(cases)), flush=True)
    clock = time.perf_counter_ns
    for line in sys.stdin:
        case, _, count = line.strip().rpartition(" ")
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


def tie(processes: Iterable[subprocess.Popen[Any]], cpu: int) -> None:
    """Let each run on one processor only."""
    for child in processes:
        os.sched_setaffinity(child.pid, {cpu})


def run(rounds: int, ops: int) -> tuple[dict[str, Took], int]:
    """What was measured, by layout, and the round trips of a walk."""
    directory = Path(tempfile.mkdtemp(prefix="asya-"))
    (directory / "state").mkdir()
    (directory / "disk").mkdir()
    (directory / "state" / "near").touch()
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
    layouts = LAYOUTS if len(_CPUS) > 1 else {"one": LAYOUTS["one"]}
    took: dict[str, Took] = {name: {} for name in layouts}
    try:
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(process([sys.executable, "-m", "asya_proxy", "serve"], socket_path, env=proxy_env)),
                stack.enter_context(
                    process(redis_arguments, directory / "redis.sock", stdout=subprocess.DEVNULL, cwd=directory)
                ),
            ]
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
            for turn, (name, (clients_cpu, servers_cpu)) in itertools.product(range(rounds + 1), layouts.items()):
                tie(servers, servers_cpu)
                tie([child for child, _ in workers.values()], clients_cpu)
                for case, contender in itertools.product((*SMALL, *SLOW), workers):
                    child, cases = workers[contender]
                    if case not in cases:
                        continue
                    child.stdin.write(f"{case} {SLOW.get(case, ops)}\n")  # type: ignore[union-attr]
                    child.stdin.flush()  # type: ignore[union-attr]
                    answer = json.loads(child.stdout.readline())  # type: ignore[union-attr]
                    if turn:  # the first is the warm-up
                        took[name].setdefault(case, {}).setdefault(contender, []).extend(answer)
            trips = round_trips(workers["shim"][0], socket_path)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return took, trips


def round_trips(shim: subprocess.Popen[str], proxy: Path) -> int:
    """Requests that the proxy answers during one walk."""
    before = _answered(proxy)
    shim.stdin.write("walk 1\n")  # type: ignore[union-attr]
    shim.stdin.flush()  # type: ignore[union-attr]
    shim.stdout.readline()  # type: ignore[union-attr]
    # The first look is a request itself.
    return _answered(proxy) - before - 1


def _answered(proxy: Path) -> int:
    connection = _UnixConnection(str(proxy))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    lines = [line for line in text.splitlines() if line.startswith("asya_proxy_requests_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def summary(took: Took) -> Figures:
    return {
        case: {
            who: {"p50": statistics.median(ns) / 1000, "p99": statistics.quantiles(ns, n=100)[98] / 1000}
            for who, ns in by.items()
        }
        for case, by in took.items()
    }


def report(figures: Figures) -> None:
    """Print the table of one layout."""
    print(f"{'1 KiB, microseconds':32}{'p50':>9}{'p99':>9}{'p50 / redis':>13}{'goal':>7}")
    for case in SMALL[:-2]:
        for who, f in figures[case].items():
            ratio = f["p50"] / figures[case]["redis"]["p50"]
            goal = f"{GOALS[case]:.1f}" if who == "shim" and case in GOALS else ""
            print(f"  {case + ' ' + who:30}{f['p50']:9.1f}{f['p99']:9.1f}{ratio:13.2f}{goal:>7}")
    print(f"{'os.stat off a mount, us':32}{'without':>9}{'with':>9}{'more':>13}{'goal':>7}")
    for case in SMALL[-2:]:
        without, more = figures[case]["disk"]["p50"], figures[case]["shim"]["p50"]
        print(f"  {case:30}{without:9.2f}{more:9.2f}{more - without:13.2f}{'0.35':>7}")
    print(f"{'large, milliseconds':32}{'p50':>9}{'p99':>9}{'':13}{'goal':>7}")
    for case in SLOW:
        for who, f in figures[case].items():
            goal = f"{LARGE_READ:.1f}" if who == "shim" and case == "read 8 MiB" else ""
            print(f"  {case + ' ' + who:30}{f['p50'] / 1000:9.2f}{f['p99'] / 1000:9.2f}{'':13}{goal:>7}")


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
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}")
    took, trips = run(arguments.rounds, arguments.ops)
    figures = {layout: summary(measured) for layout, measured in took.items()}
    for layout, measured in figures.items():
        print(f"layout {layout}: clients on processor {LAYOUTS[layout][0]}, servers on {LAYOUTS[layout][1]}")
        report(measured)
    print(f"{'round trips of a walk':32}{trips:9}{'':22}{DIRECTORIES + 1:7}")
    print(f"{'import of the shim, ms':32}{'clock':>9}{'processor':>9}{'':13}{'goal':>7}")
    start.report(start.measure(sys.executable, 2 * arguments.rounds))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
