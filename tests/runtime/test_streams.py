"""Generators: frames as server-sent events, and what happens when nobody reads them."""

import json
import socket
from typing import Any

import pytest

GENERATORS = """
    import asyncio, os

    def process(state):
        print("begun", flush=True)
        for n in range(state["n"]):
            yield {"n": n}
        if state.get("fail"):
            raise ValueError("late")

    async def aprocess(state):
        print("begun", flush=True)
        for n in range(state["n"]):
            await asyncio.sleep(0)
            yield {"n": n}
        if state.get("fail"):
            raise ValueError("late")

    def returned(state):
        return process(state)

    def areturned(state):
        return aprocess(state)

    async def awaited(state):
        return aprocess(state)
"""

ALL = ["agent.process", "agent.aprocess", "agent.returned", "agent.areturned", "agent.awaited"]


@pytest.mark.parametrize("handler", ALL)
@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_frames_come_as_events(runtime: Any, handler: str, concurrency: str) -> None:
    actor = runtime.serve(GENERATORS, handler, ASYA_CONCURRENCY=concurrency)
    answer = actor.invoke({"n": 2})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    route = {"prev": ["here"], "curr": "there", "next": []}
    frames = [("downstream", {"payload": {"n": n}, "route": route, "headers": {}}) for n in range(2)]
    assert answer.events == [*frames, ("done", {})]
    assert actor.post({"n": 1}).events == [("downstream", {"n": 0}), ("done", {})]
    assert actor.post({"n": 0}).events == [("done", {})]


@pytest.mark.parametrize("handler", ALL)
def test_failure_after_frames_is_an_event(runtime: Any, handler: str) -> None:
    actor = runtime.serve(GENERATORS, handler)
    events = actor.post({"n": 1, "fail": True}).events
    assert [name for name, _ in events] == ["downstream", "error"]
    assert events[-1][1]["error"] == "processing_error"
    assert events[-1][1]["details"]["type"] == "builtins.ValueError"


def test_upstream_events(runtime: Any) -> None:
    actor = runtime.serve('def process(state):\n    yield "FLY", {"token": 1}\n    yield {"x": 1}')
    assert actor.post({}).events == [("upstream", {"token": 1}), ("downstream", {"x": 1}), ("done", {})]


def test_frame_that_is_not_json_ends_the_generator(runtime: Any) -> None:
    actor = runtime.serve(
        """
        def process(state):
            try:
                yield 1
                yield {1}
            finally:
                print("closed", flush=True)
        """
    )
    events = actor.post({}).events
    assert [name for name, _ in events] == ["downstream", "error"]
    assert "set" in events[1][1]["details"]["message"]
    actor.wait_for("closed".__eq__)


def test_each_frame_leaves_before_the_next_is_made(runtime: Any) -> None:
    actor = runtime.serve(
        """
        import os
        def process(state):
            yield "first"
            while not os.path.exists("go"):
                pass
            yield "second"
        """
    )
    with socket.create_connection(("127.0.0.1", actor.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n1")
        data = b""
        while b'data: "first"\n\n' not in data:
            data += client.recv(4096)
        runtime.write("go", "")
        while piece := client.recv(4096):
            data += piece
    assert data.endswith(b'event: downstream\ndata: "second"\n\nevent: done\ndata: {}\n\n')


LEAVING = """
    import asyncio

    def process(state):
        try:
            while True:
                yield "x" * 1000
        except GeneratorExit:
            print("left", flush=True)
            raise

    async def aprocess(state):
        try:
            while True:
                await asyncio.sleep(0.001)
                yield "x" * 1000
        except GeneratorExit:
            print("left", flush=True)
            raise
"""


@pytest.mark.parametrize("handler", ["agent.process", "agent.aprocess"])
def test_client_that_leaves_ends_the_generator(runtime: Any, handler: str) -> None:
    actor = runtime.serve(LEAVING, handler)
    with socket.create_connection(("127.0.0.1", actor.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n1")
        assert client.recv(100)
    actor.wait_for("left".__eq__)
    actor.log("client left, generator ended")
    actor.process.terminate()
    assert actor.end() == 0
    assert not [line for line in actor.lines if '"level": "error"' in line]


@pytest.mark.parametrize("handler", ["agent.process", "agent.aprocess"])
def test_client_that_does_not_read_is_given_up_at_the_turns_deadline(runtime: Any, handler: str) -> None:
    actor = runtime.serve(LEAVING.replace("1000", "100_000"), handler, ASYA_TURN_TIMEOUT="500ms")
    with socket.create_connection(("127.0.0.1", actor.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n1")
        actor.log("turn timed out")
        actor.wait_for("left".__eq__)


@pytest.mark.parametrize("prefix", ["", "async "])
def test_turn_commits_after_the_last_frame(local: Any, prefix: str) -> None:
    seen: list[list[str]] = []
    space: dict[str, Any] = {"seen": seen}
    exec(f"{prefix}def process(state):\n    seen.append(turns()[0].calls[:])\n    yield 1\n    yield 2", space)
    actor = local(space["process"])
    space["turns"] = lambda: actor.turns
    assert [name for name, _ in actor.post({}).events] == ["downstream", "downstream", "done"]
    assert seen == [[]]
    assert actor.turns[0].calls == ["commit"]


def test_commit_that_fails_after_the_frames_is_an_error_event(local: Any) -> None:
    def process(state: Any) -> Any:
        yield 1

    actor = local(process)
    actor.turn.fail.append(OSError("backend gone"))
    events = actor.post({}).events
    assert [name for name, _ in events] == ["downstream", "error"]
    assert events[1][1]["details"]["message"] == "backend gone"
    assert actor.turns[0].calls == ["commit", "discard"]


def test_generator_that_finishes_its_work_when_left_commits(local: Any) -> None:
    def process(state: Any) -> Any:
        try:
            while True:
                yield "x"
        except GeneratorExit:
            return

    actor = local(process)
    with socket.create_connection(("127.0.0.1", actor.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n1")
        assert client.recv(100)
    actor.close()
    assert actor.turns[0].calls == ["commit"]


def test_events_are_one_line_of_json(runtime: Any) -> None:
    actor = runtime.serve('def process(state):\n    yield {"a": "line\\nline", "b": "é\\u2028"}')
    body = actor.post({}).body
    assert json.loads(body.split(b"data: ")[1].split(b"\n")[0]) == {"a": "line\nline", "b": "é\u2028"}
