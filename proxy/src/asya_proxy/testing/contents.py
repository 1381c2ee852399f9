"""Whole objects in and out: put, get, head, delete, ranges, streams, versions pinned while reading."""

from __future__ import annotations

import asyncio

import pytest

from asya_proxy.errors import BadRequest, Conflict, KeyNotFound, RangeInvalid
from asya_proxy.stores.base import CHUNK, Body, Store
from asya_proxy.testing.fixtures import Connect, StoreFixtures
from asya_proxy.testing.samples import (
    ODD_NAMES,
    Stalling,
    change,
    content,
    cut,
    names,
    pattern,
    pieces,
    read,
    write,
)


class ContentCases(StoreFixtures):
    async def test_it_answers(self, store: Store) -> None:
        await store.ping()

    async def test_absent_is_none(self, store: Store) -> None:
        assert await store.head(b"nothing") is None
        assert await store.get(b"nothing") is None
        assert await store.get(b"nothing", start=3, end=5) is None

    async def test_what_is_put_is_got(self, store: Store) -> None:
        stat = await write(store, b"dir/file.json", b"content")
        assert stat.size == 7
        assert stat.version
        assert stat.mtime_ns > 0
        assert await read(store, b"dir/file.json") == b"content"

    async def test_put_head_get_and_list_agree(self, store: Store) -> None:
        stat = await write(store, b"f", b"content")
        head = await store.head(b"f")
        reading = await store.get(b"f")
        entry = (await store.list(b"")).entries[0]
        assert head is not None
        assert reading is not None
        assert head.version == stat.version == reading.stat.version == entry.version
        assert head.size == stat.size == reading.stat.size == entry.size == 7
        assert head.mtime_ns == reading.stat.mtime_ns == entry.mtime_ns

    async def test_versions_are_single_header_tokens(self, store: Store) -> None:
        version = (await write(store, b"f", b"1")).version
        assert all("!" <= c <= "~" and c != '"' for c in version)

    async def test_overwriting_replaces_everything(self, store: Store) -> None:
        first = await write(store, b"f", b"a much longer first value")
        second = await write(store, b"f", b"short")
        assert first.version != second.version
        assert await read(store, b"f") == b"short"
        head = await store.head(b"f")
        assert head is not None
        assert head.size == 5

    async def test_empty_content(self, store: Store) -> None:
        await write(store, b"empty", b"")
        head = await store.head(b"empty")
        assert head is not None
        assert head.size == 0
        assert await read(store, b"empty") == b""

    @pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
    async def test_sizes_around_a_chunk(self, store: Store, size: int) -> None:
        if store.traits.max_size and size > store.traits.max_size:
            size = store.traits.max_size
        data = pattern(size)
        await write(store, b"f", data)
        assert await read(store, b"f") == data

    async def test_large_content_in_memory(self, store: Store) -> None:
        data = pattern(self.large(store))
        stat = await write(store, b"large", data)
        assert stat.size == len(data)
        assert await read(store, b"large") == data

    @pytest.mark.parametrize("told", [True, False])
    async def test_large_content_as_a_stream(self, store: Store, told: bool) -> None:
        data = pattern(self.large(store))
        blocks = [data[start : start + 77_777] for start in range(0, len(data), 77_777)]
        body = Body(stream=pieces(blocks), size=len(data) if told else None)
        stat = await store.put(b"large", body, change())
        assert stat.size == len(data)
        assert await read(store, b"large") == data

    @pytest.mark.parametrize("told", [True, False])
    async def test_small_content_as_a_stream(self, store: Store, told: bool) -> None:
        await store.put(b"f", Body(stream=pieces([b"one", b"two"]), size=6 if told else None), change())
        assert await read(store, b"f") == b"onetwo"
        await store.put(b"f", Body(stream=pieces([]), size=0 if told else None), change())
        assert await read(store, b"f") == b""

    async def test_streams_come_in_bounded_pieces(self, store: Store) -> None:
        data = pattern(self.large(store))
        await write(store, b"large", data)
        reading = await store.get(b"large")
        assert reading is not None
        if reading.stream is None:
            assert reading.data == data
            return
        sizes = [len(piece) async for piece in reading.stream]
        assert max(sizes) <= CHUNK
        assert min(sizes) > 0

    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_odd_names_come_back(self, store: Store, name: bytes) -> None:
        await write(store, name, name)
        assert await read(store, name) == name
        assert await names(store) == [name]
        await store.delete(name, change())
        assert await names(store) == []

    async def test_odd_names_are_different_names(self, store: Store) -> None:
        for name in ODD_NAMES:
            await write(store, name, name)
        assert {name: await read(store, name) for name in ODD_NAMES} == {name: name for name in ODD_NAMES}
        assert sorted(await names(store)) == sorted(ODD_NAMES)

    async def test_prefixes_are_walls(self, connect: Connect, store_factory: object, prefix: str) -> None:
        """A store sees neither its neighbours, nor what starts with the same letters."""
        mine = await connect()
        assert callable(store_factory)
        for other in (prefix[:-1] + "2/", prefix + "inner/", ""):
            neighbour: Store = store_factory(other)
            await neighbour.connect()
            try:
                await write(neighbour, b"f", b"theirs")
                if other != prefix + "inner/" and other:
                    assert await mine.head(b"f") is None
                await neighbour.delete(b"f", change())
            finally:
                await neighbour.close()
        assert await names(mine) == []

    # -- delete

    async def test_delete(self, store: Store) -> None:
        await write(store, b"f", b"content")
        await store.delete(b"f", change())
        assert await store.head(b"f") is None
        assert await store.get(b"f") is None
        assert await names(store) == []

    async def test_deleting_what_is_absent(self, store: Store) -> None:
        with pytest.raises(KeyNotFound):
            await store.delete(b"nothing", change())

    async def test_deleting_large_content(self, store: Store) -> None:
        await write(store, b"large", pattern(self.large(store)))
        await store.delete(b"large", change())
        assert await store.get(b"large") is None

    # -- ranges

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, None), (0, 4), (3, 7), (9, 10), (5, None), (2, 1000), (-3, None), (-1000, None), (4, 4), (0, 0), (0, 10)],
    )
    async def test_ranges(self, store: Store, start: int, end: int | None) -> None:
        await write(store, b"f", b"0123456789")
        reading = await store.get(b"f", start=start, end=end)
        assert reading is not None
        assert reading.stat.size == 10
        first = max(10 + start, 0) if start < 0 else start
        assert await content(reading) == b"0123456789"[first : 10 if end is None else end]

    @pytest.mark.parametrize(("start", "end"), [(10, None), (11, 20), (10, 11)])
    async def test_ranges_outside(self, store: Store, start: int, end: int | None) -> None:
        await write(store, b"f", b"0123456789")
        with pytest.raises(RangeInvalid):
            await content(await store.get(b"f", start=start, end=end))

    async def test_ranges_of_large_content(self, store: Store) -> None:
        data = pattern(self.large(store))
        size = len(data)
        await write(store, b"large", data)
        for start, end in (
            (0, 1),
            (CHUNK - 1, CHUNK + 1),
            (CHUNK, 2 * CHUNK),
            (17, size - 17),
            (size - 1, size),
            (size // 2, None),
            (1, 2 * CHUNK + 2),
        ):
            assert await content(await store.get(b"large", start=start, end=end)) == data[start:end]
        assert await content(await store.get(b"large", start=-100)) == data[-100:]

    async def test_ranges_of_empty_content(self, store: Store) -> None:
        await write(store, b"empty", b"")
        assert await content(await store.get(b"empty")) == b""
        assert await content(await store.get(b"empty", start=0, end=0)) == b""

    # -- one version

    async def test_reading_one_version(self, store: Store) -> None:
        first = await write(store, b"f", b"first")
        assert await content(await store.get(b"f", version=first.version)) == b"first"
        second = await write(store, b"f", b"second")
        with pytest.raises(Conflict):
            await content(await store.get(b"f", version=first.version))
        assert await content(await store.get(b"f", start=2, version=second.version)) == b"cond"

    @pytest.mark.parametrize("then", ["overwritten", "deleted"])
    async def test_a_stream_is_of_one_version(self, store: Store, then: str) -> None:
        """Begun before the change, it goes on with what it began or says that it cannot."""
        data = pattern(self.large(store), seed=1)
        await write(store, b"large", data)
        reading = await store.get(b"large")
        assert reading is not None
        if then == "overwritten":
            await write(store, b"large", pattern(self.large(store), seed=2))
        else:
            await store.delete(b"large", change())
        try:
            assert await content(reading) == data
        except Conflict:
            return

    async def test_an_abandoned_stream_harms_nobody(self, store: Store) -> None:
        data = pattern(self.large(store))
        await write(store, b"large", data)
        for _ in range(3):
            reading = await store.get(b"large")
            assert reading is not None
            if reading.stream is not None:
                await anext(aiter(reading.stream))
                await reading.stream.aclose()  # type: ignore[attr-defined]
        assert await read(store, b"large") == data

    async def test_no_reader_sees_a_mix(self, connect: Connect) -> None:
        """Each value is one byte repeated, as often as its size tells."""
        writer, reader = await connect(), await connect()
        size = min(2 * CHUNK + 99, self.large(writer))
        await write(writer, b"f", b"\0" * size)
        done = asyncio.Event()

        async def overwrite() -> None:
            for number in range(1, 9):
                await asyncio.sleep(0)
                await write(writer, b"f", bytes([number]) * (size - 7 * number if number % 2 else number))
            done.set()

        async def look() -> int:
            seen = 0
            while not done.is_set() or not seen:
                await asyncio.sleep(0)
                reading = await reader.get(b"f")
                assert reading is not None
                try:
                    data = await content(reading)
                except Conflict:
                    continue
                assert len(set(data)) == 1, "bytes of two versions"
                assert len(data) == reading.stat.size
                number = data[0]
                assert len(data) == (size - 7 * number if number % 2 or not number else number)
                seen += 1
            return seen

        seen, _, _ = await asyncio.gather(look(), look(), overwrite())
        assert seen

    # -- bodies that end early

    @pytest.mark.parametrize("existing", [False, True])
    @pytest.mark.parametrize("sent", [0, 1000, CHUNK + 5, 2 * CHUNK + 5])
    async def test_a_cut_body_changes_nothing(self, store: Store, existing: bool, sent: int) -> None:
        before = await write(store, b"f", b"before") if existing else None
        with pytest.raises(BadRequest):
            await store.put(b"f", Body(stream=cut([pattern(sent)]), size=3 * CHUNK), change())
        with pytest.raises(BadRequest):
            await store.put(b"f", Body(stream=cut([pattern(sent)])), change())
        after = await store.head(b"f")
        assert (after and after.version) == (before and before.version)
        assert await read(store, b"f") == (b"before" if existing else None)
        assert await names(store) == ([b"f"] if existing else [])

    async def test_the_source_may_fail_in_its_own_way(self, store: Store) -> None:
        async def broken() -> object:
            yield pattern(CHUNK + 1)
            raise LookupError("the source's own")

        with pytest.raises(LookupError):
            await store.put(b"f", Body(stream=broken()), change())  # type: ignore[arg-type]
        assert await store.head(b"f") is None

    async def test_a_cancelled_upload_changes_nothing(self, store: Store) -> None:
        await write(store, b"f", b"before")
        source = Stalling([pattern(CHUNK), pattern(CHUNK + 5)])
        upload = asyncio.create_task(store.put(b"f", Body(stream=aiter(source)), change()))
        await source.reached.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert await read(store, b"f") == b"before"
        assert await names(store) == [b"f"]
        await write(store, b"f", b"after")
        assert await read(store, b"f") == b"after"

    async def test_clients_see_each_others_writes(self, connect: Connect) -> None:
        one, two = await connect(), await connect()
        for number in range(5):
            await write(one, b"f", b"%d" % number)
            assert await read(two, b"f") == b"%d" % number
            assert [entry.size for entry in (await two.list(b"")).entries] == [1]

    async def test_many_at_once(self, store: Store) -> None:
        """More requests than any pool has connections."""
        keys = [b"many/%03d" % number for number in range(150)]
        await asyncio.gather(*(write(store, key, key) for key in keys))
        assert await asyncio.gather(*(read(store, key) for key in keys)) == keys
        assert await names(store) == keys

    async def test_cancelled_reads_cross_no_answers(self, store: Store) -> None:
        for name in (b"a", b"b"):
            await write(store, name, name * 1000)
        for turns in range(40):
            task = asyncio.create_task(read(store, b"a"))
            for _ in range(turns % 8):
                await asyncio.sleep(0)
            task.cancel()
            assert await read(store, b"b") == b"b" * 1000
            await asyncio.gather(task, return_exceptions=True)
