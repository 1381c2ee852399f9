"""The checker itself: it accepts what can be explained and rejects what cannot."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from support.linearizable import Call, linearizable


def test_nothing_happened() -> None:
    assert linearizable([])


@pytest.mark.parametrize(
    ("calls", "explained"),
    [
        ([Call("write", "a", 0, 1), Call("read", "a", 2, 3)], True),
        ([Call("write", "a", 0, 1), Call("read", None, 2, 3)], False),
        ([Call("write", "a", 0, 3), Call("read", None, 1, 2)], True),
        ([Call("write", "a", 0, 5), Call("read", "a", 1, 2), Call("read", None, 3, 4)], False),
        ([Call("swap", "a", 0, 1), Call("swap", "b", 0, 1)], False),
        ([Call("swap", "a", 0, 1), Call("swap", "b", 0, 1, expected="a")], True),
        ([Call("swap", "a", 0, 1), Call("refused", "b", 2, 3), Call("read", "a", 4, 5)], True),
        ([Call("refused", "b", 0, 1)], False),
        ([Call("refused", "b", 0, 3), Call("swap", "a", 1, 2)], True),
        ([Call("write", "a", 0), Call("read", None, 1, 2), Call("read", "a", 3, 4)], True),
        ([Call("write", "a", 0), Call("read", "a", 1, 2), Call("read", None, 3, 4)], False),
        ([Call("swap", "a", 0), Call("refused", "b", 1, 2), Call("read", "a", 3, 4)], True),
        ([Call("swap", "a", 0), Call("refused", "b", 1, 2), Call("read", None, 3, 4)], False),
    ],
)
def test_small_histories(calls: list[Call], explained: bool) -> None:
    assert linearizable(calls) is explained


def random_history(dice: random.Random, clients: int = 4, length: int = 60) -> list[Call]:
    """Calls of several clients on a true register: each takes effect somewhere between its start and its end."""
    value: str | None = None
    free = [0.0] * clients
    effects: list[tuple[float, Call]] = []
    for number in range(length):
        client = dice.randrange(clients)
        start = free[client] + dice.random()
        end = start + dice.random() * 3
        free[client] = end
        kind = dice.choice(("read", "write", "swap"))
        effects.append((dice.uniform(start, end), Call(kind, f"v{number}", start, end)))
    calls = []
    for _, call in sorted(effects, key=lambda pair: pair[0]):
        if call.kind == "read":
            calls.append(replace(call, value=value))
            continue
        if call.kind == "swap":
            expected = value if dice.random() < 0.7 else "something else"
            call = replace(call, expected=expected)
            if expected != value:
                calls.append(replace(call, kind="refused"))
                continue
        lost = dice.random() < 0.1
        if not lost or dice.random() < 0.5:
            value = call.value
        calls.append(replace(call, end=float("inf")) if lost else call)
    return calls


@pytest.mark.parametrize("seed", range(20))
def test_what_a_register_did_is_accepted(seed: int) -> None:
    assert linearizable(random_history(random.Random(seed)))


@pytest.mark.parametrize("seed", range(20))
def test_a_lost_update_is_rejected(seed: int) -> None:
    """Two swaps of the same value both succeed, and were over before anything else was written."""
    history = random_history(random.Random(seed))
    late = max(call.start for call in history) + 1000
    history += [
        Call("write", "base", late, late + 1),
        Call("swap", "one", late + 2, late + 3, expected="base"),
        Call("swap", "two", late + 2, late + 3, expected="base"),
    ]
    assert not linearizable(history)


@pytest.mark.parametrize("seed", range(20))
def test_a_read_of_what_never_was_is_rejected(seed: int) -> None:
    history = random_history(random.Random(seed))
    reads = [number for number, call in enumerate(history) if call.kind == "read"]
    history[reads[len(reads) // 2]] = replace(history[reads[len(reads) // 2]], value="never written")
    assert not linearizable(history)


def test_an_unknown_kind_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="'swop'"):
        linearizable([Call("swop", "a", 0, 1)])
