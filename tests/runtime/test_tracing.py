"""`traceparent`: from the message to the handler, to the log, and to the requests for state of that turn."""

import json
from typing import Any

import pytest

from support.state_proxy import Proxy

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TELL = """
    import asya_shim

    def process(state):
        return asya_shim.traceparent()
"""


def post(actor: Any, payload: Any, **headers: str) -> Any:
    return actor.call("POST", "/", json.dumps(payload).encode(), **headers).body.decode()


def test_a_handler_without_state_sees_it(runtime: Any) -> None:
    actor = runtime.serve(TELL)
    assert post(actor, 1, traceparent=PARENT) == f'"{PARENT}"'
    assert post(actor, 1) == ""
    assert post(actor, 1, traceparent="nonsense") == ""


def test_an_envelope_may_bring_it_from_the_actor_before(runtime: Any) -> None:
    actor = runtime.serve(TELL)
    other = PARENT.replace("4bf9", "aaaa")
    assert actor.invoke(1, headers={"traceparent": PARENT}).json["frames"][0]["payload"] == PARENT
    envelope = {"route": {"curr": "a"}, "payload": 1, "headers": {"traceparent": other}}
    answer = actor.call("POST", "/invoke", json.dumps(envelope).encode(), traceparent=PARENT)
    assert answer.json["frames"][0]["payload"] == PARENT
    assert actor.invoke(1, headers={"traceparent": 7}).status == 204


def test_a_failed_turn_is_told_with_its_trace(runtime: Any) -> None:
    actor = runtime.serve("def process(state): raise ValueError(state)", ASYA_ACTOR="ns/a")
    post(actor, "first", traceparent=PARENT)
    line = actor.log("turn failed")
    assert (line["actor"], line["trace_id"], line["cause"], line["type"]) == (
        "ns/a",
        TRACE,
        "first",
        "builtins.ValueError",
    )
    assert line["exception"].startswith("Traceback")


HANDLERS = {
    "plain": """
        import asya_shim

        def process(state):
            open("/state/f", "w").close()
    """,
    "async": """
        import asya_shim

        async def process(state):
            open("/state/f", "w").close()
    """,
    "thread": """
        import threading

        def process(state):
            failed = []

            def work():
                try:
                    open("/state/f", "w").close()
                except OSError as error:
                    failed.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            raise failed[0]
    """,
    "commit": """
        def process(state):
            global kept
            kept = open("/state/f", "w")
    """,
    "upload": """
        def process(state):
            with open("/state/f", "wb") as f:
                for _ in range(20):
                    f.write(b"x" * (1 << 20))
    """,
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One that refuses changes: each is a line of its log."""
    found = Proxy(tmp_path_factory.mktemp("p"), "lww", STATE_READ_ONLY="true", STATE_ACTOR="ns/a")
    found.start()
    yield found
    found.stop()


def failures(proxy: Any) -> list[dict[str, Any]]:
    lines = (proxy.directory / "proxy.log").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["message"] == "request failed"]


@pytest.mark.parametrize("kind", HANDLERS)
def test_requests_for_state_carry_it(runtime: Any, proxy: Any, kind: str) -> None:
    environ = proxy.environ() | {"ASYA_STATE_PROXY_MOUNTS": "lww:/state"}
    actor = runtime.serve(HANDLERS[kind], **environ)
    before = len(failures(proxy))
    for traced in ({}, {"traceparent": PARENT}, {}):
        assert "the mount is read-only" in post(actor, 1, **traced)
    told = failures(proxy)[before:]
    assert {line["error"] for line in told} == {"read_only"}
    traces = [line.get("trace_id") for line in told]
    assert len(traces) % 3 == 0
    third = len(traces) // 3
    assert traces == [None] * third + [TRACE] * third + [None] * third
