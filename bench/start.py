"""What the shim adds to the start of a Python process: import and activation, with cached bytecode and without.

    python bench/start.py [--runs 20] [--python EXECUTABLE]...

Part of `bench/state.py`, which runs it for its own interpreter. The shim is the installed one
(`asya-state-proxy install`); `site` is left out (-S), for what it imports is not the shim's doing.
Milliseconds from the first import to the last hook, of the clock and of the processor.

Goal: <= 10 ms with cached bytecode.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

GOAL = 10.0
_MEASURED = """
import os, sys, time
sys.path.insert(0, {lib!r})
began, used = time.perf_counter(), time.process_time()
from asya_shim import activate_from_environment
assert activate_from_environment()
print(time.perf_counter() - began, time.process_time() - used)
"""


def measure(python: str, runs: int) -> dict[str, dict[str, float]]:
    """Median milliseconds (`wall`, `cpu`) by `cached` and `compiled`."""
    directory = Path(tempfile.mkdtemp(prefix="asya-"))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env = {**plain, "ASYA_STATE_PROXY_MOUNTS": "state:/state", "PYTHONDONTWRITEBYTECODE": "1"}
    lib = str(directory / "lib")
    figures = {}
    try:
        install = [sys.executable, "-m", "asya_proxy", "install", directory]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        for kind in ("compiled", "cached"):
            for cache in Path(lib).rglob("__pycache__"):
                shutil.rmtree(cache)
            if kind == "cached":
                subprocess.run([python, "-m", "compileall", "-q", lib], check=True, env=plain)
            took = []
            for _ in range(runs):
                run = subprocess.run(
                    [python, "-S", "-c", _MEASURED.format(lib=lib)], check=True, env=env, stdout=subprocess.PIPE
                )
                took.append([float(text) * 1000 for text in run.stdout.split()])
            wall, cpu = (statistics.median(values) for values in zip(*took, strict=True))
            figures[kind] = {"wall": wall, "cpu": cpu}
    finally:
        shutil.rmtree(directory)
    return figures


def report(figures: dict[str, dict[str, float]]) -> None:
    """Two lines, with the goal behind the one it is for."""
    for kind, text in (("cached", "with cached bytecode"), ("compiled", "compiled anew")):
        goal = f"{GOAL:7.1f}" if kind == "cached" else ""
        print(f"  {text:30}{figures[kind]['wall']:9.1f}{figures[kind]['cpu']:9.1f}{'':13}{goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--python", action="append")
    arguments = parser.parse_args()
    for python in arguments.python or [sys.executable]:
        print(f"{python}, milliseconds: clock, processor")
        report(measure(python, arguments.runs))


if __name__ == "__main__":
    main()
