"""`GET /metrics` of the runtime: each figure moves when what it counts happens."""

import threading
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from asya_runtime.metrics import METRICS, OUTCOMES, UNSTORED
from asya_shim import endings


def figures(actor: Any) -> dict[str, float]:
    """Every sample, the prefix `asya_runtime_` left out; a label is its value in braces."""
    answer = actor.call("GET", "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = "".join(f"{{{value}}}" for value in sample.labels.values())
            found[sample.name.removeprefix("asya_runtime_") + labels] = sample.value
    return found


def moved(actor: Any, before: dict[str, float]) -> dict[str, float]:
    """What has changed since `before`, times left out."""
    now = figures(actor)
    return {
        name: value - before[name] for name, value in now.items() if value != before[name] and "_seconds_" not in name
    }


def test_every_metric_is_there_from_the_start(runtime: Any) -> None:
    actor = runtime.serve("def process(state): return state")
    text = actor.call("GET", "/metrics").body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {m.name.removesuffix("_total"): m.kind for m in METRICS} == {n: f.type for n, f in families.items()}
    assert {name: value for name, value in figures(actor).items() if value} == {"ready": 1, "running_turns_limit": 1}
    assert {f"requests_total{{{outcome}}}" for outcome in OUTCOMES} <= set(figures(actor))
    assert actor.call("HEAD", "/metrics").body == b""


def test_messages_by_outcome(local: Any) -> None:
    def handler(state: Any) -> Any:
        if state == "fail":
            raise ValueError("no")
        return state

    actor = local(handler, max_request_size=1024)
    before = figures(actor)
    actor.post("fine")
    assert moved(actor, before) == {"requests_total{ok}": 1}
    actor.invoke("fail")
    actor.call("POST", "/", b"{")
    actor.call("POST", "/", b"1" * 2000)
    assert moved(actor, before) == {
        "requests_total{ok}": 1,
        "requests_total{processing_error}": 1,
        "requests_total{msg_parsing_error}": 1,
        "requests_total{bad_request}": 1,
    }
    after = figures(actor)
    assert after["request_seconds_count"] == after["request_seconds_bucket{+Inf}"] == 4
    assert 0 < after["request_seconds_sum"] < 60


def test_probes_are_no_messages(local: Any) -> None:
    actor = local(lambda state: state)
    before = figures(actor)
    for path in ("/healthz", "/readyz", "/nowhere", "/invoke"):
        actor.call("GET", path)
    assert moved(actor, before) == {}


def test_a_stream_is_one_message(local: Any) -> None:
    def handler(state: Any) -> Any:
        yield 1
        if state:
            raise ValueError("no")
        yield 2

    actor = local(handler)
    before = figures(actor)
    actor.post(0)
    actor.post(1)
    assert moved(actor, before) == {"requests_total{ok}": 1, "requests_total{processing_error}": 1}


def test_what_runs_and_what_waits(local: Any) -> None:
    began, go = threading.Event(), threading.Event()

    def handler(state: Any) -> Any:
        began.set()
        assert go.wait(20)
        return state

    actor = local(handler)
    before = figures(actor)
    first = actor.later(1)
    assert began.wait(20)
    second = actor.later(2)
    while (now := moved(actor, before)) != {"running_turns": 1, "waiting_requests": 1}:
        assert now.items() <= {"running_turns": 1, "waiting_requests": 1}.items()
    go.set()
    assert (first.get().status, second.get().status) == (200, 200)
    assert moved(actor, before) == {"requests_total{ok}": 2}


def test_time_outs(local: Any) -> None:
    go = threading.Event()
    actor = local(lambda _state: go.wait(20), turn_timeout=0.5)
    before = figures(actor)
    assert actor.post(1).status == 504
    assert moved(actor, before) == {"requests_total{timeout}": 1, "running_turns": 1}
    go.set()


def test_conflicts_and_reruns(local: Any) -> None:
    actor = local(lambda state: state, conflict_retries=1)
    before = figures(actor)
    conflict = type("Conflict", (actor.conflict,), {})
    actor.turn.fail.append(conflict("somebody was first"))
    assert actor.post(1).status == 200
    assert moved(actor, before) == {"requests_total{ok}": 1, "conflicts_total": 1, "reruns_total": 1}
    actor.turn.fail += [conflict("again"), conflict("and again")]
    assert actor.post(1).status == 500
    assert moved(actor, before)["conflicts_total"] == 3
    assert moved(actor, before)["reruns_total"] == 2


def test_the_drain(runtime: Any) -> None:
    actor = runtime.serve(
        """
        import time, os, signal
        def process(state):
            os.kill(os.getpid(), signal.SIGTERM)
            while not os.path.exists("go"):
                time.sleep(0.01)
            return 1
        """
    )
    connection = actor.connect()
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    answer = actor.later(1)
    actor.log("draining")
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert "asya_runtime_draining 1" in text
    assert "asya_runtime_ready 0" in text
    assert "asya_runtime_running_turns 1" in text
    (runtime.directory / "go").touch()
    assert answer.get().status == 200


def test_changes_that_could_not_be_stored(local: Any, monkeypatch: Any) -> None:
    assert set(UNSTORED) < set(endings.failures)
    actor = local(lambda state: state)
    before = figures(actor)
    monkeypatch.setitem(endings.failures, "collected", endings.failures["collected"] + 2)
    assert moved(actor, before) == {"unstored_changes_total{collected}": 2}
