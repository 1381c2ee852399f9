"""What the object stores share: names of objects, histories in metadata, parts, calls in threads."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asya_proxy.errors import BadRequest, Busy, NameTooLong, Unavailable
from asya_proxy.stores import history, object_keys, spool
from asya_proxy.stores.base import Body, Past
from asya_proxy.stores.spool import Part, parts
from asya_proxy.stores.threads import Pool

keys = st.binary(min_size=1, max_size=60) | st.text(alphabet="a!./0A4é€", min_size=1, max_size=12).map(str.encode)


class TestNames:
    @given(keys)
    def test_each_key_comes_back(self, key: bytes) -> None:
        name = object_keys.encode(key)
        assert object_keys.decode(name) == key

    @given(keys, keys)
    def test_different_keys_have_different_names(self, one: bytes, two: bytes) -> None:
        assert (object_keys.encode(one) == object_keys.encode(two)) is (one == two)

    @given(keys)
    def test_names_are_what_every_backend_takes(self, key: bytes) -> None:
        name = object_keys.encode(key)
        name.encode()  # is UTF-8
        assert not any(char < " " or char == "\x7f" for char in name)
        segments = name.split("/")
        assert not {".", ".."} & set(segments)
        assert "" not in segments[:-1]

    @pytest.mark.parametrize(
        "key", ["a/b.json", "naïve/日本語", " a  b ", "100%", "a%20b", "wow!", "!4", "...", ".x", "x.", "d/", "a\\b?#&"]
    )
    def test_natural_names_stay(self, key: str) -> None:
        assert object_keys.encode(key.encode()) == key

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            (b"a\nb", "a!0Ab"),
            (b"\xff", "!FF"),
            (b"a/./b/../.", "a/!2E/b/!2E!2E/!2E"),
            (b"/a//b", "!2Fa/!2Fb"),
            (b"a!41", "a!2141"),
        ],
    )
    def test_escapes(self, key: bytes, name: str) -> None:
        assert object_keys.encode(key) == name

    @pytest.mark.parametrize("name", ["a!41", "!2F", "a!FFb!20"])
    def test_names_of_other_hands_are_none(self, name: str) -> None:
        assert object_keys.decode(name) is None or object_keys.encode(object_keys.decode(name) or b"") == name

    def test_a_non_canonical_name_is_none(self) -> None:
        assert object_keys.decode("a!41") is None

    def test_the_limit_counts_prefix_and_bytes(self) -> None:
        assert object_keys.object_name("p/", "é".encode() * 511)
        with pytest.raises(NameTooLong):
            object_keys.object_name("p/", "é".encode() * 511 + b"x")

    @given(keys, keys)
    def test_a_settled_prefix_finds_all_it_should(self, prefix: bytes, rest: bytes) -> None:
        assert object_keys.encode(prefix + rest).startswith(object_keys.settled(prefix))

    @pytest.mark.parametrize("prefix", [b"a/b", b"dir/", "é/".encode()])
    def test_usual_prefixes_are_settled(self, prefix: bytes) -> None:
        assert object_keys.settled(prefix).encode() == prefix

    @given(st.lists(keys, unique=True, max_size=20), st.integers(1, 5))
    def test_pages_lose_and_repeat_nothing(self, wanted: list[bytes], limit: int) -> None:
        """Paging as the stores do it, over names in the backend's order."""

        class Item:
            def __init__(self, name: bytes) -> None:
                self.name = name

        stored = sorted(object_keys.encode(key) for key in wanted)
        seen: list[bytes] = []
        after = ""
        while True:
            rest = [name for name in stored if name > after]
            page = object_keys.order(
                [Item(object_keys.decode(name) or b"") for name in rest[:limit]], more=len(rest) > limit
            )
            names = [item.name for item in page]
            assert names == sorted(names)
            seen += names
            if len(rest) <= limit:
                break
            after = object_keys.encode(names[-1])
        assert sorted(seen) == sorted(wanted)


class TestHistories:
    @given(st.lists(st.builds(Past, st.text(min_size=1, max_size=30), st.none() | st.text(min_size=1, max_size=40))))
    def test_they_come_back_as_far_as_they_fit(self, writes: list[Past]) -> None:
        line = history.encode(writes)
        assert line.isascii()
        assert len(history.FIELD) + len(line) <= 1024
        back = history.decode(line)
        assert list(back) == writes[: len(back)]
        assert len(back) == len(writes) or len(line) > 500

    def test_twenty_usual_ones_but_three_fit(self) -> None:
        writes = [Past(secrets.token_urlsafe(16), secrets.token_hex(16)) for _ in range(20)]
        assert len(history.decode(history.encode(writes))) >= 17

    def test_an_id_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="1100 characters"):
            history.encode([Past("x" * 1100, None)])

    @pytest.mark.parametrize("line", ["", "no colon", ":base", "a:b,c"])
    def test_lines_of_other_hands_are_empty(self, line: str) -> None:
        assert history.decode(line) == ()


class TestParts:
    @given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 20))
    async def test_parts_are_exact(self, sizes: list[int], size: int) -> None:
        blocks = [secrets.token_bytes(length) for length in sizes]

        async def source() -> AsyncIterator[bytes]:
            for block in blocks:
                yield block

        cut = [part async for part in parts(Body(stream=source()), lambda number: size)]
        assert b"".join(part.data for part in cut) == b"".join(blocks)
        assert [part.number for part in cut] == list(range(1, len(cut) + 1))
        assert [part.last for part in cut] == [False] * (len(cut) - 1) + [True]
        assert all(len(part.data) == size and part.offset == (part.number - 1) * size for part in cut[:-1])
        assert len(cut[-1].data) <= size
        assert len(cut) == 1 or cut[-1].data

    async def test_only_memory_that_was_released_is_used_again(self) -> None:
        async def source() -> AsyncIterator[bytes]:
            for number in range(5):
                yield bytes([number]) * 4

        kept, released = [], []
        async for part in parts(Body(stream=source()), lambda number: 4):
            (released if part.number % 2 else kept).append(part.data)
            if part.number % 2:
                part.release()
        assert [bytes(data) for data in kept] == [b"\1" * 4, b"\3" * 4]
        assert kept[0] is released[0]
        assert kept[1] is released[1]

    async def test_no_memory_is_kept_where_nothing_is_uploaded(self) -> None:
        async def source(cut: bool) -> AsyncIterator[bytes]:
            yield bytes(10)
            if cut:
                raise BadRequest("cut")

        async def upload(cut: bool) -> None:
            async for part in parts(source(cut), lambda number: 4):
                part.release()
                late.append(part)

        late: list[Part] = []
        await upload(cut=False)
        with pytest.raises(BadRequest):
            await upload(cut=True)
        late[0].release()
        assert spool._spare._buffer is None

    async def test_parts_that_grow_take_no_memory_of_another_size(self) -> None:
        async def source() -> AsyncIterator[bytes]:
            yield bytes(range(20))

        sizes = []
        async for part in parts(source(), lambda number: 2 if number < 3 else 6):
            sizes.append(bytes(part.data))
            part.release()
        assert b"".join(sizes) == bytes(range(20))
        assert [len(size) for size in sizes] == [2, 2, 6, 6, 4]


class TestPools:
    async def test_places_are_freed_by_the_thread_not_by_its_caller(self) -> None:
        pool = Pool("test", threads=1, waiting=1)
        begun, release = threading.Event(), threading.Event()

        def work() -> str:
            begun.set()
            release.wait(10)
            return "late"

        running = asyncio.create_task(pool.run(work))
        await asyncio.to_thread(begun.wait, 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        queued = asyncio.create_task(pool.run(lambda: "queued"))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 requests"):
            await pool.run(lambda: "too many")
        release.set()
        assert await queued == "queued"
        assert await pool.run(lambda: "again") == "again"
        pool.close()

    async def test_a_closed_pool(self) -> None:
        pool = Pool("test", threads=1, waiting=1)
        pool.close()
        with pytest.raises(Unavailable, match="closed") as failure:
            await pool.run(lambda: None)
        assert not failure.value.ambiguous
