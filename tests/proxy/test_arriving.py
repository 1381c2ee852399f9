"""A body of known length: its bytes in order, its end, its failure, and a source that is held while nobody reads."""

from __future__ import annotations

import asyncio

import pytest

from asya_proxy.arriving import Arriving


class Source:
    def __init__(self) -> None:
        self.told: list[str] = []

    def hold_reading(self) -> None:
        self.told.append("hold")

    def go_on_reading(self) -> None:
        self.told.append("go on")


def arriving(length: int, source: Source | None = None, limit: int = 100) -> Arriving:
    return Arriving(length, source or Source(), limit, asyncio.get_running_loop())


async def test_what_lies_behind_the_body_is_given_back() -> None:
    body = arriving(5)
    assert body.feed(b"abc") == b""
    assert not body.is_eof()
    assert body.feed(b"dexyz") == b"xyz"
    assert body.is_eof()
    assert not body.at_eof()
    assert [await body.readany(), await body.readany()] == [b"abc", b"de"]
    assert body.at_eof()
    assert await body.readany() == b""


async def test_all_that_is_here_comes_at_once() -> None:
    body = arriving(5)
    body.feed(b"ab")
    body.feed(b"cde")
    assert body.read_nowait() == b"abcde"
    assert body.at_eof()


async def test_a_reader_waits_for_the_next_piece() -> None:
    body = arriving(3)
    reading = asyncio.create_task(body.readany())
    await asyncio.sleep(0)
    assert not reading.done()
    body.feed(b"a")
    assert await reading == b"a"


async def test_the_source_is_held_while_nobody_reads_and_never_by_a_complete_body() -> None:
    source = Source()
    body = arriving(1000, source)
    for _ in range(4):
        body.feed(b"x" * 70)
    assert source.told == ["hold"]
    await body.readany()
    await body.readany()
    assert source.told == ["hold"]  # 140 bytes wait
    await body.readany()
    assert source.told == ["hold", "go on"]
    body.feed(b"x" * 300)
    assert source.told == ["hold", "go on", "hold"]
    body.feed(b"x" * 420)
    assert body.is_eof()
    assert source.told == ["hold", "go on", "hold", "go on"]


async def test_a_failure_reaches_who_waits_and_who_comes_later() -> None:
    body = arriving(3)
    reading = asyncio.create_task(body.readany())
    await asyncio.sleep(0)
    body.set_exception(ConnectionResetError("cut"))
    with pytest.raises(ConnectionResetError):
        await reading
    with pytest.raises(ConnectionResetError):
        await body.readany()
    with pytest.raises(ConnectionResetError):
        body.read_nowait()
