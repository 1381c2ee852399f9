"""Waiting: poll until something holds, with a deadline and the last thing seen."""

import time
from collections.abc import Callable
from typing import Any

POLL_SECONDS = 0.2


def until(look: Callable[[], Any], deadline: float, what: str) -> Any:
    """The first truthy answer of `look`.

    Raises:
        AssertionError: none within `deadline` seconds; says `what` was waited for, and what was seen last.
    """
    end = time.monotonic() + deadline
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}; last seen: {seen!r}"
        time.sleep(POLL_SECONDS)
