"""When a turn commits, discards, is run anew, or is over; with turns that only write down what is asked."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import FakeConflict, eventually


def asynchronous(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def process(state: Any) -> Any:
        return handler(state)

    return process


both = pytest.mark.parametrize("kind", [lambda handler: handler, asynchronous], ids=["sync", "async"])


@both
def test_result_leaves_after_the_commit(local: Any, kind: Any) -> None:
    actor = local(kind(lambda state: state))
    assert actor.post(1).status == 200
    assert actor.turns[0].calls == ["commit"]


@both
def test_failing_handler_discards(local: Any, kind: Any) -> None:
    actor = local(kind(lambda state: 1 / state))
    assert actor.post(0).status == 500
    assert actor.turns[0].calls == ["discard"]
    assert isinstance(actor.turns[0].because, ZeroDivisionError)


@both
def test_result_that_is_not_json_discards(local: Any, kind: Any) -> None:
    actor = local(kind(lambda state: {1}))
    assert actor.post(0).status == 500
    assert actor.turns[0].calls == ["discard"]


@both
def test_failing_commit_fails_the_turn(local: Any, kind: Any) -> None:
    actor = local(kind(lambda state: state))
    actor.turn.fail.append(OSError(5, "backend gone"))
    answer = actor.invoke(1)
    assert (answer.status, answer.json["error"]) == (500, "processing_error")
    assert answer.json["details"]["type"] == "builtins.OSError"
    assert set(answer.json["details"]) == {"message", "type", "mro", "traceback"}
    assert actor.turns[0].calls == ["commit", "discard"]


@both
def test_conflict_is_run_anew_with_a_fresh_payload(local: Any, kind: Any) -> None:
    seen = []

    def process(state: Any) -> Any:
        seen.append(dict(state))
        state["spoilt"] = True
        return len(seen)

    actor = local(kind(process), conflict_retries=2)
    actor.turn.fail += [FakeConflict(), FakeConflict()]
    assert actor.invoke({"x": 1}).json["frames"][0]["payload"] == 3
    assert seen == [{"x": 1}] * 3
    assert [turn.calls for turn in actor.turns] == [["commit", "discard"], ["commit", "discard"], ["commit"]]


@both
def test_conflict_in_the_handler_is_run_anew(local: Any, kind: Any) -> None:
    seen = []

    def process(state: Any) -> Any:
        seen.append(1)
        if len(seen) == 1:
            raise FakeConflict("x")
        return len(seen)

    assert local(kind(process), conflict_retries=1).post({}).json == 2


@both
def test_conflicts_beyond_the_retries_fail(local: Any, kind: Any) -> None:
    actor = local(kind(lambda state: state), conflict_retries=1)
    actor.turn.fail += [FakeConflict("a"), FakeConflict("b")]
    answer = actor.post(1)
    assert (answer.status, answer.json["details"]["message"]) == (500, "b")
    assert len(actor.turns) == 2


@both
def test_turn_that_stored_something_is_not_run_anew(local: Any, kind: Any) -> None:
    def process(state: Any) -> Any:
        actor.turns[-1].stored = True
        raise FakeConflict("x")

    actor = local(kind(process), conflict_retries=3)
    assert actor.post(1).status == 500
    assert len(actor.turns) == 1


@pytest.mark.parametrize(
    ("stored", "retries", "advice"),
    [
        (False, 0, "conflictRetries runs such a turn anew"),
        (False, 1, "raise conflictRetries"),
        (True, 1, "it had stored or sent something"),
    ],
)
def test_the_log_says_what_to_do_about_a_conflict(
    stored: bool, retries: int, advice: str, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr("asya_runtime.execution.log", lambda level, message, **keys: lines.append(keys))

    def process(state: Any) -> Any:
        actor.turns[-1].stored = stored
        raise FakeConflict("x")

    actor = local(process, conflict_retries=retries)
    assert actor.post(1).status == 500
    assert lines[-1]["advice"].startswith(advice)


def test_turn_that_sent_something_is_not_run_anew(local: Any) -> None:
    def process(state: Any) -> Any:
        yield 1
        raise FakeConflict("x")

    actor = local(process, conflict_retries=3)
    assert [name for name, _ in actor.post(1).events] == ["downstream", "error"]
    assert len(actor.turns) == 1


@both
def test_other_errors_are_not_run_anew(local: Any, kind: Any) -> None:
    actor = local(kind(lambda state: state), conflict_retries=3)
    actor.turn.fail.append(FileExistsError("x"))
    assert actor.post(1).status == 500
    assert len(actor.turns) == 1


def test_timed_out_sync_turn_keeps_its_slot_until_its_code_ends(local: Any) -> None:
    go = threading.Event()
    started = threading.Semaphore(0)

    def process(state: Any) -> Any:
        started.release()
        if state == "slow":
            go.wait(20)
        return state

    actor = local(process, turn_timeout=0.2)
    answer = actor.post("slow")
    assert (answer.status, answer.json["error"]) == (504, "timeout")
    eventually(lambda: actor.turns[0].calls == ["cancel"])
    assert started.acquire(timeout=10)
    waiting = actor.post("next")
    assert (waiting.status, waiting.json["error"]) == (503, "busy")
    assert not started.acquire(blocking=False)
    go.set()
    assert eventually(lambda: actor.post("after").status == 200)
    assert actor.turns[0].calls == ["cancel", "discard"]


def test_timed_out_async_turn_is_cancelled(local: Any) -> None:
    ended = []

    async def process(state: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    actor = local(process, turn_timeout=0.2)
    assert actor.post({}).status == 504
    eventually(lambda: ended)
    assert eventually(lambda: sorted(actor.turns[0].calls) == ["cancel", "discard"])


def test_async_turn_that_returns_late_is_not_committed(local: Any) -> None:
    async def process(state: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "swallowed"

    actor = local(process, turn_timeout=0.2)
    assert actor.post({}).status == 504
    assert eventually(lambda: sorted(actor.turns[0].calls) == ["cancel", "discard"])


def test_time_in_the_queue_does_not_count(local: Any) -> None:
    gate = threading.Semaphore(0)

    def process(state: Any) -> Any:
        gate.acquire(timeout=20)
        return state

    actor = local(process, turn_timeout=5)
    calls = [actor.later(n) for n in range(3)]
    for _ in calls:
        gate.release()
    assert sorted(call.get().json for call in calls) == [0, 1, 2]


def test_turns_of_threads_are_isolated(local: Any) -> None:
    import contextvars

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    together = threading.Barrier(3)

    def process(state: Any) -> Any:
        before = variable.get()
        variable.set(state)
        together.wait(10)
        return [before, variable.get()]

    actor = local(process, concurrency=3)
    for _ in range(2):
        calls = [actor.later(n) for n in (1, 2, 3)]
        assert sorted(call.get().json for call in calls) == [[0, 1], [0, 2], [0, 3]]


def test_async_turns_run_together_and_no_more_than_allowed(local: Any) -> None:
    running: list[int] = []
    most: list[int] = []

    async def process(state: Any) -> Any:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.05)
        running.pop()
        return state

    actor = local(process, concurrency=4)
    calls = [actor.later(n) for n in range(12)]
    assert sorted(call.get().json for call in calls) == list(range(12))
    assert max(most) == 4


@both
def test_an_exception_that_cannot_be_told_fails_its_turn_only(local: Any, kind: Any) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise self

    def process(state: Any) -> Any:
        if state:
            raise Mute
        return "well"

    actor = local(kind(process))
    answer = actor.invoke(1)
    assert (answer.status, answer.json["details"]["message"]) == (500, "str() of it raised Mute")
    assert answer.json["details"]["type"].endswith("Mute")
    assert actor.post(0).json == "well"
