"""One timer for all waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asya_proxy.deadlines import Deadlines


async def test_a_wait_that_cannot_be_ended_keeps_no_other_waiting() -> None:
    """What raises in one look at the open waits must not be the last look."""
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    deadlines = Deadlines(tick=0.001)

    class Stubborn:
        def cancel(self) -> None:
            raise RuntimeError("no")

    guard = deadlines.within(0.0)
    guard.__enter__()
    guard._task = Stubborn()  # type: ignore[assignment]
    async with asyncio.timeout(5):
        while not broken:
            await asyncio.sleep(0.001)
        for _ in range(2):
            with pytest.raises(TimeoutError), deadlines.within(0.005):
                await asyncio.Event().wait()
    assert len(broken) == 1
