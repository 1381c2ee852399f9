"""One request, one result: envelopes, bare payloads, errors, and the kinds of handlers."""

import json
from typing import Any

import pytest

ECHO = """
    def process(state):
        return state
"""


def test_envelope_comes_back_as_a_frame_with_the_route_advanced(runtime: Any) -> None:
    actor = runtime.serve(ECHO)
    answer = actor.invoke(
        {"x": 1}, id="m1", headers={"trace": "t"}, route={"prev": ["a"], "curr": "b", "next": ["c", "d"]}
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "frames": [
            {"payload": {"x": 1}, "route": {"prev": ["a", "b"], "curr": "c", "next": ["d"]}, "headers": {"trace": "t"}}
        ]
    }


def test_end_of_the_route(runtime: Any) -> None:
    actor = runtime.serve(ECHO)
    frame = actor.invoke(1, route={"prev": [], "curr": "only", "next": []}).json["frames"][0]
    assert frame == {"payload": 1, "route": {"prev": ["only"], "curr": "", "next": []}, "headers": {}}


@pytest.mark.parametrize("payload", [{"a": [1, 2.5, None, True]}, [], "text", 0, None, {"é": "😀"}])
def test_bare_payload_comes_back_bare(runtime: Any, payload: Any) -> None:
    actor = runtime.serve("def process(state): return {'got': state}")
    answer = actor.post(payload)
    assert (answer.status, answer.json) == (200, {"got": payload})


def test_none_is_no_content(runtime: Any) -> None:
    actor = runtime.serve("def process(state): return None")
    for answer in (actor.post({}), actor.invoke({})):
        assert (answer.status, answer.body) == (204, b"")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff\xfe\xfa", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[1]", "the body is a list"),
        (b'{"payload": 1}', "route is missing"),
        (b'{"route": {}}', "payload is missing"),
        (b'{"route": [], "payload": 1}', "route is a list: expected an object"),
        (b'{"route": {"current": "x"}, "payload": 1}', "route.current is not known"),
        (b'{"route": {"curr": 7}, "payload": 1}', "route.curr is a number"),
        (b'{"route": {"next": "x"}, "payload": 1}', "route.next is a string: expected a list"),
        (b'{"route": {"prev": ["a", null]}, "payload": 1}', r"route.prev[1] is null"),
        (b'{"id": 7, "route": {}, "payload": 1}', "id is a number"),
        (b'{"headers": [], "route": {}, "payload": 1}', "headers is a list"),
    ],
)
def test_what_is_not_an_envelope_is_refused(runtime: Any, body: bytes, says: str) -> None:
    actor = runtime.serve(ECHO)
    answer = actor.call("POST", "/invoke", body)
    assert answer.status == 400
    assert answer.json["error"] == "msg_parsing_error"
    assert says in answer.json["details"]["message"]
    assert set(answer.json["details"]) == {"message", "type", "mro", "traceback"}
    assert actor.invoke({}).status == 200


def test_failing_handler_tells_what_and_where(runtime: Any) -> None:
    actor = runtime.serve(
        """
        class Odd(KeyError):
            pass

        def process(state):
            print("the handler's own line")
            raise Odd("nothing there")
        """
    )
    answer = actor.invoke({}, id="m7")
    assert answer.status == 500
    assert answer.json["error"] == "processing_error"
    details = answer.json["details"]
    assert details["type"] == "agent.Odd"
    assert details["mro"] == ["builtins.KeyError", "builtins.LookupError", "builtins.Exception"]
    assert "nothing there" in details["message"]
    assert "in process" in details["traceback"]
    assert "asya_runtime" not in details["traceback"]
    line = actor.log("turn failed")
    assert (line["id"], line["type"], line["level"]) == ("m7", "agent.Odd", "error")
    actor.wait_for("the handler's own line".__eq__)


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("{1, 2}", "set"),
        ("{'a': object()}", "object"),
        ("float('nan')", "float"),
        ("{(1, 2): 3}", "tuple"),
        ("b'x'", "bytes"),
    ],
)
def test_results_that_are_not_json_are_named(runtime: Any, result: str, kind: str) -> None:
    actor = runtime.serve(f"def process(state): return {result}")
    answer = actor.post({})
    assert (answer.status, answer.json["error"]) == (500, "processing_error")
    assert "not JSON" in answer.json["details"]["message"]
    assert kind in answer.json["details"]["message"]


@pytest.mark.parametrize("leaving", ["raise SystemExit(3)", "raise KeyboardInterrupt", "import sys; sys.exit(0)"])
def test_a_handler_that_leaves_fails_its_turn_only(runtime: Any, leaving: str) -> None:
    actor = runtime.serve(f"def process(state):\n    if state: {leaving}\n    return 1")
    assert actor.post(True).status == 500
    assert actor.post(False).json == 1


KINDS = """
    import asyncio, functools, threading

    class Agent:
        built = 0

        def __init__(self):
            Agent.built += 1
            self.turns = 0

        def process(self, state):
            self.turns += 1
            return [Agent.built, self.turns]

        async def aprocess(self, state):
            await asyncio.sleep(0)
            return self.process(state)

        @staticmethod
        def fixed(state):
            return [1, "static"]

    class Callable:
        async def __call__(self, state):
            return id(asyncio.get_running_loop()) and [1, "called"]

    called = Callable()

    def add(more, state):
        return [1, more]

    partial = functools.partial(add, "partial")

    def returns_awaitable(state):
        return Agent().aprocess(state)
"""


@pytest.mark.parametrize(
    ("handler", "second"),
    [
        ("agent.Agent.process", [1, 2]),
        ("agent.Agent.aprocess", [1, 2]),
        ("agent.Agent.fixed", [1, "static"]),
        ("agent.called", [1, "called"]),
        ("agent.partial", [1, "partial"]),
        ("agent.returns_awaitable", [2, 1]),
    ],
)
def test_kinds_of_handlers(runtime: Any, handler: str, second: list[Any]) -> None:
    actor = runtime.serve(KINDS, handler)
    actor.post({})
    assert actor.post({}).json == second


@pytest.mark.parametrize("concurrency", ["1", "3"])
@pytest.mark.parametrize("prefix", ["async ", ""])
def test_async_turns_share_one_loop_for_the_life_of_the_process(runtime: Any, concurrency: str, prefix: str) -> None:
    actor = runtime.serve(
        f"""
        import asyncio
        loops = []
        async def turn():
            loops.append(asyncio.get_running_loop())
            return len(set(map(id, loops)))
        {prefix}def process(state):
            return {"await " if prefix else ""}turn()
        """,
        ASYA_CONCURRENCY=concurrency,
    )
    assert [actor.post({}).json for _ in range(5)] == [1] * 5


def test_sync_handler_runs_in_the_main_thread(runtime: Any) -> None:
    actor = runtime.serve(
        """
        import signal, threading
        def process(state):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            return threading.current_thread() is threading.main_thread()
        """
    )
    assert actor.post({}).json is True


def test_handler_in_a_package(runtime: Any) -> None:
    runtime.write("pkg/__init__.py", "")
    runtime.write("pkg/deep.py", "class A:\n    class B:\n        def run(self, state): return state")
    actor = runtime.start(handler="pkg.deep.A.B.run").ready()
    assert actor.post(3).json == 3


def test_unix_socket_besides(runtime: Any, tmp_path: Any) -> None:
    import socket

    path = tmp_path / "r.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    actor = runtime.serve(ECHO, ASYA_RUNTIME_SOCKET=str(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\n7")
        data = b""
        while piece := client.recv(4096):
            data += piece
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(data.split(b"\r\n\r\n")[1]) == 7
    second = runtime.start(ECHO, ASYA_RUNTIME_SOCKET=str(path))
    assert second.end() == 69
    assert "another process listens" in second.lines[-1]
    actor.process.terminate()
    assert actor.end() == 0
    assert not path.exists()


def test_a_handler_that_cancels_its_own_task_fails_its_turn_only(runtime: Any) -> None:
    actor = runtime.serve(
        """
        import asyncio

        async def process(state):
            if state:
                asyncio.current_task().cancel()
            return "well"
        """
    )
    answer = actor.post(1)
    assert (answer.status, answer.json["error"]) == (500, "processing_error")
    assert "cancelled its own task" in answer.json["details"]["message"]
    assert actor.post(0).json == "well"
