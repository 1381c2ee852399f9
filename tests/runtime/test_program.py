"""`run.py FILE` and `run.py -m MODULE`: programs run as `python` would run them."""

import signal
from typing import Any

import pytest

from .conftest import RUN


def test_file_with_arguments(runtime: Any) -> None:
    runtime.write("tools/near.py", "NEAR = True")
    runtime.write("here.py", "HERE = True")
    runtime.write(
        "tools/seed.py",
        """
        import sys
        import near, here
        assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
        print(sys.argv, __file__)
        sys.exit(7)
        """,
    )
    done = runtime.start(arguments=("tools/seed.py", "a", "-b"))
    assert done.end() == 7
    assert done.lines == ["['tools/seed.py', 'a', '-b'] tools/seed.py"]


def test_module(runtime: Any) -> None:
    runtime.write("pkg/__init__.py", "")
    runtime.write("pkg/__main__.py", "import sys\nprint(__name__, __spec__.name, sys.argv[1:])")
    done = runtime.start(arguments=("-m", "pkg", "x"))
    assert done.end() == 0
    assert done.lines == ["__main__ pkg.__main__ ['x']"]


def test_directory(runtime: Any) -> None:
    runtime.write("app/__main__.py", "print('in a directory')")
    done = runtime.start(arguments=("app",))
    assert (done.end(), done.lines) == (0, ["in a directory"])


def test_failing_program(runtime: Any) -> None:
    runtime.write("bad.py", "1 / 0")
    done = runtime.start(arguments=("bad.py",))
    assert done.end() == 1
    assert "ZeroDivisionError" in done.lines[-1]


@pytest.mark.parametrize("arguments", [("nowhere.py",), ("-m",)])
def test_nothing_to_run(runtime: Any, arguments: tuple[str, ...]) -> None:
    done = runtime.start(arguments=arguments)
    assert done.end() == 1
    assert len(done.lines) == 1


def test_help(runtime: Any) -> None:
    done = runtime.start(arguments=("--help",))
    assert done.end() == 0
    assert "run.py -m MODULE" in done.lines[-1]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(runtime: Any, method: str) -> None:
    runtime.write(
        "pool.py",
        f"""
        import multiprocessing
        def twice(n):
            import asya_contract
            return 2 * n
        if __name__ == "__main__":
            with multiprocessing.get_context("{method}").Pool(1) as pool:
                print(pool.map(twice, [1, 2]))
        """,
    )
    done = runtime.start(arguments=("pool.py",), PYTHONPATH="")
    assert (done.end(), done.lines) == (0, ["[2, 4]"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_in_a_handler(runtime: Any, method: str) -> None:
    actor = runtime.serve(
        f"""
        import multiprocessing
        def twice(n): return 2 * n
        def process(state):
            with multiprocessing.get_context("{method}").Pool(1) as pool:
                return pool.map(twice, state)
        """
    )
    assert actor.post([1, 2]).json == [2, 4]
    actor.process.terminate()
    assert actor.end() == 0


SUPERVISED = f"""
    import sys
    sys.path.insert(0, {str(RUN.parent.parent)!r})
    import ctypes, os, signal, subprocess, time
    from asya_runtime import init
    # Orphans come to us as they come to process 1.
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
    init.supervise()
    subprocess.run(["sh", "-c", "sleep 0.1 & echo orphan $!"])
    print("parent", os.getppid(), flush=True)
"""


def test_process_one_forwards_signals_and_passes_the_status_on(runtime: Any) -> None:
    runtime.write(
        "one.py",
        SUPERVISED
        + """
    got = []
    signal.signal(signal.SIGUSR1, lambda *a: got.append(1))
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(40 + len(got)))
    print("up", flush=True)
    while True:
        if got: print("usr1", flush=True)
        time.sleep(0.05)
        """,
    )
    done = runtime.start(arguments=(), run=runtime.directory / "one.py")
    done.wait_for("up".__eq__)
    done.process.send_signal(signal.SIGUSR1)
    done.wait_for("usr1".__eq__)
    done.process.send_signal(signal.SIGTERM)
    assert done.end() == 41


def test_process_one_reaps_orphans(runtime: Any) -> None:
    runtime.write(
        "one.py",
        SUPERVISED
        + """
    import glob
    orphan = None
    deadline = time.monotonic() + 15
    pid = os.getppid()
    def mine():
        return [p for p in open(f"/proc/{pid}/task/{pid}/children").read().split() if int(p) != os.getpid()]
    while mine():
        assert time.monotonic() < deadline, mine()
        time.sleep(0.01)
    print("reaped", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    done = runtime.start(arguments=(), run=runtime.directory / "one.py")
    assert done.end() == 128 + 9
    assert done.lines[-1] == "reaped"
