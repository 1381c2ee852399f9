"""Runtime, shim and state proxy together, each in its own process: what a turn does to files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.state_proxy import Proxy

from .conftest import Launcher, Process, eventually


class Stateful:
    """A proxy, and actors on it."""

    def __init__(self, proxy: Proxy, runtime: Launcher) -> None:
        self.proxy = proxy
        self.root = proxy.mount.path
        self._runtime = runtime

    def serve(self, source: str, handler: str = "agent.process", **variables: str) -> Process:
        source = source.replace("/state/", f"{self.root}/")
        return self._runtime.serve(source, handler, **{**self.proxy.environ(), **variables})

    def get(self, key: bytes) -> bytes | None:
        remote = self.proxy.pod()
        try:
            content = remote.read(key)
        finally:
            remote.close()
        return None if content is None else content.data


@pytest.fixture(params=["lww", "cas"])
def state(request: pytest.FixtureRequest, tmp_path: Path, runtime: Launcher) -> Iterator[Stateful]:
    (tmp_path / "p").mkdir()
    proxy = Proxy(tmp_path / "p", request.param, "sqlite")
    proxy.start()
    yield Stateful(proxy, runtime)
    proxy.stop()


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_history_grows_over_turns_and_restarts(state: Stateful, prefix: str, concurrency: str) -> None:
    source = f"""
        import json
        {prefix}def process(state):
            try:
                with open("/state/history.json") as f:
                    history = json.load(f)
            except FileNotFoundError:
                history = []
            history.append(state)
            with open("/state/history.json", "w") as f:
                json.dump(history, f)
            return history
    """
    for restart in range(2):
        actor = state.serve(source, ASYA_CONCURRENCY=concurrency)
        for n in range(3):
            assert len(actor.post(n).json) == 3 * restart + n + 1
        actor.process.terminate()
        assert actor.end() == 0
    assert state.get(b"history.json") == b"[0, 1, 2, 0, 1, 2]"


@pytest.mark.parametrize("prefix", ["", "async "])
def test_open_file_is_committed_before_the_answer_leaves(state: Stateful, prefix: str) -> None:
    actor = state.serve(
        f"""
        kept = []
        {prefix}def process(state):
            f = open("/state/" + state, "w")
            f.write("left open")
            kept.append(f)
        """
    )
    assert actor.post("a").status == 204
    assert state.get(b"a") == b"left open"


@pytest.mark.parametrize("prefix", ["", "async "])
def test_failing_turn_stores_nothing_that_was_open_but_flushed_appends(state: Stateful, prefix: str) -> None:
    actor = state.serve(
        f"""
        kept = []
        {prefix}def process(state):
            kept.append(open("/state/text", "w"))
            kept[-1].write("lost")
            kept.append(open("/state/log", "a"))
            kept[-1].write("kept\\n")
            kept[-1].flush()
            raise ValueError("no")
        """
    )
    assert actor.post(1).status == 500
    assert state.get(b"text") is None
    assert state.get(b"log") == b"kept\n"


def test_commit_that_fails_fails_the_turn(state: Stateful) -> None:
    actor = state.serve(
        """
        kept = []
        def process(state):
            kept.append(open("/state/text", "w"))
            kept[-1].write("x")
            return "done"
        """,
        ASYA_STATE_REQUEST_TIMEOUT="500ms",
    )
    assert actor.post(1).status == 200
    state.proxy.stop()
    answer = actor.post(1)
    assert (answer.status, answer.json["error"]) == (500, "processing_error")
    assert answer.json["details"]["type"] == "asya_shim.errors.StateUnavailableError"
    state.proxy.start()
    assert actor.post(1).status == 200


def test_timed_out_turn_stores_nothing_more(state: Stateful, tmp_path: Path) -> None:
    actor = state.serve(
        """
        import os, time
        def process(state):
            if state == "fine":
                return "fine"
            f = open("/state/before", "w")
            f.write("x")
            while not os.path.exists("go"):
                time.sleep(0.01)
            try:
                open("/state/after", "w").close()
            except OSError as error:
                print("refused", error.errno, flush=True)
            f.close()
        """,
        ASYA_TURN_TIMEOUT="500ms",
    )
    answer = actor.post("slow")
    assert (answer.status, answer.json["error"]) == (504, "timeout")
    (tmp_path / "go").touch()
    actor.wait_for("refused 125".__eq__)
    assert eventually(lambda: actor.post("fine").status == 200)
    assert state.get(b"before") is None
    assert state.get(b"after") is None


def test_frames_of_a_generator_leave_after_their_files(state: Stateful) -> None:
    actor = state.serve(
        """
        def process(state):
            for n in range(3):
                with open(f"/state/{n}", "w") as f:
                    f.write("x")
                yield n
        """
    )
    assert actor.post(1).events == [*(("downstream", n) for n in range(3)), ("done", {})]
    assert [state.get(b"%d" % n) for n in range(3)] == [b"x"] * 3


def test_conflicts_are_run_anew(tmp_path: Path, runtime: Launcher) -> None:
    """Two replicas add to one counter, the handler knowing nothing of conflicts."""
    (tmp_path / "p").mkdir()
    proxy = Proxy(tmp_path / "p", "cas", "sqlite")
    proxy.start()
    try:
        state = Stateful(proxy, runtime)
        source = """
            def process(state):
                try:
                    with open("/state/counter") as f:
                        count = int(f.read())
                except FileNotFoundError:
                    count = 0
                with open("/state/counter", "w") as f:
                    f.write(str(count + 1))
                return count + 1
        """
        replicas = [state.serve(source, ASYA_CONFLICT_RETRIES="50") for _ in range(2)]
        answers = [call.get() for call in [replica.later(1) for replica in replicas for _ in range(15)]]
        assert [answer.status for answer in answers] == [200] * 30
        assert sorted(answer.json for answer in answers) == list(range(1, 31))
        assert state.get(b"counter") == b"30"
    finally:
        proxy.stop()


def test_conflict_without_retries_fails_the_turn(tmp_path: Path, runtime: Launcher) -> None:
    (tmp_path / "p").mkdir()
    proxy = Proxy(tmp_path / "p", "cas", "sqlite")
    proxy.start()
    try:
        state = Stateful(proxy, runtime)
        actor = state.serve(
            """
            import os, time
            def process(state):
                with open("/state/f", "w") as f:
                    f.write("mine")
                    print("written", flush=True)
                    while not os.path.exists("go"):
                        time.sleep(0.01)
            """
        )
        call = actor.later(1)
        actor.wait_for("written".__eq__)
        other: Any = proxy.pod()
        other.write(b"f", b"theirs", if_absent=True)
        other.close()
        (tmp_path / "go").touch()
        answer = call.get()
        assert (answer.status, answer.json["error"]) == (500, "processing_error")
        assert answer.json["details"]["type"] == "asya_shim.errors.StateConflictError"
        assert "builtins.FileExistsError" in answer.json["details"]["mro"]
        assert actor.log("turn failed")["advice"].startswith("conflictRetries runs such a turn anew")
        assert state.get(b"f") == b"theirs"
    finally:
        proxy.stop()
