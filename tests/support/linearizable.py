"""Whether a history of concurrent calls on one register could have happened one call after the other.

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory of states of
Lowe (2017): take any call that no finished call precedes, apply it to the model, go on; go back where that
fails. Exponential in the number of calls under way at once, so meant for few clients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ABSENT = None
Value = str | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call on the register. Times are of one clock; `end` is infinite where the outcome is unknown.

    `kind` is `read` (saw `value`), `write` (of `value`), `swap` (of `expected` for `value`, done), or `refused`
    (a swap that found another value than `expected`). A call without an end may have happened or not.
    """

    kind: str
    value: Value
    start: float
    end: float = math.inf
    expected: Value = None


def linearizable(calls: Sequence[Call], initial: Value = ABSENT) -> bool:
    """Whether there is an order of `calls` that respects their times and that the register explains."""
    order = sorted(range(len(calls)), key=lambda number: calls[number].start)
    definite = sum(1 << number for number in range(len(calls)) if calls[number].end < math.inf)
    stack: list[tuple[int, Value]] = [(0, initial)]
    known: set[tuple[int, Value]] = set(stack)
    while stack:
        done, value = stack.pop()
        if done & definite == definite:
            return True
        horizon = min(calls[number].end for number in order if not done >> number & 1)
        for number in order:
            if done >> number & 1:
                continue
            if calls[number].start > horizon:
                break
            fits, after = _apply(calls[number], value)
            state = done | 1 << number, after
            if fits and state not in known:
                known.add(state)
                stack.append(state)
    return False


def _apply(call: Call, value: Value) -> tuple[bool, Value]:
    """Whether the call's answer fits a register that holds `value`, and what it holds then."""
    if call.kind == "read":
        return call.value == value, value
    if call.kind == "write":
        return True, call.value
    if call.kind == "swap":
        return call.expected == value, call.value
    if call.kind == "refused":
        return call.expected != value, value
    raise ValueError(f"{call.kind!r}: expected read, write, swap or refused")
