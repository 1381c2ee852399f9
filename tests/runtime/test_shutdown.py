"""SIGTERM: readiness first, what waits is refused, what runs ends; a second one exits."""

import os
import signal
from typing import Any

import pytest

from .conftest import eventually

SLOW = """
    import asyncio, os, time

    def running():
        os.write(1, b"running\\n")  # in one piece: print writes line and end apart, and turns run at once

    def process(state):
        running()
        while not os.path.exists("go"):
            time.sleep(0.01)
        return state

    async def aprocess(state):
        running()
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        return state

    def stuck(state):
        running()
        while True:
            pass
"""


@pytest.mark.parametrize("handler", ["agent.process", "agent.aprocess"])
@pytest.mark.parametrize("concurrency", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain(runtime: Any, handler: str, concurrency: str, number: int) -> None:
    actor = runtime.serve(SLOW, handler, ASYA_CONCURRENCY=concurrency)
    calls = [actor.later(n) for n in range(int(concurrency))]
    eventually(lambda: actor.lines.count("running") == int(concurrency))
    waiting = actor.later("waiting")
    idle = actor.connect()
    idle.connect()
    eventually(lambda: actor.call("GET", "/healthz").status == 200)
    actor.process.send_signal(number)
    refused = waiting.get()
    assert (refused.status, refused.json["error"]) == (503, "draining")
    assert refused.headers["retry-after"] == "1"
    ready = actor.call("GET", "/readyz")
    assert (ready.status, ready.json["error"]) == (503, "draining")
    assert actor.call("GET", "/healthz").status == 200
    assert actor.post("late").status == 503
    runtime.write("go", "")
    assert sorted(call.get().json for call in calls) == list(range(int(concurrency)))
    assert actor.end() == 0
    idle.close()
    actor.log("drained")


def test_drain_while_the_handler_is_deep_in_c_code(runtime: Any) -> None:
    """A Python signal handler would run only when the call ends; readiness must not wait for it."""
    actor = runtime.serve(
        """
        import ctypes, os, threading, time
        libc = ctypes.CDLL(None)
        mutex = ctypes.create_string_buffer(128)
        libc.pthread_mutex_lock(mutex)
        def unlock():
            while not os.path.exists("go"):
                time.sleep(0.01)
            libc.pthread_mutex_unlock(mutex)
        threading.Thread(target=unlock, daemon=True).start()
        def process(state):
            print("running", flush=True)
            libc.pthread_mutex_lock(mutex)  # no signal ends this wait
            return state
        """
    )
    call = actor.later(1)
    actor.wait_for("running".__eq__)
    actor.process.send_signal(signal.SIGTERM)
    actor.log("draining")
    assert actor.call("GET", "/readyz").status == 503
    runtime.write("go", "")
    assert call.get().json == 1
    assert actor.end() == 0


def test_second_signal_exits(runtime: Any) -> None:
    actor = runtime.serve(SLOW, "agent.stuck")
    actor.later(1)
    actor.wait_for("running".__eq__)
    actor.process.send_signal(signal.SIGTERM)
    actor.log("draining")
    actor.process.send_signal(signal.SIGTERM)
    assert actor.end() == 143


def test_drain_has_a_deadline(runtime: Any) -> None:
    actor = runtime.serve(SLOW, "agent.stuck", ASYA_DRAIN_TIMEOUT="200ms")
    actor.later(1)
    actor.wait_for("running".__eq__)
    actor.process.send_signal(signal.SIGTERM)
    assert actor.end() == 1
    assert actor.log("turns did not end in time")["turns"] == 1


def test_signal_before_the_runtime_is_ready_ends_it(runtime: Any) -> None:
    actor = runtime.start("import time\nprint('importing', flush=True)\nwhile True: time.sleep(1)")
    actor.wait_for("importing".__eq__)
    actor.process.send_signal(signal.SIGTERM)
    assert actor.end() == 143


def test_exit_functions_run_after_the_drain(runtime: Any) -> None:
    actor = runtime.serve("import atexit\natexit.register(print, 'bye')\ndef process(state): return 1")
    assert actor.post(1).json == 1
    actor.process.terminate()
    assert actor.end() == 0
    assert "bye" in actor.lines


@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_forked_children_neither_take_our_signals_nor_hold_our_connections(runtime: Any, concurrency: str) -> None:
    actor = runtime.serve(
        """
        import os, signal, time
        def process(state):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            return pid
        """,
        ASYA_CONCURRENCY=concurrency,
    )
    # Read to the end of the connection: the child has a copy of it.
    answer = actor.call("POST", "/", b"1", Connection="close")
    os.kill(answer.json, signal.SIGTERM)
    actor.process.terminate()
    assert actor.end() == 0
    eventually(lambda: _is_gone(answer.json))


def _is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
